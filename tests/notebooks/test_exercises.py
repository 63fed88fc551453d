"""The exercise edition runs: only blanks fail, and kindly."""

import pytest
from build import edition, sources

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)
def test_in_the_exercise_edition_only_blanks_fail_and_kindly(source, execute):
    notebook = execute(edition(source, exercises=True), allow_errors=True)
    for cell in notebook.cells:
        errors = [output for output in cell.get("outputs", []) if output.output_type == "error"]
        tags = cell.metadata.get("tags", [])
        assert bool(errors) == ("raises-exception" in tags), cell.source
        if "check" in tags:
            assert errors[0].ename == "CheckFailed" and "is still blank" in errors[0].evalue
    assert "BEGIN SOLUTION" not in str(notebook)
