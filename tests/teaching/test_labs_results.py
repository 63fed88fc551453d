"""The results explorer reads out what the table says."""

import pandas as pd
import pytest

from spp_lite.teaching.labs.results import ResultsLab, leaders, plot_trained


def table():
    rows = [("dense", "dense", "0%", 0, 0.9, 0.9)]
    for seed in range(3):
        for sparsity, pruned, spp in (("50%", 0.8, 0.81), ("75%", 0.5, 0.7), ("2:8", 0.45, 0.65)):
            rows.append(("none", "wanda", sparsity, seed, pruned + 0.01 * seed, pruned))
            rows.append(("spp", "wanda", sparsity, seed, spp + 0.01 * seed, spp))
    return pd.DataFrame(rows, columns=["method", "pruner", "sparsity", "seed", "accuracy", "tiny_rte"])


def test_the_read_out_counts_what_paired_differences_tell_apart():
    lab = ResultsLab(table())
    _, text = lab.render(pruner="wanda", method="spp", other="none", metric="average", seeds=3)
    assert "spp minus none, paired by seed, is +13.7 points on average over 3 sparsities" in text  # (1 + 20 + 20) / 3
    assert "it wins at 3, loses at 0, and 0 are undecided" in text  # the seeds' own ups and downs cancel
    _, reverse = lab.render(pruner="wanda", method="none", other="spp", metric="rte", seeds=3)
    assert "-13.7 points" in reverse and "it wins at 0, loses at 3, and 0 are undecided" in reverse
    _, one = lab.render(pruner="wanda", method="spp", other="none", metric="average", seeds=1)
    assert "it wins at 0, loses at 0, and 3 are undecided" in one
    _, none = lab.render(pruner="magnitude", method="spp", other="none", metric="average", seeds=3)
    assert "no sparsity in common" in none


def test_leaders_are_told_apart_by_pairs_and_dense_results_do_not_lead():
    rows = [("none", seed, 0.8 + 0.1 * seed) for seed in range(3)]  # intervals overlap, pairs are clear
    rows += [("spp", seed, 0.81 + 0.1 * seed + 0.001 * seed**2) for seed in range(3)]
    rows += [("hira", seed, 0.79 + 0.1 * seed + 0.04 * (seed == 1)) for seed in range(3)]  # now above, now below
    rows += [("lora", seed, 0.99) for seed in range(3)]
    cell = pd.DataFrame(rows, columns=["method", "seed", "accuracy"]).assign(pruner="wanda", sparsity="50%")
    (leader,) = leaders(cell).to_dict("records")
    assert leader["highest mean"] == "spp" and leader["not told apart from it"] == "hira"
    (leader,) = leaders(cell[cell["method"] != "hira"]).to_dict("records")
    assert leader["not told apart from it"] == "nobody"


def test_points_with_the_same_count_are_drawn_apart():
    counts = {"spp": 1000, "none": 1000}
    at = table()[lambda rows: rows["sparsity"] == "75%"]
    (axes,) = plot_trained(at, counts, "title").axes
    places = sorted(line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1)
    assert places[0] < 1000 < places[-1] and places[-1] / places[0] == pytest.approx(1.05)
    assert axes.get_xscale() == "log"


def test_every_state_works_and_a_move_is_quick(drive):
    drive(ResultsLab(table()))
