"""Markdown and notebook cells → HTML: mathematics as MathML, code in colours, every figure with its text.

Knows no page around them, and no link's target.
"""

import html
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import mistune
import nbformat
from latex2mathml.converter import convert
from mistune.plugins.math import math
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import BashLexer, DiffLexer, JsonLexer, PythonLexer, TextLexer, YamlLexer

LEXERS = {"python": PythonLexer, "bash": BashLexer, "yaml": YamlLexer, "json": JsonLexer, "diff": DiffLexer}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def code(text: str, language: str = "python") -> str:
    """Source in colours."""
    return highlight(text, LEXERS.get(language, TextLexer)(stripnl=False), HtmlFormatter(cssclass="code"))


class _Renderer(mistune.HTMLRenderer):
    def block_code(self, code_: str, info: str | None = None) -> str:
        return code(code_, (info or "").split(" ")[0])

    def inline_math(self, text: str) -> str:
        return convert(text)

    def block_math(self, text: str) -> str:
        return f'<div class="formula">{convert(text, display="block")}</div>\n'


_markdown = mistune.Markdown(_Renderer(escape=False), plugins=[mistune.plugins.table.table, math])


def markdown(text: str) -> str:
    """Markdown → HTML, formulas between dollars as MathML. What is HTML already stays as it is."""
    return _markdown(text)


def notebook(path: Path, figures: Path, lab: Callable[[str], str]) -> str:
    """The cells of an executed notebook → HTML.

    figures: a folder for its pictures, two levels below the page. lab: the source of a cell that shows a lab → HTML.
    """
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(markdown(cell.source))
            continue
        tags = cell.metadata.get("tags", [])
        source = code(cell.source)
        if "we-checked" in tags or "setup" in tags:
            name = "What was checked here" if "we-checked" in tags else "Set-up"
            source = f"<details><summary>{name}</summary>{source}</details>"
        parts.append(f'<div class="cell">{source}</div>')
        parts += [_output(output, figures) for output in cell.outputs]
        if "lab" in tags:
            parts.append(lab(cell.source))
    return "\n".join(parts)


def _output(output: nbformat.NotebookNode, figures: Path) -> str:
    if output.output_type == "stream":
        return f'<pre class="out">{html.escape(output.text.rstrip())}</pre>'
    if output.output_type == "error":
        return f'<pre class="out error">{html.escape(ANSI.sub("", chr(10).join(output.traceback)))}</pre>'
    data = output.data
    if "image/png" in data:
        figures.mkdir(parents=True, exist_ok=True)
        target = figures / f"{len(list(figures.iterdir())):02}.png"
        target.write_bytes(b64decode(data["image/png"]))
        alt = html.escape(output.metadata["image/png"]["alt"])
        return f'<p><img src="{figures.parent.name}/{figures.name}/{target.name}" alt="{alt}"></p>'
    if "text/html" in data:
        return f'<div class="out">{re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)}</div>'
    return f'<pre class="out">{html.escape(data["text/plain"])}</pre>'
