"""Run the notebooks up to their labs and let each lab's states be rendered ahead; what did not change is kept.

Knows notebooks and kernels, no page.
"""

import asyncio
import dis
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from types import CodeType

import nbformat
from filelock import FileLock
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
KEPT_OUT = {"lab", "raises-exception"}
SHOWN = re.compile(r"^(\w+)\.show\(\)", re.M)
SELFTEST = re.compile(r"^.*\.selftest\(.*\n?", re.M)
TOGETHER = 2  # kernels at a time


def lab_cells(cells: list[nbformat.NotebookNode]) -> list[tuple[str, str]]:
    """(the lab's name, the source of the cell that shows it), without the self-test, which has its place in the tests."""
    sources = [cell.source for cell in cells if "lab" in cell.metadata.get("tags", [])]
    return [(found[1], SELFTEST.sub("", source)) for source in sources if (found := SHOWN.search(source))]


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell binds, and those that it, or a function in it, looks up and does not bind before."""
    cell = compile(TransformerManager().transform_cell(source), "cell", "exec")
    made: set[str] = set()
    used: set[str] = set()
    for step in dis.get_instructions(cell):
        if step.opname == "STORE_NAME":
            made.add(step.argval)
        elif step.opname == "LOAD_NAME" and step.argval not in made:
            used.add(step.argval)
    inner = [each for each in cell.co_consts if isinstance(each, CodeType)]
    while inner:
        function = inner.pop()
        inner += [each for each in function.co_consts if isinstance(each, CodeType)]
        used |= {step.argval for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"} - made
    return made, used


def needed(before: list[str], lab: str) -> list[str]:
    """Of the cells before a lab, those that bind a name it needs, directly or through others.

    What a cell changes without binding it is not seen: a test compares the lab's read-out with the notebook's.
    """
    chosen, wanted = [], names(lab)[1]
    for source in reversed(before):
        made, used = names(source)
        if made & wanted:
            chosen.insert(0, source)
            wanted = (wanted - made) | used
    return chosen


def script(path: Path, folder: Path) -> list[str]:
    """The cells that make a notebook's labs, each followed by one that renders the lab into `folder`."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    last = max(place for place, cell in enumerate(cells) if "lab" in cell.metadata.get("tags", []))
    usual = [cell.source for cell in cells[:last] if not KEPT_OUT & set(cell.metadata.get("tags", []))]
    labs = lab_cells(cells)
    before = needed(usual, "\n".join(source for _, source in labs))
    made = [
        part
        for name, source in labs
        for part in (source, f"from website.ahead import save; save({name}, {str(folder / name)!r})")
    ]
    return [f"import sys; sys.path.insert(0, {str(ROOT)!r})", *before, *made]


def key(path: Path) -> str:
    """Changes with whatever the labs of a notebook are made of."""
    digest = hashlib.sha256("".join(script(path, Path())).encode())
    code, tables = (ROOT / "spp_lite").rglob("*.py"), (ROOT / "data" / "results").glob("*.csv")
    for each in [*sorted(code), *sorted(tables), ROOT / "website" / "ahead.py"]:
        digest.update(each.read_bytes())
    return digest.hexdigest()[:16]


async def _run(path: Path, folder: Path, gate: asyncio.Semaphore) -> None:
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    cells = [nbformat.v4.new_code_cell(source) for source in script(path, unfinished)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(path.parent)}}
    async with gate:
        await NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).async_execute()
    for old in folder.parent.glob(f"{path.stem}-*"):
        if old != unfinished:
            shutil.rmtree(old)
    unfinished.rename(folder)


async def _run_all(chosen: dict[Path, Path]) -> None:
    gate = asyncio.Semaphore(TOGETHER)
    await asyncio.gather(*(_run(path, folder, gate) for path, folder in chosen.items() if not folder.exists()))


def render_labs(paths: list[Path], kept: Path) -> dict[tuple[str, str], Path]:
    """Folders of rendered labs by (notebook's stem, lab's name); `kept` holds them from one build to the next."""
    os.environ.setdefault("SPP_THREADS", "1")  # the kernels inherit it
    chosen = {path: kept / f"{path.stem}-{key(path)}" for path in paths}
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / ".lock"):  # a second build waits, and finds what the first has made
        asyncio.run(_run_all(chosen))
    return {(path.stem, each.name): each for path, folder in chosen.items() for each in sorted(folder.iterdir())}


def read(folder: Path) -> dict:
    """What `ahead.save` noted about a lab."""
    return json.loads((folder / "lab.json").read_text())
