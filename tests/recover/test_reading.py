"""Files are told apart by what is in them; what they hold comes back whole, and what is wrong is named."""

import bz2
import csv
import gzip
import io
import json
import re

import pandas as pd
import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from spp_lite.recover.data import FIELDS, load_alpaca, read_texts

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(
    st.one_of(LETTERS, st.sampled_from('{}[]",:\\\n\r\t\v\f\x1c\x85\u2028\u2029\ufeff <s></s>')), max_size=30
)
WORDS = TEXT.filter(str.strip)
ROWS = st.lists(st.fixed_dictionaries({"instruction": WORDS, "input": TEXT, "output": WORDS}), min_size=1, max_size=4)


def table(rows, comma):
    written = io.StringIO(newline="")
    made = csv.DictWriter(written, FIELDS, delimiter=comma)
    made.writeheader()
    made.writerows(rows)
    return written.getvalue()


FORMS = {
    "list": lambda rows: json.dumps(rows),
    "pretty list": lambda rows: "\n" + json.dumps(rows, indent=2, ensure_ascii=False) + "\n",
    "lines": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    "lines of Windows": lambda rows: "".join(json.dumps(row) + "\r\n" for row in rows),
    "lines, some blank": lambda rows: "\n".join(json.dumps(row) + "\n \t" for row in rows) + "\n\n",
    "csv": lambda rows: table(rows, ","),
    "tsv": lambda rows: table(rows, "\t"),
}
CODES = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
PACKED = [bytes, gzip.compress, bz2.compress, lambda data: pyarrow.compress(data, codec="zstd", asbytes=True)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    def write(name, data):
        path = tmp_path_factory.getbasetemp() / "read" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


@given(rows=ROWS, form=st.sampled_from(list(FORMS)), code=st.sampled_from(CODES), pack=st.sampled_from(PACKED))
def test_records_come_back_as_they_were_whatever_the_name_says(file, rows, form, code, pack):
    """The name's ending says nothing: this one is no format's."""
    path = file("records.00000-of-01024", pack(FORMS[form](rows).encode(code)))
    assert list(load_alpaca(path)) == rows


@given(texts=st.lists(TEXT, min_size=1, max_size=4), form=st.sampled_from([name for name in FORMS if "sv" not in name]))
def test_texts_come_back_as_they_were(file, texts, form):
    if not "".join(texts).strip():
        with pytest.raises(ValueError, match="records and no text"):
            read_texts(file("c4.txt", json.dumps(texts)))
        return
    assert read_texts(file("c4.txt", FORMS[form]([{"text": text, "url": "x"} for text in texts]))) == texts
    assert read_texts(file("list.txt", json.dumps(texts))) == texts


@pytest.mark.parametrize("name", ["c4-train.00000-of-01024.json", "c4.JSONL", "c4.ndjson", "c4.txt", "c4"])
def test_json_is_never_prose(file, name):
    row = '{"text": "one {brace}", "url": "https://x.y/1"}'
    assert read_texts(file(name, f"{row}\n{row}")) == ["one {brace}"] * 2
    for broken in (row[:-1], f"{row}\n{row[:20]}\n{row}", f"[{row},\n{row}", '[{"text"}]', "{'text': 'one'}", "[[1]]"):
        with pytest.raises(ValueError, match=re.escape(name)):
            read_texts(file(name, broken))


def test_the_line_of_broken_json_is_named(file):
    with pytest.raises(ValueError, match=r"a\.txt is not JSON: .*line 3 "):
        read_texts(file("a.txt", '\n{"text": "one"}\n{"text": two}\n'))
    with pytest.raises(ValueError, match=r"not JSON"):
        read_texts(file("deep.txt", '{"a":' * 100_000))
    with pytest.raises(ValueError, match=r"not JSON"):
        read_texts(file("long.txt", '{"a":' + "1" * 10_000 + "}"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("code", CODES)
def test_prose_is_cut_at_blank_lines(file, newline, code):
    text = newline.join(["", "[Chorus] one", "line", "", "two, three", " \t", "", "{four}: 4", ""])
    assert [one.strip() for one in read_texts(file("a.txt", text.encode(code)))] == [
        "[Chorus] one\nline", "two, three", "{four}: 4"]  # fmt: skip


@pytest.mark.parametrize("text", ["text, they say, is dead", "output\nand more", '"Hello," she said', "a\tb", "text"])
def test_prose_with_commas_is_prose(file, text):
    assert read_texts(file("a.txt", text)) == [text]


def test_parquet_and_tables_of_pandas_are_read(file, tmp_path):
    rows = [{"instruction": "Say, it.", "input": "", "output": 'it\n"now"'}, {"instruction": "b", "output": "NA"}]
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "a.bin")
    frame.to_csv(tmp_path / "a.csv")
    frame.to_csv(tmp_path / "a.dat", sep="\t", encoding="utf-16")
    for name in ("a.bin", "a.csv", "a.dat"):
        assert list(load_alpaca(tmp_path / name)) == [rows[0], rows[1] | {"input": ""}]
    pd.DataFrame({"text": ["one", "two"]}).to_csv(tmp_path / "text.csv", index=False)
    assert read_texts(tmp_path / "text.csv") == ["one", "two"]


def test_what_datasets_saved_to_disk_is_read(tmp_path):
    rows = [{"instruction": "Say, it.", "input": "", "output": "it"}, {"instruction": "b", "input": "c", "output": "d"}]
    Dataset.from_list(rows).with_format("numpy").save_to_disk(tmp_path / "one")
    assert list(load_alpaca(tmp_path / "one")) == rows
    DatasetDict({name: Dataset.from_dict({"text": [name]}) for name in ("train", "test")}).save_to_disk(
        tmp_path / "two"
    )
    assert read_texts(tmp_path / "two" / "train") == ["train"]
    with pytest.raises(ValueError, match=f"{tmp_path / 'two'} is a folder: name one of its splits, test, train"):
        read_texts(tmp_path / "two")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(ValueError, match=f"{tmp_path / 'one'} cannot be read"):
        load_alpaca(tmp_path / "one")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize("reader", [load_alpaca, read_texts])
@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\t\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(b"[] " * 999, mtime=0)[:-12], "cannot be read"),
        (b"PAR1" + bytes(50) + b"PAR1", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "cannot be read .*utf-8"),
        (b"\x40\0\0\0\0\0\0\0{}" + bytes(64), "is binary"),
        ("na\u00efve".encode("latin-1"), "cannot be read .*utf-8"),
        ("half".encode("utf-16")[:-1], "cannot be read .*utf-16"),
        (LFS.encode(), "git-lfs"),
        (b"\n<!DOCTYPE html><p>404", "a web page"),
    ],
)
def test_what_is_no_data_is_named(file, reader, data, message):
    path = file("some.data", data)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}"):
        reader(path)


@pytest.mark.parametrize("reader", [load_alpaca, read_texts])
def test_paths_without_a_file_are_named(reader, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*absent\.json"):
        reader(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r" is a folder: name a file in it"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        reader("/work\0")


@pytest.mark.parametrize("row", ['{"body": "one"}', '{"text": null}', '{"text": ["one"]}', '{"text": "\\ud83d"}', "3"])
def test_a_record_without_a_text_is_named(file, row):
    with pytest.raises(ValueError, match=r"a\.txt: record 1 has no text in 'text'"):
        read_texts(file("a.txt", f'[{{"text": "one"}}, {row}]'))


def test_a_file_without_records_is_named(file):
    with pytest.raises(ValueError, match=r"a\.txt holds 0 records and no text"):
        read_texts(file("a.txt", "[]"))
    with pytest.raises(ValueError, match=r"a\.txt holds nothing to learn from: 0 of 0"):
        load_alpaca(file("a.txt", "instruction,output\n"))


def test_a_cell_may_hold_a_whole_article(file):
    long = "word " * 40_000
    assert load_alpaca(file("a.csv", f'instruction,output\na,"{long}"\n'))["output"][0] == long
    assert csv.field_size_limit() == 131_072  # the process's own, as it was


def test_ragged_and_broken_tables_are_named(file):
    with pytest.raises(ValueError, match=r"a\.csv: record 1 has more cells"):
        load_alpaca(file("a.csv", "instruction,output\na,b\na,b,c\n"))
    with pytest.raises(ValueError, match=r"a\.csv: record 0 has no text in 'output' \(null\)"):
        load_alpaca(file("a.csv", "instruction,output\na\n"))
    with pytest.raises(ValueError, match=r"a\.csv is not CSV after line 1"):
        load_alpaca(file("a.csv", 'instruction,output\na,"b'))
    with pytest.raises(ValueError, match=r"it holds: title, body"):
        load_alpaca(file("a.csv", "title,body\na,b"))
