"""The labs of notebook 05 read out what is true of the weight that they show."""

import re

import pytest
import torch
import torch.nn.functional as F
from peft import HiraConfig, LoraConfig, get_peft_model
from torch import nn

from spp_lite import Sparsity, SppConfig
from spp_lite.adapter.kernels import effective_weight, row_blocks, spp_linear
from spp_lite.teaching.labs.equation import kept_for_backward, plot_equation, plot_kept
from spp_lite.teaching.labs.factors import FactorLab, SizeLab, adapter_sizes, plot_factors, plot_one_hot


@pytest.fixture(scope="module")
def weight():
    draw = torch.Generator().manual_seed(3)
    dense = torch.randn(20, 24, generator=draw)
    return dense * Sparsity.parse("2:4").mask(dense.abs())


def numbers(pattern, text):
    return [float(found) for found in re.search(pattern, text).groups()]


@pytest.mark.parametrize("r", [1, 3, 5, 12])
def test_the_reach_of_a_factor_is_where_the_merged_weight_moves(weight, r):
    lab = FactorLab(weight)
    corner, scaling = lab.weight, lab.scaling

    def merged(alpha, beta):
        return effective_weight(corner, [(*lab.factors(r, alpha, beta), scaling)])

    _, text = lab.render(r=r, alpha=0.5, beta=0.5)
    outputs, alive = numbers(r"α reaches (\d+) of 12 outputs .*?, (\d+) of them not zero", text)
    moved = merged(0.5, 0.5) != merged(-1.0, 0.5)
    assert moved.sum() == alive and outputs == (row_blocks(12, r) == row_blocks(12, r)[lab.row]).sum()
    assert not moved[:, torch.arange(16) != lab.column].any()
    (alive,) = numbers(r"β reaches output \d+ \(dashed box\), (\d+) of 16", text)
    moved = merged(0.5, 0.5) != merged(0.5, -1.0)
    assert moved.sum() == alive and not moved[torch.arange(12) != lab.row].any()


def test_the_read_out_computes_where_the_two_meet(weight):
    lab = FactorLab(weight)
    _, text = lab.render(r=3, alpha=0.75, beta=-1.0)
    before, after = numbers(r"W′ = ([+-][\d.]+) · .*? = ([+-][\d.]+)\.", text)
    assert before == pytest.approx(float(weight[lab.row, lab.column]), abs=1e-3) != 0
    assert after == pytest.approx(before * (1 + 2 * 0.75 * -1.0), abs=2e-3)
    assert "Zeros: 96 in W, 96 in W′; 0 were filled." in text


def test_a_factor_may_make_a_zero_and_never_fills_one(weight):
    _, text = FactorLab(weight).render(r=12, alpha=0.5, beta=-1.0)  # 1 + 2 · 0.5 · −1 = 0
    assert "Zeros: 96 in W, 97 in W′; 0 were filled." in text


def test_the_lab_leaves_its_weight_alone(weight):
    kept = weight.clone()
    FactorLab(weight).selftest()
    assert torch.equal(weight, kept)


def test_sizes_are_those_that_peft_counts():
    def count(config, width=64):
        model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"up": nn.Linear(width, width, bias=False)})])})
        model["layers"][0]["up"].weight.data[:, ::2] = 0.0
        found = get_peft_model(model, config)
        return sum(parameter.numel() for parameter in found.parameters() if parameter.requires_grad)

    sizes = adapter_sizes(64, r=5)
    assert sizes["SPP"] == count(SppConfig(r=5))
    assert sizes["LoRA, rank 8"] == count(LoraConfig(r=8, target_modules=["up"]))
    assert sizes["HiRA, rank r"] == count(HiraConfig(r=5, target_modules=["up"]))
    assert sizes["all survivors at 50 %"] == 64 * 64 / 2


def test_the_answers_of_the_size_lab():
    assert [
        r
        for r in (1, 2, 4, 8, 15, 16, 32, 64)
        if adapter_sizes(4096, r)["SPP"] == adapter_sizes(4096, r)["LoRA, rank 8"]
    ] == [15]
    _, text = SizeLab().render(r=16, width=4096)
    assert "SPP 69,632" in text and numbers(r"SPP trains ([\d.]+)%", text)[0] == pytest.approx(
        100 * 34 / 4096, abs=0.01
    )
    _, wider = SizeLab().render(r=16, width=8192)
    assert numbers(r"SPP trains ([\d.]+)%", wider)[0] == pytest.approx(50 * 34 / 4096, abs=0.01)


def test_every_state_works_and_a_move_is_quick(weight, drive):
    drive(FactorLab(weight))
    drive(SizeLab())


def test_figures_show_what_they_are_given(weight):
    corner, rows, beta = weight[:6, :8], torch.ones(6, 8), torch.zeros(6)
    rows[3:] = 0.5
    figure = plot_factors(corner, rows, beta, 2.0)
    assert [line.get_ydata()[0] for line in figure.axes[0].get_lines()] == [2.5]  # between the two blocks
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape[:2] == (6, 8 + 3 + 8 + 3 + 1 + 3 + 8)
    assert (picture[:, :8] == picture[:, -8:]).all()  # β = 0: W′ is W
    grey = (picture[:, :8] == (0.74, 0.74, 0.74, 1.0)).all(-1)
    assert (torch.from_numpy(grey) == (corner == 0)).all()
    points = plot_one_hot(torch.eye(4)).axes[0].collections[0].get_offsets()
    assert points.tolist() == [[i, i] for i in range(4)]


def test_the_helper_lists_what_a_layer_keeps():
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(6, 8)
    alpha, beta = torch.randn(2, 8, requires_grad=True), torch.randn(6, requires_grad=True)
    own = [x, weight, alpha, beta]

    def plain():
        rows = alpha[row_blocks(6, 2)]
        return F.linear(x, weight * (1 + 2.0 * rows * beta[:, None]))

    kept = kept_for_backward(plain, own)
    assert kept.count((6, 8)) == 2 and set(kept) == {(6, 8), (6,)}
    assert kept_for_backward(lambda: spp_linear(x, weight, None, alpha, beta, 2.0), own) == []
    assert kept_for_backward(lambda: x @ weight.T, own) == []  # a view of what is owned
    bars = plot_kept({"plain": kept, "fused": []}, weight).axes[0]
    assert sum(bar.get_width() for bar in bars.patches) == pytest.approx(2 + 6 / 48)
    assert bars.get_title() == "plain keeps 2.1 times the size of W, fused nothing"


def test_the_equation_is_drawn_cell_by_cell():
    assert len(plot_equation().axes[0].patches) >= 8 * 6 + 8 * 6 + 8 + 2 * 6
