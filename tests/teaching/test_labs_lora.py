"""Notebook 04's lab says what is true of W, sBA and the mask; its figures take the tables that the notebook has."""

import itertools
import re

import pandas as pd
import pytest
import torch

from spp_lite import load, merge, prune
from spp_lite.teaching import attach
from spp_lite.teaching.labs.lora import LoraLab, kept_share, plot_merge, plot_saved, with_update
from spp_lite.teaching.labs.lora_runs import plot_pairs, plot_recovery, plot_smollm2, smollm2, tell, verdicts


@pytest.fixture(scope="module")
def lab():
    draw = torch.Generator().manual_seed(1)
    return LoraLab(torch.randn(20, 30, generator=draw) * (torch.rand(20, 30, generator=draw) > 0.75))


def states(lab):
    return itertools.product(*(control.options for control in lab.inputs.values()))


def test_every_state_reads_out_the_zeros(lab):
    pruned = int((lab.weight == 0).sum())
    for rank, scale, mode in states(lab):
        text = lab.render(rank, scale, mode)[1]
        zeros, left, filled = map(int, re.search(r"(\d+) zeros in W .* (\d+) left .*; (\d+) filled", text).groups())
        assert zeros == pruned and left + filled == pruned
        assert filled == (pruned if mode == "merge" and scale else 0)


def test_the_read_out_tells_ranks_and_what_the_mask_throws_away(lab):
    assert "what is added: 4." in lab.render(4, 2.0, "merge")[1]
    assert "what is added: 16." in lab.render(4, 2.0, "masked LoRA")[1]
    assert "what is added: 0." in lab.render(4, 0.0, "merge")[1]
    assert "Beside W stand 160 numbers" in lab.render(4, 2.0, "keep apart")[1]
    update = lab.update(4, 2.0)
    lost = (update[lab.weight == 0] ** 2).sum() / (update**2).sum()
    assert f"throws away {lost:.0%}" in lab.render(4, 2.0, "merge, then mask")[1]


def test_masking_after_and_masking_inside_give_the_same_weight(lab):
    pictures = [lab.render(4, 2.0, mode)[0].axes[2].images[0].get_array() for mode in lab.modes[2:]]
    assert (pictures[0] == pictures[1]).all() and pictures[0].count() == int((lab.weight != 0).sum())


def test_every_state_works_and_a_move_is_quick(lab, drive):
    drive(lab)


def test_kept_share_is_the_share_of_the_squared_norm():
    update, mask = torch.tensor([[3.0, 4.0]]), torch.tensor([[True, False]])
    assert kept_share(update, mask) == pytest.approx(9 / 25)
    assert kept_share(torch.zeros(1, 2), mask) == 0.0


def table():
    rows = []
    for seed, sparsity in itertools.product(range(3), ("50%", "75%", "2:8")):
        base = 0.6 + 0.02 * seed
        for method, extra in (("none", -0.1), ("lora", 0.01), ("lora*", 0.0), ("masked-lora", 0.05)):
            rows.append((method, "wanda", sparsity, seed, base + extra + 0.001 * seed))
    return pd.DataFrame(rows, columns=["method", "pruner", "sparsity", "seed", "accuracy"])


def test_verdicts_are_of_pairs():
    assert verdicts(table(), "masked-lora", "lora*") == {"above": ["50%", "75%", "2:8"], "below": [], "undecided": []}
    assert tell(table(), "none", "lora*") == "pruned, not retrained minus LoRA*: below at 50%, 75%, 2:8"
    wobbling = table()
    wobbling.loc[wobbling["method"] == "lora", "accuracy"] += [0.1] * 3 + [0] * 3 + [-0.1] * 3
    assert verdicts(wobbling, "lora", "lora*")["undecided"]


def test_the_figures_show_every_method_once_and_the_zeros():
    figure = plot_pairs(table())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "LoRA* (merged, re-masked)",
        "LoRA merged (refills the zeros)",
        "masked LoRA",
    ]
    assert "masked LoRA at 3" in figure.axes[0].get_title()
    runs = {"none": (0.75, 0.6), "lora": (0.0, 0.7)}
    figure = plot_recovery(runs, table()[table()["sparsity"] == "75%"])
    assert {"75% zeros", "0% zeros"} <= {text.get_text() for text in figure.axes[0].texts}
    assert "merged LoRA" in figure.axes[0].get_title()


def test_the_real_models_figure_takes_more_methods_as_they_come():
    real = smollm2()
    before = len(plot_smollm2(real).axes[0].patches)
    more = real[real["method"] == "spp"].assign(method="hira", alpaca_perplexity=20.0)
    assert len(plot_smollm2(pd.concat([real, more])).axes[0].patches) == before + 1
    bare = plot_smollm2(real[real["method"].isin(["dense", "none"])])
    assert bare.axes[0].get_title() == "SmolLM2-135M, Wanda 2:4"


def test_the_boxes_tell_the_zeros_and_the_numbers_kept(lab):
    weight = lab.weight
    a, b = torch.ones(2, weight.shape[1]), torch.ones(len(weight), 2)
    zeros = int((weight[:16, :16] == 0).sum())
    assert plot_merge(weight, a, b, 2.0).axes[0].get_title().startswith(f"0 of the {zeros} zeros")
    assert plot_merge(weight, a, b, 2.0, masked=True).axes[0].get_title().startswith(f"{zeros} of the {zeros}")
    saved = plot_saved({"lora": [(4, 8)], "masked-lora": [(16, 24), (4, 8)]}, weight).axes[0]
    assert "13 times" in saved.get_title() and len(saved.patches) == 4


def test_layers_train_and_merge_by_the_function_that_is_put_in():
    model, _ = load("tiny")
    prune(model, None, "75%", method="magnitude", progress=False)
    asked = []

    def update(weight, a, b, scaling):
        asked.append(weight.shape)
        return scaling * (b @ a) * (weight != 0)

    adapted = with_update(attach(model, "masked-lora"), update)
    adapted(input_ids=torch.tensor([[1, 5, 7]]))
    assert len(asked) == 42
    assert merge(adapted)[1].densification == 0 and len(asked) > 42
