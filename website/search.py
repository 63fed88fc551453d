"""The index of the site's search: a piece of text for every section, as a script, which opens from disk where JSON does not."""

import html
import json
import re
from pathlib import Path

from .pages import Page

HEADING = re.compile(r'<h[1-3] [^>]*?id="([^"]*)"[^>]*>(.*?)</h[1-3]>', re.S)
BLOCKS = re.compile(r"<(script|math)\b.*?</\1>|</?(p|div|li|tr|td|th|pre|br|option|label|output|summary)\b[^>]*>", re.S)
TAGS = re.compile(r"<[^>]*>")


def sections(made: Page) -> list[tuple[str, str, str]]:
    """(id of the heading, heading, text below it) for every section of a page."""
    parts = HEADING.split(str(made.body))  # text, id, heading, text, id, heading, …
    triples = zip(["", *parts[1::3]], [made.title, *parts[2::3]], parts[::3], strict=True)
    return [(place, plain(heading), plain(text)) for place, heading, text in triples]


def plain(text: str) -> str:
    """HTML without its tags, scripts and formulas."""
    return " ".join(html.unescape(TAGS.sub("", BLOCKS.sub(" ", text))).split())


def write_index(pages: list[Page], target: Path) -> None:
    """Write `SEARCH = [[address, page, heading, text], …]`."""
    rows = [
        [made.path + (f"#{place}" if place else ""), made.title, heading, text]
        for made in pages
        for place, heading, text in sections(made)
        if text
    ]
    target.write_text(f"const SEARCH = {json.dumps(rows, ensure_ascii=False)};\n")
