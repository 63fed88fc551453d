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
LAYERS = [  # a module may import only from those before it
    "sparsity", "kernels", "calibration", "criteria", "allocation", "pruning", "adapter", "merging", "baselines", "data",
    "models",
    "training", "evaluation", "experiment", "plotting", "widgets", "labs", "checks", "cli",
]  # fmt: skip
LAZY = {("pruning", "plotting"), ("data", "models")}  # inside a function: report.plot(), the network check
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


def test_the_wheel_carries_model_and_data(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 250
    parts = path.relative_to(ROOT / "spp_lite").with_suffix("").parts
    here = parts[0]
    if here in ("__init__", "cli", "cli_runs"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == len(parts):
            for name in [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]:
                assert LAYERS.index(name) < LAYERS.index(here) or (here, name) in LAZY, f"{here} imports {name}"


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
        if path.name in ("cli.py", "cli_runs.py", "widgets.py") or "checks" in path.parts:
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
