"""spp-lite doctor: every finding, from inputs that are made up, and the whole block on this machine."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from transformers import TrainingArguments

from spp_lite import SppConfig, finetune, load, load_alpaca, prune
from spp_lite.cli import doctor, main
from spp_lite.cli.doctor import Finding
from spp_lite.recover.checks import bfloat16_slowdown, check_arguments


def found(look, about):
    """The one finding of a look about something."""
    (finding,) = [one for one in look() if one.about == about]
    return finding


@pytest.fixture
def versions(monkeypatch):
    """A function that sets a package's version, None: it is not there."""
    real = importlib.metadata.version

    def pretend(name, version):
        def read(asked):
            if asked != name:
                return real(asked)
            if version is None:
                raise importlib.metadata.PackageNotFoundError(asked)
            return version

        monkeypatch.setattr(doctor.metadata, "version", read)

    return pretend


def test_the_block_of_this_machine_names_what_a_report_needs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "MEMORY", 0)
    status = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    abouts = {line[4:].split()[0] for line in lines[:-1]}
    asked = {
        "python",
        "spp_lite",
        *doctor.SHOWN,
        "cores",
        "memory",
        "gpu",
        "bfloat16",
        "data",
        "folder",
        "cache",
        "smollm2",
    }
    assert asked <= abouts | {"jupyterlab", "ipywidgets"}
    wrong = [line for line in lines if line.startswith("FIX")]
    assert status == bool(wrong) and all("To fix: " in line for line in wrong), wrong
    assert lines[-1] == (f"{len(wrong)} to fix" if wrong else "all is well")
    assert not (tmp_path / "cache").exists(), "a doctor changes nothing"


def test_one_wrong_thing_is_counted_named_and_makes_the_status_1(capsys, monkeypatch):
    def broken():
        yield Finding("first", "is well")
        raise RuntimeError("the library\nis broken")

    monkeypatch.setattr(doctor, "LOOKS", (broken, lambda: [Finding("last", "looked at")]))
    assert main(["doctor"]) == 1
    first, second, third, end = capsys.readouterr().out.splitlines()
    assert first == "ok  first         is well" and third == "ok  last          looked at" and end == "1 to fix"
    assert second.startswith("FIX broken        RuntimeError: the library is broken. To fix: ")


@pytest.mark.parametrize(
    "package, version, text, fix",
    [
        ("torch", "2.3.1", "2.3.1, >=2.4 is needed", 'pip install -U "torch>=2.4"'),
        ("scipy", None, "not installed", 'pip install -U "scipy>=1.11"'),
        ("ipywidgets", "7.0", "7.0, >=7.7.1 is needed", 'pip install -U "ipywidgets>=7.7.1"'),
        ("jupyterlab", None, "not installed (notebooks alone need it)", ""),
        ("transformers", "99.0.dev0", "99.0.dev0", ""),
    ],
)
def test_a_package_that_lacks_or_is_too_old(versions, package, version, text, fix):
    versions(package, version)
    finding = found(doctor.packages, package)
    assert finding.found == text and finding.fix.endswith(fix) and bool(finding.fix) == bool(fix)


def test_an_old_python_and_a_checkout_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 2, "final", 0))
    assert found(doctor.packages, "python").fix == "use Python >=3.11"

    def lost(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "metadata", lost)
    (finding,) = doctor.packages()
    assert finding.found == "is not installed" and "pip install -e" in finding.fix


@pytest.mark.parametrize("threads, wrong", [(2, False), (3, True)])
def test_more_threads_than_cores_are_to_be_lowered(monkeypatch, threads, wrong):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 7}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    finding = found(doctor.cores, "cores")
    assert finding.found.endswith(f"{threads} torch threads") and finding.found.startswith("2 of ")
    assert finding.fix.startswith("set SPP_THREADS=2") == wrong == bool(finding.fix)


@pytest.mark.parametrize(
    "free, limit, wrong",
    [(8e9, None, False), (1e9, None, True), (8e9, 5e9, False), (8e9, 1.4e9, True), (8e9, 9e18, False)],
)
def test_memory_is_what_the_machine_and_the_control_group_leave(monkeypatch, free, limit, wrong):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=16e9, available=free))
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=0)))
    monkeypatch.setattr(doctor, "group_limit", lambda: limit)
    finding = found(doctor.memory, "memory")
    assert bool(finding.fix) == wrong and f"{free / 1e9:.1f} GB free of 16.0 GB" in finding.found
    assert ("limited to" in finding.found) == (limit in (5e9, 1.4e9))


@pytest.mark.parametrize(
    "group, limits, right",
    [
        ("0::/a/b", {"memory.max": "max", "a/memory.max": "700", "a/b/memory.max": "900"}, 700),
        ("0::/", {"memory.max": "max"}, None),
        ("9:memory:/x\n8:cpu:/y", {"memory/memory.limit_in_bytes": "800", "memory.max": "1"}, 800),
        ("9:cpu:/x", {"memory.max": "1"}, None),
        (None, {}, None),
    ],
)
def test_the_least_limit_of_a_control_group_and_its_parents_counts(monkeypatch, tmp_path, group, limits, right):
    for name, text in limits.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    if group:
        (tmp_path / "own").write_text(group + "\n")
    monkeypatch.setattr(doctor, "GROUPS", (tmp_path / "own", tmp_path / "fs"))
    assert doctor.group_limit() == right


def test_a_gpu_is_named_with_its_memory_and_bfloat16(monkeypatch):
    for name, value in {
        "is_available": True, "device_count": 1, "get_device_name": "A card", "mem_get_info": (3e9, 4e9),
        "is_bf16_supported": False,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    (finding,) = doctor.gpu()
    assert finding == ("gpu", "A card, 3.0 GB free of 4.0 GB, no bfloat16: leave --bf16 out", "")


@pytest.mark.parametrize(
    "tool, hidden, wrong", [(None, None, False), ("GPU 0: A card (UUID: x)", None, True), ("GPU 0: A card (UUID: x)", "", False), ("Failed", None, False)]
)  # fmt: skip
def test_a_gpu_that_torch_does_not_see_is_wrong_unless_it_is_hidden(monkeypatch, tool, hidden, wrong):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: tool and "nvidia-smi")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=tool))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (finding,) = doctor.gpu()
    assert bool(finding.fix) == wrong and finding.found.startswith("GPU 0: A card is here" if wrong else "none")


@pytest.mark.parametrize("times, text", [(0.6, "computed natively"), (50.0, "emulated: leave --bf16 out")])
def test_an_emulated_bfloat16_is_said_and_is_no_fault(monkeypatch, times, text):
    monkeypatch.setattr("spp_lite.recover.checks.bfloat16_slowdown", lambda: times)
    (finding,) = doctor.bfloat16()
    assert finding.found.startswith(text) and f"{times:g} times" in finding.found and not finding.fix


def test_bfloat16_is_measured_as_a_ratio():
    assert 0 < bfloat16_slowdown() < 1e5 and bfloat16_slowdown() is bfloat16_slowdown()


@pytest.mark.parametrize("extension", [True, False])
def test_widgets_are_looked_for_where_jupyterlab_looks(monkeypatch, tmp_path, extension):
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [str(tmp_path / "no"), str(tmp_path)])
    if extension:
        (tmp_path / "@jupyter-widgets").mkdir()
    assert ("pip install ipywidgets" in found(doctor.widgets, "widgets").fix) != extension


def test_files_of_a_wheel_are_told_from_lost_and_changed_ones(wheel, tmp_path, monkeypatch):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (info,) = tmp_path.glob("*.dist-info")
    monkeypatch.setattr(doctor.metadata, "files", lambda _: importlib.metadata.PathDistribution(info).files)
    assert doctor.changed_files() == []
    data = Path("spp_lite", "_data")
    one, two = data / "tiny_alpaca" / "train.json", data / "tiny-llama" / "model.safetensors"
    content = bytearray((tmp_path / one).read_bytes())
    content[-20] ^= 1  # of the same length
    (tmp_path / one).write_bytes(content)
    (tmp_path / two).unlink()
    assert set(doctor.changed_files()) == {str(one), str(two)}
    (finding,) = doctor.data()
    assert finding.found.startswith("2 files are not those of the wheel") and "install spp_lite again" in finding.fix


def test_data_that_do_not_load_are_wrong(monkeypatch):
    def torn(_):
        raise ValueError("the model\ncannot be loaded")

    monkeypatch.setitem(vars(sys.modules["spp_lite"]), "load", torn)
    (finding,) = doctor.data()
    assert finding.found == "cannot be loaded: the model cannot be loaded" and "git checkout data" in finding.fix


def test_folders_that_cannot_be_written_to_or_are_full(monkeypatch, tmp_path):
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "config.json").touch()
    monkeypatch.setenv("SPP_CACHE", str(tmp_path))
    assert found(doctor.folders, "smollm2").found == "in the cache" and not found(doctor.folders, "cache").fix
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9e8))
    assert found(doctor.folders, "folder").fix.startswith("make room there, or start it in another folder")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPP_CACHE", str(tmp_path / "file"))
    finding = found(doctor.folders, "cache")
    assert "is a file" in finding.found and finding.fix == "set SPP_CACHE to another"
    assert "not fetched" in found(doctor.folders, "smollm2").found


def test_the_doctor_works_where_torch_is_broken(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no libcudart')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import sys; from spp_lite.cli import main; sys.exit(main())"]
    done = subprocess.run([*command, "doctor"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "FIX cores         ImportError: no libcudart. To fix: " in done.stdout, done.stdout
    assert "ok  python" in done.stdout and "Traceback" not in done.stderr, done.stderr
    other = subprocess.run([*command, "prune"], env=env, capture_output=True, text=True)
    assert other.returncode == 1 and "no libcudart" in other.stderr, "other commands do not start at all"


@pytest.mark.parametrize(
    "bf16, device, times, warned", [(True, "cpu", 9, True), (True, "cpu", 1.2, False), (True, "cuda", 9, False), (False, "cpu", 9, False)]
)  # fmt: skip
def test_bfloat16_is_warned_of_on_a_cpu_that_emulates_it(monkeypatch, recwarn, bf16, device, times, warned):
    monkeypatch.setattr("spp_lite.recover.checks.bfloat16_slowdown", lambda: times)
    given = {
        "get_warmup_steps": lambda steps: 0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "lr_scheduler_kwargs": None,
    }
    check_arguments(SimpleNamespace(bf16=bf16, device=torch.device(device), **given), 10)
    told = [str(one.message) for one in recwarn if "emulates bfloat16" in str(one.message)]
    assert (
        told
        == ["this CPU emulates bfloat16 (a matrix product takes 9 times as long as in float32): train without bf16"]
        * warned
    )


@pytest.mark.parametrize("whole", [False, True])
def test_training_warns_before_its_first_step(monkeypatch, tmp_path, whole):
    monkeypatch.setattr("spp_lite.recover.checks.bfloat16_slowdown", lambda: 50)
    monkeypatch.setattr("spp_lite.recover.training._train", lambda *_: pytest.fail("a step was taken"))
    model, tokenizer = load("tiny")
    prune(model, sparsity="2:4", method="magnitude", progress=False)
    adapted = peft.get_peft_model(model, SppConfig())
    given = {"bf16": True, "max_steps": 1}
    if whole:  # as spp-lite finetune gives them
        given = {"args": TrainingArguments(str(tmp_path), bf16=True, use_cpu=True, max_steps=1, report_to="none")}
    with pytest.warns(UserWarning, match="emulates bfloat16"), pytest.raises(pytest.fail.Exception, match="a step"):
        finetune(adapted, load_alpaca("tiny").select(range(4)), tokenizer, **given)


def test_whoever_meets_a_bug_is_sent_to_the_doctor(monkeypatch, capsys):
    def broken(_):
        raise KeyError("surprise")

    monkeypatch.setattr("spp_lite.cli.evaluate.run", broken)
    assert main(["evaluate"]) == 1 and "`spp-lite doctor` prints" in capsys.readouterr().err
    root = Path(__file__).parents[2]
    for page in (root / "README.md", root / ".github" / "ISSUE_TEMPLATE" / "bug.md"):
        assert "`spp-lite doctor`" in page.read_text(encoding="utf-8")
