"""Means, intervals, gaps and figures of tables, and what they do with runs that failed."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spp_lite.experiment import panels, plotting
from spp_lite.experiment.report import figures_of, texts_of
from spp_lite.experiment.statistics import (
    BUDGET,
    SAME,
    by_sparsity,
    gap_recovered,
    is_pattern,
    paired,
    ratio_of,
    summarise,
)

NAN = float("nan")


def table_of(rows):
    columns = ["method", "pruner", "sparsity", "seed", "accuracy", "parameters", "tiny_rte"]
    return pd.DataFrame([(*row, 100, row[-1]) for row in rows], columns=columns)


def grid_of(methods, sparsities, seeds=3, pruners=("wanda",)):
    cells = itertools.product(methods, pruners, sparsities, range(seeds))
    rows = [(method, pruner, sparsity, seed, 0.5 + seed / 50) for method, pruner, sparsity, seed in cells]
    return table_of([("dense", "dense", "0%", 0, 0.9), *rows])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_the_interval_is_students(scores):
    (row,) = summarise(table_of([("spp", "wanda", "75%", i, score) for i, score in enumerate(scores)])).itertuples()
    assert row.mean == pytest.approx(np.mean(scores)) and (row.n, row.failed) == (len(scores), 0)
    assert row.half == pytest.approx(stats.t(len(scores) - 1).ppf(0.975) * stats.sem(scores), abs=1e-9)


@pytest.mark.parametrize("bad", [NAN, float("inf"), None, "diverged"])
def test_failed_runs_are_counted_and_not_averaged_away(bad):
    rows = [("spp", "wanda", "75%", 0, 0.5), ("spp", "wanda", "75%", 1, bad), ("spp", "wanda", "90%", 0, bad)]
    cells = summarise(table_of(rows)).set_index("sparsity")
    assert (cells.loc["75%", ["mean", "n", "failed"]] == [0.5, 1, 1]).all()
    assert np.isnan(cells.loc["90%", "mean"]) and (cells.loc["90%", ["n", "failed"]] == [0, 1]).all()


@pytest.mark.parametrize(
    "name, ratio, pattern",
    [("0%", 0, False), ("50%", 50, False), ("0.5", 50, False), ("row:50%", 50, False), ("unstructured:0.75", 75, False),
     ("2:4", 50, True), ("2:8", 75, True), ("55%", 55, False)],
)  # fmt: skip
def test_every_sparsity_that_can_be_asked_has_its_place_on_the_axis(name, ratio, pattern):
    assert ratio_of(name) == ratio and is_pattern(name) == pattern
    axes = plotting.plot_accuracy_vs_sparsity(grid_of(["none", "spp"], [name])).axes
    places = [float(x) for line in axes[0].containers for x in line.lines[0].get_xdata()]
    assert len(places) == 2 and all(abs(x - (0 if pattern else ratio)) < 1 for x in places)


def test_sparsities_are_in_the_order_of_axes():
    assert by_sparsity(["2:8", "90%", "2:4", "0.5", "4:8", "90%"]) == ["0.5", "90%", "2:4", "4:8", "2:8"]


def test_a_method_without_a_pattern_does_not_move_to_anothers_place():
    table = grid_of(["none"], ["2:4", "4:8", "2:8"])
    axes = plotting.plot_accuracy_vs_sparsity(pd.concat([table, grid_of(["spp"], ["2:8"])[1:]])).axes[0]
    (place,) = axes.containers[1].lines[0].get_xdata()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2:4", "4:8", "2:8"] and round(place) == 2


def test_the_gap_is_taken_within_a_seed_and_left_out_where_there_is_none():
    rows = [("dense", "dense", "0%", 0, 0.9)]
    rows += [("none", "wanda", "75%", 0, 0.5), ("spp", "wanda", "75%", 0, 0.7)]
    rows += [("none", "wanda", "75%", 1, 0.7), ("spp", "wanda", "75%", 1, 0.9)]
    rows += [("none", "wanda", "50%", 0, 0.89), ("spp", "wanda", "50%", 0, 0.9)]
    rows += [("spp", "wanda", "60%", 0, 0.9)]  # no pruned run was asked
    assert gap_recovered(table_of(rows))["gap"].tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("failed", [("none", 0), ("spp", 0)])
def test_a_gap_whose_runs_failed_is_seen(failed):
    table = grid_of(["none", "spp"], ["75%"])
    table.loc[(table["method"] == failed[0]) & (table["seed"] == failed[1]), "accuracy"] = NAN
    assert (summarise(gap_recovered(table), "gap")[["n", "failed"]] == [2, 1]).all(axis=None)
    texts = [text.get_text() for text in plotting.plot_gap_recovered(table).axes[0].texts]
    assert texts == [" 2 of 3 runs"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-0.2, 0.2)), min_size=2, max_size=9), st.sampled_from([1, -1]))
def test_paired_differences_have_students_interval_and_a_verdict_from_it(pairs, sign):
    rows = [("spp", "wanda", "75%", seed, base) for seed, (base, _) in enumerate(pairs)]
    rows += [("hira", "wanda", "75%", seed, base + gain) for seed, (base, gain) in reversed([*enumerate(pairs)])]
    value = "accuracy" if sign > 0 else "perplexity"
    (row,) = paired(table_of(rows).rename(columns={"accuracy": value}), value).itertuples()
    gains = np.array([(base + gain) - base for base, gain in pairs])
    assert row.mean == pytest.approx(gains.mean(), abs=1e-12) and row.n == len(pairs)
    assert row.half == pytest.approx(stats.t(len(gains) - 1).ppf(0.975) * stats.sem(gains), abs=1e-9)
    if abs(abs(row.mean) - row.half) > 1e-9:
        told = {1: "loses", -1: "wins"}[np.sign(sign * row.mean)] if abs(row.mean) > row.half else "undecided"
        assert row.verdict == told


def test_only_the_same_mask_and_seed_make_a_pair_and_one_pair_decides_nothing():
    rows = [("spp", "wanda", "75%", 0, 0.5), ("spp", "wanda", "75%", 1, NAN), ("spp", "wanda", "2:8", 1, 0.1)]
    with pytest.raises(ValueError, match="two runs of spp wanda 75% 0"):
        paired(table_of([*rows, rows[0]]))
    with pytest.raises(ValueError, match="has the score 'perplexity'"):
        paired(table_of(rows), "perplexity")
    rows += [("none", "wanda", "75%", seed, 0.2) for seed in range(4)]
    rows += [("none", "magnitude", "75%", 0, 0.9), ("none", "wanda", "2:8", 0, 0.9), ("dense", "dense", "0%", 0, 1.0)]
    (row,) = paired(table_of(rows)).itertuples()
    assert (row.pruner, row.n, row.failed, row.verdict) == ("wanda", 1, 1, "undecided") and row.mean == pytest.approx(
        -0.3
    )
    assert np.isnan(row.half)
    with pytest.raises(ValueError, match="no run of hira has the score 'accuracy'"):
        paired(table_of(rows), against="hira")


@pytest.mark.parametrize("statistic", [summarise, paired, gap_recovered])
def test_runs_of_two_rates_never_pass_for_seeds_of_one(statistic):
    table = grid_of(["none", "spp"], ["75%"]).assign(lr=0.1)
    table.loc[(table["method"] == "spp") & (table["seed"] == 0), "lr"] = 0.2
    with pytest.raises(ValueError, match=r"^the table's runs of spp .*75% are of several learning rates"):
        statistic(table)


@pytest.mark.parametrize("what", ["pruner", "sparsity", "lr", "model", None])
def test_two_runs_of_one_cell_and_seed_never_pass_for_two_seeds(what):
    table = grid_of(["none", "spp"], ["75%"]).assign(model="a", lr=0.1)
    other = table[table["method"] == "spp"].assign(
        **{what: {"lr": 0.2, "sparsity": "2:8"}.get(what, "b")} if what else {}
    )
    both = pd.concat([table, other])
    named = f"two runs of spp .*, {f'of two values of {what}' if what else 'alike in what it names'}: nobody"
    calls = [lambda: summarise(both, by="method" if what == "sparsity" else "sparsity")]
    calls += [] if what in ("pruner", "sparsity") else [lambda: paired(both), lambda: gap_recovered(both)]
    for call in calls:
        with pytest.raises(ValueError, match=named):
            call()


@pytest.mark.parametrize("name", [*SAME, *BUDGET])
def test_runs_that_were_made_otherwise_never_pass_for_one_comparison(name):
    table = grid_of(["none", "spp", "lora*"], ["75%"]).assign(**{name: 1.0})
    table.loc[table["method"] == "dense", name] = NAN  # tables of before lack some
    if name in BUDGET:  # what does not train may stand beside any
        table.loc[table["method"] == "none", name] = 3.0
    assert len(summarise(table)) and len(paired(table)) and len(gap_recovered(table))
    more = table[table["method"] == "spp"].assign(seed=10 + table["seed"], **{name: 2.0})
    other = pd.concat([table[table["method"] != "spp"], table[table["method"] == "spp"].assign(**{name: 2.0})])
    for mixed in (pd.concat([table, more]), other):
        for call in (summarise, paired, gap_recovered):
            with pytest.raises(ValueError, match=f"mixes runs whose {name} is 1.0 and 2.0: choose the rows of one"):
                call(mixed)


def test_a_gap_needs_the_dense_model():
    table = grid_of(["none", "spp"], ["75%"])
    table.loc[0, "accuracy"] = NAN
    with pytest.raises(ValueError, match="no score of the dense model"):
        gap_recovered(table)


def test_figures_draw_every_method_of_the_table():
    table = grid_of(["none", "spp", "spp+norms", "lora+distill"], ["50%", "75%", "2:8"], pruners=("wanda", "magnitude"))
    for figure in (plotting.plot_gap_recovered(table), plotting.plot_tasks(table), plotting.plot_parameters(table)):
        labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert {"pruned + SPP", "pruned + SPP + norms", "LoRA merged (refills the zeros) + distill"} <= set(labels)
    found = panels.plot_pruners(table, chance=0.3).axes
    assert [axes.get_title() for axes in found] == ["50%", "75%", "2:8"]
    assert [tick.get_text() for tick in found[0].get_xticklabels()] == ["wanda", "magnitude"]
    (axes,) = plotting.plot_paired(table).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["50%", "75%", "2:8"] and len(axes.containers) == 3
    (left, right) = plotting.plot_criteria(table.assign(perplexity=9.0), value="perplexity").axes
    assert left.get_yscale() == "log" and len(left.containers) == len(right.containers) == 2
    ratios, patterns = plotting.plot_accuracy_vs_sparsity(table[table["pruner"] != "magnitude"]).axes
    assert [tick.get_text() for tick in patterns.get_xticklabels()] == ["2:8"] and len(ratios.containers) == 4


def test_a_budget_figure_has_a_line_a_method_over_the_steps_in_order():
    table = grid_of(["none", "spp"], ["75%", "2:8"])
    table = pd.concat([table.assign(max_steps=steps, accuracy=steps / 1000) for steps in (320.0, 40.0)])
    left, right = panels.plot_budgets(table).axes
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["40 steps", "320 steps"]
    assert len(left.containers) == len(right.containers) == 2
    for line in left.containers:
        assert list(line.lines[0].get_ydata()) == pytest.approx([4, 32])


@pytest.mark.parametrize("seeds, said", [([1], " 2 of 3 runs"), ([0, 1, 2], " 0 of 3 runs")])
def test_every_figure_marks_cells_of_which_runs_failed(seeds, said):
    table = grid_of(["none", "spp"], ["75%", "2:8"], pruners=("wanda", "magnitude"))
    lost = (table["method"] == "spp") & (table["sparsity"] == "75%") & table["seed"].isin(seeds)
    table.loc[lost, ["accuracy", "tiny_rte"]] = NAN
    wanda = table[table["pruner"] != "magnitude"]
    figures = [
        plotting.plot_accuracy_vs_sparsity(wanda),
        plotting.plot_gap_recovered(wanda),
        panels.plot_pruners(table),
    ]
    for figure in (*figures, plotting.plot_parameters(wanda), plotting.plot_tasks(wanda)):
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert texts and set(texts) == {said}


@pytest.mark.parametrize(
    "trained, drawn", [([], False), (["wanda"], False), (["wanda", "magnitude"], True)], ids=["none", "one", "two"]
)
def test_criteria_are_set_side_by_side_where_methods_trained_under_several(trained, drawn):
    """Of pruning alone, the figure of the criteria shows the same."""
    parts = [grid_of(["none"], ["75%"], pruners=("wanda", "magnitude"))]
    parts += [grid_of(["spp"], ["75%"], pruners=(pruner,)) for pruner in trained]
    assert ("pruners" in figures_of(pd.concat(parts).drop_duplicates())) == drawn


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ValueError, match="no run of the table has the score 'accuracy'"):
        plotting.plot_accuracy_vs_sparsity(grid_of(["spp"], ["75%"]).drop(columns="accuracy"))
    apart = pd.concat([grid_of(["spp"], ["75%"]), grid_of(["spp"], ["50%"], pruners=("magnitude",))])
    with pytest.raises(ValueError, match="no cell has runs of every pruner"):
        panels.plot_pruners(apart)
    for alone in (grid_of(["none"], ["75%"]), grid_of(["spp"], ["75%"])):
        with pytest.raises(ValueError, match="no method was trained where pruning took two points or more"):
            plotting.plot_gap_recovered(alone)


@pytest.mark.parametrize("plot", [plotting.plot_tasks, plotting.plot_parameters])
def test_a_figure_of_one_sparsity_finds_it_however_it_is_spelled_and_is_never_empty(plot):
    table = grid_of(["none", "spp"], ["75%"])
    for name in ("75%", "0.75", "unstructured:75%"):
        (axes,) = plot(table, sparsity=name).axes
        assert "pruned + SPP" in [text.get_text() for text in axes.get_legend().get_texts()]
    for wrong in ({"sparsity": "50%"}, {"sparsity": "2:8"}, {"pruner": "magnitude"}):
        with pytest.raises(ValueError, match="no run of the table is pruned by"):
            plot(table, **wrong)


def test_a_figure_of_one_sparsity_takes_one_at_which_something_was_trained():
    alone = grid_of(["none"], ["75%"]).assign(parameters=0)
    spp = grid_of(["spp"], ["2:4"])
    table = pd.concat([alone, spp[spp["method"] != "dense"]])
    assert figures_of(table)["parameters"].axes[0].get_title() == "pruned by wanda, 2:4"
    assert "parameters" not in figures_of(alone)


def test_pruners_whose_methods_differ_and_scores_that_no_run_has_are_left_out():
    apart = [grid_of(["none", "lora*"], ["75%"]), grid_of(["spp"], ["75%"], pruners=("magnitude",))]
    assert "pruners" not in figures_of(pd.concat(apart).drop_duplicates())
    for none in (NAN, math.inf):
        table = grid_of(["none", "spp"], ["75%"]).assign(perplexity=none)
        assert {"accuracy", "paired"} < figures_of(table).keys() and "perplexity" not in figures_of(table)
        assert all("perplexity" not in text for text in texts_of(table)) and list(texts_of(table))


@pytest.mark.parametrize("seed", range(8))
def test_a_table_with_any_cells_missing_is_said_and_drawn(seed):
    """As a sweep leaves it that was stopped, or that names other sparsities for one pruner than for another."""
    whole = grid_of(["none", "spp", "lora*"], ["50%", "75%", "2:4", "2:8"], pruners=("wanda", "sparsegpt"))
    whole["perplexity"] = 1 / whole["accuracy"]
    cells = whole[["method", "pruner", "sparsity"]].drop_duplicates()
    some = cells[cells["method"] != "dense"].sample(1 + seed % 5, random_state=seed)
    part = whole.merge(pd.concat([some, cells[cells["method"] == "dense"].head(seed % 2)]))
    assert figures_of(part) and all(texts_of(part))
    uneven = [("none", "wanda", "2:4", 0, 0.5), ("none", "wanda", "50%", 0, 0.5), ("none", "sparsegpt", "50%", 0, 0.6)]
    assert "criteria" in figures_of(table_of(uneven))


def test_methods_with_extras_are_compared_with_spp_with_the_same_extras_and_spp_with_itself_alone():
    table = grid_of(["none", "spp", "hira", "spp+distill", "hira+distill", "spp+norms"], ["75%", "2:8"])
    table.loc[table["method"] == "spp+distill", "accuracy"] += 0.1
    *_, alone, distilled, gain, others = texts_of(table)
    heads = [text.splitlines()[0].partition(", paired")[0] for text in (alone, distilled, gain, others)]
    assert heads == [f"wanda: accuracy minus that of {name}" for name in ("SPP", "SPP+distill", "SPP", "hira")]
    rows = [[line.split()[0] for line in text.splitlines()[3:]] for text in (alone, distilled, gain)]
    assert rows == [["none", "hira"], ["hira+distill"], ["spp+distill", "spp+norms"]]
    assert distilled.count("-10.0 ± 0.0, wins") == gain.count("+10.0 ± 0.0, loses") == 2
    figures = figures_of(table)
    assert {"paired", "paired+distill"} < figures.keys() and "paired+norms" not in figures
    assert len(figures["paired"].axes[0].containers) == 2  # none, hira: not SPP's own extras
    assert figures["paired+distill"].axes[0].get_ylabel() == "accuracy minus that of pruned + SPP + distill (points)"
    assert not [text for text in texts_of(table[table["method"] != "spp"]) if "minus that of SPP," in text]


@pytest.mark.parametrize(
    "score", ["loss_last", "loss_first", "alpaca_loss", "alpaca_perplexity", "seconds", "peak_mib"]
)
def test_of_a_loss_and_of_a_cost_less_is_better(score):
    table = grid_of(["spp", "lora*"], ["75%"])
    table[score] = table["accuracy"] + (table["method"] == "lora*")
    assert paired(table, score)["verdict"].tolist() == ["wins"]


def test_a_sparsity_has_one_name_however_it_is_spelled():
    table = grid_of(["none", "spp", "lora*"], ["75%", "2:4"])
    table.loc[table["method"] == "lora*", "sparsity"] = [*3 * ["0.75"], *3 * [" 2:4"]]
    for compared in (paired(table), gap_recovered(table), summarise(table)):
        assert set(compared["sparsity"]) - {"0%"} == {"75%", "2:4"}
    assert paired(table)["n"].tolist() == [3, 3, 3, 3]
    alone = grid_of(["none", "spp"], ["0.5", "row:50%"])  # as it was written
    assert set(summarise(alone)["sparsity"]) == {"0%", "0.5", "row:50%"} == {*paired(alone)["sparsity"], "0%"}


def test_a_perplexity_is_printed_with_what_tells_it_apart():
    table = grid_of(["spp", "lora*"], ["75%"]).assign(perplexity=lambda rows: 1.86 + 0.04 * (rows["method"] == "lora*"))
    mean, gain = [text for text in texts_of(table) if "perplexity" in text]
    assert "1.86 ± 0.00" in mean and "1.90 ± 0.00" in mean and "+0.04 ± 0.00, wins" in gain
