"""The grid of runs, and the one table that keeps its rows: resumable, replaced whole.

Knows what a run is called, not how it is done (runs.py).
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..models import load
from ..recover.data import tokenize_records
from .runs import Recipe, Run, do_run

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # the learning rates that every method may choose from
UNTRAINED = ("none", "reconstruct")


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


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV under a temporary name and rename it: a full disk leaves the old table whole. Returns path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    table.to_csv(scratch, index=False)
    os.replace(scratch, path)
    return path
