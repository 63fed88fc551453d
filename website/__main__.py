"""Build the site:  python -m website [folder]        (dist/site, or what `make site` names)"""

import shutil
import sys
import time
from pathlib import Path

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from . import labs, reference, text
from .pages import ROOT, TEMPLATES, Page, Site, page
from .search import write_index

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
DOCUMENTS = {  # group of the navigation: the documents in it, by their place in the repository
    "Documents": ["docs/*.md", "data/README.md", "CONTRIBUTING.md", "CHANGELOG.md"],
    "Workshop": ["workshop/README.md", "workshop/[!R]*.md", "workshop/facilitator/*.md"],
}
NOT_AHEAD = "<p><em>This lab was left out when the page was made. Its picture stands below.</em></p>"


def build(out: Path = ROOT / "dist" / "site", kept: Path = ROOT / "dist" / "site-labs", chosen: str = "*") -> Path:
    """Write the site and return its first page. chosen: the notebooks whose labs are rendered ahead, as a file pattern."""
    played = labs.render_labs([path for path in NOTEBOOKS if path.match(f"{chosen}.ipynb")], kept)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    site = Site(out)
    site.add(page("index.html", "Start", text.markdown((ROOT / "README.md").read_text())))
    for path in NOTEBOOKS:
        site.add(notebook(path, out, played))
    for group, patterns in DOCUMENTS.items():
        for path in [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]:
            place = path.relative_to(ROOT).with_suffix(".html").as_posix()
            site.add(page(place, group, text.markdown(path.read_text()), title=path.stem.replace("-", " ")))
    for room, members in reference.modules().items():
        site.add(page(f"reference/{room}.html", "Reference", reference.room_page(room, members)))
    for path in sorted((ROOT / "spp_lite").rglob("*.py")):
        site.add(source(path))
    site.write()
    write_index([made for made in site.pages.values() if made.group], out / "search.js")
    return out / "index.html"


def source(path: Path) -> Page:
    """A file of the package, each line with a number that can be linked to."""
    looks = HtmlFormatter(cssclass="code", linenos="inline", lineanchors="L", anchorlinenos=False)
    place = path.relative_to(ROOT).as_posix()
    body = Markup(f"<h1>{place}</h1>{highlight(path.read_text(), PythonLexer(), looks)}")
    return Page(f"{place}.html", "", body, place)


def notebook(path: Path, out: Path, played: dict[tuple[str, str], Path]) -> Page:
    """A notebook's page; its labs' pictures go into the site, beside its own figures."""

    def lab(cell: str) -> str:
        name = labs.SHOWN.search(cell)[1]
        folder = played.get((path.stem, name))
        if not folder:
            return NOT_AHEAD
        target = out / "notebooks" / path.stem / name
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("lab.json"))
        return lab_section(labs.read(folder), f"{path.stem}/{name}")

    figures = out / "notebooks" / path.stem / "figures"
    return page(f"notebooks/{path.stem}.html", "Notebooks", text.notebook(path, figures, lab))


def lab_section(found: dict, folder: str) -> str:
    """Controls, picture and read-out of a lab at its start, and all its states for site.js."""
    start = 0
    for control in found["controls"]:
        start = start * len(control["options"]) + control["start"]
    return TEMPLATES.get_template("lab.html").render(lab=found, folder=folder, start=start)


if __name__ == "__main__":
    begun = time.perf_counter()
    first = build(*map(Path, sys.argv[1:2]))
    size = sum(path.stat().st_size for path in first.parent.rglob("*") if path.is_file())
    print(f"wrote {first}: {size / 1e6:.0f} MB in {time.perf_counter() - begun:.0f} s")
