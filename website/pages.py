"""Pages: a body between navigation and search, with links that lead to pages of the site. Knows what a page looks like.

A page stands where its source stands in the repository, so that links among sources only change their ending.
"""

import dataclasses
import posixpath
import re
import shutil
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

HERE = Path(__file__).parent
ROOT = HERE.parent
TEMPLATES = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(HERE))


@dataclasses.dataclass
class Page:
    """One page. path: in the site, with slashes; group: its place in the navigation, "" for none."""

    path: str
    group: str
    body: BeautifulSoup | Markup  # Markup: has no links
    title: str
    headings: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (id, text) of the second level


def page(path: str, group: str, body: str, title: str = "") -> Page:
    """A page whose headings can be linked to and whose tables scroll; `body` is HTML."""
    soup = BeautifulSoup(body, "html.parser")
    if not soup.find("h1"):
        soup.insert(0, BeautifulSoup(f"<h1>{title}</h1>", "html.parser"))
    made = Page(path, group, soup, soup.find("h1").get_text())
    taken: set[str] = set()
    for heading in soup.find_all(re.compile("^h[1-6]$")):
        heading["id"] = heading.get("id") or free(slug(heading.get_text()), taken)
        taken.add(heading["id"])
        if heading.name == "h2":
            made.headings.append((heading["id"], heading.get_text()))
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "wide"}))
        for empty in table.find_all("th", string=lambda text: not text):
            empty.name = "td"  # a header without words is none
    return made


def slug(text: str) -> str:
    """The id that code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def free(name: str, taken: set[str]) -> str:
    """The name, or the name with the first number that is free."""
    return next(
        each for number in range(len(taken) + 1) if (each := f"{name}-{number}" if number else name) not in taken
    )


class Site:
    """Pages and the files that they link to, written into one folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.pages: dict[str, Page] = {}

    def add(self, made: Page) -> None:
        """Take a page, in the order of the navigation."""
        self.pages[made.path] = made

    def write(self) -> None:
        """All pages, with their links mended, and the index that search looks into."""
        for made in list(self.pages.values()):
            if isinstance(made.body, Markup):
                continue
            for tag, field in [*((tag, "href") for tag in made.body.find_all("a", href=True)),
                               *((tag, "src") for tag in made.body.find_all("img"))]:  # fmt: skip
                self._mend(made, tag, field)
        ordered = [made for made in self.pages.values() if made.group]
        for made in self.pages.values():
            self._write(made, ordered)
        colours = HtmlFormatter(style="default").get_style_defs(".code")
        (self.out / "site.css").write_text(f"{colours}\n{(HERE / 'site.css').read_text()}")
        shutil.copyfile(HERE / "site.js", self.out / "site.js")

    def _mend(self, made: Page, tag, field: str) -> None:
        """Let a link lead to a page, to a copied file, or to a page that lists a folder."""
        target, _, fragment = tag[field].partition("#")
        if re.match(r"\w+:", target):
            if tag.name == "img":  # a badge: the site loads nothing from elsewhere
                tag.replace_with(tag.get("alt", ""))
            return
        if not target:
            return
        path = posixpath.normpath(posixpath.join(posixpath.dirname(made.path), target))
        here = posixpath.dirname(made.path) or "."
        tag[field] = posixpath.relpath(self.place(path), here) + (f"#{fragment}" if fragment else "")

    def place(self, path: str) -> str:
        """Where a file or folder of the repository is in the site; files are copied, folders are listed."""
        stem = posixpath.splitext(path)[0]
        for candidate in (path, f"{stem}.html", f"{path}.html", f"{path}/README.html"):
            if candidate in self.pages:
                return candidate
        if path == "README.md":
            return "index.html"
        if (ROOT / path).is_dir():
            names = sorted(each.name for each in (ROOT / path).iterdir() if each.is_file())
            rows = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
            listing = page(f"{path}/index.html", "", f"<ul>{rows}</ul>", title=path)
            self.add(listing)
            for link in listing.body.find_all("a"):
                self._mend(listing, link, "href")
            return listing.path
        if not (self.out / path).exists():  # what is there was made for the page
            (self.out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, self.out / path)
        return path

    def _write(self, made: Page, ordered: list[Page]) -> None:
        at = ordered.index(made) if made in ordered else -1
        groups: dict[str, list[Page]] = {}
        for each in ordered:
            groups.setdefault(each.group, []).append(each)
        root = "../" * made.path.count("/")
        text = TEMPLATES.get_template("page.html").render(
            page=made, root=root, groups=groups, body=Markup(made.body),
            before=ordered[at - 1] if at > 0 else None, after=ordered[at + 1] if -1 < at < len(ordered) - 1 else None,
        )  # fmt: skip
        target = self.out / made.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
