"""The grid: runs are done once, a stopped sweep goes on, tables and figures say what was run."""

import pandas as pd
import pytest

from spp_lite import Sparsity, load_alpaca, plotting, pruning
from spp_lite.baselines import METHODS
from spp_lite.cli_runs import GRID, QUICK
from spp_lite.data import calibration_batches, embedded, read_texts
from spp_lite.experiment import RATES, Recipe, Run, choose_rates, do_run, grid, rate_grid, sweep
from spp_lite.models import load_tokenizer, resolve


@pytest.fixture(scope="module")
def recipe():
    texts = read_texts(embedded("text", "calibration.jsonl"))
    batches = calibration_batches(texts, load_tokenizer(resolve("tiny")), samples=160, length=64)
    training = {"max_steps": 2, "batch_size": 4}
    records = load_alpaca("tiny").select(range(40))
    return Recipe("tiny", records, batches, tasks=["tiny_arc_easy", "tiny_rte"], training=training, limit=10)


def test_every_seed_has_a_whole_grid_before_the_next_begins():
    runs = grid(["none", "spp"], ["wanda"], ["50%", "2:4"], 2, {"spp": 0.05})
    assert runs[0] == Run("dense", "dense", "0%", 0, 0.0) and len(runs) == 1 + 2 * 2 * 2
    assert [run.seed for run in runs] == [0] * 5 + [1] * 4
    assert {run.lr for run in runs if run.method == "spp"} == {0.05} and {run.lr for run in runs} == {0.0, 0.05}


def test_the_rate_with_the_best_accuracy_is_chosen_per_method():
    runs = rate_grid(["none", "spp", "lora", "reconstruct"], "75%")
    assert {run.method for run in runs} == {"spp", "lora"} and {run.lr for run in runs} == set(RATES)
    rows = [("spp", 0.1, 0.7), ("spp", 0.01, 0.8), ("lora", 0.1, float("nan")), ("lora", 0.001, 0.5)]
    table = pd.DataFrame(rows, columns=["method", "lr", "accuracy"])
    assert choose_rates(table) == {"spp": 0.01, "lora": 0.001}


def test_a_sweep_goes_on_where_it_stopped_and_does_nothing_twice(recipe, tmp_path, monkeypatch):
    path = tmp_path / "deep" / "sweep.csv"
    runs = grid(["none", "spp", "lora*"], ["wanda"], ["75%"], 1, {"spp": 0.05, "lora*": 0.01})
    done = []

    def counted(recipe, run):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run)
        return do_run(recipe, run)

    monkeypatch.setattr("spp_lite.experiment.do_run", counted)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe, runs, path)
    assert len(pd.read_csv(path)) == 2 == len(done)
    monkeypatch.setattr("spp_lite.experiment.do_run", do_run)
    table = sweep(recipe, runs, path)
    assert len(table) == len(runs) == 4 and not list(path.parent.glob(".*"))
    monkeypatch.setattr("spp_lite.experiment.do_run", None)
    pd.testing.assert_frame_equal(sweep(recipe, runs, path), pd.read_csv(path))
    wanted = {"method", "pruner", "sparsity", "seed", "lr", "parameters", "seconds", "peak_mib", "accuracy"}
    assert wanted | {"tiny_rte", "zeros_before", "zeros_after", "versions", "error"} <= set(table)
    sparse = table[table["method"] != "dense"]
    assert (sparse["zeros_before"] == sparse["zeros_after"]).all() and sparse["zeros_before"].between(0.74, 0.76).all()


def test_processes_give_the_rows_of_one_and_a_run_that_fails_says_why(recipe, tmp_path):
    runs = [Run("spp", "wanda", "2:4", seed, 0.01) for seed in (0, 1)] + [Run("spp", "wanda", "3:5", 0, 0.01)]
    table = sweep(recipe, runs, tmp_path / "two.csv", jobs=2).set_index(["sparsity", "seed"])
    assert len(table) == 3 and "not a multiple of 5" in table.loc[("3:5", 0), "error"]
    assert pd.isna(table.loc[("3:5", 0), "accuracy"])
    one = do_run(recipe, runs[1])
    assert table.loc[("2:4", 1), "loss_last"] == pytest.approx(one["loss_last"], rel=1e-4)
    assert table.loc[("2:4", 1), "accuracy"] == pytest.approx(one["accuracy"], abs=0.06)
    assert table.loc[("2:4", 0), "loss_last"] != table.loc[("2:4", 1), "loss_last"]  # the seed draws


def table_of(rows):
    columns = ["method", "pruner", "sparsity", "seed", "accuracy", "parameters", "tiny_rte"]
    return pd.DataFrame([(*row, 100, row[-1]) for row in rows], columns=columns)


def test_the_gap_is_taken_within_a_seed_and_left_out_where_there_is_none():
    rows = [("dense", "dense", "0%", 0, 0.9)]
    rows += [("none", "wanda", "75%", 0, 0.5), ("spp", "wanda", "75%", 0, 0.7)]
    rows += [("none", "wanda", "75%", 1, 0.7), ("spp", "wanda", "75%", 1, 0.9)]
    rows += [("none", "wanda", "50%", 0, 0.89), ("spp", "wanda", "50%", 0, 0.9)]
    assert plotting.gap_recovered(table_of(rows))["gap"].tolist() == pytest.approx([0.5, 1.0])


def test_figures_draw_every_method_of_the_table():
    rows = [("dense", "dense", "0%", 0, 0.9)]
    for seed in (0, 1, 2):
        for pruner in ("wanda", "magnitude"):
            for sparsity in ("50%", "75%", "2:8"):
                rows += [("none", pruner, sparsity, seed, 0.5 + seed / 50), ("spp", pruner, sparsity, seed, 0.7)]
    table = table_of(rows)
    for figure in (plotting.plot_gap_recovered(table), plotting.plot_tasks(table), plotting.plot_parameters(table)):
        assert "pruned + SPP" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [axes.get_title() for axes in plotting.plot_pruners(table, chance=0.3).axes] == ["wanda", "magnitude"]


@pytest.mark.parametrize("plan", [GRID, QUICK])
def test_what_the_command_runs_names_methods_pruners_and_patterns(plan):
    for run in (run for part in plan for run in grid(*part, 1, {})):
        assert run.method in (*METHODS, "dense") and run.pruner in (*pruning.METHODS, "dense")
        Sparsity.parse(run.sparsity)
