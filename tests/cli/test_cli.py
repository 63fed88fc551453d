"""The commands, end to end on the embedded model, and what wrong input gets."""

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module

import pandas as pd
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import spp_lite
from spp_lite import Sparsity, load, perplexity
from spp_lite.cli import COMMANDS, finetune, main
from spp_lite.models import embedded, fingerprint, save
from spp_lite.pruning.blocks import block_linears


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_of_several_values_that_is_given_again_adds_to_them(command):
    """argparse alone would forget the first ones, and prune what --skip left dense."""
    parser = argparse.ArgumentParser()
    import_module(f"spp_lite.cli.{command}").add(parser)
    several = [action for action in parser._actions if action.nargs == "+"]
    assert several or command not in ("prune", "evaluate", "demo", "sweep")
    for action in parser._actions:
        action.required = False
    for action in several:
        flag = action.option_strings[0]
        for words in (["1", "2", "3"], ["1", flag, "2", "3"], ["1", "2", flag, "3"]):
            found = getattr(parser.parse_args([flag, *words]), action.dest)
            assert [*map(float, found)] == [1, 2, 3], flag


@pytest.mark.parametrize("method, sparsity", [("sparsegpt", "2:4"), ("magnitude", "75%")])
def test_prune_finetune_merge_evaluate_by_commands(tmp_path, capsys, method, sparsity):
    pruned, adapter, merged = (str(tmp_path / name) for name in ("pruned", "adapter", "merged"))
    command = f"prune --sparsity {sparsity} --method {method} --calibration-samples 8 --out {pruned}"
    assert main(command.split()) == 0
    kind = "bfloat16, 0.0032" if method == "magnitude" else "float32, 0.0064"  # SparseGPT changes what stays
    assert f"wrote the pruned model ({kind} GB) and" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(pruned)
    masks = {name: linear.weight == 0 for name, linear in block_linears(model).items()}
    for name, linear in block_linears(model).items():
        Sparsity.parse(sparsity).check(linear.weight, name)
    assert len(pd.read_csv(tmp_path / "pruned" / "pruning_report.csv")) == len(masks)

    command = f"finetune --model {pruned} --output_dir {adapter} --max_steps 3 --learning_rate 1e-2 --report_to none"
    assert main([*command.split(), "--disable_tqdm", "true", "--save_strategy", "no"]) == 0
    assert peft.PeftConfig.from_pretrained(adapter).peft_type == "SPP"

    assert main(f"merge --model {pruned} --adapter {adapter} --out {merged}".split()) == 0
    after = block_linears(AutoModelForCausalLM.from_pretrained(merged))
    assert all(not after[name].weight[masks[name]].any() for name in masks)
    before = block_linears(model)
    assert any(not torch.equal(after[name].weight, before[name].weight) for name in masks)

    card = (tmp_path / "merged" / "README.md").read_text()
    assert "none refilled" in card and "steps 3" in card and f"model {pruned}" in card and "Licence: " in card

    out, text = tmp_path / "scores.csv", embedded("text", "validation.txt")
    command = f"evaluate --model {merged} --tasks tiny_boolq --limit 5 --out {out}"
    assert main([*command.split(), "--text", str(text), "--text-tokens", "200", "--text-window", "16"]) == 0
    scores = pd.read_csv(out).set_index("metric")["value"]
    assert set(scores.index) == {"acc", "acc_norm", "perplexity"}
    assert scores["perplexity"] == pytest.approx(perplexity(*load(merged), text.read_text(), tokens=200, length=16))
    assert f"wrote {out}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method, said", [("magnitude", None), ("wanda", torch.bfloat16), ("sparsegpt", None)])
def test_a_pruned_model_has_the_type_of_its_files_where_no_weight_changes_by_it(tmp_path, capsys, kind, method, said):
    base, out = tmp_path / "base", tmp_path / "out"
    model, tokenizer = load("tiny", dtype=kind)
    save(model.to(torch.float32) if said and kind != said else model, tokenizer, base)
    if said and kind != said:  # the files hold more than config.json says
        model.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1e-5
        save(model, tokenizer, base)
        settings = json.loads((base / "config.json").read_text()) | {"dtype": str(said)[6:]}
        (base / "config.json").write_text(json.dumps(settings))
    words = "--calibration-samples 8 --calibration-length 64 --calibration", str(embedded("text", "calibration.jsonl"))
    command = f"prune --model {base} --sparsity 75% --method {method} --out {out}"
    assert main([*command.split(), *words[0].split(), words[1]]) == 0
    same = method != "sparsegpt" and (said is None or kind == said)
    dense, kept = (load_file(folder / "model.safetensors") for folder in (base, out))
    assert {weight.dtype for weight in kept.values()} == {kind if same else torch.float32}
    assert f"({str(kind if same else torch.float32)[6:]}, 0.00{32 if same else 64} GB)" in capsys.readouterr().out
    for name in dense if method != "sparsegpt" else ():
        assert torch.all((kept[name] == 0) | (kept[name] == dense[name]))


def test_what_is_written_to_the_working_directory_is_there_afterwards(tmp_path, monkeypatch):
    for name, there in (("model", "."), ("model/below", "..")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for _ in range(2):  # what lies there is written over, too
            assert main(f"prune --sparsity 2:4 --method magnitude --out {there}".split()) == (2 if there == ".." else 0)
        assert os.path.samefile(os.getcwd(), tmp_path / name)
    monkeypatch.chdir(tmp_path / "model")
    (tmp_path / "model" / "below").rmdir()
    assert main(["prune", "--sparsity", "2:4", "--method", "magnitude", "--out", "."]) == 0
    assert main(["merge", "--model", "tiny", "--dense", "--out", "."]) == 0 and len(load(".")[0].model.layers) == 6
    assert sorted(os.listdir()) == sorted(os.listdir(tmp_path / "model")) and "pruning_report.csv" not in os.listdir()
    shutil.rmtree(tmp_path / "model")
    assert main(["prune", "--sparsity", "2:4", "--method", "magnitude", "--out", str(tmp_path / "far")]) == 0


def test_what_fits_in_no_memory_is_pruned_and_scored_from_disk(tmp_path, monkeypatch, capsys):
    whole, spread = str(tmp_path / "whole"), str(tmp_path / "spread")
    prune = "prune --sparsity 2:4 --method sparsegpt --calibration-samples 8"
    score = f"evaluate --model {whole} --tasks tiny_rte --limit 5 --out"
    assert main(f"{prune} --out {whole}".split()) == 0
    assert main(f"{score} {tmp_path / 'whole.csv'}".split()) == 0
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda limits=None: {"cpu": 3_500_000})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, _ = load("tiny", device_map="auto")
    assert set(model.hf_device_map.values()) == {"cpu", "disk"} and list(tmp_path.glob("spp-lite-*"))
    del model
    gc.collect()
    assert not list(tmp_path.glob("spp-lite-*"))
    assert main(f"{prune} --device-map auto --out {spread}".split()) == 0
    assert main(f"{score} {tmp_path / 'spread.csv'} --device-map auto".split()) == 0
    assert fingerprint(load(spread)[0]) == fingerprint(load(whole)[0])
    assert (tmp_path / "spread.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_accelerate_trains_one_adapter_with_two_processes(tmp_path, few_records):
    """As on two GPUs: the records are split, one process writes the adapter, and it loads."""
    pruned, adapter = str(tmp_path / "pruned"), str(tmp_path / "adapter")
    assert main(f"prune --sparsity 2:4 --method magnitude --out {pruned}".split()) == 0
    command = (
        "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no "
        f"-m spp_lite.cli finetune --model {pruned} --output_dir {adapter} --max_steps 3 --learning_rate 1e-2 "
        f"--per_device_train_batch_size 2 --report_to none --save_strategy no --data {few_records}"
    )
    env = {**os.environ, "SPP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command.split()], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("3 steps, training loss") == 1
    model = peft.PeftModel.from_pretrained(load(pruned)[0], adapter)
    assert any(bool(tensor.any()) for name, tensor in model.named_parameters() if "spp_beta" in name)


def test_the_processes_of_a_sweep_draw_nothing_into_a_log(tmp_path):
    """Bars and libraries' warnings among themselves: neither the command nor a process that it starts writes them."""
    command = f"-m spp_lite sweep --jobs 2 --methods none --sparsity 75% --seeds 1 --limit 4 --out {tmp_path / 'swept'}"
    env = {**os.environ, "SPP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command.split()], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 of 2: none" in done.stdout and not done.stderr


def test_demo_writes_table_and_figure(tmp_path, capsys):
    command = f"demo --sparsity 75% --steps 2 --limit 4 --calibration-samples 8 --out {tmp_path} --save-models"
    assert main(command.split()) == 0
    table = pd.read_csv(tmp_path / "demo.csv")
    assert list(table["method"]) == ["dense", "none", "spp"]
    assert table["zeros"][1] == table["zeros"][2] == pytest.approx(0.75, abs=0.01)
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert f"wrote {tmp_path / 'demo.csv'}" in text
    model, _ = load(tmp_path / "75-spp")
    assert sum(int((w.weight == 0).sum()) for w in block_linears(model).values()) > 0


@pytest.mark.parametrize(
    "command, message",
    [
        ("prune --sparsity 100% --method magnitude --out {tmp}/o", "sparsity 1 is outside [0, 1)"),
        ("prune --sparsity 4:2 --method magnitude --out {tmp}/o", "pattern 4:2 keeps 4 of 2"),
        ("prune --sparsity 50% --method obs --out {tmp}/o", "method 'obs' is none of magnitude, wanda, sparsegpt"),
        ("prune --model {tmp} --sparsity 50% --out {tmp}/o", "is not a model: it has no config.json"),
        ("prune --sparsity 50% --calibration {tmp}/no.txt --out {tmp}/o", "there is no file"),
        ("evaluate --tasks tiny_trivia", "lm-eval has no task tiny_trivia"),
        ("demo --data {tmp}/no.json --out {tmp}/o", "there is no file"),
    ],
)
def test_wrong_input_gets_one_sentence(tmp_path, capsys, command, message):
    assert main(command.format(tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("spp-lite ")
    assert not (tmp_path / "o").exists()


def test_prune_spends_a_budget_by_command(tmp_path, capsys):
    command = f"prune --sparsity 50% --allocation *.down_proj=30% --calibration-samples 4 --out {tmp_path / 'pruned'}"
    assert main(command.split()) == 0
    reached = pd.read_csv(tmp_path / "pruned" / "pruning_report.csv").set_index("layer")["reached"]
    down = reached.index.str.endswith("down_proj")
    assert reached[down].sub(0.3).abs().max() < 1e-3 and reached[~down].min() > 0.5
    assert main([*command.split()[:-4], "--out", "x", "--sparsity", "2:4"]) == 2
    assert "2:4 gives every row the same share" in capsys.readouterr().err


@pytest.mark.parametrize("name, value", [("SPP_MODEL", "/no/such/model"), ("SPP_DATA", "/no/such/records.json")])
def test_finetune_takes_model_and_data_from_the_environment(tmp_path, capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert main(f"finetune --output_dir {tmp_path / 'adapter'} --max_steps 1 --report_to none".split()) == 2
    assert value in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_answers_at_once_without_torch(command):
    code = (
        "import sys; sys.argv = ['spp-lite', *sys.argv[1:]]; from spp_lite.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'pandas', 'numpy', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    words = [word for word in (command, "--help") if word]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: spp-lite" in done.stdout and "_" not in "".join(re.findall(r"(?<![\w-])--[a-z_-]+", help_only(done)))


def help_only(done):
    return done.stdout.replace("--max_steps", "")  # named as the other spelling


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A folder with the tiny model at 2:4."""
    folder = tmp_path_factory.mktemp("pruned") / "model"
    assert main(f"prune --sparsity 2:4 --method magnitude --out {folder}".split()) == 0
    return str(folder)


def train(model, folder, *words):
    command = [
        "finetune",
        "--model",
        model,
        "--output-dir",
        str(folder),
        "--learning-rate",
        "1e-2",
        "--per_device_train_batch_size",
        "2",
    ]
    assert main([*command, "--max-steps", "2", "--report-to", "none", "--save-strategy", "no", *words]) == 0
    return load_file(folder / "adapter_model.safetensors")


def test_a_seed_fixes_the_adapter_and_another_changes_it(pruned, few_records, tmp_path):
    words = ("--data", few_records, "--seed")
    first, again, other = (train(pruned, tmp_path / str(i), *words, seed) for i, seed in enumerate(("1", "1", "2")))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "alpha" in name)
    note = json.loads((tmp_path / "0" / "spp_run.json").read_text())
    assert {"model", "base", "records", "seed", "versions", "steps"} <= set(note) and note["steps"] == 2


@pytest.mark.filterwarnings("ignore:.* answers are cut at 64 tokens:UserWarning")
def test_yaml_and_both_spellings_say_the_same_and_the_command_line_counts_more(pruned, few_records, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "r: 4\nmax_steps: 5\ncutoff: 64\ntrain-on-inputs: true\nlr_scheduler_type: cosine_with_min_lr\nseed: 3\n"
        "lr_scheduler_kwargs: {min_lr: 1e-4}\nscaling: -2e-1\n"
    )
    words = ("--cutoff=64", "--r", "4", "--train-on-inputs", "--seed", "3", "--data", few_records, "--scaling=-0.2")
    words += ("--lr-scheduler-type=cosine_with_min_lr", '--lr-scheduler-kwargs={"min_lr": 0.0001}')
    given = train(pruned, tmp_path / "a", *words)
    command = f"finetune {settings} --model {pruned} --output_dir {tmp_path / 'b'} --max-steps 2 --learning_rate 1e-2"
    command += f" --per-device-train-batch-size 2 --report_to none --save_strategy no --data {few_records}"
    assert main(command.split()) == 0
    written = load_file(tmp_path / "b" / "adapter_model.safetensors")
    assert all(torch.equal(given[name], written[name]) for name in given) and len(given) == len(written)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no file"),
        ("just words", "holds no settings"),
        ("a: [", "is not YAML"),
        ("learning_rat: 1", "learning_rat"),
        ("off: false", "False=False: no option of finetune"),
    ],
)
def test_a_wrong_settings_file_is_named(tmp_path, capsys, content, message):
    file = tmp_path / "s.yaml"
    if content is not None:
        file.write_text(content)
    assert main(["finetune", str(file), "--output-dir", str(tmp_path / "a")]) == 2
    assert message in capsys.readouterr().err


def test_no_output_may_eat_an_input(tmp_path, capsys):
    model, tokenizer = load("tiny")
    folder = str(save(model, tokenizer, tmp_path / "m"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    for command in (
        f"prune --model {folder} --sparsity 50% --method magnitude --out {folder}",
        f"finetune --model {folder} --output-dir {folder}/ --max-steps 1",
        f"merge --model {folder} --adapter x --out {folder}",
    ):
        assert main(command.split()) == 2
        assert "is read by this command and would be overwritten" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


def test_nothing_is_done_before_the_output_is_known_to_be_writable(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spp_lite.models.load", lambda *_, **__: pytest.fail("the model was loaded"))
    monkeypatch.setitem(vars(spp_lite), "load", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("mine")
    for command in ("prune --sparsity 50%", "merge --adapter a", "demo", "sweep --quick"):
        assert main([*command.split(), "--out", str(tmp_path / "file")]) == 2
    assert main(["finetune", "--output-dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("is a file: name a folder to write to") == 5


def test_what_the_text_refuses_costs_no_finished_scores_and_a_link_stays_one(tmp_path, capsys, monkeypatch):
    text = embedded("text", "validation.txt")
    (tmp_path / "link.csv").symlink_to(tmp_path / "disk.csv")
    command = f"evaluate --tasks tiny_rte --limit 2 --text {text} --text-tokens 64 --out {tmp_path / 'link.csv'}"
    assert main(command.split()) == 0
    assert (tmp_path / "link.csv").is_symlink() and "perplexity" in (tmp_path / "disk.csv").read_text()
    monkeypatch.setitem(vars(spp_lite), "evaluate", lambda *_, **__: pytest.fail("tasks were scored first"))
    assert main(f"{command} --text-window 9999".split()) == 2
    assert "length=9999 is more than the 256 tokens" in capsys.readouterr().err


def test_finetune_has_the_authors_rate_where_none_is_given(tmp_path):
    def settings(*words, file=""):
        (tmp_path / "a.yaml").write_text(f"output_dir: {tmp_path}\n{file}")
        parser = argparse.ArgumentParser()
        finetune.add(parser)
        options, rest = parser.parse_known_args(words)
        return finetune._settings(argparse.Namespace(**vars(options), rest=[str(tmp_path / "a.yaml"), *rest]))[1]

    args = settings()
    assert (args.learning_rate, args.weight_decay, args.warmup_steps) == (4e-3, 1e-3, 0.03)
    assert (
        settings("--learning-rate", "1e-2").learning_rate == settings(file="learning_rate: 0.01").learning_rate == 1e-2
    )
    assert settings(file="save_strategy: no\nwarmup_steps: 5").save_strategy == "no"
    for words, file in (
        (["--report-to", "a", "b"], ""),
        ([], "report_to: [a, b]"),
        (["--report_to=a"], "report_to: [b, c]"),
    ):
        assert settings(*words, file=file).report_to == (["a"] if words[:1] == ["--report_to=a"] else ["a", "b"])
    assert settings().report_to == settings(file="report_to: []").report_to == []


def test_a_bug_is_called_a_bug_and_debug_shows_it(tmp_path, capsys, monkeypatch):
    def broken(*_, **__):
        raise KeyError("surprise")

    monkeypatch.setattr("spp_lite.cli.evaluate.run", broken)
    assert main(["evaluate"]) == 1
    assert "This is a bug in spp_lite, not in your input: please report" in capsys.readouterr().err
    with pytest.raises(KeyError, match="surprise"):
        main(["evaluate", "--debug"])


def test_a_warning_that_python_was_told_to_raise_is_no_bug(capsys, monkeypatch):
    def warned(*_, **__):
        raise UserWarning("all 1 steps are warm-up")

    monkeypatch.setattr("spp_lite.cli.evaluate.run", warned)
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err == "spp-lite evaluate: error: all 1 steps are warm-up\n"


@pytest.mark.parametrize("samples", [1, 2, 5, 7, 12, 20, 128])
def test_every_run_of_a_sweep_calibrates_on_the_samples_that_were_asked_for(tmp_path, monkeypatch, samples):
    taken = []
    monkeypatch.setattr("spp_lite.cli.sweep._sweep", lambda plan, recipe, *rest: taken.append(recipe))
    command = f"sweep --quick --calibration-samples {samples} --calibration-length 16 --out {tmp_path}"
    assert main(command.split()) == 0
    (recipe,) = taken
    assert {len(batch) * recipe.draws for batch in recipe.calibration} == {samples}
    assert len(recipe.calibration) == 3 * recipe.draws


@pytest.mark.parametrize("model", ["", "--model tiny"])
def test_prune_calibrates_on_the_data_that_the_environment_names(tmp_path, monkeypatch, few_records, model):
    command = f"prune {model} --sparsity 50% --calibration-samples 2 --calibration-length 16 --out"
    assert main([*command.split(), str(tmp_path / "named"), "--data", few_records]) == 0
    monkeypatch.setenv("SPP_DATA", few_records)
    assert main([*command.split(), str(tmp_path / "told")]) == 0
    named, told = (load_file(tmp_path / name / "model.safetensors") for name in ("named", "told"))
    assert all(torch.equal(named[name], told[name]) for name in named)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_help_is_written_in_any_encoding(encoding):
    for command in ([], ["sweep"], ["finetune"]):
        words = [sys.executable, "-m", "spp_lite", *command, "--help"]
        done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert done.returncode == 0 and b"usage: spp-lite" in done.stdout, done.stderr


@pytest.mark.parametrize("threads", ["", "abc", "0", "-1", "1.5"])
def test_a_wrong_number_of_threads_is_said_in_a_sentence(threads):
    words = [sys.executable, "-c", "import spp_lite"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "SPP_THREADS": threads})
    assert done.returncode == 0 and f"SPP_THREADS={threads!r} is no number of threads, and is not used" in done.stderr


@pytest.mark.parametrize(
    "options, message",
    [
        ("--learning-rate 1e-3x", "argument --learning_rate/--learning-rate: invalid float value: '1e-3x'"),
        ("--r 2.5", "argument --r: invalid int value: '2.5'"),
        ("--eval-strategy steps", "--eval-strategy: nothing is held out here: leave it out"),
    ],
)
def test_a_wrong_value_for_training_gets_one_line(tmp_path, capsys, options, message):
    assert main(["finetune", "--output-dir", str(tmp_path / "a"), *options.split()]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said and not (tmp_path / "a").exists()


def test_a_finished_adapter_of_another_run_is_not_replaced(tmp_path, capsys):
    assert main(f"prune --sparsity 2:4 --method magnitude --out {tmp_path}/p".split()) == 0
    words = (
        f"finetune --model {tmp_path}/p --output-dir {tmp_path}/a --max-steps 2 --report-to none --disable-tqdm True"
    )
    words = [*words.split(), "--per-device-train-batch-size", "2", "--save-strategy", "no", "--seed"]
    assert main([*words, "1"]) == 0
    before = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    assert main([*words, "2"]) == 2
    said = capsys.readouterr().err
    assert "holds an adapter that was made with another seed (1, now 2): name another output_dir" in said
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == before
    assert main([*words, "1"]) == 0, "the same run again"
    (tmp_path / "a" / "spp_run.json").unlink()
    assert main([*words, "1"]) == 2 and "nobody can tell" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["/dev/full", "pipe"])
def test_what_a_command_makes_is_written_before_it_is_told(tmp_path, pruned, few_records, closed):
    train(pruned, tmp_path / "a", "--data", few_records)
    for words, made in (
        (f"merge --model {pruned} --adapter {tmp_path / 'a'} --out {tmp_path / 'm'}", tmp_path / "m" / "config.json"),
        (f"evaluate --model {pruned} --tasks tiny_rte --limit 2 --out {tmp_path / 's.csv'}", tmp_path / "s.csv"),
    ):
        command = f"{sys.executable} -m spp_lite {words}" + (" > /dev/full" if closed != "pipe" else " | true")
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
        assert made.is_file() and "Traceback" not in done.stderr
        assert done.returncode == (2 if closed != "pipe" else 141), done.stderr


def test_a_tilde_that_the_shell_left_is_home(tmp_path, monkeypatch, pruned, few_records):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(f"evaluate --model {pruned} --tasks tiny_rte --limit 2 --out=~/s.csv".split()) == 0
    train(pruned, tmp_path / "a", "--data", few_records)
    assert main(f"merge --model {pruned} --adapter ~/a --out=~/m".split()) == 0
    assert (tmp_path / "s.csv").is_file() and not (tmp_path / "~").exists()
    assert "not recorded" not in (tmp_path / "m" / "README.md").read_text()


def test_words_that_an_unset_variable_left_out_are_missed(tmp_path, capsys, pruned):
    with pytest.raises(SystemExit):
        main(f"prune --sparsity 50% --method magnitude --out {tmp_path}/o --only".split())
    assert main(["evaluate", "--model", pruned, "--tasks", "tiny_rte", "--limit", "2", "--adapter", ""]) == 2
    assert main(f"prune --sparsity 50% --data {tmp_path}/no.json --out {tmp_path}/o".split()) == 2
    assert "there is no file" in capsys.readouterr().err
    assert main(f"prune --sparsity 50% --out {tmp_path}/o --allocation uniform owl".split()) == 2
