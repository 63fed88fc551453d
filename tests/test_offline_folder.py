"""The folder of `make offline` is enough in a room without a network: its README's own lines, a notebook's first cells.

Builds the whole folder and installs all of it: 73 s and 76 s, measured apart; the 2.3 GB of disk are given back.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = """
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read("notebooks/exercises/00_start_here.ipynb", as_version=4)
cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
assert "setup" in cells[0].metadata.tags
where = "import spp_lite; print(spp_lite.__file__, spp_lite.load()[0].num_parameters() > 1e6)"
notebook.cells = [*cells[:2], nbformat.v4.new_code_cell(where)]
NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": "notebooks/exercises"}}).execute()
print(*(output.text for output in notebook.cells[-1].outputs if output.get("name") == "stdout"))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make offline` builds, carried to another place."""
    scratch = tmp_path_factory.mktemp("offline")
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch / "probe", "hatchling"]
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index to take wheels from: {done.stderr[-300:]}")
    done = subprocess.run(
        [sys.executable, ROOT / "workshop" / "offline.py", scratch / "built"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    yield (scratch / "built").rename(scratch / "carried to a laptop")
    subprocess.run(["sh", "-c", 'rm -rf "$1" &', "sh", scratch], check=True)  # a whole environment takes minutes


@pytest.fixture(scope="module")
def room(folder):
    """A function that runs a command in the folder as a new user, whose pip reads no settings and reaches no index."""
    mine = {name: value for name, value in os.environ.items() if not name.upper().startswith(("PIP_", "PYTHON"))}
    refusing = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "http://127.0.0.1:9")
    home = {"HOME": str(folder / "home"), "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    home["PIP_NO_COMPILE"] = "0"  # pip reads it so: 0 leaves the compiling out

    def run(*command, shell=False):
        command = command[0] if shell else command
        return subprocess.run(
            command, shell=shell, cwd=folder, env={**mine, **refusing, **home}, capture_output=True, text=True
        )

    return run


def test_the_readmes_lines_install_and_the_first_cells_run_with_no_network(room, folder):
    lines = re.findall(r"^    (\S.*)", (folder / "README.md").read_text(), re.M)[:3]
    venv, install, lab = lines
    python = f"python{sys.version_info[0]}.{sys.version_info[1]} "
    assert venv.startswith(python) and "pip install" in install and "jupyter lab" in lab
    done = room(venv.replace(python, f"'{sys.executable}' "), shell=True)
    assert done.returncode == 0, done.stderr
    there = ".venv/bin/python"
    asked = room(there, "-m", "pip", "download", "--no-deps", "hatchling")
    assert asked.returncode, "the network was not cut off: what follows would show nothing"
    done = room(install, shell=True)
    assert done.returncode == 0, done.stderr[-3000:]
    done = room(f"{lab} --version", shell=True)
    assert done.returncode == 0, done.stderr[-3000:]
    done = room(there, "-c", RUN)
    assert done.returncode == 0, done.stderr[-3000:]
    where, loaded = done.stdout.strip().splitlines()[-1].rsplit(maxsplit=1)  # the folder's name has blanks
    assert loaded == "True" and Path(where).is_relative_to(folder / ".venv"), done.stdout


def test_smollm2_unpacks_from_the_folder(room, folder):
    """After the test above: the library is installed there."""
    (line,) = re.findall(r"^    (.* fetch smollm2)$", (folder / "README.md").read_text(), re.M)
    done = room(line, shell=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pages_that_the_notebooks_link_are_in_the_folder(folder):
    notebooks = list((folder / "notebooks").glob("*.ipynb"))
    links = {link for path in notebooks for link in re.findall(r"\]\((\.\./[^)#]+)", path.read_text())}
    assert len(notebooks) == 10 and links
    assert not [link for link in links if not (folder / "notebooks" / link).exists()]
