"""Shared by all tests: threads, order, progress, and what every notebook run under nbmake must keep: offline, in memory."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from progress import Progress, usual

HERE = Path(__file__).parent
_SCRATCH = Path(tempfile.mkdtemp(prefix="spp-lite-kernels-"))
shutil.copytree(HERE / "notebooks" / "profile", _SCRATCH / "ipython")
(_SCRATCH / "peaks").mkdir()
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spp_lite/__init__.py says why; tests import torch before it
os.environ.setdefault("SPP_THREADS", "1")  # pytest -n 2 has two processes
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MALLOC_MMAP_MAX_", "0")  # with glibc, freed memory is kept for the next tensor: giving it
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))  # back each time took a third of some notebooks' time
os.environ["IPYTHONDIR"] = str(_SCRATCH / "ipython")  # its start-up file blocks the network and notes the memory
os.environ["SPP_NOTEBOOK_PEAKS"] = str(_SCRATCH / "peaks")
BUDGETS = json.loads((HERE.parent / "notebooks" / "budgets.json").read_text())
MEMORY = 1.5e6  # kB
REAL = Path(os.environ.get("SPP_REAL_DATA", HERE.parents[1] / "shared" / "real-data"))
ALONE = ("test_exercises.py", "test_real_model.py")  # their tests share nothing


hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
hypothesis.settings.load_profile("any machine")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config, BUDGETS))


def share(name):
    """What one process does in a row: a file, for its fixtures, but a notebook at a time where they have none."""
    file, _, _ = name.partition("::")
    return name if file.endswith(ALONE) else file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Unit tests first; then notebooks and whole jobs, the longest first: the processes end together."""
    before = config.cache.get("spp/seconds", {}) if hasattr(config, "cache") else {}
    seconds = Counter()
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("slow")
        if item.get_closest_marker("slow"):
            seconds[share(item.nodeid)] += usual(item.nodeid, before, BUDGETS, otherwise=30)
    items.sort(key=lambda item: -seconds[share(item.nodeid)] if item.get_closest_marker("slow") else -math.inf)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the processes their shares, in the order above."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Shares(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return share(nodeid)

    return Shares(config, log)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built once, whichever of pytest-xdist's workers asks first."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "wheel.lock"):
        if not list((folder / "wheel").glob("*.whl")):
            command = ["-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder / "wheel"), str(HERE.parent)]
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (built,) = (folder / "wheel").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def few_records(tmp_path_factory):
    """A file of forty of the embedded records: where any records do, to tokenize all six thousand takes ten times as
    long as the training."""
    from spp_lite import load_alpaca

    path = tmp_path_factory.mktemp("records") / "few.json"
    path.write_text(json.dumps(load_alpaca("tiny").select(range(40)).to_list()))
    return str(path)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real records, texts and tokenizer; skips where it is not."""
    names = ("llama2_tokenizer.model", "alpaca_en_999.json", "c4_100.jsonl", "wiki_400k.txt")
    if not all((REAL / name).exists() for name in names):
        pytest.skip(f"the real files are not in {REAL} (set SPP_REAL_DATA)")
    return REAL


@pytest.fixture(scope="session")
def llama(real_data, tmp_path_factory):
    """A small LLaMA with random weights and the real tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder = tmp_path_factory.mktemp("models") / "random-llama"
    folder.mkdir()
    shutil.copyfile(real_data / "llama2_tokenizer.model", folder / "tokenizer.model")
    tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def drive(record_property):
    """A function that takes a lab through its states, and notes for the table at the end what a move costs."""

    def through(lab):
        lab.selftest()
        times = []
        for _ in range(5):
            start = time.thread_time()
            lab.render(**lab.state)
            times.append(time.thread_time() - start)
        line = f"{type(lab).__name__:<16} {statistics.median(times):8.2f} s"
        record_property("a lab's move: the goal is 0.15 s of the processor", line)

    return through


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A notebook fails when it takes too much memory; its time goes into a table, beside budget and box."""
    report = yield
    if report.when != "call" or item.path.suffix != ".ipynb" or not report.passed:
        return report
    notes = list((_SCRATCH / "peaks").iterdir())
    peak = max((int(note.read_text()) for note in notes), default=0)
    for note in notes:
        note.unlink()
    if peak > MEMORY:
        report.outcome = "failed"
        report.longrepr = f"took {peak / 1e6:.2f} GB of memory, {MEMORY / 1e6} are allowed"
    times = BUDGETS[item.path.name[:2]]
    line = f"{item.path.stem:<32} {times['budget']:6} s {times['measured']:6} s {report.duration:6.0f} s {peak / 1e6:6.2f} GB"
    report.user_properties.append(("notebook: budget, in its box, took here, memory", line))
    return report


def pytest_unconfigure():
    shutil.rmtree(_SCRATCH, ignore_errors=True)
