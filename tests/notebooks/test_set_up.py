"""The first cell of every notebook finds spp_lite: installed, a wheel at hand, or the repository; else it says what to do."""

import importlib.util
import os
import re
from pathlib import Path

import build
import pytest

ROOT = Path(__file__).parents[2]
PIP = re.compile(r'%pip install -q "\{(.*)\}"')
ADDRESS = "https://github.com/someone/spp-lite"


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """A function that runs the cell in a folder and returns what it would give to pip; None: nothing to install."""
    for folder in ("content", "dist", "notebooks"):
        (tmp_path / folder).mkdir()

    def run(address="", installed=False, cwd="notebooks"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if installed else None)
        monkeypatch.chdir(tmp_path / cwd)
        cell, names = build.set_up(address).replace("/content", str(tmp_path / "content")), {}
        exec(PIP.sub(r"chosen = str(\1)", cell), names)
        return names.get("chosen")

    return run


def wheel(folder, age, version="0.1.0"):
    path = folder / f"spp_lite-{version}-py3-none-any.whl"
    path.touch()
    os.utime(path, (1e9 - age, 1e9 - age))


@pytest.mark.parametrize("newest", ["notebooks", "content", "dist"])
@pytest.mark.parametrize("address", ["", ADDRESS])
def test_the_newest_wheel_at_hand_is_taken(chosen, tmp_path, newest, address):
    for age, folder in enumerate({newest: 0, "notebooks": 1, "content": 2, "dist": 3}):
        wheel(tmp_path / folder, age)
    wheel(tmp_path / newest, 9, version="0.9.0")  # built earlier
    assert Path(chosen(address)).resolve() == tmp_path / newest / "spp_lite-0.1.0-py3-none-any.whl"


def test_a_wheel_on_colab_is_found_from_any_folder(chosen, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    wheel(tmp_path / "content", 0)
    assert Path(chosen(cwd="elsewhere")).parent == tmp_path / "content"


def test_without_a_wheel_it_takes_the_owners_repository_or_says_what_to_do(chosen):
    assert chosen(ADDRESS) == f"git+{ADDRESS}"
    with pytest.raises(AssertionError, match=r"^Put the wheel that `make wheel` builds .* run this cell again.$"):
        chosen()


def test_where_spp_lite_is_installed_nothing_is(chosen, tmp_path):
    wheel(tmp_path / "dist", 0)
    assert chosen(installed=True) is chosen(ADDRESS, installed=True) is None


@pytest.mark.parametrize("address", ["", ADDRESS])
def test_the_cell_is_short_and_every_notebook_has_it(address, monkeypatch):
    monkeypatch.setattr(build, "repository", lambda: address)
    assert sum(bool(line.strip()) for line in build.set_up(address).splitlines()) <= 6
    for source in build.sources():
        cells = build.edition(source, exercises=True).cells
        assert [cell.source for cell in cells if "setup" in cell.metadata.get("tags", [])] == [build.set_up(address)]


def test_nothing_installs_by_a_name_that_we_do_not_own():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile", ROOT / ".ci" / "run"]
    for folder in ("notebooks/src", "workshop", "docs", "data", "spp_lite", "benchmarks"):
        texts += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py")]
    for path in [*texts, ROOT / "notebooks" / "build.py"]:
        bare = re.search(r"pip install(?: +-\S+)* +[\"']?spp[-_]lite(?![-_\w]*\.whl|-\*)", path.read_text())
        assert not bare, f"{path.name}: {bare[0]}"
