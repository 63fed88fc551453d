"""How the tests run a notebook."""

from pathlib import Path

import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def execute():
    """A function that runs a notebook in the notebooks' folder; no cell is stopped for being slow."""

    def run(notebook, **options):
        place = {"metadata": {"path": str(FOLDER)}}
        NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place, **options).execute()
        return notebook

    return run
