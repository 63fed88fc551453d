import json

import pytest
import torch
from datasets import Dataset

from spp_lite.models import load_tokenizer, resolve
from spp_lite.recover.data import (
    IGNORED,
    calibration_batches,
    load_alpaca,
    prompt,
    read_texts,
    tokenize,
    tokenize_records,
)

RECORD = {"instruction": "Name a colour.", "input": "", "output": "red"}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("tiny"))


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_prompt_is_alpacas_with_and_without_input():
    assert prompt(RECORD) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nName a colour.\n\n### Response:\n"
    )
    assert "\n\n### Input:\nsky\n\n### Response:\n" in prompt(RECORD | {"input": "sky"})
    assert "paired with an input" in prompt(RECORD | {"input": "sky"})


@pytest.mark.parametrize("train_on_inputs", [False, True])
def test_labels_are_the_answer_and_its_end(tokenizer, train_on_inputs):
    row = tokenize(RECORD, tokenizer, train_on_inputs=train_on_inputs)
    start = len(tokenizer(prompt(RECORD))["input_ids"])
    assert row["input_ids"][0] == tokenizer.bos_token_id
    assert row["labels"][start:] == row["input_ids"][start:]
    assert row["labels"][-1] == tokenizer.eos_token_id
    assert row["labels"][:start] == (row["input_ids"][:start] if train_on_inputs else [IGNORED] * start)
    assert tokenizer.decode(row["input_ids"][start:-1]).strip() == "red"


def test_cutoff_shortens_answers_and_drops_records_without_room(tokenizer):
    start = len(tokenizer(prompt(RECORD))["input_ids"])
    assert len(tokenize(RECORD, tokenizer, cutoff=start + 1)["input_ids"]) == start + 1
    data = Dataset.from_list([RECORD, RECORD | {"instruction": "Name a colour. " * 50}])
    assert len(tokenize_records(data, tokenizer, cutoff=start + 2)) == 1
    with pytest.raises(ValueError, match=r"longer than cutoff=5 tokens: raise"):
        tokenize_records(data, tokenizer, cutoff=5)


def test_alpaca_file_keeps_the_three_fields_and_drops_empty_outputs(tmp_path):
    rows = [RECORD | {"text": "x"}, RECORD | {"output": " "}, {"instruction": "Say a.", "output": "a"}]
    data = load_alpaca(write(tmp_path / "a.json", rows))
    assert data.column_names == ["instruction", "input", "output"]
    assert data["output"][:] == ["red", "a"]
    assert data["input"][:] == ["", ""]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    assert load_alpaca(lines)[:] == data[:]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"question": "?"}], "record 0 has no text in 'instruction'"),
        ([RECORD, {"instruction": "a", "input": "", "output": 3}], "record 1 has no text in 'output'"),
        ([RECORD | {"output": ""}], "no record has an output"),
        ({"a": 1}, "holds no list of records"),
        ([], "holds no list of records"),
    ],
)
def test_bad_alpaca_files_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_alpaca(write(tmp_path / "bad.json", rows))


def test_paths_that_hold_no_records_are_named(tmp_path):
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_alpaca(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="there is no file"):
        load_alpaca(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="is a folder"):
        load_alpaca(tmp_path)


def test_the_environment_names_the_default_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SPP_DATA", str(write(tmp_path / "mine.json", [RECORD])))
    assert load_alpaca()[0] == RECORD
    assert len(load_alpaca("tiny")) >= 5000


def test_calibration_windows_come_from_the_texts_and_repeat_with_the_seed(tokenizer):
    texts = ["Name a colour. " * 20, "red " * 30]
    stream = torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]])
    batches = calibration_batches(texts, tokenizer, samples=5, length=7, batch_size=2, seed=1)
    assert [tuple(batch.shape) for batch in batches] == [(2, 7), (2, 7), (1, 7)]
    windows = {tuple(window.tolist()) for window in stream.unfold(0, 7, 1)}
    assert all(tuple(row.tolist()) in windows for batch in batches for row in batch)
    again = calibration_batches(texts, tokenizer, samples=5, length=7, batch_size=2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    with pytest.raises(ValueError, match="fewer than one window of 4096"):
        calibration_batches(texts, tokenizer, length=4096)


def test_texts_are_paragraphs_or_lines_of_json(tmp_path):
    (tmp_path / "a.txt").write_text("one\nline\n\ntwo\n\n\n")
    assert [text.strip() for text in read_texts(tmp_path / "a.txt")] == ["one\nline", "two"]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_texts(tmp_path / "a.jsonl") == ["one", "two"]
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n')
    with pytest.raises(ValueError, match="needs a field 'text'"):
        read_texts(tmp_path / "b.jsonl")
    with pytest.raises(ValueError, match="there is no file"):
        read_texts(tmp_path / "none.txt")
