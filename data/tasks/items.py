"""Reads a task's items for lm-eval, from wherever this folder is installed."""

import json
from pathlib import Path

from datasets import Dataset, DatasetDict


def load(family: str, **_) -> DatasetDict:
    """The validation and test items of one family: query, choices, label."""
    folder = Path(__file__).parent
    return DatasetDict(
        {
            split: Dataset.from_list(
                [json.loads(line) for line in (folder / f"{family}_{split}.jsonl").read_text().splitlines()]
            )
            for split in ("validation", "test")
        }
    )
