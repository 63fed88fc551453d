"""The results explorer reads out what the table says."""

import pandas as pd

from spp_lite.teaching.labs.results import ResultsLab


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


def test_every_state_works_and_a_move_is_quick(drive):
    drive(ResultsLab(table()))
