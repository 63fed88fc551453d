"""Alpaca records → prompt → tokens and labels; text → calibration batches.

Knows the Alpaca schema and a tokenizer's call. Knows nothing about models, pruning or training.
"""

import copy
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import eq
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, load_dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DataCollatorForSeq2Seq

from .. import models
from ..arguments import require_tokenizer, require_unpacked, whole
from ..models import embedded, is_tiny
from .reading import as_texts, flaw, pick, read, read_texts

FIELDS = ("instruction", "input", "output")
SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".txt", ".gz", ".zst", ".bz2")
IGNORED = -100  # the label that the loss skips
BATCH = 1000  # records that go through the tokenizer at once

_INTRO = "Below is an instruction that describes a task"
_TASK = "Write a response that appropriately completes the request."
PROMPT = f"{_INTRO}. {_TASK}\n\n### Instruction:\n{{instruction}}\n\n### Response:\n"
PROMPT_WITH_INPUT = (
    f"{_INTRO}, paired with an input that provides further context. {_TASK}"
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def load_alpaca(name: str | Path | None = None, *, split: str = "train") -> Dataset:
    """Instruction records with the columns instruction, input, output.

    name: "tiny" (embedded), a file (JSON, JSON Lines, Parquet, CSV), a hub id such as "tatsu-lab/alpaca", or records: a
    list or a Dataset; None: $SPP_DATA, else "tiny". split: "train", or "validation" where the source has one (a file is all "train").
    Raises ValueError for a record in which a field is no text; warns of blank ones, which are left out.

    >>> from spp_lite import load_alpaca
    >>> load_alpaca("tiny", split="validation").column_names
    ['instruction', 'input', 'output']
    """
    if not isinstance(name, str | Path | None):
        return Dataset.from_list(_records(plain_rows(name), "the data set"))
    name = str(os.environ.get("SPP_DATA") or "tiny" if name is None else name)
    path = embedded("tiny_alpaca") / f"{split}.json" if name == "tiny" else Path(name).expanduser()
    local = (
        os.path.exists(path)
        or path.suffix.lower() in SUFFIXES
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
    )
    if local and name != "tiny" and split != "train":
        raise ValueError(f"{name} is a file, all of it split 'train': there is no '{split}' in it")
    return Dataset.from_list(_records(read(path) if local else _load_from_hub(name, split), name))


def _records(rows: Iterable, source: str) -> list[dict[str, str]]:
    """The three fields of every record that teaches something."""
    if isinstance(rows, str):
        raise ValueError(f"{source} is plain text: name records with {', '.join(FIELDS)}")
    rows = [*rows]
    found = [pick(source, number, row, FIELDS) for number, row in enumerate(rows)]
    unread = {key for row in rows for key, value in row.items() if value and isinstance(value, str | list)}
    unread -= {*FIELDS, "text", ""}  # "text": all of it once more, as Stanford's file has it
    if unread:
        names = ", ".join(sorted(map(str, unread)))
        warnings.warn(f"{source}: nobody reads {names}: what belongs to the prompt goes to 'input'", stacklevel=3)
    kept = [record for record in found if record["instruction"].strip() and record["output"].strip()]
    blank = f"{len(found) - len(kept)} of {len(found)} records have a blank instruction or output"
    if not kept:
        raise ValueError(f"{source} holds nothing to learn from: {blank}")
    if len(kept) < len(found):
        warnings.warn(f"{source}: {blank}; they are left out", stacklevel=3)
    return kept


def _load_from_hub(name: str, split: str) -> Dataset:
    models.require_network(name, kind="data set", cache=os.environ.get("HF_DATASETS_CACHE"))
    try:
        return load_dataset(name, split=split)
    except Exception as error:  # of a dozen kinds: name, split, configuration, network, disk
        raise ValueError(f"the data set {name} cannot be loaded: {' '.join(str(error).split())}") from error


def prompt(record: dict[str, str]) -> str:
    """The Alpaca prompt of one record, up to where the response starts."""
    return (PROMPT_WITH_INPUT if record.get("input") else PROMPT).format(**record)


def encode(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Each text's ids, after the BOS that the tokenizer puts there, without an EOS; "</s>" in a text is letters.

    Raises ValueError for what is no text, and for a tokenizer that takes something in it for a control token even so.
    """
    if wrong := next(filter(None, map(flaw, texts)), None):
        raise ValueError(f"there is {wrong} where a text is needed")
    own, *found = tokenizer(["", *texts], split_special_tokens=True, verbose=False)["input_ids"]
    end = tokenizer.eos_token_id
    control = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id} | {end}
    for text, ids in zip(texts, found, strict=True):
        if parsed := control & (Counter(ids) - Counter(own)).keys():
            token = tokenizer.convert_ids_to_tokens(min(parsed))
            near = text[max(0, text.find(token) - 20) :][:50]
            raise ValueError(f"this tokenizer takes {token!r} in a text for a control token: reword it near {near!r}")
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in found]


def tokenize(record: dict[str, str], tokenizer, *, cutoff: int = 512, train_on_inputs: bool = False) -> dict:
    """One record → input_ids, attention_mask, labels, each a list of at most `cutoff` ints.

    The ids are those of prompt and response as one text, then EOS. Labels of the prompt are −100 unless train_on_inputs
    (the authors' setting); a token that spans the border counts as response. A response that is cut has no EOS.
    """
    return _tokenize([pick("tokenize", 0, record, FIELDS)], tokenizer, cutoff, train_on_inputs)[0]


def _tokenize(records: Sequence[dict[str, str]], tokenizer, cutoff: int, train_on_inputs: bool) -> list[dict]:
    require_tokenizer(tokenizer)
    whole(cutoff=cutoff)
    end, prompts = tokenizer.eos_token_id, [*map(prompt, records)]
    if end is None:
        raise ValueError("the tokenizer has no eos_token: set one")
    both = [text + record["output"] for text, record in zip(prompts, records, strict=True)]
    rows = []
    for alone, ids in zip(encode(tokenizer, prompts), encode(tokenizer, both), strict=True):
        start = [*map(eq, alone, ids), False].index(False)
        ids = [*ids, end]
        labels = (ids if train_on_inputs else [IGNORED] * start + ids[start:])[:cutoff]
        rows.append({"input_ids": ids[:cutoff], "attention_mask": [1] * len(labels), "labels": labels})
    return rows


def tokenize_records(dataset: Dataset, tokenizer, *, cutoff: int = 512, train_on_inputs: bool = False) -> Dataset:
    """Every record tokenized; those whose prompt alone fills the cutoff teach nothing: left out, with a warning.

    Raises ValueError when none is left.
    """
    given, rows = plain_rows(dataset), []
    if "input_ids" in given.column_names:
        raise ValueError("the rows have input_ids and no labels: add labels (a copy of the ids, -100 for none)")
    records = _records(given, "the data set")
    for first in tqdm(range(0, len(records), BATCH), desc="tokenize", disable=len(records) < 20 * BATCH):
        rows += _tokenize(records[first : first + BATCH], tokenizer, cutoff, train_on_inputs)
    kept = [row for row in rows if any(label != IGNORED for label in row["labels"])]
    if not kept:
        longest = max(map(len, encode(tokenizer, [*map(prompt, records)])))
        raise ValueError(f"every prompt is longer than cutoff={cutoff} tokens: raise the cutoff (longest: {longest})")
    if missing := len(rows) - len(kept):
        warnings.warn(f"{missing} of {len(rows)} prompts fill the cutoff of {cutoff} tokens: left out", stacklevel=2)
    if cut := sum(row["labels"][-1] != tokenizer.eos_token_id for row in kept):
        warnings.warn(f"{cut} of {len(kept)} answers are cut at {cutoff} tokens, where they do not end", stacklevel=2)
    return Dataset.from_list(kept)


def collator(tokenizer) -> DataCollatorForSeq2Seq:
    """Pads a batch on the right, whatever the tokenizer's own side: from padding before it a text's first token would be
    predicted."""
    padded = copy.copy(tokenizer)
    padded.padding_side = "right"
    padded.model_input_names = [*dict.fromkeys([*tokenizer.model_input_names, "attention_mask"])]
    return DataCollatorForSeq2Seq(padded, padding=True)


def require_whole(row: Mapping, where: str) -> None:
    """Raise ValueError for a tokenized row whose labels count at padding, or in which several records are packed."""
    mask = row.get("attention_mask")
    if mask and any(label != IGNORED for label, real in zip(row["labels"], mask, strict=True) if not real):
        raise ValueError(f"{where} has labels that count at padding, where attention_mask is 0: set them to {IGNORED}")
    if positions := row.get("position_ids"):
        require_unpacked(positions, mask, where)


def plain_rows(dataset) -> Dataset:
    """A table of records or of tokenized rows, also of a list of them, as plain Python values whatever its format is;
    ValueError for what is none."""
    if isinstance(dataset, Dataset):
        return dataset.with_format(None)
    if isinstance(dataset, list) and any(isinstance(row, Mapping) and "labels" in row for row in dataset):
        return Dataset.from_dict(
            {key: [row.get(key) for row in dataset] for key in {k: 0 for row in dataset for k in row}}
        )
    if isinstance(dataset, list):
        return Dataset.from_list(_records(dataset, "the data set"))
    way = "load_alpaca() reads a file" if isinstance(dataset, str) else "make it a Dataset"
    way = f"choose one of its splits, {', '.join(dataset)}" if isinstance(dataset, DatasetDict) else way
    raise ValueError(f"a {type(dataset).__name__} is no table of rows: {way}")


def held_out(records: Dataset, *, parts: int = 1) -> tuple[Dataset, ...]:
    """(records to train on, records to choose by or to score, …): the last 80 different ones, at most a fifth, dealt out
    to so many parts; no text is in two of them. Raises ValueError where there are too few."""
    whole(parts=parts)
    records = plain_rows(records)
    texts = [" ".join(f"{prompt(record)}{record['output']}".casefold().split()) for record in records]
    different = list(dict.fromkeys(texts))
    if len(different) <= parts:
        raise ValueError(f"{len(different)} different records are too few to hold {parts} out: name more")
    held = different[-min(80, max(parts, len(different) // 5)) :]
    part_of = {text: 1 + place % parts for place, text in enumerate(held)}
    sides = ([i for i, text in enumerate(texts) if part_of.get(text, 0) == side] for side in range(parts + 1))
    return tuple(map(records.select, sides))


def default_texts(split: str = "calibration", *, model: str | None = None, data: str | None = None) -> list[str]:
    """Texts for "calibration" or, disjoint, for "validation" (perplexity): of the embedded world for the tiny model alone,
    else of the Alpaca records (those of held_out are for validation)."""
    if split not in ("calibration", "validation"):
        raise ValueError(f"there are texts for 'calibration' and 'validation', not for {split!r}")
    if data is None and model is None:
        data = os.environ.get("SPP_DATA") or None
    if is_tiny(model) and data in (None, "tiny"):
        return read_texts(embedded("text", "calibration.jsonl" if split == "calibration" else "validation.txt"))
    return [prompt(record) + record["output"] for record in held_out(load_alpaca(data))[split == "validation"]]


def calibration_batches(
    texts: Iterable[str], tokenizer, *, samples: int = 128, length: int = 512, batch_size: int = 8, seed: int = 0
) -> list[Tensor]:
    """Random windows of the joined texts, as pruning papers draw them from C4.

    Returns LongTensors (batch_size, length), `samples` windows in all. Raises ValueError when the texts hold fewer
    than `length` tokens, or a number is not at least 1.
    """
    require_tokenizer(tokenizer)
    whole(samples=samples, length=length, batch_size=batch_size)
    joined = [*chain(*encode(tokenizer, as_texts(texts)))]
    stream = torch.tensor(joined, dtype=torch.long)
    if len(stream) < length:
        short = f"the calibration texts hold {len(stream)} tokens, fewer than one window of {length}"
        raise ValueError(f"{short}: name more text, or a smaller length")
    if (places := len(stream) - length) < samples > 1:
        few = f"the calibration texts hold {len(stream)} tokens, {max(1, places)} different windows of {length}"
        warnings.warn(f"{few}: of {samples} some are drawn again", stacklevel=2)
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, max(1, len(stream) - length), (samples,), generator=draw)
    windows = torch.stack([stream[start : start + length] for start in starts.tolist()])
    return list(windows.split(batch_size))
