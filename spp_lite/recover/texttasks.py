"""A multiple-choice task out of any prose: which of four continuations is the real one? Accuracy without a hub.

Knows lm-eval's task files. Knows nothing about models.
"""

import hashlib
import json
import random
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import yaml

from ..arguments import whole
from ..storage import cache_folder
from .reading import as_texts, read_texts

WORDS, FEWEST = 48, 8  # words of a passage: halves of 24; down to 4 where the texts are short
SPLITS = {"train": 0.1, "validation": 0.3, "test": 0.6}
CHOICES = 4
NEEDED = 40  # passages, so that the smallest split has CHOICES of them


def tasks_from_text(source: str | Path | Iterable[str], *, name: str = "text", items: int = 400, seed: int = 0) -> str:
    """Write lm-eval's files of a task and return its name: evaluate() takes it, and NAME_val for the validation split.

    source: a file as read_texts() takes it, or the texts. Each item gives the first half of a passage; the real second
    half stands among three of other passages of its split, of as many words. items: at most so many in all. A passage
    is in one split alone; blind guessing gets 25 %. The name ends in a hash of the texts: other texts, another task.
    Raises ValueError for texts that give too few passages.
    """
    if isinstance(source, str | Path):
        name, texts = Path(source).stem if name == "text" else name, read_texts(source)
    else:
        texts = as_texts(source)
    name = f"text_{re.sub(r'[^a-z0-9]+', '_', name.lower())}"
    whole(NEEDED, items=items)
    digest = hashlib.sha256(json.dumps([texts, items, seed, WORDS]).encode()).hexdigest()[:8]
    name, folder = f"{name}_{digest}", cache_folder() / "tasks" / f"{name}_{digest}"
    if _is_whole(folder, name):
        return name
    draw = random.Random(seed)
    passages = _passages(texts, items)
    draw.shuffle(passages)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:  # whole or not at all
        new, start = Path(scratch) / name, 0
        new.mkdir()
        for split, share in SPLITS.items():
            end = start + round(share * min(items, len(passages)))
            rows = [json.dumps(row, ensure_ascii=False) for row in _questions(passages[start:end], draw)]
            (new / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            start = end
        for task, split in ((f"{name}_val", "validation"), (name, "test")):
            (new / f"{task}.yaml").write_text(yaml.safe_dump(_task(task, split, folder)), encoding="utf-8")
        if folder.exists():  # torn, or made where the cache lay before
            folder.rename(Path(scratch) / "old")
        with suppress(OSError):  # another process was quicker
            new.rename(folder)
    return name


def _is_whole(folder: Path, name: str) -> bool:
    """Is the task there, with its data where its settings say?"""
    try:
        made = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
        return made == _task(name, "test", folder) and all((folder / f"{split}.jsonl").is_file() for split in SPLITS)
    except (OSError, yaml.YAMLError):
        return False


def _passages(texts: list[str], items: int) -> list[tuple[str, str]]:
    """(first half, second half) of pieces of equally many words, as long as the texts allow for enough of them."""
    words = WORDS
    while True:
        found = []
        for text in texts:
            spans = [match.span() for match in re.finditer(r"\S+", text)]
            for first in range(0, len(spans) - words + 1, words):
                (start, _), (_, middle) = spans[first], spans[first + words // 2 - 1]
                begin, end = spans[first + words // 2][0], spans[first + words - 1][1]
                found.append((text[start:middle], text[begin:end]))
        for half in (0, 1):  # no continuation stands twice, no beginning has two
            found = list({pair[half]: pair for pair in reversed(found)}.values())[::-1]
        if len(found) >= (NEEDED if words == FEWEST else max(items, NEEDED)):
            return found
        if words == FEWEST:
            raise ValueError(
                f"the texts give {len(found)} different passages of {words} words (what blanks part), too few for a task: "
                "give more text"
            )
        words = max(FEWEST, words // 2)


def _questions(passages: list[tuple[str, str]], draw: random.Random) -> Iterable[dict]:
    for number, (context, answer) in enumerate(passages):
        others = [second for other, (_, second) in enumerate(passages) if other != number]
        choices = draw.sample(others, CHOICES - 1)
        place = draw.randrange(CHOICES)
        yield {"context": context, "choices": [*choices[:place], answer, *choices[place:]], "answer": place}


def _task(task: str, split: str, folder: Path) -> dict:
    files = {name: str(folder / f"{name}.jsonl") for name in SPLITS}
    metrics = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")]
    return {
        "task": task, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": split,
        "output_type": "multiple_choice", "doc_to_text": "{{context}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer", "metric_list": metrics,
    }  # fmt: skip
