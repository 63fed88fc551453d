"""The notebooks match their sources, read well on a code host, and say how long they ran."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from build import BUDGETS, edition, sources

ROOT = Path(__file__).parents[2]
NAMES = [source.stem for source in sources()]


def read(name, folder=ROOT / "notebooks"):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def bare(notebook):
    return [(cell["id"], cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


@pytest.mark.parametrize("source", sources(), ids=NAMES)
def test_editions_match_their_source(source):
    assert bare(read(source.stem)) == bare(edition(source, exercises=False)), "run: make notebooks"
    exercises = read(source.stem, ROOT / "notebooks" / "exercises")
    assert bare(exercises) == bare(edition(source, exercises=True)), "run: make notebooks"
    assert not any(cell.get("outputs") for cell in exercises.cells)


@pytest.mark.parametrize("name", NAMES)
def test_the_complete_edition_shows_its_figures_anywhere(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = read(name)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1e6 and "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures and all(output.metadata["image/png"]["alt"] for output in pictures)
    for cell in code:
        kinds = {output.get("name", output.output_type) for output in cell.outputs}
        assert "stderr" not in kinds and "widget-view" not in json.dumps(cell.outputs)
        assert ("error" in kinds) == ("raises-exception" in cell.metadata.get("tags", [])), cell.source
        if cell.source.splitlines()[-1].startswith("checks."):
            assert ": right" in cell.outputs[-1]["data"]["text/plain"], cell.source


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_small(name):
    lengths = sorted(len(cell.source.splitlines()) for cell in read(name).cells if cell.cell_type == "code")
    assert lengths[len(lengths) // 2] <= 10 and lengths[-1] <= 25


@pytest.mark.parametrize("name", NAMES)
def test_the_box_says_the_measured_run_time(name):
    measured = json.loads(BUDGETS.read_text())[name[:2]]["measured"]
    first = read(name).cells[0].source
    assert measured > 0 and f"{measured} s" in first and not re.search(r"\{\{", first)
