"""The site: nothing is dead, nothing comes from elsewhere, every figure has its text, every name is in the reference.

Built once, with one notebook's lab; tests/browser builds two more, and plays with them.
"""

import ast
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

import spp_lite
from spp_lite.teaching.widgets import Lab, slider
from website import ahead, labs, reference
from website.__main__ import NOTEBOOKS, ROOT, build

DECIMALS = re.compile(r"\d*\.\d+")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"), ROOT / "dist" / "site-labs", chosen="00_*").parent


@pytest.fixture(scope="module")
def pages(site):
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in sorted(site.rglob("*.html"))}


def test_no_link_is_dead(site, pages):
    ids = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in pages.items()}
    for path, soup in pages.items():
        for tag in soup.find_all(["a", "img", "link", "script"]):
            link = tag.get("href") or tag.get("src")
            if not link or re.match(r"https?:|mailto:", link):
                continue
            target, _, fragment = link.partition("#")
            found = (path.parent / unquote(target)).resolve() if target else path
            assert found.is_file() and found.is_relative_to(site.resolve()), f"{path}: {link}"
            if fragment:
                assert unquote(fragment) in ids[found], f"{path}: {link}"


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for path, soup in pages.items():
        loaded = [tag.get("src") or tag.get("href") for tag in soup.find_all(["img", "script", "link", "iframe"])]
        assert not [link for link in loaded if link and re.match(r"(https?:)?//", link)], path
    assert not re.search(
        r"https?:|url\(|fetch\(|@import", (site / "site.css").read_text() + (site / "site.js").read_text()
    )


def test_every_figure_of_a_notebook_arrives_with_its_text(site, pages):
    for path, soup in pages.items():
        assert all(tag.get("alt", "").strip() for tag in soup.find_all("img")), path
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        texts = [each.metadata["image/png"]["alt"] for each in outputs if "image/png" in each.get("data", {})]
        shown = pages[site / "notebooks" / f"{path.stem}.html"].select("main > p > img")
        assert [tag["alt"].strip() for tag in shown] == [text.strip() for text in texts]


def test_every_formula_is_mathematics(site, pages):
    formulas = 0
    for path in NOTEBOOKS:
        soup = pages[site / "notebooks" / f"{path.stem}.html"]
        formulas += len(soup.find_all("math"))
        assert not [tag for tag in soup.find_all("math") if "\\" in tag.get_text()], path
        for tag in soup.find_all(["pre", "code", "script"]):
            tag.extract()
        assert "$" not in soup.get_text(), path
    assert formulas > 100


def test_every_public_name_is_in_the_reference(site, pages):
    there = {
        tag["id"] for path, soup in pages.items() if path.parent.name == "reference" for tag in soup.find_all(id=True)
    }
    names = set()
    for path in (ROOT / "spp_lite").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                names.add(f"{module}.{node.name}")
    assert len(names) > 100 and not names - there
    shown = pages[site / "reference" / "spp_lite.html"].find("main").get_text()
    assert all(f"spp_lite.{name}" in shown for name in spp_lite.__all__)


def test_a_signature_keeps_what_must_be_named():
    def long(weight: Lab, *, first_of_many_options: int = 3, second_of_many_options: float = 0.5) -> Figure: ...

    text = reference.signature(long)
    assert text.splitlines()[1:3] == ["    weight: Lab,", "    *,"] and text.endswith(") -> Figure")


def index(site: Path) -> list[list[str]]:
    return json.loads((site / "search.js").read_text().removeprefix("const SEARCH = ").rstrip().removesuffix(";"))


def test_the_index_leads_to_the_section_that_says_so(site):
    found = [address for address, _, _, text in index(site) if "densification" in text]
    assert any(address.startswith("notebooks/07") and "#" in address for address in found)
    assert any(heading.endswith("SppConfig") for _, _, heading, _ in index(site))


def test_a_lab_of_the_site_is_the_notebooks_own(site):
    folder = site / "notebooks" / "00_start_here" / "lab"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5e6
    check_lab(site / "notebooks" / "00_start_here.html", NOTEBOOKS[0])


def check_lab(page: Path, notebook: Path) -> None:
    """Each state has its picture and its text, and what the notebook printed is among the texts, but for decimals: labs on
    trained weights differ from machine to machine."""
    soup = BeautifulSoup(page.read_text(), "html.parser")
    said = " ".join(
        out["text"] for cell in nbformat.read(notebook, 4).cells for out in cell.get("outputs", []) if "text" in out
    )
    for lab in soup.select(".lab"):
        found = json.loads(lab.script.string)
        states = math.prod(len(control["options"]) for control in found["controls"])
        assert len(found["texts"]) == len(found["pictures"]) == states > 1
        assert all((page.parent / lab["data-folder"] / name).exists() for name in found["pictures"])
        assert lab.select_one(".read-out").string in found["texts"]
        assert any(DECIMALS.sub("#", text) in DECIMALS.sub("#", said) for text in found["texts"]), (
            f"{page.name}: {lab['aria-label']} says other things than its notebook"
        )


def test_a_lab_runs_on_the_cells_that_bind_what_it_needs():
    before = [
        "import os",
        "x = 1",
        "y = 2\nx = x + y",
        "def f(a):\n    return a + [z for _ in a]",
        "z = [os, f]",
        "print(x)",
    ]
    assert labs.names(before[2]) == ({"x", "y"}, {"x"})
    assert labs.needed(before, "lab = L(x)\nlab.show()") == [before[1], before[2]]
    assert labs.needed(before, "z") == [before[0], before[3], before[4]]
    assert labs.needed(before, "lab = 3\nlab") == []


def test_two_builds_at_once_render_a_lab_once(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "from tests.test_site import Wide\nlab = Wide()\nlab.inputs = {'x': lab.inputs['x']}\n"
        "lab.render = lambda x: type(lab).render(lab, x, 0)\nopen('runs', 'a').write('x')\nlab.show()",
        metadata={"tags": ["lab"]},
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "small.ipynb")
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(labs.render_labs, [[tmp_path / "small.ipynb"]] * 2, [tmp_path / "kept"] * 2)
    assert first == second and len(labs.read(first["small", "lab"])["texts"]) == 20
    assert (tmp_path / "runs").read_text() == "x"


class Wide(Lab):
    def controls(self):
        return {"x": slider("x", range(20)), "y": slider("y", range(20))}

    def render(self, x, y):
        return Figure(figsize=(1, 1)), f"{x} {y}"


def test_a_lab_with_too_many_states_asks_for_coarser_stops(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Wide has 400 states, at most 300: add coarser STOPS"):
        ahead.save(Wide(), tmp_path / "lab")
    monkeypatch.setitem(ahead.STOPS, "Wide", {"y": (0, 10)})
    ahead.save(Wide(), tmp_path / "coarse")
    found = labs.read(tmp_path / "coarse")
    assert len(found["texts"]) == 40 and found["texts"][3] == "1 10" and len(set(found["pictures"])) == 1
    assert found["notes"] == ["Here these controls have fewer stops than in the notebook: y."]
    monkeypatch.setitem(ahead.STOPS, "Wide", {"y": (0,)})
    ahead.save(Wide(), tmp_path / "settled")  # what cannot move is no control
    found = labs.read(tmp_path / "settled")
    assert [each["label"] for each in found["controls"]] == ["x"] and len(found["texts"]) == 20
