"""Runs from a dense model to a scored sparse one, a row of a tidy table each.

Joins load → prune → adapter → finetune → merge → evaluate. Prints nothing and draws nothing.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import peft
from datasets import Dataset
from torch import Tensor

from .adapter import SppConfig
from .calibration import block_linears
from .evaluation import average_accuracy, evaluate, perplexity
from .merging import merge
from .models import load
from .pruning import prune
from .training import finetune


@dataclass(frozen=True)
class Recipe:
    """What every run of one comparison shares.

    model: as in load(). records: Alpaca records. calibration: LongTensors (batch, length). tasks: as in evaluate(), or
    None. text: scored by perplexity(), or None. training: keywords of finetune().
    """

    model: str
    records: Dataset
    calibration: Sequence[Tensor]
    tasks: str | list[str] | None = "tiny"
    text: str | None = None
    pruner: str = "wanda"
    r: int = 16
    training: dict = field(default_factory=dict)
    batch_size: int = 64
    limit: int | None = None
    progress: bool = True


def dense_and_recovered(
    recipe: Recipe, sparsities: Sequence[str], *, say: Callable[[str], None] = lambda stage: None
) -> Iterator[tuple[dict, object, object]]:
    """Yield (row, model, tokenizer) for the dense model, then for each sparsity pruned alone and pruned + SPP + merged.

    The model is one and the same object from "pruned" to "recovered": save it before going on if it is wanted.
    say: told the stage that begins.
    """
    say(f"dense: load {recipe.model}, evaluate")
    model, tokenizer = load(recipe.model)
    yield {"method": "dense", "sparsity": "0%", **score(recipe, model, tokenizer)}, model, tokenizer
    for sparsity in sparsities:
        model, tokenizer = load(recipe.model)
        say(f"{sparsity}: prune with {recipe.pruner}, evaluate")
        start = time.perf_counter()
        prune(model, recipe.calibration, sparsity, method=recipe.pruner, progress=recipe.progress)
        seconds = time.perf_counter() - start
        yield _row("none", sparsity, seconds, score(recipe, model, tokenizer)), model, tokenizer
        say(f"{sparsity}: insert SPP factors, train, merge with proof, evaluate")
        start = time.perf_counter()
        adapted = peft.get_peft_model(model, SppConfig(r=recipe.r))
        output = finetune(adapted, recipe.records, tokenizer, progress=recipe.progress, **recipe.training)
        model, _ = merge(adapted)
        seconds = time.perf_counter() - start
        losses = [entry["loss"] for entry in output.metrics["history"] if "loss" in entry]
        scores = {"loss_first": losses[0], "loss_last": losses[-1], **score(recipe, model, tokenizer)}
        yield _row("spp", sparsity, seconds, scores), model, tokenizer


def _row(method: str, sparsity: str, seconds: float, scores: dict) -> dict:
    return {"method": method, "sparsity": sparsity, "seconds": round(seconds, 2), **scores}


def score(recipe: Recipe, model, tokenizer) -> dict:
    """zeros (share, in the blocks' linears); as far as asked accuracy (mean of acc), acc of each task, perplexity."""
    found = {"zeros": zeros(model)}
    if recipe.tasks:
        table = evaluate(
            model, tokenizer, recipe.tasks, limit=recipe.limit, batch_size=recipe.batch_size, progress=recipe.progress
        )
        found["accuracy"] = average_accuracy(table)
    if recipe.text:
        found["perplexity"] = perplexity(model, tokenizer, recipe.text, progress=recipe.progress)
    if recipe.tasks:
        found |= table[table["metric"] == "acc"].set_index("task")["value"].to_dict()
    return found


def zeros(model) -> float:
    """Share of exact zeros over all linears of the decoder blocks."""
    weights = [linear.weight for linear in block_linears(model).values()]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV under a temporary name and rename it: a full disk leaves the old table whole. Returns path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    table.to_csv(scratch, index=False)
    os.replace(scratch, path)
    return path
