"""The recovery lab says what the logged runs say; the figures of notebook 00 draw what they are given."""

import pytest

from spp_lite.teaching.labs.start import RecoveryLab, draw_path, plot_three


def test_the_read_out_is_the_mean_over_seeds():
    lab = RecoveryLab()
    figure, text = lab.render(sparsity="75%")
    rows = lab.table[lab.table["sparsity"] == "75%"].groupby("method")["accuracy"].mean()
    assert f"pruned {rows['none']:.1%}, recovered {rows['spp']:.1%}" in text
    dense = lab.means["0%", "dense"]
    assert lab.back("75%") == pytest.approx((rows["spp"] - rows["none"]) / (dense - rows["none"]))
    assert f"takes {100 * (dense - rows['none']):.1f} points" in figure.get_suptitle()


def test_every_state_works_and_a_move_is_quick(drive):
    drive(RecoveryLab())


def test_three_bars_have_the_height_and_the_title_of_their_numbers():
    axes = plot_three(0.9, 0.5, 0.7, 0.357).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([90, 50, 70])
    assert axes.get_title() == "Pruning takes 40 points, SPP brings back 20"
    assert any("35.7%" in text.get_text() for text in axes.texts)


def test_the_path_names_every_step():
    words = " ".join(text.get_text() for text in draw_path().axes[0].texts)
    assert all(step in words for step in ("dense model", "prune", "adapt", "train", "merge", "score"))
