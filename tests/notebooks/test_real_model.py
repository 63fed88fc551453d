"""The notebooks on another model: a LLaMA folder with the real tokenizer, and real Alpaca records."""

import nbformat
import pytest
from nbclient import NotebookClient
from test_sources import SOURCES, build

CHOSEN = [source for source in SOURCES if source.stem[:2] in ("01", "02", "03", "05", "06", "07")]


@pytest.mark.parametrize("source", CHOSEN, ids=lambda source: source.stem)
def test_a_notebook_runs_on_a_llama_folder(source, real_data, llama, monkeypatch):
    monkeypatch.setenv("SPP_MODEL", str(llama))
    monkeypatch.setenv("SPP_DATA", str(real_data / "alpaca_en_999.json"))
    monkeypatch.setenv("SPP_TASKS", "tiny_arc_easy")
    notebook = build.edition(source, exercises=False)
    folder = {"metadata": {"path": str(build.HERE)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=folder).execute()
    assert "TINY = is_tiny()" in nbformat.writes(notebook)
