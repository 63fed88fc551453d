"""The files around the code agree with each other, and the code keeps its own rules."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")
HOUSE = {  # rooms and their files, from the ground up: a file imports only what stands before it, wherever the import is
    "arguments": [], "writing": [], "storage": [], "packed": [], "convert": [], "models": [],
    "pruning": ["sparsity", "criteria", "blocks", "calibration", "allocation", "prune"],
    "inference": [],
    "adapter": ["kernels", "base", "config", "layer", "tuner", "merging", "loading"],
    "recover": ["reading", "data", "checkpoints", "checks", "training", "perplexity", "texttasks", "evaluation"],
    "experiment": ["statistics", "plotting", "panels", "baselines", "recipe", "runs", "table", "report"], "cli": [],
    "teaching": ["widgets", "figures", "labs", "checks"],
}  # fmt: skip
PLACES = [f"{room}.{file}".rstrip(".") for room, files in HOUSE.items() for file in ["", *files]]
MODULES = sorted((ROOT / "spp_lite").rglob("*.py"))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements():
    extras = PROJECT["optional-dependencies"]
    return [
        Requirement(line) for line in PROJECT["dependencies"] + [item for extra in extras.values() for item in extra]
    ]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_has_an_exact_pin_it_accepts(requirement):
    pins = {normal(name): version for name, version in PINS.items()}
    assert normal(requirement.name) in pins
    assert requirement.specifier.contains(Version(pins[normal(requirement.name)]))
    assert not any(part.operator in ("==", "<", "<=", "~=") for part in requirement.specifier), "lower bounds only"


def test_conda_environment_installs_this_package_with_the_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert Version(python.split("=")[1]) >= Version(lowest)
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    extras = ",".join(PROJECT["optional-dependencies"])
    assert pip == ["--constraint constraints.txt", f"--editable .[{extras}]"]


def test_the_wheel_carries_model_and_data(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert wheel.stat().st_size < 16e6
    code = "import spp_lite; m, t = spp_lite.load('tiny'); print(spp_lite.__file__, len(spp_lite.load_alpaca('tiny')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, records = done.stdout.split()
    assert where.startswith(str(tmp_path / "site")) and int(records) >= 5000


def place(dotted):
    """The place of "pruning.sparsity.Sparsity" in the house: of the file, else of the room."""
    room, _, rest = dotted.partition(".")
    return PLACES.index(f"{room}.{rest.split('.')[0]}") if rest.split(".")[0] in HOUSE[room] else PLACES.index(room)


def lines(path):
    """A file's lines but those of the examples in its docstrings, each of which runs (test_examples.py)."""
    return re.sub(r'\n+ *>>> .*?(?=\n *""")', "", path.read_text(encoding="utf-8"), flags=re.S).splitlines()


def imports(path):
    """What a file imports of this package, as dotted names below it; lazy imports too."""
    above = path.relative_to(ROOT / "spp_lite").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("spp_lite")):
            base = above[: len(above) - node.level + 1] if node.level else ()
            base = [*base, *(node.module or "").removeprefix("spp_lite").strip(".").split(".")]
            yield from (".".join(filter(None, [*base, alias.name])) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_files_stay_short(path):
    assert len(lines(path)) <= 250
    parts = path.relative_to(ROOT / "spp_lite").with_suffix("").parts
    if parts[-1] in ("__init__", "__main__"):  # doors: a room's front, and the package's
        return
    here = place(".".join(parts))
    for name in imports(path):
        if name.split(".")[0] not in HOUSE:  # a public name, through the package's lazy door
            assert parts[0] in ("cli", "teaching"), f"{path} imports {name} through the front door"
        elif not (parts[0] == name.split(".")[0] in ("cli", "teaching")):
            assert place(name) < here, f"{'.'.join(parts)} imports {name}"


def test_the_core_does_not_grow():
    core = [path for path in MODULES if "teaching" not in path.parts]
    assert sum(len(lines(path)) for path in core) <= 7_230


def test_functions_are_short():
    long = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[1 if documented and len(node.body) > 1 else 0]
                if node.end_lineno - first.lineno + 1 > 30:
                    long.append(f"{path.name}:{node.name}")
    assert not long


def test_only_the_commands_print():
    for path in MODULES:
        if {"cli", "checks"} & set(path.parts) or path.name == "widgets.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
