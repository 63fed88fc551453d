"""CONTRIBUTING.md shows the house as it is, and each of its diffs adds what it says to a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml
from test_packaging import HOUSE, MODULES, PROJECT, ROOT, imports, lines

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ADDED = re.findall(r"### To add an? (\w+)\n.*?```diff\n(.*?)```\n.*?```python\n(.*?)```", TEXT, re.S)
GROUND = dict.fromkeys(["arguments", "writing", "storage", "packed", "convert"], "models")  # one room in the picture


def room(name):
    return GROUND.get(name, name)


def reached(arrows, start):
    """Every room that the arrows lead to from a room."""
    ahead = [there for here, there in arrows if here == start]
    return set(chain(ahead, *(reached(arrows, there) for there in ahead)))


def test_every_import_runs_along_the_arrows_of_the_picture_and_every_arrow_is_one():
    arrows = re.findall(r"^  (\w+) --> (\w+)$", TEXT.split("```mermaid")[1].split("```")[0], re.M)
    parts = [(path, path.relative_to(ROOT / "spp_lite").with_suffix("").parts) for path in MODULES]
    pairs = {(room(here[0]), room(name.split(".")[0])) for path, here in parts for name in imports(path)}
    pairs = {(here, there) for here, there in pairs if {here, there} <= {*HOUSE} and here != there}
    assert {here for here, _ in arrows} | {there for _, there in arrows} == {room(name) for name in HOUSE}
    for here, there in pairs:
        assert there in reached(arrows, here), f"{here} imports {there}, to which no arrow leads"
    assert set(arrows) <= pairs, "an arrow along which nobody imports"


def test_the_files_of_every_room_are_listed_in_their_order():
    for name, files in HOUSE.items():
        line = re.search(rf"─ {name}/ +(.*)", TEXT)
        if files:
            assert [word.strip("/") for word in re.split(r"  +", line[1])[0].split(" · ")] == files, name
        elif name != "cli":
            assert f" {name}" in TEXT


def test_there_is_one_short_diff_for_each_kind_of_addition():
    assert [kind for kind, _, _ in ADDED] == ["criterion", "pattern", "method", "notebook"]
    assert all(len(diff.splitlines()) < 40 and len(proof.splitlines()) < 40 for _, diff, proof in ADDED)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository's code and notebooks' texts, its data linked; skips where there is no git to apply a diff."""
    if not shutil.which("git"):
        pytest.skip("git is not installed: nothing can apply a diff")
    folder = tmp_path_factory.mktemp("copy")
    kept = shutil.ignore_patterns("__pycache__", "*.ipynb", "exercises")
    for name in ("spp_lite", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=kept)
    (folder / "data").symlink_to(ROOT / "data")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def apply(folder, diff, *words):
    command = ["git", "apply", *words, "-"]
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # no repository around it
    done = subprocess.run(command, input=diff, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8")
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("kind, diff, proof", ADDED, ids=[kind for kind, _, _ in ADDED])
def test_each_diff_applies_alone(copy, kind, diff, proof):
    apply(copy, diff, "--check")


@pytest.mark.slow  # one process, which also starts a kernel
def test_what_the_diffs_add_keeps_the_rules_and_works(copy, tmp_path):
    env = {
        **os.environ,
        "IPYTHONDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "notebooks")]),
    }
    for _, diff, _ in ADDED:
        apply(copy, diff)
    touched = sorted({name for _, diff, _ in ADDED for name in re.findall(r"^\+\+\+ b/(spp_lite/.*)$", diff, re.M)})
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *touched], cwd=copy, capture_output=True, text=True
        )
        assert not done.returncode, done.stdout
    assert all(len(lines(copy / name)) <= 250 for name in touched)
    proofs = "\n".join(f"{proof}\nprint({kind!r})" for kind, _, proof in ADDED)
    done = subprocess.run([sys.executable, "-c", proofs], cwd=copy, env=env, capture_output=True, text=True)
    assert done.stdout.split()[-4:] == [kind for kind, _, _ in ADDED], done.stderr[-3000:]


def test_the_citation_names_the_project_and_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys() and cited["cff-version"] == "1.2.0"
    assert cited["title"] == "spp_lite" and cited["type"] == "software"
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    (paper,) = cited["references"]
    assert paper["type"] == "conference-paper" and paper["year"] == 2024 and len(paper["authors"]) == 6
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2405.16057"}] and paper["collection-title"]


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first[1] == PROJECT["version"] and Path(ROOT / "CHANGELOG.md").stat().st_size < 8000
