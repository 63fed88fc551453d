"""notebooks/src/NN_title.py → notebooks/NN_title.ipynb (complete, executed) and exercises/NN_title.ipynb (blanks).

    python notebooks/build.py            build and execute all
    python notebooks/build.py 03 05      only these

In a source, `# BEGIN SOLUTION … # END SOLUTION` encloses what the reader writes; a markdown cell tagged "solution" is
filled with the folded solution in the exercise edition and left out of the complete one; code cells tagged "check"
may fail in the exercise edition, code cells tagged "we-checked" are folded. `{{minutes}}` is counted from the text, and
every section's heading gets the minute at which it starts; `{{seconds}}`, `{{badge}}` and `{{setup}}` are filled from
budgets.json and pyproject.toml.
"""

import hashlib
import json
import math
import re
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
BUDGETS = HERE / "budgets.json"
WORDS, LAB = 100, 4  # a minute's reading, where a line of code counts as five words; minutes to play with a lab
STATED = re.compile(r"\*\*Ex .* · core · .*~(\d+) min")
BLANK = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n(.*?)^[ \t]*# END SOLUTION\n?", re.S | re.M)

SETUP = """from importlib.util import find_spec
from pathlib import Path

if not find_spec("spp_lite"):  # Colab, for one: install the newest wheel at hand{or_else}
    wheels = [w for d in (".", "/content", "../dist") for w in Path(d).glob("spp_lite-*.whl")]{check}
    %pip install -q "{{max(wheels, key=lambda w: w.stat().st_mtime{default})}}"
"""  # never by a bare name: whoever owns that on the index would run in every reader's notebook
CHECK = '\n    assert wheels, "Put the wheel that `make wheel` builds beside this notebook and run this cell again."'


def sources() -> list[Path]:
    """The notebooks' texts, in order."""
    return sorted((HERE / "src").glob("[0-9][0-9]_*.py"))


def edition(source: Path, exercises: bool) -> nbformat.NotebookNode:
    """One edition without outputs; the same source always gives the same bytes."""
    notebook = jupytext.read(source, fmt="py:percent")
    minutes = _wind_clock(notebook.cells)
    cells, solution = [], ""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if found := BLANK.search(cell.source + "\n"):
            solution = _dedent_solution(cell.source)
            cell.source = _blank(cell.source) if exercises else BLANK.sub(r"\2", cell.source + "\n").rstrip()
            del found
        if "solution" in tags:
            if not exercises:
                continue
            cell.source = f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n</details>"
        if "we-checked" in tags:  # what the authors assert: folded, one line of output
            cell.metadata["jupyter"] = {"source_hidden": True}
        if exercises and "check" in tags:
            cell.metadata["tags"] = [*tags, "raises-exception"]
        if exercises:
            cell.source = cell.source.replace("](../", "](../../")  # that edition lies a folder deeper
        cell.source = _fill(cell.source, source, minutes)
        cells.append(cell)
    for number, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{source.stem}/{number}".encode()).hexdigest()[:8]
    notebook.cells = cells
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _wind_clock(cells: list) -> int:
    """Add to every section's heading the minute at which it starts; returns the minutes in all, in steps of five."""
    clock = 0.0
    for cell in cells:
        clock += LAB * ("lab" in cell.metadata.get("tags", []))
        for line in filter(None, cell.source.split("\n")):
            if cell.cell_type == "code":
                clock += 5 / WORDS
                continue
            if line.startswith("## "):
                cell.source = cell.source.replace(line, f"{line} · minute {clock:.0f}")
            clock += len(line.split()) / WORDS + int((STATED.search(line) or [0, 0])[1])
    return 5 * math.ceil(clock / 5)


def _blank(text: str) -> str:
    return BLANK.sub(r"\1...  # your turn\n", text + "\n").rstrip()


def _dedent_solution(text: str) -> str:
    return BLANK.sub(r"\2", text + "\n").rstrip()


def repository() -> str:
    """The address in pyproject's [project.urls], "" until an owner writes one."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("Repository", "")


def set_up(address: str) -> str:
    """The first cell of every notebook: it installs spp_lite where it is not, from a wheel or from the address."""
    if not address:
        return SETUP.format(or_else="", check=CHECK, default="").rstrip()
    return SETUP.format(or_else=", else the repository", check="", default=f", default='git+{address}'").rstrip()


def _fill(text: str, source: Path, minutes: int) -> str:
    seconds = json.loads(BUDGETS.read_text())[source.stem[:2]]["measured"]
    name = repository().removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{source.stem}.ipynb"
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})" if name else ""
    for field, value in {"minutes": minutes, "seconds": seconds, "badge": badge}.items():
        text = text.replace(f"{{{{{field}}}}}", str(value))
    text = text.replace("\n> **", "\n>\n> **")  # the box: a paragraph each
    return text.replace("# {{setup}}", set_up(repository()))


def execute(source: Path) -> nbformat.NotebookNode:
    """Run the complete edition, note how long it took, and keep outputs that any viewer can show."""
    notebook = edition(source, exercises=False)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    budgets = json.loads(BUDGETS.read_text())
    budgets[source.stem[:2]]["measured"] = round(time.perf_counter() - start)
    BUDGETS.write_text(json.dumps(budgets, indent=2) + "\n")
    for fresh, cell in zip(edition(source, exercises=False).cells, notebook.cells, strict=True):
        cell.source = fresh.source  # with the run time just measured
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [kept for kept in cell.outputs if not _only_live(kept)]
            for kept in cell.outputs:  # a traceback tells where this checkout lies
                if kept.output_type == "error":
                    kept.traceback = [line.replace(f"{HERE.parent}/", "") for line in kept.traceback]
    notebook.metadata = edition(source, exercises=False).metadata  # no widget state: code hosts refuse it
    return notebook


def _only_live(output) -> bool:
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or (output.output_type == "stream" and output.name == "stderr")


def main(chosen: list[str]) -> None:
    """Build both editions of the chosen notebooks (all when none is named)."""
    if unknown := sorted(set(chosen) - {source.stem[:2] for source in sources()}):
        sys.exit(f"{', '.join(unknown)}: notebooks are named by their two digits, 00 to 09")
    for source in sources():
        if chosen and source.stem[:2] not in chosen:
            continue
        nbformat.write(execute(source), HERE / f"{source.stem}.ipynb")
        (HERE / "exercises").mkdir(exist_ok=True)
        nbformat.write(edition(source, exercises=True), HERE / "exercises" / f"{source.stem}.ipynb")
        print(f"{source.stem}: {json.loads(BUDGETS.read_text())[source.stem[:2]]['measured']} s")


if __name__ == "__main__":
    main(sys.argv[1:])
