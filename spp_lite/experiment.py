"""Runs from a dense model to a scored sparse one, a row of a tidy table each.

Joins load → prune → adapter → finetune → merge → evaluate. Prints nothing and draws nothing.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import peft
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import set_seed

from .adapter import SppConfig
from .baselines import reconstruct, recover
from .calibration import block_linears
from .data import tokenize_records
from .evaluation import average_accuracy, evaluate, perplexity
from .merging import merge
from .models import environment, load, peak_memory, reset_peak_memory
from .pruning import prune
from .training import finetune

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # the learning rates that every method may choose from
UNTRAINED = ("none", "reconstruct")
EXTRAS = {  # method+extra, as "spp+distill": what may be done beside a method
    "distill": "the dense parent's predictions at every token are learned, not the records' answers",
    "reconstruct": "local reconstruction first",
}
CALIBRATION = 16  # batches that a run of the grid draws from its recipe's


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
        set_seed(0)  # the start of α
        say(f"{sparsity}: insert SPP factors, train, merge with proof, evaluate")
        start = time.perf_counter()
        adapted = peft.get_peft_model(model, SppConfig(r=recipe.r))
        output = finetune(adapted, recipe.records, tokenizer, progress=recipe.progress, **recipe.training)
        model, _ = merge(adapted)
        seconds = time.perf_counter() - start
        losses = _losses(output)
        scores = {"loss_first": losses[0], "loss_last": losses[-1], **score(recipe, model, tokenizer)}
        yield _row("spp", sparsity, seconds, scores), model, tokenizer


def _losses(output) -> list[float]:
    return [entry["loss"] for entry in output.metrics["history"] if "loss" in entry]


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


@dataclass(frozen=True)
class Run:
    """One cell of the grid and one seed, which draws the calibration windows, the start of the factors and the order of
    the records. method: one of baselines.METHODS, with "+" and names of EXTRAS. lr: 0 for methods that do not train."""

    method: str
    pruner: str
    sparsity: str
    seed: int
    lr: float


def grid(
    methods: Sequence[str], pruners: Sequence[str], sparsities: Sequence[str], seeds: int, rates: Mapping[str, float]
) -> list[Run]:
    """The dense model and all runs, one seed after the other, so that a sweep that is stopped has whole grids."""
    dense = Run("dense", "dense", "0%", 0, 0.0)
    cells = itertools.product(range(seeds), pruners, sparsities, methods)
    return [
        dense,
        *(Run(method, pruner, sparsity, seed, rates.get(method, 0.0)) for seed, pruner, sparsity, method in cells),
    ]


def rate_grid(methods: Sequence[str], sparsity: str) -> list[Run]:
    """What choose_rates() compares: every method that trains at every rate of RATES, Wanda, seed 0."""
    cells = itertools.product(RATES, [method for method in methods if method not in UNTRAINED])
    return [Run(method, "wanda", sparsity, 0, rate) for rate, method in cells]


def choose_rates(table: pd.DataFrame) -> dict[str, float]:
    """Method → the best rate in a table of rate_grid() runs, scored on what the sweep itself does not score: the
    highest accuracy on a validation split, or the lowest perplexity where no task was scored."""
    value, ascending = ("accuracy", True) if "accuracy" in table else ("perplexity", False)
    best = table.dropna(subset=[value]).sort_values(value, kind="stable", ascending=ascending).groupby("method").tail(1)
    return dict(zip(best["method"], best["lr"], strict=True))


def sweep(recipe: Recipe, runs: Sequence[Run], path: Path, *, jobs: int = 1) -> pd.DataFrame:
    """Do the runs that the table at `path` lacks, adding each row as it is done; returns the table.

    The file is replaced whole each time: a sweep that is killed goes on where it was. jobs: processes; the threads of
    this one are shared among them. A run that fails (diverges, say) gets a row with its error and no accuracy.
    """
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    done = (
        {Run(*values) for values in table[[f.name for f in fields(Run)]].itertuples(index=False)}
        if len(table)
        else set()
    )
    runs = [run for run in dict.fromkeys(runs) if run not in done]
    tokenizer = load(recipe.model)[1]
    recipe = replace(recipe, records=tokenize_records(recipe.records, tokenizer), progress=False)
    rows = table.to_dict("records")
    for row in tqdm(_rows(recipe, runs, jobs), total=len(runs), desc=path.stem, disable=not runs):
        rows.append(row)
        write_table(pd.DataFrame(rows), path)
    return pd.DataFrame(rows)


def _rows(recipe: Recipe, runs: Sequence[Run], jobs: int) -> Iterator[dict]:
    if jobs == 1:
        yield from (do_run(recipe, run) for run in runs)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(do_run, recipe, run) for run in runs]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def do_run(recipe: Recipe, run: Run) -> dict:
    """One row: the run, parameters, seconds, peak memory, zeros before and after, scores, versions."""
    start = time.perf_counter()
    reset_peak_memory()
    row: dict = {**asdict(run), "error": ""}
    try:
        row |= _prune_train_score(recipe, run)
    except (ValueError, RuntimeError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    versions = " ".join(
        f"{name} {value}" for name, value in environment().items() if name in ("torch", "transformers", "peft")
    )
    return row | {"seconds": time.perf_counter() - start, "peak_mib": peak_memory() / 2**20, "versions": versions}


def _prune_train_score(recipe: Recipe, run: Run) -> dict:
    model, tokenizer = load(recipe.model)
    method, *extras = run.method.split("+")
    if unknown := [name for name in extras if name not in EXTRAS]:
        raise ValueError(f"{run.method}: no extra {', '.join(unknown)}: after a + goes one of {', '.join(EXTRAS)}")
    dense = load(recipe.model)[0] if extras or method == "reconstruct" else None
    set_seed(run.seed)
    order = torch.randperm(len(recipe.calibration))[:CALIBRATION]
    calibration = [recipe.calibration[i] for i in order.tolist()]
    if method == "dense":
        return {"parameters": 0, "zeros_before": 0.0, "zeros_after": 0.0, **score(recipe, model, tokenizer)}
    prune(model, calibration, run.sparsity, method=run.pruner, progress=False)
    if "reconstruct" in extras:
        reconstruct(model, dense, calibration)
    found = {"zeros_before": zeros(model), "parameters": 0}

    def train(trainable) -> None:
        found["parameters"] = sum(p.numel() for p in trainable.parameters() if p.requires_grad)
        training = {**recipe.training, "learning_rate": run.lr, "seed": run.seed, "progress": False}
        teacher = dense if "distill" in extras else None
        found["loss_last"] = _losses(finetune(trainable, recipe.records, tokenizer, teacher=teacher, **training))[-1]

    model = recover(model, method, train, dense=dense, calibration=calibration)
    scores = score(recipe, model, tokenizer)
    return {**found, "zeros_after": scores.pop("zeros"), **recipe.training, **scores}


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV under a temporary name and rename it: a full disk leaves the old table whole. Returns path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    table.to_csv(scratch, index=False)
    os.replace(scratch, path)
    return path
