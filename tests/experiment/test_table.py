"""A table says what made its rows, and refuses what was made otherwise, twice or by halves; learning rates likewise."""

import json
import os
import re
import signal
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spp_lite.cli import main
from spp_lite.experiment import table as tables
from spp_lite.experiment.recipe import IDENTITY, RATES, Recipe, Run, grid, rate_grid
from spp_lite.experiment.table import choose_rates, make_room, read_table, sweep, write_table
from spp_lite.models import embedded, load_tokenizer, resolve, save

RUNS = grid(["none", "spp"], ["wanda"], ["50%", "2:4"], 2, {"spp": 0.05})
NAN = float("nan")


def folder(path, seed=0):
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(resolve("tiny"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return str(save(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)), tokenizer, path))


def records(count=10, word="say"):
    return Dataset.from_list([{"instruction": f"{word} {i}", "input": "", "output": f"{i}."} for i in range(count)])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return [folder(tmp_path_factory.mktemp("models") / name, seed) for name, seed in (("a", 0), ("b", 1), ("copy", 0))]


@pytest.fixture
def recipe(models):
    batches = [torch.ones(2, 8, dtype=torch.long)] * 2
    return Recipe(models[0], records(), batches, tasks=["tiny_rte"], training={"max_steps": 2}, draws=1)


@pytest.fixture
def done(monkeypatch):
    """The runs that were done: by a stand-in, whose score is the run's number."""
    seen = []

    def do(recipe, run):
        seen.append(run)
        return {**asdict(run), "error": "", "accuracy": 0.5 + len(seen) / 100, "seconds": 1.0}

    monkeypatch.setattr(tables, "do_run", do)
    return seen


CHANGES = {
    "model": lambda recipe, models: {"model": models[1]},
    "data": lambda recipe, models: {"records": records(word="tell")},
    "data: fewer": lambda recipe, models: {"records": records(9)},
    "calibration": lambda recipe, models: {"calibration": [torch.ones(2, 8, dtype=torch.long) + 1]},
    "calibration: shape": lambda recipe, models: {"calibration": [torch.ones(4, 4, dtype=torch.long)]},
    "text": lambda recipe, models: {"text": "some words"},
    "tasks": lambda recipe, models: {"tasks": ["tiny_boolq"]},
    "tasks: limit": lambda recipe, models: {"limit": 5},
    "recipe: steps": lambda recipe, models: {"training": {"max_steps": 3}},
    "recipe: batch": lambda recipe, models: {"training": {"max_steps": 2, "batch_size": 2}},
    "recipe: r": lambda recipe, models: {"r": 4},
}


@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_something_else_made_are_refused_with_the_column_and_both_values(
    recipe, models, done, tmp_path, change
):
    first = sweep(recipe, RUNS[:2], tmp_path / "sweep.csv")
    other, column = replace(recipe, **CHANGES[change](recipe, models)), change.partition(":")[0]
    here = sweep(other, RUNS[:1], tmp_path / "other.csv")
    before = (tmp_path / "sweep.csv").read_bytes()
    with pytest.raises(ValueError, match=r"were made otherwise.*name another --out") as error:
        sweep(other, RUNS, tmp_path / "sweep.csv")
    theirs, ours = first[column].iloc[0], here[column].iloc[0]
    assert f"({column}: {theirs}, not {ours})" in str(error.value) and theirs != ours
    assert (tmp_path / "sweep.csv").read_bytes() == before and len(done) == 3


def test_another_version_of_the_library_is_refused(recipe, done, tmp_path, monkeypatch):
    sweep(recipe, RUNS[:1], tmp_path / "sweep.csv")
    monkeypatch.setattr("spp_lite.experiment.recipe.version", lambda package: "9.9")
    with pytest.raises(ValueError, match=r"spp_lite: .*, not 9\.9"):
        sweep(recipe, RUNS, tmp_path / "sweep.csv")


def test_seeds_that_would_all_prune_on_the_same_calibration_are_warned_of(recipe, done, tmp_path):
    runs = {name: grid(["none"], [name], ["50%"], 2, {}) for name in ("magnitude", "wanda")}
    sweep(recipe, runs["wanda"], tmp_path / "apart.csv")  # one batch of two each: no warning, which would be an error
    few = replace(recipe, draws=2)
    sweep(few, runs["magnitude"], tmp_path / "alike.csv")  # takes none
    sweep(few, runs["wanda"][:1], tmp_path / "alone.csv")
    with pytest.warns(UserWarning, match="draws=2 takes every batch, all seeds prune alike: give more"):
        sweep(few, runs["wanda"], tmp_path / "alike.csv")


def test_what_does_not_change_a_score_is_resumed(recipe, models, done, tmp_path):
    sweep(recipe, RUNS[:2], tmp_path / "sweep.csv")
    alike = replace(recipe, model=models[2], batch_size=2, progress=False)  # a copy of the folder, elsewhere
    table = sweep(alike, [*RUNS, replace(RUNS[1], sparsity="0.5")], tmp_path / "sweep.csv")
    assert done == RUNS and len(table) == len(RUNS)
    assert list(table)[-len(IDENTITY) :] != [] and list(pd.read_csv(tmp_path / "sweep.csv"))[-len(IDENTITY) :] == [
        *IDENTITY
    ]


def test_a_model_that_is_replaced_while_its_sweep_goes_on_is_seen(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "do_run", lambda recipe, run: {**asdict(run), "error": "", "model": "f" * 16})
    with pytest.raises(ValueError, match="was replaced while its sweep went on"):
        sweep(recipe, RUNS, tmp_path / "sweep.csv")


def test_records_are_cut_as_the_recipe_says(recipe, done, tmp_path, monkeypatch):
    lengths = []
    monkeypatch.setattr(
        tables,
        "do_run",
        lambda recipe, run: lengths.append(max(map(len, recipe.records["input_ids"]))) or {"error": "e"},
    )
    with pytest.raises(KeyError):
        sweep(replace(recipe, training={"cutoff": 50, "train_on_inputs": True}), RUNS, tmp_path / "sweep.csv")
    assert lengths and lengths[0] <= 50


@pytest.mark.parametrize("name", ["sweep.csv", "rates.csv"])
def test_the_committed_tables_are_resumed_by_what_made_them(name, monkeypatch, tmp_path):
    """`spp-lite sweep --jobs 2 --out data/results`, which has nothing left to do."""
    committed = embedded("results", *name.split("/"))
    (tmp_path / "table.csv").write_bytes(committed.read_bytes())
    monkeypatch.setattr(tables, "do_run", None)
    asked = []
    monkeypatch.setattr("spp_lite.experiment.table.sweep", lambda recipe, *rest, **given: asked.append(recipe) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        from spp_lite.cli import sweep as command

        parser = __import__("argparse").ArgumentParser()
        command.add(parser)
        command.run(parser.parse_args(["--out", str(tmp_path / "out")]))
    (held,) = asked
    recipe = held if "rates" in name else replace(held, tasks="tiny")
    runs = [Run(*values) for values in read_table(committed)[tables.KEY].itertuples(index=False)]
    assert len(sweep(recipe, runs, tmp_path / "table.csv")) == len(runs)


HEAD = ",".join(["method,pruner,sparsity,seed,lr,error,accuracy", *IDENTITY])
ROW = "none,wanda,50%,0,0.0,,0.5,m,d,c,-,t,r,0.1.0"


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "is no table of runs"),
        ('a,b\n"1,2', "is no table of runs"),
        ("\x00\x01", "lacks the column|is no table"),
        ("method,pruner\nnone,wanda", "lacks the column sparsity"),
        (f"{HEAD}\n{ROW}\n{ROW}", "line 3: it is the run of line 2 again"),
        (f"{HEAD}\n{ROW}\n{ROW.replace('50%', '0.5')}", "line 3: it is the run of line 2 again"),
        (f"{HEAD}\n{ROW}\nspp,wanda,50%,0,0.1,,0.5,m,d", "line 3: it has neither .*: it was cut short"),
        (f"{HEAD}\n{ROW.replace(',0.5,', ',,')}", "line 2: it has neither a score nor an error: it was cut"),
        (f"{HEAD}\n{ROW.replace(',0.5,', ',inf,')}", "line 2: its score is none that sweep writes"),
        (
            f"{HEAD}\n{ROW.replace(',0.5,', ',66.3%,')}",
            "line 2: its score is none that sweep writes",
        ),  # a spreadsheet's
        (f"{HEAD}\n{ROW.replace(',0.5,', ',66.3,')}", "line 2: its score is none that sweep writes"),
        (f"{HEAD}\n{ROW.replace(',0,0.0', ',0.5,0.0')}", "line 2: its seed is 0.5, no whole number"),
        (f"{HEAD}\n{ROW.replace('none', '')}", "line 2: "),
        (f"{HEAD}\n{ROW.replace('none', 'magic')}", "line 2: method 'magic' is none of"),
        (f"{HEAD}\n{ROW.replace('wanda', 'obs')}", "line 2: pruner 'obs' is none of"),
        (f"{HEAD}\n{ROW.replace('50%', '150%')}", "line 2: sparsity 1.5 is outside"),
        (f"{HEAD}\n{ROW.replace(',0,0.0', ',x,0.0')}", "line 2: "),
        (f"{HEAD}\n{ROW.replace(',0,0.0', ',,0.0')}", "line 2: "),
        (f"{HEAD}\n{ROW.replace(',0,0.0', ',0,-1')}", "line 2: none: lr=-1.0"),
        (f"{HEAD}\n{ROW.replace(',0,0.0', ',0,')}", "line 2: none: lr=nan"),
    ],
)
def test_tables_that_were_edited_or_cut_short_are_one_sentence(tmp_path, text, named):
    (tmp_path / "sweep.csv").write_text(text)
    with pytest.raises(ValueError, match=named) as error:
        read_table(tmp_path / "sweep.csv")
    assert str(tmp_path / "sweep.csv") in str(error.value) and type(error.value) is ValueError


def test_a_table_cut_anywhere_is_refused_or_its_lost_runs_are_done_again(recipe, done, tmp_path):
    sweep(recipe, RUNS, path := tmp_path / "sweep.csv")
    whole = path.read_bytes()
    right = pd.read_csv(path)["method"].tolist()
    for cut in range(len(whole.splitlines()[0]), len(whole), 37):
        path.write_bytes(whole[:cut])
        try:
            assert sorted(sweep(recipe, RUNS, path)["method"]) == sorted(right)
        except ValueError as error:
            assert str(path) in str(error)


def test_a_table_that_does_not_say_what_made_it_is_refused(recipe, done, tmp_path):
    table = sweep(recipe, RUNS, tmp_path / "sweep.csv")
    write_table(table.drop(columns=[*IDENTITY]), tmp_path / "old.csv")
    with pytest.raises(ValueError, match="they do not say what made them"):
        sweep(recipe, RUNS, tmp_path / "old.csv")
    write_table(table.drop(columns=["data"]), tmp_path / "edited.csv")
    with pytest.raises(ValueError, match="data: unknown, not"):
        sweep(recipe, RUNS, tmp_path / "edited.csv")


def test_a_table_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "file" / "sweep.csv")
    (tmp_path / "sweep.csv").mkdir()
    with pytest.raises(ValueError, match=r"sweep\.csv"):
        read_table(tmp_path / "sweep.csv")


def rates(*rows, value="accuracy"):
    return pd.DataFrame(rows, columns=["method", "lr", value])


def test_the_rate_with_the_best_score_is_chosen_per_method_and_a_run_that_failed_loses():
    runs = rate_grid(["none", "spp", "lora", "spp+distill"], ["75%", "2:4"], seeds=2)
    assert len(set(runs)) == len(runs) == 3 * len(RATES) * 2 * 2
    assert {run.method for run in runs} == {"spp", "lora", "spp+distill"} and {run.lr for run in runs} == set(RATES)
    rows = [
        ("spp", 0.1, 0.7),
        ("spp", 0.01, 0.8),
        ("lora", 0.1, NAN),
        ("lora", 0.001, 0.5),
        ("lora", 0.01, float("-inf")),
    ]
    assert choose_rates(rates(*rows)) == {"spp": 0.01, "lora": 0.001}
    for value in ("perplexity", "alpaca_loss"):
        assert choose_rates(rates(*rows, value=value)) == {"spp": 0.1, "lora": 0.001}
    assert choose_rates(rates(("spp", 0.1, NAN), ("lora", 0.1, 0.5))) == {"lora": 0.1}
    assert choose_rates(rates(("none", 0.0, 0.9), ("spp", 0.1, 0.5))) == {"spp": 0.1}


def test_a_rate_is_judged_over_its_seeds_and_at_the_nearest_sparsity():
    rows = [("spp", 0.1, 0.9, "75%"), ("spp", 0.1, 0.5, "75%"), ("spp", 0.01, 0.8, "75%"), ("spp", 0.01, 0.7, "75%"),
            ("spp", 0.3, 0.99, "75%"), ("spp", 0.3, NAN, "75%"),  # with one of its seeds it diverged
            ("spp", 0.5, 0.6, "2:8"), ("spp", 0.7, 0.6, "90%"), ("hira", 0.2, 0.1, "90%")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "lr", "accuracy", "sparsity"])
    assert choose_rates(table, "75%") == {"spp": 0.01, "hira": 0.2} == choose_rates(table, "60%")
    assert choose_rates(table, "2:4")["spp"] == choose_rates(table, "2:8")["spp"] == 0.5
    assert choose_rates(table, "85%")["spp"] == 0.7
    between = table.replace({"2:8": "60%"}).assign(accuracy=[*[0.1] * 6, 0.9, 0.2, 0.1])
    assert choose_rates(between, "67.5%") == choose_rates(between, "75%")  # 60 % and 75 % are equally near: the sparser
    assert choose_rates(between[between["sparsity"] == "60%"], "67.5%") == {"spp": 0.5}
    assert choose_rates(table.drop(columns="sparsity"), "85%")["spp"] == 0.01


@pytest.mark.parametrize("lr", [0, -0.1, NAN, float("inf"), "fast"])
def test_a_rate_is_a_positive_number(lr):
    with pytest.raises(ValueError, match=f"the learning rate of spp is {lr}"):
        choose_rates(rates(("lora", 0.1, 0.5), ("spp", lr, 0.5)))


def test_a_table_of_rates_needs_its_columns_and_a_method_its_rate():
    for column in ("method", "lr"):
        with pytest.raises(ValueError, match=f"needs the column {column}"):
            choose_rates(rates(("spp", 0.1, 0.5)).drop(columns=column))
    with pytest.raises(ValueError, match="needs the column accuracy"):
        choose_rates(rates(("spp", 0.1, 0.5)).drop(columns="accuracy"))
    for name in ("model", "tasks", "max_steps"):  # the best of one would be judged by the runs of another
        mixed = pd.concat([rates(("spp", 0.1, 0.5)).assign(**{name: value}) for value in (1.0, 2.0)])
        with pytest.raises(ValueError, match=f"mixes runs whose {name} is 1.0 and 2.0"):
            choose_rates(mixed)
    assert choose_rates(rates(("spp", 0.1, 0.5), value="alpaca_loss").assign(accuracy=NAN)) == {"spp": 0.1}
    with pytest.raises(ValueError, match=r"no learning rate for masked-lora, lora\+distill: .* are of spp"):
        grid(["none", "spp", "masked-lora", "lora+distill"], ["wanda"], ["50%"], 1, {"spp": 0.1})


@pytest.mark.parametrize(
    "run, named",
    [
        (("sp", "wanda", "50%", 0, 0.1), "method 'sp' is none of"),
        (("spp+magic", "wanda", "50%", 0, 0.1), r"spp\+magic: extra 'magic' is none of distill, norms"),
        (("none+distill", "wanda", "50%", 0, 0.1), "none is not trained"),
        (("spp", "obs", "50%", 0, 0.1), "pruner 'obs' is none of magnitude, wanda, sparsegpt"),
        (("spp", "wanda", "4:2", 0, 0.1), "pattern 4:2"),
        (("spp", "wanda", "50%", 0, NAN), "spp: lr=nan"),
        (("spp", "wanda", "50%", 0, -1e-3), r"spp: lr=-0\.001"),
    ],
)
def test_a_run_that_cannot_be_is_refused_when_it_is_named(run, named):
    with pytest.raises(ValueError, match=named):
        Run(*run)


@pytest.mark.parametrize(
    "one, other", [("0.5", "50%"), (" 2:4 ", "2:4"), ("unstructured:0.75", "75%"), ("ROW:50%", "row:50%")]
)
def test_a_sparsity_is_one_cell_however_it_is_written(one, other):
    assert Run("spp", "wanda", one, 0, 0.1) == Run("spp", "wanda", other, 0, 0.1)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"tasks": None}, "nothing would be scored"),
        ({"tasks": [], "text": ""}, "nothing would be scored"),
        ({"training": {"steps": 3}}, r"training=steps is no setting of finetune"),
        ({"pruner": "obs"}, "pruner 'obs' is none of"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_when_it_is_written(recipe, change, named):
    with pytest.raises(ValueError, match=named):
        replace(recipe, **change)


@pytest.mark.parametrize(
    "change, runs, named",
    [
        ({"tasks": ["tiny_trivia"]}, RUNS, "lm-eval has no task tiny_trivia"),
        ({"tasks": ["arc_easy"]}, RUNS, "data of task arc_easy cannot be read"),
        ({}, [*RUNS, Run("spp", "wanda", "3:5", 0, 0.1)], "16 inputs, not a multiple of 5"),
        ({"model": "/no/such/model"}, RUNS, "there is no folder"),
        (
            {"calibration": [torch.ones(2, 4096, dtype=torch.long)] * 2},
            RUNS,
            r"windows have 4096 tokens, the model takes 2048: give shorter ones \(--calibration-length\)",
        ),
    ],
)
def test_a_sweep_checks_everything_before_its_first_run(recipe, done, tmp_path, change, runs, named):
    with pytest.raises(ValueError, match=named):
        sweep(replace(recipe, **change), runs, tmp_path / "sweep.csv")
    assert not done and not (tmp_path / "sweep.csv").exists()


def test_a_spreadsheets_spelling_of_a_sparsity_is_the_same_cell(recipe, done, tmp_path):
    runs = [Run("spp", "wanda", sparsity, 0, 0.1) for sparsity in ("2:4", "50%", "75%")]
    sweep(recipe, runs, tmp_path / "sweep.csv")
    text = (tmp_path / "sweep.csv").read_text()
    (tmp_path / "sweep.csv").write_text(text.replace(",2:4,", ",02:04,").replace(",50%,", ",0.5,"))
    table = sweep(recipe, runs, tmp_path / "sweep.csv")
    assert len(done) == 3 and list(table["sparsity"]) == ["2:4", "50%", "75%"]


@pytest.mark.parametrize(
    "error, again", [("RuntimeError: not enough memory: you tried", 1), ("ValueError: diverged", 0)]
)
def test_a_run_that_lacked_memory_is_done_again_and_one_that_diverged_is_not(recipe, done, tmp_path, error, again):
    sweep(recipe, RUNS, tmp_path / "sweep.csv")
    table = pd.read_csv(tmp_path / "sweep.csv", dtype={"error": object})
    table.loc[0, "error"], table.loc[0, "accuracy"] = error, NAN
    table.to_csv(tmp_path / "sweep.csv", index=False)
    assert len(sweep(recipe, RUNS[1:], tmp_path / "sweep.csv")) == len(RUNS) == len(done)  # its row stays until then
    assert len(sweep(recipe, RUNS, tmp_path / "sweep.csv")) == len(RUNS) == len(done) - again


def test_a_sweep_of_which_every_run_fails_says_why(files, tmp_path, capsys, monkeypatch):
    def fail(recipe, run):
        return {**asdict(run), "error": "ValueError: the disk is on fire", "seconds": 1.0}

    monkeypatch.setattr(tables, "do_run", fail)
    assert main(f"sweep {files} --methods none --sparsity 50% --pruners wanda".split()) == 2
    said = capsys.readouterr().err
    assert re.search(r"all \d+ runs failed, and \S+sweep.csv says why: ValueError: the disk is on fire", said)


@pytest.fixture
def files(tmp_path, models):
    (tmp_path / "records.json").write_text(json.dumps(list(records(120))))
    (tmp_path / "text.txt").write_text("\n\n".join(f"a text of many words, {i}" for i in range(30)))
    pd.DataFrame([("spp", 0.01, 9.0)], columns=["method", "lr", "perplexity"]).to_csv(tmp_path / "r.csv", index=False)
    return (
        f"--model {models[0]} --data {tmp_path / 'records.json'} --calibration-length 16 --calibration-samples 4 "
        f"--text {tmp_path / 'text.txt'} --tasks none --steps 1 --batch-size 2 --out {tmp_path / 'out'}"
    )


@pytest.mark.parametrize(
    "command, named",
    [
        ("sweep --methods spp masked-lora --rates {tmp}/r.csv", "no learning rate for masked-lora"),
        ("sweep --methods spp --rates {tmp}/no.csv", "there is no file"),
        ("sweep --methods spp --rates {tmp}/text.txt", "text.txt"),
        ("sweep --methods magic", "method 'magic' is none of"),
        ("sweep --pruners obs", "pruner 'obs' is none of"),
        ("sweep --sparsity 50% 4:2", "pattern 4:2"),
        ("sweep --methods none --sparsity 3:5", "16 inputs, not a multiple of 5"),
        ("sweep --out {tmp}/text.txt", "is a file"),
        ("demo --sparsity 3:5", "16 inputs, not a multiple of 5"),
        ("demo --sparsity 100%", "sparsity 1 is outside"),
        ("demo --method obs", "pruner 'obs' is none of"),
        ("demo --text {tmp}/no.txt", "no"),
        ("demo --tasks tiny_trivia", "lm-eval has no task tiny_trivia"),
        ("demo --tasks arc_easy", "data of task arc_easy cannot be read"),
        ("demo --out {tmp}/text.txt", "is a file"),
    ],
)
def test_commands_refuse_before_anything_is_run(files, tmp_path, capsys, monkeypatch, command, named):
    for name in ("prune", "score", "recover"):
        monkeypatch.setattr(f"spp_lite.experiment.runs.{name}", None)
    name, *rest = command.format(tmp=tmp_path).split()
    given = files.replace("--tasks none", "") if "--tasks" in rest else files
    assert main([name, *given.split(), *rest]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert named in error and error.startswith(f"spp-lite {name}: error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", ["steps", "batch-size", "limit", "seeds", "jobs", "calibration-samples", "calibration-length"]
)
@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_numbers_have_their_range(capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", f"--{option}", value])
    assert stopped.value.code == 2 and f"argument --{option}: {value} is no whole number of" in capsys.readouterr().err


def test_nothing_to_score_is_said_at_once(files, capsys):
    words = files.replace("--text", "--calibration")
    for command in ("demo", "sweep"):
        assert main([command, *words.split()]) == 2
        assert "nothing would be scored: name --tasks, or a --text" in capsys.readouterr().err


def sweep_of(files, sparsity):
    return ["sweep", *f"{files} --methods none spp --pruners magnitude --sparsity {sparsity} --seeds 1".split()]


def test_rates_of_another_sweep_are_named(files, tmp_path, capsys):
    command = sweep_of(files, "0.5")
    assert main([*command, "--rates", str(tmp_path / "r.csv")]) == 0
    said = capsys.readouterr()
    assert "r.csv were chosen otherwise (they do not say what made them)" in said.out
    assert "3 of 3: spp magnitude 50% 0 0.01: alpaca_loss" in said.out and "%|" not in said.err
    assert main([*command, "--quick", "--out", str(tmp_path / "quick")]) == 0
    assert "rates.csv were chosen otherwise (model: " in capsys.readouterr().out
    again = " ".join([*command, "--rates", str(tmp_path / "r.csv")]).replace("--steps 1", "--steps 2").split()
    assert main(again) == 0
    said = capsys.readouterr().out
    assert "recipe: batch_size=2 max_steps=1, not batch_size=2 max_steps=2): they are kept in sweep." in said
    assert "(3 rows, 0 of them failed)" in said  # of this recipe alone


def test_several_budgets_are_a_table_each_and_one_figure(files, tmp_path, capsys):
    command = [*sweep_of(files, "0.5"), "--rates", str(tmp_path / "r.csv"), "--steps", "2", "1", "2"]
    assert main(command) == 0
    out = tmp_path / "out"
    tables = {steps: pd.read_csv(out / f"{steps}-steps" / "sweep.csv") for steps in (1, 2)}
    assert all(set(table["max_steps"].dropna()) == {steps} and len(table) == 3 for steps, table in tables.items())
    assert (out / "budgets_magnitude.png").exists() and not (out / "sweep.csv").exists()
    capsys.readouterr()
    assert main(command) == 0 and " of 3: " not in capsys.readouterr().out  # nothing is done again


def test_a_sweep_of_methods_without_rates_needs_none(files, tmp_path):
    assert (
        main(
            [
                "sweep",
                *files.split(),
                "--methods",
                "none",
                "--pruners",
                "magnitude",
                "--sparsity",
                "2:4",
                "--seeds",
                "1",
            ]
        )
        == 0
    )
    assert not (tmp_path / "out" / "rates.csv").exists() and len(pd.read_csv(tmp_path / "out" / "sweep.csv")) == 2


def test_the_demo_keeps_a_rate_of_zero_says_a_line_a_stage_and_what_made_its_rows(files, tmp_path, capsys):
    assert main(["demo", *files.split(), "--sparsity", "0.5", "row:50%", "50%", "--learning-rate", "0"]) == 0
    table = pd.read_csv(tmp_path / "out" / "demo.csv", dtype=str)
    assert table["sparsity"].tolist() == ["0%", "50%", "50%", "row:50%", "row:50%"] and table[[*IDENTITY]].notna().all(
        axis=None
    )
    assert table["perplexity"][1] == table["perplexity"][2]  # untrained
    said = capsys.readouterr()
    assert said.out.count("== ") == 5 and "%|" not in said.err and "'loss'" not in said.out + said.err


def test_a_command_keeps_tables_apart_and_finds_each_again(recipe, models, done, tmp_path):
    path, other = tmp_path / "sweep.csv", replace(recipe, model=models[1])
    made = [one.identity(AutoModelForCausalLM.from_pretrained(one.model)) for one in (recipe, other)]
    first = sweep(recipe, RUNS[:2], path)
    assert make_room(path, made[0]) == "" and make_room(tmp_path / "absent.csv", made[0]) == ""
    before = path.read_bytes()
    note = make_room(path, made[1])
    assert "were made otherwise (model: " in note
    aside = tmp_path / note.rpartition(" ")[2]
    assert not path.exists() and aside.read_bytes() == before
    second = sweep(other, RUNS[:2], path)
    assert len(done) == 4 and set(first["model"]) != set(second["model"])
    assert make_room(path, made[0]) and path.read_bytes() == before and not aside.exists()
    sweep(recipe, RUNS[:2], path)
    assert len(done) == 4  # nothing is done twice
    assert sum(len(pd.read_csv(file)) for file in tmp_path.glob("*.csv")) == 4  # nothing is lost


def test_what_a_model_computes_is_part_of_its_rows(recipe, models):
    model = AutoModelForCausalLM.from_pretrained(models[0])
    made = recipe.identity(model)
    model.config.use_cache = False  # computes the same
    assert recipe.identity(model) == made
    model.config.rms_norm_eps = 1e-3
    assert recipe.identity(model)["model"] != made["model"]
    assert replace(recipe, draws=3).identity(model)["calibration"] != made["calibration"]
    with pytest.raises(ValueError, match="is no setting of finetune"):
        replace(recipe, training={"seed": 3})


def test_a_rate_that_was_chosen_before_does_not_count_among_the_seeds(files, tmp_path, capsys):
    command = sweep_of(files, "2:4")
    for rate in ("1e-2", "1e-3"):
        assert main([*command, "--try-rates", rate]) == 0
        assert f"'spp': {float(rate)}" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "sweep.csv")
    assert sorted(table.loc[table["method"] == "spp", "lr"]) == [1e-3, 1e-2]
    assert main([*command, "--try-rates", "1e-3"]) == 0
    assert "(3 rows, 0 of them failed)" in capsys.readouterr().out
    assert main([*command, "--seeds", "2", "--try-rates", "1e-2"]) == 0
    for sparsity, rows in (("2:4", 4), ("4:8", 7)):  # of 2:4 the one seed at 1e-3, then both at 1e-2, which came last
        capsys.readouterr()
        assert main([*sweep_of(files, sparsity), "--try-rates", "1e-3"]) == 0
        assert f"({rows} rows, 0 of them failed)" in capsys.readouterr().out
    for wrong, message in (
        (["--try-rates", "0", "1e-3"], "a learning rate of 0.0 teaches nothing"),
        (["--norm-learning-rate", "1e-3"], "no method ends in +norms"),
        (["--quick", "--try-rates", "1e-3"], "--try-rates has no effect"),
        (["--quick", "--rates-at", "2:4"], "--rates-at has no effect"),
        (["--quick", "--rate-seeds", "2"], "--rate-seeds has no effect"),
    ):
        assert main([*command, *wrong]) == 2 and message in capsys.readouterr().err


def killed(recipe, run):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_ends_the_sweep_with_a_sentence(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "do_run", killed)
    with pytest.raises(ChildProcessError, match=r"a process was killed, .* try fewer jobs; the rows .* are kept"):
        sweep(recipe, RUNS[:2], tmp_path / "sweep.csv", jobs=2)


def test_rates_that_were_chosen_elsewhere_before_do_not_count(files, tmp_path, capsys):
    for at, rate in (("4:8", "1e-2"), ("2:4", "1e-3")):
        capsys.readouterr()
        assert main([*sweep_of(files, "4:8"), "--rates-at", at, "--try-rates", rate]) == 0
    said = capsys.readouterr().out
    assert "at 2:4: {'spp': 0.001}" in said and "chosen on held-out data at 4:8" not in said
    assert len(pd.read_csv(tmp_path / "out" / "rates.csv")) == 2


def test_two_sweeps_do_not_write_one_table(recipe, done, tmp_path, monkeypatch):
    def again(recipe, run):
        with pytest.raises(ValueError, match="another process is writing"):
            sweep(recipe, RUNS[:1], tmp_path / "sweep.csv")
        return {**asdict(run), "error": "", "accuracy": 0.5, "seconds": 1.0}

    monkeypatch.setattr(tables, "do_run", again)
    assert len(sweep(recipe, RUNS[:1], tmp_path / "sweep.csv")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]
