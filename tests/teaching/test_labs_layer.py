"""The outlier lab reads out what is true of its layer; the figures show what they are given."""

import pandas as pd
import pytest
import torch

from spp_lite.teaching.labs.layer import (
    CRITERIA,
    OutlierLab,
    output_error,
    plot_errors,
    plot_kept,
    plot_norms,
    prune_by,
)


@pytest.fixture(scope="module")
def lab():
    return OutlierLab()


def test_the_read_out_is_what_a_slow_count_finds(lab):
    _, text = lab.render(size=10, ratio=0.75, together="strongly")
    rows, new_rows = lab.inputs_at(10, "strongly").double().split(512)
    scores = lab.weight.double().abs() * (rows**2).mean(0).sqrt()
    keep = torch.zeros(64, 64, dtype=torch.bool)
    for i in range(64):
        keep[i, scores[i].argsort(descending=True)[:16]] = True
    mine = keep[:, list(lab.outliers)].double().mean()
    lost = new_rows @ (lab.weight.double() * ~keep).T
    error = (lost**2).sum() / ((new_rows @ lab.weight.double().T) ** 2).sum()
    kept, told = text.split("Of the outliers' weights stay: ")[1].split(". Output error on new inputs: ")
    assert f"wanda {mine:.0%}" in kept and f"wanda {error:.1%}" in told
    assert "Outliers 10 ×, 75% zeros, inputs vary together strongly" in text


@pytest.mark.parametrize("ratio", OutlierLab.ratios)
def test_what_the_notebook_asks_has_a_definite_answer(lab, ratio):
    def errors(size, together):
        return lab.outcome(size, ratio, together)[1].values()

    magnitude, wanda, sparsegpt = errors(1, "not at all")
    assert max(abs(magnitude - wanda), abs(sparsegpt - wanda)) < 0.02  # like inputs, nothing shared: like criteria
    magnitude, wanda, sparsegpt = errors(1, "strongly")
    assert abs(magnitude - wanda) < 0.02 and sparsegpt < 0.85 * wanda  # the update needs what inputs share
    magnitude, wanda, sparsegpt = errors(30, "strongly")
    assert wanda < magnitude / 10 and sparsegpt < wanda


@pytest.mark.parametrize("together", OutlierLab.together)
def test_inputs_have_the_sizes_asked_for_and_vary_together_as_asked(lab, together):
    rows = lab.inputs_at(5, together)
    assert torch.allclose(rows.square().mean(0).sqrt(), torch.where(lab.is_outlier, 5.0, 1.0), rtol=1e-4)
    shared = rows.T.corrcoef().fill_diagonal_(0).abs().mean()
    assert (shared < 0.05) == (together == "not at all") and (shared > 0.2) == (together == "strongly")


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_makes_the_zeros_asked_for_and_no_error_without_them(lab, criterion):
    rows = lab.inputs_at(5, "strongly")
    new = prune_by(criterion, lab.weight, rows, 0.75)
    assert int((new == 0).sum()) == 0.75 * 64 * 64
    assert output_error(lab.weight, lab.weight, rows) == 0 and output_error(lab.weight, 0 * new, rows) == 1


def test_every_state_works_and_a_move_is_quick(lab, drive):
    drive(lab)


def test_the_figures_draw_their_numbers():
    norms = {"a.q_proj": torch.tensor([1.0, 4.0, 2.0]), "a.down_proj": torch.tensor([3.0, 3.0, 3.0])}
    lines = plot_norms(norms).axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[2.0, 1.0, 0.5], [1.0, 1.0, 1.0]]
    keep = torch.tensor([[True, False, True], [True, False, False]])
    (points,) = plot_kept(norms["a.q_proj"], {"wanda": keep}).axes[0].get_lines()
    assert list(points.get_xdata()) == [1.0, 4.0, 2.0] and list(points.get_ydata()) == [100.0, 0.0, 50.0]
    (line,) = plot_errors(pd.DataFrame({"wanda": [0.1, 0.4]}, index=[0.25, 0.5])).axes[0].get_lines()
    assert list(line.get_xdata()) == [25.0, 50.0] and list(line.get_ydata()) == pytest.approx([10.0, 40.0])
