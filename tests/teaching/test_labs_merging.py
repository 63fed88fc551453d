"""The corruption lab says what merge's own proof says; CSR weights multiply as dense ones do."""

import pandas as pd
import pytest
import torch

from spp_lite.adapter.merging import _prove
from spp_lite.pruning.sparsity import Sparsity, SparsityError
from spp_lite.teaching.labs.merging import CORRUPTIONS, CorruptionLab, weight_checks
from spp_lite.teaching.labs.storage import overtakes, plot_sizes, plot_speed, to_csr

ALWAYS = {  # what a corruption fails, whatever the layer
    "nothing": [],
    "one zero filled, with a tiny number": ["zeros", "pattern"],
    "a dense update added (LoRA)": ["zeros", "pattern", "logits"],
    "two rows swapped": ["zeros", "logits"],
    "one kept weight is NaN": ["finite", "logits"],
    "kept weights 1 % too large": ["logits"],
    "the update of this layer lost": ["logits"],
    "one group of four emptied": ["logits"],
}
# The logits need not tell of these in an MLP: some of its neurons hardly count.
FEW = "two rows swapped", "one group of four emptied"


@pytest.fixture(scope="module")
def lab():
    return CorruptionLab()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_lab_agrees_with_the_proof_of_merge(lab, corruption):
    for layer in lab.after:
        before, _, bad = lab.weights(corruption, layer)
        verdicts = lab.checks(corruption, layer)
        failed = [each.name for each in verdicts if not each.passed]
        expected = ALWAYS.get(corruption, failed)
        if corruption in FEW and "mlp" in layer and "logits" not in failed:
            expected = expected[:-1]
        assert failed == expected
        try:
            _prove(layer, before, bad)
            assert failed in ([], ["logits"])
        except SparsityError:
            assert failed not in ([], ["logits"])


def test_the_read_out_names_the_checks_and_counts(lab):
    layer = "model.layers.1.self_attn.k_proj"
    _, text = lab.render(corruption="one zero filled, with a tiny number", layer=layer)
    assert text.startswith(f"{layer}, one zero filled, with a tiny number: caught by zeros and pattern, ")
    assert "passed by finite and logits; merge refuses it" in text
    assert "1 of 4,096 filled" in text and "2:4: fullest group holds 3" in text and "off by 0, 0.0001 allowed" in text
    _, text = lab.render(corruption="nothing", layer=layer)
    assert "all four checks pass, merge accepts it" in text


def test_every_state_works_leaves_the_model_and_is_quick(lab, drive):
    before = {name: tensor.clone() for name, tensor in lab.model.state_dict().items()}
    for corruption in CORRUPTIONS:
        for layer in lab.after:
            lab.render(corruption=corruption, layer=layer)
    drive(lab)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lab.model.state_dict().items())


def test_a_weight_without_a_pattern_is_read_too():
    weight = torch.randn(8, 16) * (torch.rand(8, 16) > 0.5)
    zeros, pattern, finite = weight_checks(weight, 2 * weight)
    assert zeros.passed and finite.passed and pattern.passed and pattern.detail == "no n:m to keep"


@pytest.mark.parametrize("sparsity", ["2:4", "90%"])
def test_csr_is_the_same_matrix(sparsity):
    weight = torch.randn(24, 32)
    weight = weight * Sparsity.parse(sparsity).mask(weight.abs())
    csr = to_csr(weight)
    assert torch.equal(csr.to_dense(), weight)
    x = torch.randn(32, 3)
    torch.testing.assert_close(csr @ x, weight @ x)
    parts = (csr.values(), csr.col_indices(), csr.crow_indices())
    assert sum(part.nbytes for part in parts) == int((weight != 0).sum()) * 8 + 4 * 25


def test_the_speed_figure_draws_ratios():
    times = pd.DataFrame({"zeros": [50, 90, 50, 90], "tokens": [1, 1, 64, 64], "dense": 2.0, "csr": [4.0, 1, 2, 0.5]})
    lines = plot_speed(times).axes[0].get_lines()
    assert lines[0].get_ydata().tolist() == [0.5, 2.0] and lines[1].get_ydata().tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    "csr, words",
    [
        ([4, 3, 1], "from 90 % zeros on"),
        ([1, 1, 1], "from 50 % zeros on"),
        ([1, 4, 4], "not at any"),
        ([1, 4, 1], "from 90"),
        ([1.99, 1.9, 1.8], "from 90"),  # a tenth at least
    ],
)
def test_it_is_said_where_csr_overtakes(csr, words):
    times = pd.DataFrame({"zeros": [50, 75, 90], "tokens": 1, "dense": 2.0, "csr": csr})
    assert overtakes(times, 1).startswith(words)


def test_file_sizes_are_drawn_in_megabytes():
    axes = plot_sizes({"dense": (2e6, 1e6), "2:4": (1e6, 1e6)}, "half the size").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [2, 1, 1, 1] and axes.get_title() == "half the size"
    assert [text.get_text().strip() for text in axes.texts] == ["3 MB", "2 MB"]
