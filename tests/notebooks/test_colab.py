"""Colab, as its versions allow it here: ipywidgets 7.7.1 and the oldest transformers and peft that we support.

A virtual environment sees this one's packages but not spp_lite, has older ones on top, and gets the wheel by the
notebooks' own set-up cell. Torch stays this environment's: an older one would bring gigabytes of CUDA.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
NEEDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
OLDEST = [line.replace(">=", "==") for line in NEEDS if line.startswith(("transformers>", "peft>"))]
RUN = """
import nbformat, sys
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
(first,) = [number for number, cell in enumerate(notebook.cells) if "setup" in cell.metadata.get("tags", [])]
if sys.argv[2:]:
    notebook.cells = notebook.cells[first:first + 1]
else:
    notebook.cells.insert(first, notebook.cells[first].copy())  # people run it twice
NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A folder as a Colab session has it: a notebook, and a Python without spp_lite."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    base = Path(site) / "base"  # within site-packages: dill, which data sets are hashed by, looks for that name
    base.mkdir()
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if not found.name.startswith(("spp_lite", "pip")) and found.suffix != ".pth":
            (base / found.name).symlink_to(found)
    (Path(site) / "base.pth").write_text(f"{base}\n")
    command = [python, "-m", "pip", "install", "-q", "ipywidgets==7.7.1", f"torch=={torch.__version__}", *OLDEST]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index to take Colab's versions from: {done.stderr[-300:]}")
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", folder)
    return folder


def versions(folder):
    command = [folder / "venv" / "bin" / "python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    rows = json.loads(subprocess.check_output(command, text=True))
    return {row["name"].lower().replace("_", "-"): row["version"] for row in rows}


def run(folder, *only_the_set_up_cell):
    command = [folder / "venv" / "bin" / "python", "-c", RUN, "00_start_here.ipynb", *only_the_set_up_cell]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_set_up_cell_installs_the_wheel_and_touches_nothing_else(colab, wheel):
    before = versions(colab)
    assert "spp-lite" not in before and before["ipywidgets"] == "7.7.1"
    done = run(colab, "only the set-up cell")
    assert done.returncode and "Put the wheel that" in done.stderr and versions(colab) == before
    shutil.copy(wheel, colab)
    done = run(colab)
    assert done.returncode == 0, done.stderr[-3000:]
    after = versions(colab)
    assert after.pop("spp-lite") and after == before


def test_labs_work_with_the_oldest_widgets(colab):
    """After the test above: the wheel is installed there."""
    labs = [path for path in (ROOT / "tests" / "teaching").glob("test_*.py") if path.stem != "test_checks"]
    assert len(labs) >= 10
    command = [colab / "venv" / "bin" / "python", "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", colab]
    done = subprocess.run(
        [*command, "-c", ROOT / "pyproject.toml", *sorted(labs)], cwd=colab, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
