"""workshop/slides.md and cheat-sheet.md → HTML in workshop/html that needs no network:  python workshop/build.py

A slide starts at every heading. `![05/1](…)` is the first figure of notebook 05, as it was executed, with its own text
for those who cannot see it; so the slides show what the notebooks show.
"""

import functools
import html
import re
from pathlib import Path

import mistune
import nbformat

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks"
FIGURE = re.compile(r"!\[(\d\d)/(\d+)\]\(\)")
STYLE = """
body { font: 18px/1.45 system-ui, sans-serif; color: #111; margin: 0 auto; max-width: 60rem; padding: 1rem; }
table { border-collapse: collapse; } td, th { border: 1px solid #bbb; padding: .2em .6em; text-align: left; }
pre { background: #f4f4f4; padding: .6em 1em; } code { font-size: .9em; }
"""
SHEET = "body { font-size: 11px; max-width: none; } @page { size: A4; margin: 9mm; } h1 { font-size: 16px; }"
SLIDES = """
html { scroll-snap-type: y mandatory; } body { max-width: none; padding: 0; font-size: 26px; }
section { box-sizing: border-box; height: 100vh; padding: 4vh 8vw; scroll-snap-align: start; overflow: hidden; }
section img { display: block; max-width: 84vw; max-height: 58vh; margin: 1vh auto; } h1, h2 { margin: 0 0 2vh; }
@media print { section { break-after: page; } }
"""
KEYS = """
addEventListener("keydown", event => {
  const step = {ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1}[event.key];
  if (step) { event.preventDefault(); scrollTo(0, innerHeight * (Math.round(scrollY / innerHeight) + step)); }
});
"""


@functools.cache
def figures(number: str) -> list[tuple[str, str]]:
    """(base64 of the PNG, its text) of every figure that a notebook shows."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    return [(output.data["image/png"].strip(), output.metadata["image/png"]["alt"]) for output in found]


def render(text: str) -> str:
    """Markdown → HTML, the notebooks' figures inside it."""
    body = mistune.create_markdown(plugins=["table"], escape=False)(FIGURE.sub(r"<figure-\1-\2/>", text))

    def picture(match: re.Match) -> str:
        png, alt = figures(match[1])[int(match[2]) - 1]
        return f'<img src="data:image/png;base64,{png}" alt="{html.escape(alt)}">'

    return re.sub(r"(?:<p>)?<figure-(\d\d)-(\d+)/>(?:</p>)?", picture, body)


def page(title: str, body: str, style: str, script: str = "") -> str:
    """A whole HTML page."""
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}<script>{script}</script></body></html>\n'


def main(out: Path = HERE / "html") -> list[Path]:
    """Write slides.html and cheat-sheet.html; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    slides = re.split(r"^(?=#)", (HERE / "slides.md").read_text(), flags=re.M)
    body = "".join(f"<section>{render(slide)}</section>" for slide in slides if slide.strip())
    sheet = render((HERE / "cheat-sheet.md").read_text())
    pages = {
        "slides": page("spp_lite: 90 minutes", body, SLIDES, KEYS),
        "cheat-sheet": page("Cheat sheet", sheet, SHEET),
    }
    paths = [out / f"{name}.html" for name in pages]
    for path, text in zip(paths, pages.values(), strict=True):
        path.write_text(text)
    return paths


if __name__ == "__main__":
    print("wrote", *main())
