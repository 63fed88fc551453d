"""What notebooks 01 and 02 say of a model's weights and inputs is what a slow count finds."""

import importlib
import json

import numpy as np
import pandas as pd
import pytest
import torch

from spp_lite import load
from spp_lite.teaching import calibration_batches, default_texts, embedded
from spp_lite.teaching.labs import tails

TABLE = embedded("results", "smollm2", "layers.csv")


@pytest.fixture(scope="module")
def model_and_batches():
    model, tokenizer = load("tiny")
    return model, calibration_batches(default_texts(model="tiny"), tokenizer, samples=4, length=32, batch_size=2)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_normal_weights_have_the_quantiles_of_the_bell_at_any_scale(scale):
    found = tails.weight_tails(scale * torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)))
    assert [found[name] for name in tails.QUANTILES] == pytest.approx(tails.BELL, rel=0.01)
    assert found["half"] == pytest.approx(tails.BELL_HALF, rel=0.01)


def test_a_share_of_the_weights_is_larger_than_its_quantile():
    weight = torch.randn(80, 100, generator=torch.Generator().manual_seed(1)) ** 3
    found = tails.weight_tails(weight)
    sizes = weight.abs() / weight.abs().mean()
    for share, name in zip(tails.LARGER, tails.QUANTILES, strict=True):
        assert abs((sizes > found[name]).float().mean() - share / 100) < 1e-3
    smaller = sorted(weight.flatten().tolist(), key=abs)[: weight.numel() // 2]
    assert found["half"] == pytest.approx(sum(x * x for x in smaller) / float((weight**2).sum()), rel=1e-4)


def test_inputs_are_counted_as_a_slow_loop_counts_them():
    draw = torch.Generator().manual_seed(2)
    weight, norm = torch.randn(20, 200, generator=draw), torch.rand(200, generator=draw) ** 4 + 0.01
    found, by_wanda, moved = tails.input_tails(weight, norm), 0, 0
    for row in weight.abs().tolist():
        order = sorted(range(200), key=row.__getitem__)
        wanda = sorted(range(200), key=lambda j: row[j] * float(norm[j]))[100:]
        by_wanda, moved = by_wanda + len(wanda), moved + len({*wanda} & {*order[:100]})
    squares = sorted((norm.double() ** 2).tolist(), reverse=True)
    assert found["moved"] == pytest.approx(moved / by_wanda)
    assert found["top"] == pytest.approx(sum(squares[:2]) / sum(squares))
    assert found["largest"] == pytest.approx(float(norm.max()) / float(norm.median()))


def test_like_inputs_move_nothing():
    found = tails.input_tails(torch.randn(8, 64), torch.full((64,), 3.0))
    assert found == pytest.approx({"largest": 1, "top": 1 / 64, "moved": 0, "times": 1})


def test_the_command_writes_what_the_notebooks_measure_live(model_and_batches, tmp_path, capsys):
    model, batches = model_and_batches
    text = tmp_path / "calibration.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in default_texts(model="tiny")))
    command = importlib.import_module("data.build.layers")
    window = ["--calibration-samples", "4", "--calibration-length", "32"]
    command.main(["--model", "tiny", "--calibration", str(text), *window, "--out", str(tmp_path / "layers.csv")])
    found = pd.read_csv(tmp_path / "layers.csv", index_col="linear")
    assert str(tmp_path / "layers.csv") in capsys.readouterr().out
    weights, inputs = tails.weights_of(model), tails.inputs_of(model, batches)
    assert list(found.index) == list(weights.index) == list(inputs.index) and list(found) == [*weights, *inputs]
    assert np.allclose(found, weights.join(inputs), rtol=1e-3, atol=1e-4)


def test_the_committed_table_is_of_all_linears_of_smollm2(model_and_batches):
    table = pd.read_csv(TABLE, index_col="linear")
    places = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    places += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert list(table.index) == [f"model.layers.{block}.{place}" for block in range(30) for place in places]
    assert list(table) == [*tails.QUANTILES, "half", "largest", "top", "moved", "times"] and table.notna().all(
        axis=None
    )
    assert (table["largest"] >= 1).all() and table[["half", "top", "moved"]].stack().between(0, 1).all()


def test_the_figures_draw_their_numbers(model_and_batches):
    model, batches = model_and_batches
    weights, inputs = tails.weights_of(model), tails.inputs_of(model, batches)
    left, right = tails.plot_weight_tails({"a": weights, "b": 2 * weights}).axes
    drawn = {line.get_label(): line.get_ydata() for line in left.get_lines()}
    queries = weights[weights.index.str.endswith("q_proj")]
    assert np.allclose(drawn["q_proj"], queries[tails.QUANTILES].median())
    assert np.allclose(drawn.pop("normal (a bell)"), tails.BELL) and len(drawn) == 7
    assert np.allclose(right.get_lines()[0].get_ydata(), 2 * left.get_lines()[0].get_ydata())
    (axes,) = tails.plot_input_tails({"a": inputs}).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert drawn["inputs of down"] == list(inputs.loc[inputs.index.str.endswith("down_proj"), "largest"])
