"""The notebooks match their sources, read well on a code host, and keep their budgets."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))

from build import BUDGETS, edition, sources  # noqa: E402

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


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_small(name):
    lengths = sorted(len(cell.source.splitlines()) for cell in read(name).cells if cell.cell_type == "code")
    assert lengths[len(lengths) // 2] <= 10 and lengths[-1] <= 25


@pytest.mark.parametrize("name", NAMES)
def test_run_times_are_the_measured_ones_and_within_budget(name):
    budget = json.loads(BUDGETS.read_text())[name[:2]]
    assert 0 < budget["measured"] <= budget["budget"] <= 90
    first = read(name).cells[0].source
    assert f"{budget['measured']} s" in first and not re.search(r"\{\{", first)


@pytest.mark.parametrize("source", sources(), ids=NAMES)
def test_in_the_exercise_edition_only_blanks_fail_and_kindly(source):
    from nbclient import NotebookClient

    notebook = edition(source, exercises=True)
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    ).execute()
    for cell in notebook.cells:
        errors = [output for output in cell.get("outputs", []) if output.output_type == "error"]
        tags = cell.metadata.get("tags", [])
        assert bool(errors) == ("raises-exception" in tags), cell.source
        if "check" in tags:
            assert errors[0].ename == "CheckFailed" and "is still blank" in errors[0].evalue
    assert "BEGIN SOLUTION" not in str(notebook)
