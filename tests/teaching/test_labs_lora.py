"""Notebook 04's lab says what is true of W, sBA and the mask; its figures take the tables that the notebook has."""

import itertools
import re

import pandas as pd
import pytest
import torch

from spp_lite.teaching.labs.lora import LoraLab, gains, kept_share, plot_gains, plot_recovery


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


def test_gains_are_paired_by_seed():
    found = gains(table())
    assert set(found["method"]) == {"lora", "masked-lora"} and len(found) == 18
    assert found.loc[found["method"] == "masked-lora", "gain"].tolist() == pytest.approx([0.05] * 9)


def test_the_figures_show_every_method_once_and_the_zeros():
    figure = plot_gains(gains(table()))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "LoRA merged (refills the zeros)",
        "masked LoRA",
    ]
    runs = pd.DataFrame([("none", 0.6, 0.75), ("lora", 0.7, 0.0)], columns=["method", "accuracy", "zeros"])
    figure = plot_recovery(runs, table()[table()["sparsity"] == "75%"])
    assert {"75% zeros", "0% zeros"} <= {text.get_text() for text in figure.axes[0].texts}
