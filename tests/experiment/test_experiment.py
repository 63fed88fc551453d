"""The grid: runs are done once, a stopped sweep goes on, tables and figures say what was run."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spp_lite import Sparsity, load, load_alpaca
from spp_lite.cli import main
from spp_lite.cli.sweep import GRID, QUICK
from spp_lite.experiment.baselines import METHODS
from spp_lite.experiment.recipe import Recipe, Run, grid
from spp_lite.experiment.runs import do_run
from spp_lite.experiment.statistics import summarise
from spp_lite.experiment.table import choose_rates, sweep
from spp_lite.models import embedded, load_tokenizer, resolve, save
from spp_lite.pruning.prune import METHODS as PRUNERS
from spp_lite.recover.data import calibration_batches, read_texts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe():
    texts = read_texts(embedded("text", "calibration.jsonl"))
    batches = calibration_batches(texts, load_tokenizer(resolve("tiny")), samples=160, length=64)
    training = {"max_steps": 2, "batch_size": 4}
    records = load_alpaca("tiny").select(range(40))
    return Recipe("tiny", records, batches, tasks=["tiny_arc_easy", "tiny_rte"], training=training, limit=10)


def test_every_seed_has_a_whole_grid_before_the_next_begins():
    runs = grid(["dense", "none", "spp"], ["wanda"], ["50%", "2:4"], 2, {"spp": 0.05})
    assert runs[0] == Run("dense", "dense", "0%", 0, 0.0) and len(runs) == 1 + 2 * 2 * 2
    assert [run.seed for run in runs] == [0] * 5 + [1] * 4
    assert {run.lr for run in runs if run.method == "spp"} == {0.05} and {run.lr for run in runs} == {0.0, 0.05}


def test_a_sweep_of_another_model_chooses_rates_on_records_that_it_does_not_score(tmp_path, monkeypatch):
    model, tokenizer = load("tiny")
    save(model, tokenizer, tmp_path / "other")
    records = [{"instruction": f"Say {i}.", "input": "", "output": f"{i}."} for i in range(120)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    command = (
        f"sweep --model {tmp_path / 'other'} --data {tmp_path / 'records.json'} --calibration-length 32 "
        "--calibration-samples 8 --methods none spp --pruners wanda --sparsity 50% 2:4 --seeds 1 --steps 2 --batch-size 2 "
        "--rates-at 4:8 --try-rates 1e-2 3e-2 --bf16 --cutoff 64 "
        f"--tasks tiny_rte --limit 4 --out {tmp_path / 'out'}"
    )
    assert main(command.split()) == 0
    rates = pd.read_csv(tmp_path / "out" / "rates.csv")
    assert "accuracy" not in rates and len(rates) == 2 and set(rates["sparsity"]) == {"4:8"}
    assert set(rates["lr"]) == {1e-2, 3e-2} and rates["bf16"].all() and set(rates["cutoff"]) == {64}
    table = pd.read_csv(tmp_path / "out" / "sweep.csv")
    best = rates.loc[rates["alpaca_loss"].idxmin(), "lr"]
    assert set(table.loc[table["method"] == "spp", "lr"]) == {best} and table["accuracy"].notna().all()
    again = np.exp(table["alpaca_loss"])  # a CPU may round the last digit otherwise
    assert np.allclose(table["alpaca_perplexity"], again, rtol=1e-12, atol=0)
    (trained, scored), (again, chosen) = (one["data"].iloc[0].split(" held=") for one in (table, rates))
    assert trained == again and scored != chosen
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} >= {
        "accuracy",
        "parameters",
        "alpaca_perplexity",
        "criteria",
    }


def test_a_sweep_goes_on_where_it_stopped_and_does_nothing_twice(recipe, tmp_path, monkeypatch):
    path = tmp_path / "deep" / "sweep.csv"
    runs = grid(["none", "spp", "lora*"], ["wanda"], ["75%"], 1, {"spp": 0.05, "lora*": 0.01})
    done = []

    def counted(recipe, run):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run)
        return do_run(recipe, run)

    monkeypatch.setattr("spp_lite.experiment.table.do_run", counted)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe, runs, path)
    assert len(pd.read_csv(path)) == 2 == len(done)
    monkeypatch.setattr("spp_lite.experiment.table.do_run", do_run)
    table = sweep(recipe, runs, path)
    assert len(table) == len(runs) == 4 and not list(path.parent.glob(".*"))
    monkeypatch.setattr("spp_lite.experiment.table.do_run", None)
    pd.testing.assert_frame_equal(sweep(recipe, runs, path), pd.read_csv(path))
    wanted = {"method", "pruner", "sparsity", "seed", "lr", "parameters", "seconds", "peak_mib", "accuracy"}
    assert wanted | {"tiny_rte", "zeros_before", "zeros_after", "versions", "error"} <= set(table)
    sparse = table[table["method"] != "dense"]
    assert (sparse["zeros_before"] == sparse["zeros_after"]).all() and sparse["zeros_before"].between(0.74, 0.76).all()


def test_processes_give_the_rows_of_one_and_a_run_that_fails_says_why(recipe, tmp_path):
    runs = [Run("spp", "wanda", "2:4", seed, 0.01) for seed in (0, 1)] + [Run("masked-full", "wanda", "2:4", 0, 1e30)]
    table = sweep(recipe, runs, tmp_path / "two.csv", jobs=2).set_index(["method", "seed"])
    broken = table.loc[("masked-full", 0)]
    assert len(table) == 3 and "nan" in broken["error"] and pd.isna(broken["accuracy"])
    assert broken["parameters"] == 1_179_648 // 2 and broken["zeros_before"] == 0.5  # known until then: the survivors
    one = do_run(recipe, runs[1])
    assert table.loc[("spp", 1), "loss_last"] == pytest.approx(one["loss_last"], rel=1e-4)
    assert table.loc[("spp", 1), "accuracy"] == pytest.approx(one["accuracy"], abs=0.06)
    assert table.loc[("spp", 0), "loss_last"] != table.loc[("spp", 1), "loss_last"]  # the seed draws


@pytest.mark.parametrize("plan", [GRID, QUICK])
def test_what_the_command_runs_names_methods_pruners_and_patterns(plan):
    for run in (run for part in plan for run in grid(*part, 1, dict.fromkeys(METHODS, 0.01))):
        assert run.method in (*METHODS, "dense") and run.pruner in (*PRUNERS, "dense")
        Sparsity.parse(run.sparsity)


@pytest.mark.parametrize("run", [("spp", "wanda", "75%"), ("lora*", "wanda", "2:8"), ("none", "sparsegpt", "75%")])
def test_a_committed_cell_is_computed_again_within_its_interval(run):
    committed = pd.read_csv(embedded("results", "sweep.csv"))
    cell = committed[(committed[["method", "pruner", "sparsity"]] == run).all(axis=1)]
    texts = read_texts(embedded("text", "calibration.jsonl"))
    batches = calibration_batches(texts, load_tokenizer(resolve("tiny")), samples=384, length=128)
    training = {"max_steps": 160, "batch_size": 16}
    recipe = Recipe("tiny", load_alpaca("tiny"), batches, training=training, progress=False)
    found = do_run(recipe, Run(*run, 1, cell["lr"].iloc[0]))["accuracy"]
    half = summarise(cell)["half"].iloc[0] * 6**0.5  # of one more run, not of the mean of five
    assert len(cell) == 5 and abs(found - cell["accuracy"].mean()) <= half
    assert found == pytest.approx(
        cell.set_index("seed").loc[1, "accuracy"], abs=0.02
    )  # other machines round differently


@pytest.mark.parametrize("method", ["spp+distill", "spp+norms+distill"])
def test_extras_run_and_keep_every_zero(recipe, method):
    row = do_run(recipe, Run(method, "wanda", "2:4", 0, 0.01))
    assert not row["error"] and row["zeros_before"] == row["zeros_after"] == 0.5 and row["accuracy"] > 0


def test_the_table_of_steps_holds_the_headlines_own_rows():
    parts = {
        steps: pd.read_csv(embedded("results", "budget", f"{steps}-steps", "sweep.csv")) for steps in (40, 80, 160, 640)
    }
    for steps, part in parts.items():
        trained = part[part["method"] != "dense"]
        assert set(trained["max_steps"]) == {steps} and set(trained["sparsity"]) == {"75%", "90%"}
        assert not part["error"].notna().any() and (trained["zeros_after"] >= trained["zeros_before"]).all()
    whole = pd.read_csv(embedded("results", "sweep.csv"))
    assert len(parts[160].merge(whole)) == len(parts[160])


@pytest.mark.parametrize("name", ["at-90", "extras"])
def test_a_side_table_has_five_seeds_a_cell_each_at_the_rate_that_was_chosen(name):
    table, rates = (pd.read_csv(embedded("results", name, file)) for file in ("sweep.csv", "rates.csv"))
    assert not table["error"].notna().any() and (table["zeros_after"] >= table["zeros_before"]).all()
    trained = table[table["method"] != "dense"]
    for (method, sparsity), cell in trained.groupby(["method", "sparsity"]):
        assert sorted(cell["seed"]) == [0, 1, 2, 3, 4]
        tried = rates[(rates["method"] == method) & (rates["sparsity"] == sparsity)]
        best = choose_rates(rates[rates["method"] == method], sparsity)[method]
        assert set(cell["lr"]) == {best} and tried["lr"].min() < best < tried["lr"].max(), (method, sparsity)


def test_the_lead_of_640_steps_has_three_seeds_a_method_at_the_rate_that_was_chosen():
    table, rates = (
        pd.read_csv(embedded("results", "extras", "640-steps", file)) for file in ("sweep.csv", "rates.csv")
    )
    assert not table["error"].notna().any() and (table["zeros_after"] >= table["zeros_before"]).all()
    for method, best in (chosen := choose_rates(rates, "90%")).items():
        rows = table[(table["method"] == method) & (table["lr"] == best)]
        assert sorted(rows["seed"]) == [0, 1, 2] and set(rows["max_steps"]) == {640}
    assert chosen.keys() == {f"{name}+distill+norms" for name in ("spp", "masked-lora", "masked-full")}


def test_the_table_of_640_steps_is_what_the_code_beside_it_prints(monkeypatch, capsys):
    section = re.search(r"\n## At 90 %, with both.*?(?=\n## )", (ROOT / "docs" / "results.md").read_text(), re.S)[0]
    monkeypatch.chdir(ROOT)
    exec(re.search(r"```python\n(.*?)```", section, re.S)[1], {})
    lines = re.findall(r"(-?[\d.]+) +([\d.]+)$", capsys.readouterr().out, re.M)
    printed = [(float(mean), float(half)) for mean, half in lines]
    scores = {(f"{100 * mean:.1f}", f"{100 * half:.1f}") for mean, half in printed}
    perplexities = {(f"{mean:,.0f}", f"{half:,.0f}") for mean, half in printed}
    written = re.findall(r"\| \+?([\d.,]+) ± ([\d.,]+)", section)
    assert len(written) == 8 and not {*written} - scores - perplexities
    shares = re.findall(r"\| (\d+) % \|", section)
    assert len(shares) == 3 and {*shares} <= {f"{100 * mean:.0f}" for mean, _ in printed}


def test_a_run_that_fails_knows_its_budget(recipe):
    """Else it would be missing from accuracy against steps, where a cell says how many of its runs failed."""
    row = do_run(recipe, Run("lora", "magnitude", "75%", 0, 1e30))
    assert row["error"] and "accuracy" not in row and row["max_steps"] == recipe.training["max_steps"]
