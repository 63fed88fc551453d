"""Files → records or texts, told apart by what is in them, not by their names: JSON, JSON Lines, Parquet, CSV, prose.

Packed or not, UTF-8 or UTF-16. Knows nothing about Alpaca, tokenizers or models. Records are counted from 0, lines from 1.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import load_from_disk

_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_STRAY = re.compile(r"version https://git-lfs|<!doctype html|<html", re.IGNORECASE)  # what comes in place of the data
_JSON = re.compile(r"""\{\s*["'}]|\[\s*[{"\]]""")  # no prose starts so
_COLUMNS = {"text", "instruction", "output"}  # a first line of single words, one of these among them, heads a CSV
_GAP = re.compile(r"[\s\ufeff]*")


def read_texts(path: str | Path) -> list[str]:
    """The field "text" of every record, or the strings of a JSON list, or the paragraphs of prose; errors as in read."""
    rows = read(path)
    if isinstance(rows, str):
        return [paragraph for paragraph in re.split(r"\n(?:[^\S\n]*\n)+", rows) if paragraph.strip()]
    rows = [{"text": row} if isinstance(row, str) else row for row in rows]
    texts = [pick(str(path), number, row, ("text",))["text"] for number, row in enumerate(rows)]
    if not any(map(str.strip, texts)):
        raise ValueError(f"{path} holds {len(texts)} records and no text")
    return texts


def pick(source: str, number: int, row: object, fields: tuple[str, ...]) -> dict[str, str]:
    """These fields of a record, each a text ("input" may be absent or null). Raises ValueError: source, record, field."""
    has = dict(row) if isinstance(row, Mapping) else {}
    found = {field: "" if field == "input" and has.get(field) is None else has.get(field) for field in fields}
    near = [key for key in has if str(key).strip().casefold() in ("input", "inputs") and has[key]]
    if near and "input" in fields and "input" not in has:
        raise ValueError(f"{source}: record {number} has no 'input' but {near[0]!r}, which nobody reads: rename it")
    for field, value in found.items():
        if wrong := flaw(value):
            wrong = wrong if field in has else f"it holds: {', '.join(map(str, has)) or type(row).__name__}"
            way = f"mend it, or convert it to {', '.join(fields)}"
            raise ValueError(f"{source}: record {number} has no text in '{field}' ({wrong}): {way}")
    return found


def as_texts(texts) -> list[str]:
    """One text, or several, as a list. Raises ValueError for what is none."""
    if not isinstance(texts, str | Iterable) or isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise ValueError(f"a {type(texts).__name__} holds no texts: give a list of them, of a table one column")
    if isinstance(texts, str) and os.path.isfile(texts):
        raise ValueError(f"{texts!r} is the name of a file, not its text: read_texts() reads it")
    found = [texts] if isinstance(texts, str) else [*texts]
    for number, text in enumerate(found):
        if wrong := flaw(text):
            raise ValueError(f"text {number} is no text ({wrong}): leave it out")
    return found


def flaw(value: object) -> str:
    """What keeps a value from being a text: its type, or half a character; "" for a text."""
    if not isinstance(value, str):
        return "null" if value is None else f"a {type(value).__name__}"
    half = re.search("[\ud800-\udfff]", value)
    return f"a lone surrogate, half an emoji, at character {half.start()}" if half else ""


def read(path: str | Path) -> list | str:
    """The records of JSON (a list, or value after value, as in JSON Lines), Parquet or CSV; else the text of the file.

    Raises ValueError, which names the file, and the line, where it is unreadable, binary, empty, or broken.
    """
    path = Path(path).expanduser()
    text = _contents(path)
    if isinstance(text, list):
        return text
    start = text[_GAP.match(text).end() :]
    if not start or "\0" in start or _STRAY.match(start):
        what = "empty" if not start else "binary" if "\0" in start else "a git-lfs pointer or a web page"
        raise ValueError(f"{path} is {what}: name a file of UTF-8 text or records")
    kinds = {suffix.lower() for suffix in path.suffixes[-2:]}
    sure = _JSON.match(start) or kinds & {".json", ".jsonl", ".ndjson"}
    if sure or start[0] in "[{":
        try:
            return _json(text)
        except (ValueError, RecursionError) as error:
            if sure:  # else it is prose that starts with a bracket
                raise ValueError(f"{path} is not JSON: {error}") from None
    head = start.partition("\n")[0].rstrip()
    comma = max(",;\t", key=head.count)
    cells = [cell.strip('"') for cell in head.split(comma)]
    if kinds & {".csv", ".tsv"} or (cells[1:] and _COLUMNS & {*cells} and re.fullmatch(r"\w*", "".join(cells))):
        return _csv(path, text.lstrip("\r\n"), comma)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _contents(path: Path) -> str | list[dict]:
    saved = "state.json"  # in what Dataset.save_to_disk wrote
    if path.is_dir() and not (path / saved).is_file():
        parts = ", ".join(sorted(part.parent.name for part in path.glob(f"*/{saved}")))
        raise ValueError(f"{path} is a folder: name {f'one of its splits, {parts}' if parts else 'a file in it'}")
    try:
        if path.is_dir():
            return load_from_disk(path).with_format(None).to_list()
        data = path.read_bytes()
        if packed := next((name for magic, name in _PACKED.items() if data.startswith(magic)), None):
            data = pyarrow.input_stream(pyarrow.py_buffer(data), compression=packed).read()
        if data.startswith(b"PAR1"):
            return pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
        return data.decode(next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:  # a UnicodeDecodeError is a ValueError
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{path} cannot be read ({why}): name a file of UTF-8 text or records") from None


def _json(text: str) -> list:
    """The values in the text, one after another, or those of its one list."""
    decode, rows, at = json.JSONDecoder().raw_decode, [], _GAP.match(text).end()
    while at < len(text):
        row, at = decode(text, at)
        rows.append(row)
        at = _GAP.match(text, at).end()
    return rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows


def _csv(path: Path, text: str, comma: str) -> list[dict]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    heads = Counter(reader.fieldnames)
    if twice := next((head for head, times in heads.items() if times > 1), None):
        raise ValueError(f"{path} has {heads[twice]} columns named {twice!r}: one of them would be lost")
    before = csv.field_size_limit(len(text) + 1)  # a whole article may stand in a cell
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV after line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)
    if wide := [number for number, row in enumerate(rows) if None in row]:
        raise ValueError(f"{path}: record {wide[0]} has more cells than the header")
    return rows
