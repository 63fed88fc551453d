"""The reference: signature, docstring and source of every public name, from the modules themselves.

A page for each room of the package. Public: a function, class or constant without a leading underscore, where it is defined.
"""

import ast
import html
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import spp_lite

from .text import code

LONGEST, LINES = 88, 12  # characters of a signature on one line; lines of a constant


def modules() -> dict[str, list[ModuleType]]:
    """Room → its modules. A file of the ground floor is a room of its own."""
    names = [found.name for found in pkgutil.walk_packages(spp_lite.__path__, "spp_lite.")]
    rooms: dict[str, list[ModuleType]] = {"spp_lite": [spp_lite]}
    for name in sorted(name for name in names if not name.endswith("__main__")):
        room = ".".join(name.split(".")[:2])
        rooms.setdefault(room, []).append(importlib.import_module(name))
    return rooms


def public(module: ModuleType) -> list[str]:
    """The public functions and classes that a module defines, in the order of its file."""
    tree = ast.parse(inspect.getsource(module))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def room_page(room: str, members: list[ModuleType]) -> str:
    """The HTML of one room."""
    title = room.removeprefix("spp_lite.")
    return f"<h1>{title}</h1>" + "".join(_module(module) for module in members)


def _module(module: ModuleType) -> str:
    name = module.__name__
    parts = [f'<h2 id="{name}">{name}</h2>', doc(module.__doc__), source_link(module, 1)]
    if module is spp_lite:
        parts.append(_front_door())
    if constants := list(_constants(module)):
        parts.append(code("\n".join(constants)))
    for each in public(module):
        parts.append(_entry(module, f"{name}.{each}", getattr(module, each)))
    return "\n".join(parts)


def _front_door() -> str:
    """Where each name is defined that `import spp_lite` offers."""
    rows = []
    for name in spp_lite.__all__:
        home = getattr(spp_lite, name).__module__
        room = ".".join(home.split(".")[:2])
        rows.append(f'<li><a href="{room}.html#{home}.{name}"><code>spp_lite.{name}</code></a></li>')
    return f"<ul>{''.join(rows)}</ul>"


def _constants(module: ModuleType) -> Iterator[str]:
    text = inspect.getsource(module)
    for node in ast.parse(text).body:
        names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
        if isinstance(node, ast.Assign) and any(name.isupper() and name[0] != "_" for name in names):
            lines = ast.get_source_segment(text, node).splitlines()
            yield "\n".join(lines if len(lines) <= LINES else [*lines[:LINES], "    ..."])


def _entry(module: ModuleType, name: str, found) -> str:
    kind = "class " if inspect.isclass(found) else ""
    line = inspect.getsourcelines(inspect.unwrap(found))[1]
    head = f'<h3 id="{name}">{kind}<code>{name.rsplit(".", 1)[1]}</code></h3>'
    parts = [head, code(kind + signature(found)), doc(inspect.getdoc(found)), source_link(module, line)]
    if inspect.isclass(found):
        parts += [_method(name, each, member) for each, member in vars(found).items() if not each.startswith("_")]
    return "\n".join(parts)


def _method(owner: str, name: str, member) -> str:
    function = getattr(member, "__func__", getattr(member, "fget", member))  # class and static methods, properties
    if not inspect.isfunction(function):
        return ""
    shown = name if isinstance(member, property) else signature(function)
    return f'<h4 id="{owner}.{name}"><code>{name}</code></h4>{code(shown)}{doc(inspect.getdoc(member))}'


def signature(found) -> str:
    """Name and parameters, one on a line where they are many; types without the modules that they come from."""
    try:
        shown = inspect.signature(found)
    except (TypeError, ValueError):  # an enum, a type without one
        return found.__name__
    if len(text := _short(f"{found.__name__}{shown}")) <= LONGEST:
        return text
    lines, parameters = [], list(shown.parameters.values())
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not any("*" in line for line in lines):
            lines.append("    *,")
        lines.append(f"    {_short(str(parameter))},")
    back = "" if shown.return_annotation is shown.empty else f" -> {inspect.formatannotation(shown.return_annotation)}"
    return "\n".join([f"{found.__name__}(", *lines, f"){_short(back)}"])


def _short(text: str) -> str:
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def doc(text: str | None) -> str:
    """A docstring → HTML: paragraphs, indented blocks as they stand, `names` as code."""
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        shown = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", html.escape(block, quote=False))
        parts.append(f"<pre>{shown}</pre>" if re.search(r"^ {2,}", block, re.M) else f"<p>{shown}</p>")
    return "\n".join(parts)


def source_link(module: ModuleType, line: int) -> str:
    """A link to the line of the source that the site shows."""
    path = f"{module.__name__.replace('.', '/')}{'/__init__' if hasattr(module, '__path__') else ''}.py"
    return f'<p class="source"><a href="../{path}.html#L-{line}">{path}, line {line}</a></p>'
