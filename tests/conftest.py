"""Shared by all tests: threads, and what every notebook run under nbmake must keep: offline, in time, in memory."""

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_SCRATCH = Path(tempfile.mkdtemp(prefix="spp-lite-kernels-"))
shutil.copytree(HERE / "notebooks" / "profile", _SCRATCH / "ipython")
(_SCRATCH / "peaks").mkdir()
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SPP_THREADS", "2")
os.environ["IPYTHONDIR"] = str(_SCRATCH / "ipython")  # its start-up file blocks the network and notes the memory
os.environ["SPP_NOTEBOOK_PEAKS"] = str(_SCRATCH / "peaks")
BUDGETS = json.loads((HERE.parent / "notebooks" / "budgets.json").read_text())
MEMORY = 1.5e6  # kB
STALLED = 5  # a shared machine may be this many times slower for a while
REAL = Path(os.environ.get("SPP_REAL_DATA", HERE.parents[1] / "shared" / "real-data"))


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
def drive():
    """A function that takes a lab through its states; a move must cost little of the processor's time."""

    def through(lab):
        lab.selftest()
        times = []
        for _ in range(5):
            start = time.thread_time()
            lab.render(**lab.state)
            times.append(time.thread_time() - start)
        assert statistics.median(times) < 0.5  # the goal is 0.15: machines differ, and stall

    return through


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A notebook fails when it takes far longer than its budget (nbmake's limit is per cell) or too much memory.

    The measured time that its box prints is held to the budget itself, in test_editions; here the machine may stall.
    """
    report = yield
    if report.when != "call" or item.path.suffix != ".ipynb" or not report.passed:
        return report
    budget = STALLED * BUDGETS[item.path.name[:2]]["budget"]
    peaks = [int(note.read_text()) for note in (_SCRATCH / "peaks").iterdir()]
    for note in (_SCRATCH / "peaks").iterdir():
        note.unlink()
    if report.duration > budget:
        report.outcome, report.longrepr = "failed", f"took {report.duration:.0f} s, {budget} s at most are allowed"
    if peaks and max(peaks) > MEMORY:
        report.outcome, report.longrepr = (
            "failed",
            f"took {max(peaks) / 1e6:.2f} GB of memory, {MEMORY / 1e6} are allowed",
        )
    report.sections.append(("notebook", f"{report.duration:.0f} s, {max(peaks, default=0) / 1e6:.2f} GB"))
    return report


def pytest_unconfigure():
    shutil.rmtree(_SCRATCH, ignore_errors=True)
