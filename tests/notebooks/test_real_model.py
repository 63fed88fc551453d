"""The notebooks on another model: a LLaMA folder with the real tokenizer, and real Alpaca records."""

import nbformat
import pytest
from build import edition, sources

CHOSEN = [source for source in sources() if source.stem[:2] in ("01", "02", "03", "05", "06", "07")]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", CHOSEN, ids=lambda source: source.stem)
def test_a_notebook_runs_on_a_llama_folder(source, real_data, llama, execute, monkeypatch):
    monkeypatch.setenv("SPP_MODEL", str(llama))
    monkeypatch.setenv("SPP_DATA", str(real_data / "alpaca_en_999.json"))
    monkeypatch.setenv("SPP_TASKS", "tiny_arc_easy")
    notebook = execute(edition(source, exercises=False))
    assert "TINY = is_tiny()" in nbformat.writes(notebook)
