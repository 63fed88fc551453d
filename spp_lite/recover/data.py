"""Alpaca records → prompt → tokens and labels; text → calibration batches.

Knows the Alpaca schema and a tokenizer's call. Knows nothing about models, pruning or training.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from torch import Tensor

from .. import models
from ..models import embedded, is_tiny

FIELDS = ("instruction", "input", "output")
IGNORED = -100  # the label that the loss skips

_INTRO = "Below is an instruction that describes a task"
_TASK = "Write a response that appropriately completes the request."
PROMPT = f"{_INTRO}. {_TASK}\n\n### Instruction:\n{{instruction}}\n\n### Response:\n"
PROMPT_WITH_INPUT = (
    f"{_INTRO}, paired with an input that provides further context. {_TASK}"
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def load_alpaca(name: str | Path | None = None, *, split: str = "train") -> Dataset:
    """Instruction records with the columns instruction, input, output.

    name: "tiny" (embedded), a JSON or JSONL file, or a hub id such as "tatsu-lab/alpaca"; None: $SPP_DATA, else "tiny".
    split: "train", or "validation" where the source has one. Raises ValueError when a record lacks a field, or none
    has an output. Records with an empty output are dropped.
    """
    name = str(name or os.environ.get("SPP_DATA", "tiny"))
    path = embedded("tiny_alpaca", f"{split}.json") if name == "tiny" else Path(name)
    if path.is_file():
        data = Dataset.from_list(_read_records(path))
    elif path.is_dir():
        raise ValueError(f"{path} is a folder: name the JSON file with the Alpaca records")
    elif path.suffix in (".json", ".jsonl"):
        raise ValueError(f"there is no file {path}: name an Alpaca JSON, a hub id, or 'tiny'")
    else:
        data = _load_from_hub(name, split)
    missing = [field for field in FIELDS if field not in data.column_names]
    if missing:
        raise ValueError(f"{name}: records lack {', '.join(missing)}; found {', '.join(data.column_names)}")
    kept = data.select_columns(list(FIELDS)).filter(lambda record: bool(record["output"].strip()))
    if len(kept) == 0:
        raise ValueError(f"{name}: no record has an output to learn from")
    return kept


def _read_records(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    try:
        rows = [json.loads(line) for line in text.splitlines() if line] if path.suffix == ".jsonl" else json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds no list of records with {', '.join(FIELDS)}")
    for number, row in enumerate(rows):
        for field in FIELDS:
            if field == "input" and row.get(field) is None:
                row[field] = ""  # real files leave it out where it is empty
            if not isinstance(row.get(field), str):
                raise ValueError(f"{path}: record {number} has no text in '{field}': every record needs {FIELDS}")
    return [{field: row[field] for field in FIELDS} for row in rows]


def _load_from_hub(name: str, split: str) -> Dataset:
    models.require_network(name, kind="data set", cache=os.environ.get("HF_DATASETS_CACHE"))
    return load_dataset(name, split=split)


def prompt(record: dict[str, str]) -> str:
    """The Alpaca prompt of one record, up to where the response starts."""
    return (PROMPT_WITH_INPUT if record.get("input") else PROMPT).format(**record)


def tokenize(record: dict[str, str], tokenizer, *, cutoff: int = 512, train_on_inputs: bool = False) -> dict:
    """One record → input_ids, attention_mask, labels, each a list of at most `cutoff` ints.

    Labels of the prompt are −100 unless train_on_inputs (the authors' setting). A response that fits ends in EOS.
    """
    start = tokenizer(prompt(record))["input_ids"]
    if tokenizer.eos_token_id is not None and start[-1] == tokenizer.eos_token_id:
        start = start[:-1]
    answer = tokenizer(record["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ids = (start + answer)[:cutoff]
    labels = ids if train_on_inputs else ([IGNORED] * len(start) + answer)[:cutoff]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(labels)}


def tokenize_records(dataset: Dataset, tokenizer, *, cutoff: int = 512, train_on_inputs: bool = False) -> Dataset:
    """Every record tokenized; records whose prompt alone fills the cutoff teach nothing and are dropped.

    Raises ValueError when none is left.
    """
    tokens = dataset.map(
        lambda record: tokenize(record, tokenizer, cutoff=cutoff, train_on_inputs=train_on_inputs),
        remove_columns=dataset.column_names,
        load_from_cache_file=False,
    ).filter(lambda row: any(label != IGNORED for label in row["labels"]), load_from_cache_file=False)
    if len(tokens) == 0:
        raise ValueError(f"every prompt is longer than cutoff={cutoff} tokens: raise the cutoff")
    return tokens


def read_texts(path: str | Path) -> list[str]:
    """Texts of a .jsonl file (field "text") or the paragraphs of a plain text file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line]
        if not all(isinstance(row.get("text"), str) for row in rows):
            raise ValueError(f"{path}: every line needs a field 'text'")
        return [row["text"] for row in rows]
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def default_texts(split: str = "calibration", *, model: str | None = None, data: str | None = None) -> list[str]:
    """Texts for "calibration" or, disjoint, for "validation" (perplexity): of the embedded world for the tiny model,
    else of the Alpaca records (the last 80 are for validation)."""
    if is_tiny(model):
        return read_texts(embedded("text", "calibration.jsonl" if split == "calibration" else "validation.txt"))
    texts = [prompt(record) + record["output"] for record in load_alpaca(data)]
    return texts[:-80] if split == "calibration" else texts[-80:]


def calibration_batches(
    texts: Iterable[str], tokenizer, *, samples: int = 128, length: int = 512, batch_size: int = 8, seed: int = 0
) -> list[Tensor]:
    """Random windows of the joined texts, as pruning papers draw them from C4.

    Returns LongTensors (batch_size, length), `samples` windows in all. Raises ValueError when the texts hold fewer
    than `length` tokens.
    """
    joined = [token for text in texts for token in tokenizer(text)["input_ids"]]
    stream = torch.tensor(joined, dtype=torch.long)
    if len(stream) <= length:
        raise ValueError(f"the calibration texts hold {len(stream)} tokens, fewer than one window of {length}")
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(stream) - length, (samples,), generator=draw)
    windows = torch.stack([stream[start : start + length] for start in starts.tolist()])
    return list(windows.split(batch_size))
