"""What a kill, a full disk, a read-only folder or a second process leaves: the same command again gives what one run gives.

A command runs in a fork of this process, which has imported everything, and is killed before one of its file operations;
what it was writing then is cut somewhere. Nothing depends on a clock.
"""

import hashlib
import json
import multiprocessing.util
import os
import random
import resource
import shutil
import signal
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import matplotlib.figure
import pandas as pd
import peft
import pytest
import safetensors.torch
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import spp_lite.cli.finetune
import spp_lite.cli.sweep
import spp_lite.experiment.report
import spp_lite.experiment.table as tables
from spp_lite import SppConfig, load_alpaca, prune
from spp_lite.cli import main
from spp_lite.models import embedded, load_tokenizer, require_writable, save
from spp_lite.recover.checkpoints import NOTE
from spp_lite.writing import alone, replaced

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of this process")
POINTS = 20
TIMES = ["seconds", "peak_mib"]  # columns that no two runs share
CHANGES = "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "written"
COMMANDS = {
    "prune": "prune --model {}/dense --sparsity 2:4 --method magnitude --out out",
    "merge": "merge --model {}/pruned --adapter {}/adapter --out out",
    "finetune": "finetune --model {}/pruned --data {}/data.json --output-dir out --max-steps 3 --save-steps 1 "
    "--save-total-limit 2 --per-device-train-batch-size 1 --r 4 --learning-rate 1e-2 --resume-from-checkpoint true "
    "--report-to none --use-cpu true",
    "sweep": "sweep --model {}/dense --data {}/data.json --calibration {}/text.jsonl --calibration-samples 2 "
    "--calibration-length 8 --tasks none --text {}/text.jsonl --text-tokens 64 --methods none spp --pruners magnitude "
    "--sparsity 50% 2:4 --seeds 1 --steps 1 --try-rates 1e-2 1e-3 --out out",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a model of two small blocks, the same pruned, an adapter for that, records and texts."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = load_tokenizer(embedded("tiny-llama"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    save(model, tokenizer, folder / "dense")
    prune(model, None, "2:4", method="magnitude", progress=False)
    save(model, tokenizer, folder / "pruned")
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "spp_" in name:
                value.normal_(0, 0.02)
    adapted.save_pretrained(folder / "adapter")
    records = load_alpaca("tiny").select(range(24))
    (folder / "data.json").write_text(json.dumps(list(records)))
    texts = embedded("text", "calibration.jsonl").read_text().splitlines()[:12]
    (folder / "text.jsonl").write_text("\n".join(texts))
    (folder / "once").mkdir()
    assert run(folder, COMMANDS["finetune"], folder / "once")[0] == 0
    # as if that run had made the adapter: another's is not replaced
    shutil.copy(folder / "once" / "out" / NOTE, folder / "adapter")
    return folder


def fake_run(recipe, run):
    """A row without the work: what its run is called decides its scores."""
    digest = int(hashlib.sha256(repr(run).encode()).hexdigest()[:6], 16)
    return {**asdict(run), "error": "", "perplexity": digest / 7, "parameters": 5, "seconds": time.time()}


def endless_run(recipe, run):
    """As fake_run, but only the dense model's ends."""
    if run.method == "dense":
        return fake_run(recipe, run)
    Path(f"{os.getpid()}.run").touch()
    time.sleep(3600)


def count_changes(folder, kill_at, cut, log):
    """From here on every change of a file under `folder` is noted; before number `kill_at` this process is killed, and
    the file that it was writing is cut to the share `cut`."""
    state = {"last": None, "busy": False}

    def hook(event, given):
        if event not in CHANGES or state["busy"] or not isinstance(given[0], str | os.PathLike):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        path = os.path.abspath(given[0])
        if not path.startswith(str(folder)) or path == str(folder):
            return
        log.append([event, path])
        if len(log) == kill_at:
            state["busy"] = True
            if state["last"] and cut is not None and os.path.isfile(state["last"]):
                os.truncate(state["last"], int(os.path.getsize(state["last"]) * cut))
            os.kill(os.getpid(), signal.SIGKILL)
        state["last"] = path if event in ("open", "written") else None

    def told(write, place):
        def wrapped(what, path, *args, **kwargs):
            write(what, path, *args, **kwargs)
            sys.audit("written", path) if isinstance(path, str | os.PathLike) else None

        setattr(*place, wrapped)

    told(safetensors.torch.serialize_file, (safetensors.torch, "serialize_file"))  # neither is Python, and so not seen
    told(torch.save, (torch, "save"))
    sys.addaudithook(hook)


def start(world, words, where, *, kill_at=0, cut=None, prepare=lambda: None):
    """A command in a fork of this process, in the folder `where`. Returns its number, and a file of what it says."""
    said, out = os.pipe()
    pid = os.fork()
    if pid:
        os.close(out)
        return pid, os.fdopen(said)
    status, log = 99, []
    try:
        multiprocessing.util._run_after_forkers()  # as its own forks do: what this process has begun is not the child's
        warnings.resetwarnings()  # they are said, as in a process of its own
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        signal.alarm(1800)  # a hang ends, on a slow machine too
        os.chdir(where)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        tables.do_run = fake_run
        spp_lite.experiment.report.figures_of = lambda *_: {"figure": matplotlib.figure.Figure((1, 1))}
        prepare()
        count_changes(where, kill_at, cut, log)
        status = main(words.replace("{}", str(world)).split())
        with suppress(OSError):  # the disk may be full
            Path(f"{where}.json").write_text(json.dumps(log))
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def ended(pid):
    """The exit status of a fork, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(world, words, where, **given):
    """(exit status, what it said) of a command."""
    pid, out = start(world, words, where, **given)
    with out:
        said = out.read()
    return ended(pid), said


def content(folder):
    """File → what must be the same in two runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".csv" and ".spp-lite-new" not in str(path):  # what is being written may be torn
            table = pd.read_csv(path)
            found[str(path.relative_to(folder))] = table.drop(columns=TIMES, errors="ignore").to_csv()
        elif path.suffix == ".png" or path.name in ("training_args.bin", "trainer_state.json") or path.is_dir():
            found[str(path.relative_to(folder))] = "there"  # these hold times or paths
        else:
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def before(name, world, where):
    """What a user may have had there."""
    (where / "mine.txt").write_text("mine")
    if name in ("prune", "merge"):
        shutil.copytree(world / "dense", where / "out")
        (where / "out" / "README.md").write_text("an older model")
    elif name == "finetune":
        shutil.copytree(world / "adapter", where / "out")
        (where / "out" / "notes.txt").write_text("mine")
    else:  # a part of this sweep, put aside for one of another text
        part = COMMANDS["sweep"].replace("50% 2:4", "50%")
        assert run(world, part, where)[0] == 0
        assert run(world, part.replace("64", "32"), where)[0] == 0


def check_killed(name, where, first, whole):
    """What a kill may leave: the old folder, none or the new one; a table with some of the rows; the user's own files."""
    found, out = content(where), where / "out"
    assert all(found[path] == kept for path, kept in first.items() if path.endswith(("mine.txt", "notes.txt")))
    if name in ("prune", "merge"):
        mine = {path: kept for path, kept in found.items() if path.startswith("out")}
        assert not mine or mine in ({k: v for k, v in one.items() if k.startswith("out")} for one in (first, whole))
    elif name == "finetune" and (out / "adapter_config.json").exists():
        names = [f"out/{file}" for file in ("adapter_model.safetensors", "adapter_config.json")]
        assert [found[file] for file in names] in [[one.get(file) for file in names] for one in (first, whole)]
    for path in out.glob("[a-z]*.csv") if name == "sweep" else ():
        tables.read_table(path)  # refuses a row that is torn or there twice


def kill_and_go_on(name, world, folder, points, again=None):
    """Kill a command at so many points of its file operations; each time the same command then ends as one that was not."""
    draw, words = random.Random(name), COMMANDS[name]
    runs = {}
    for old in (False, True):
        first, where = folder / f"first{old}", folder / f"whole{old}"
        first.mkdir()
        if old:
            before(name, world, first)
        shutil.copytree(first, where)
        assert run(world, words, where)[0] == 0
        log = json.loads(Path(f"{where}.json").read_text())
        runs[old] = first, content(first), content(where), log
    places = [(old, at) for old in runs for at in range(1, len(runs[old][3]) + 1)]
    for old, at in draw.sample(places, min(points, len(places))) + draw.choices(places, k=max(0, points - len(places))):
        first, there, whole, log = runs[old]
        where = folder / "killed"
        shutil.copytree(first, where)
        cut = draw.choice((None, 0, draw.random()))
        told = f"{name} into {'what was there' if old else 'nothing'}, killed before {at}, {log[at - 1]}, cut {cut}"
        assert run(world, words, where, kill_at=at, cut=cut)[0] == -signal.SIGKILL, told
        check_killed(name, where, there, whole)
        status, said = run(world, words, where)
        assert status == 0, f"{told}: {said}"
        found = content(where)
        assert found == whole, f"{told}: { ({*found.items()} ^ {*whole.items()}) }"
        shutil.rmtree(where)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_is_made_good_by_the_same_command(name, world, tmp_path):
    kill_and_go_on(name, world, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_twenty_points_is_made_good_by_the_same_command(name, world, tmp_path):
    kill_and_go_on(name, world, tmp_path, POINTS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_full_is_one_sentence_and_leaves_what_was_there(name, world, tmp_path):
    where, least = tmp_path / "full", 1000 if name == "sweep" else 8000
    where.mkdir()
    before(name, world, where) if name != "sweep" else (where / "out").mkdir()
    first = content(where)

    def full():  # the system itself then refuses, in Rust and C++, too
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, least))

    status, said = run(world, COMMANDS[name], where, prepare=full)
    assert status == 2 and said.count(f"spp-lite {name}: error: ") == 1 and "cannot be written" in said, said
    left = {path: kept for path, kept in content(where).items() if "checkpoint-" not in path}
    for path in [path for path in left if path not in first]:  # of a sweep, the rows until then
        assert name == "sweep" and len(tables.read_table(where / path))
        del left[path]
    assert left == first


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_on_another_file_system_is_written_all_the_same(name, world, tmp_path):
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    there, here = shared / f"spp-lite-test-{os.getpid()}-{name}", tmp_path / "here"
    try:
        there.mkdir(), here.mkdir()
        assert run(world, COMMANDS[name], here)[0] == 0
        status, said = run(world, COMMANDS[name].replace(" out", f" {there}/out"), here)
        assert status == 0, said
        assert content(there) == content(here)
    finally:
        shutil.rmtree(there)


def as_nobody(folder, act):
    """Do it in a fork that is not root, whom no permission stops; returns what it raised."""
    pid = os.fork()
    if not pid:
        try:
            os.setuid(65534) if os.getuid() == 0 else None
            act()
        except ValueError as error:
            (folder / "said").write_text(str(error))
        finally:
            os._exit(0)
    assert ended(pid) == 0
    return (folder / "said").read_text()


@pytest.mark.parametrize("model", [True, False])
def test_a_folder_that_may_only_be_read_is_refused_before_the_work(model, tmp_path_factory):
    """A model takes its folder's place: it needs the folder above, too."""
    folder = Path(os.path.realpath(os.environ.get("TMPDIR", "/tmp"))) / f"spp-lite-test-{os.getpid()}"
    try:
        (folder / "closed" / "out").mkdir(parents=True)
        folder.chmod(0o777)
        (folder / "closed" / "out").chmod(0o777 if model else 0o555)
        (folder / "closed").chmod(0o555)
        said = as_nobody(folder, lambda: require_writable(folder / "closed" / "out", model=model))
        place = folder / "closed" if model else folder / "closed" / "out"
        assert said == f"nothing can be written to {folder}/closed/out: Permission denied at {place}"
    finally:
        (folder / "closed").chmod(0o777)
        shutil.rmtree(folder)


def test_a_lock_keeps_a_second_process_away_and_goes_with_the_first(world, tmp_path):
    where, path = tmp_path / "two", tmp_path / "two" / "out" / "sweep.csv"
    path.parent.mkdir(parents=True)
    ready, write = os.pipe()
    if not (pid := os.fork()):
        with alone(path):
            os.write(write, b"1")
            signal.pause()
    os.read(ready, 1)
    status, said = run(world, COMMANDS["sweep"], where)
    assert status == 2 and "another process is writing out/sweep.csv: wait for it" in said, said
    assert not path.exists()
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    assert run(world, COMMANDS["sweep"], where)[0] == 0 and len(tables.read_table(path)) == 5


def works(pid):
    """Is there such a process, and is it more than a number that nobody has asked for its end?"""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_sweep_ends_its_processes_and_its_table_is_whole(world, tmp_path, number):
    """The signal goes to the sweep alone; its runs would take an hour."""
    where = tmp_path / "stopped"
    where.mkdir()

    def prepare():  # forks, which are ready at once, for spawned processes
        context = tables.multiprocessing.get_context("fork")
        tables.multiprocessing.get_context = lambda kind: context
        tables.do_run = endless_run

    words = COMMANDS["sweep"].replace("none spp", "none") + " --jobs 2"
    pid, out = start(world, words, where, prepare=prepare)
    while len(workers := list(where.glob("*.run"))) < 2 or not (where / "out" / "sweep.csv").exists():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), out.read()
        time.sleep(0.1)
    os.kill(pid, number)
    assert ended(pid) == (130 if number == signal.SIGINT else -number)
    deadline = time.monotonic() + 120  # it takes a moment; an hour is what it must not take
    while any(works(path.stem) for path in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [path for path in workers if works(path.stem)]
    out.close()
    assert [row["method"] for row in tables.read_table(where / "out" / "sweep.csv").to_dict("records")] == ["dense"]


def test_a_file_takes_its_place_whole(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    message = r"a.csv cannot be written \(No space left on device\): what was there is still there"
    with pytest.raises(OSError, match=message), replaced(tmp_path / "a.csv") as new:
        new.write_text("half")
        raise OSError(28, os.strerror(28))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
