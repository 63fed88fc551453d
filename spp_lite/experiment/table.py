"""The grid of runs, and the one table that keeps its rows: resumable, replaced whole, never of two minds.

Knows what a run is called, not how it is done (runs.py).
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..models import load, require_writable
from ..writing import alone, replaced
from .recipe import IDENTITY, Recipe, Run, trains
from .runs import do_run
from .statistics import finite, is_pattern, ratio_of, require_alike

SCORES = ("accuracy", "alpaca_loss", "perplexity")  # a row has one of them, or an error
KEY = [field.name for field in fields(Run)]


def choose_rates(table: pd.DataFrame, sparsity: str | None = None) -> dict[str, float]:
    """Method → the best rate in a table of rate_grid() runs, scored on what the sweep itself does not score: the
    highest accuracy on a validation split, or the lowest loss or perplexity where no task was scored, on average over
    seeds. A rate loses with which a run failed. sparsity: of the runs at the sparsity nearest to it, of two equally near
    ones at that with more zeros.

    Raises ValueError for a table without the columns, of several models or budgets, and for a rate that is not positive.
    """
    value = next((name for name in SCORES if name in table and finite(table[name]).notna().any()), "accuracy")
    if lacking := [column for column in ("method", "lr", value) if column not in table]:
        wanted = f"the column {lacking[0]} beside method, lr and one of {', '.join(SCORES)}"
        raise ValueError(f"a table of rates needs {wanted}")
    table = table[table["method"].astype(str).map(trains)]
    require_alike(table)
    rates = finite(table["lr"])
    for method, lr in table[~(rates > 0)][["method", "lr"]].itertuples(index=False):
        raise ValueError(f"the learning rate of {method} is {lr}: it must be a positive number")
    table = table.assign(lr=rates, score=finite(table[value]) * (1 if value == "accuracy" else -1))
    if sparsity is not None and "sparsity" in table:
        ratio, kind = ratio_of(sparsity), is_pattern(sparsity)
        far = table["sparsity"].map(lambda at: round(abs(ratio_of(at) - ratio) + (is_pattern(at) != kind), 9))
        far -= table["sparsity"].map(ratio_of) / 1e9
        table = table[far == far.groupby(table["method"]).transform("min")]
    if "seed" in table:  # over the seeds that every rate of a method was tried with
        tried = table.groupby("method")["lr"].transform("nunique")
        table = table[table.groupby(["method", "seed"])["lr"].transform("nunique") == tried]
    scores = table.groupby(["method", "lr"], sort=False)["score"].agg(lambda runs: runs.mean(skipna=False))
    best = scores.dropna().sort_values(kind="stable").reset_index().groupby("method").tail(1)
    return dict(zip(best["method"], best["lr"].map(float), strict=True))


def read_table(path: Path, *, key: Sequence[str] = KEY) -> pd.DataFrame:
    """The rows that sweep() wrote (none where there is no file), or another table with the columns `key`.

    Raises ValueError, with the line, for what cannot be read, runs that are no runs or there twice, and rows that have
    neither score nor error: edited by hand, or cut short.
    """
    if not path.exists():
        return pd.DataFrame()
    try:
        text = dict.fromkeys((*IDENTITY, "method", "pruner", "sparsity"), str)
        table = pd.read_csv(path, dtype=text, float_precision="round_trip")
    except (ValueError, OSError) as error:  # pandas' own are ValueErrors
        raise ValueError(f"{path} is no table of runs ({error}): name another") from None
    if lacking := [column for column in key if column not in table]:
        raise ValueError(f"{path} lacks the column {lacking[0]}: it is no table of runs, name another")
    if list(key) != KEY:
        return table
    seen: dict[Run, int] = {}
    scores = table.reindex(columns=SCORES)
    numbers = scores.apply(finite)
    strange = (scores.notna() & numbers.isna()).any(axis=1) | ~numbers["accuracy"].fillna(0).between(0, 1)
    whole = table[[name for name in IDENTITY if name in table]].notna().all(axis=1)
    whole &= numbers.notna().any(axis=1) | table.reindex(columns=["error"])["error"].notna()
    rows = zip(table[KEY].to_dict("records"), whole, strange, strict=True)
    for line, (values, complete, odd) in enumerate(rows, 2):
        try:
            run = _run(values)
            if run in seen:
                raise ValueError(f"it is the run of line {seen[run]} again")
            if odd or not complete:
                why = "its score is none that sweep writes" if odd else "it has neither a score nor an error"
                raise ValueError(f"{why}: it was cut short, or edited")
        except (ValueError, AttributeError) as error:  # an empty cell has no text
            raise ValueError(f"{path}, line {line}: {error}: delete the line, the run is then done again") from None
        seen[run] = line
    return table.assign(sparsity=[run.sparsity for run in seen])  # a spreadsheet makes 02:04 of 2:4


def _run(values: Mapping) -> Run:
    """The run of a row, whatever types a spreadsheet has made of its numbers."""
    if float(values["seed"]) % 1:
        raise ValueError(f"its seed is {values['seed']}, no whole number")
    return Run(**{**values, "seed": int(values["seed"]), "lr": float(values["lr"])})


def differences(table: pd.DataFrame, made: Mapping[str, str]) -> list[str]:
    """Where the rows of a table were made by something else than `made`: "column: theirs, not ours"."""
    if not set(made) & set(table):
        return ["they do not say what made them"]
    found = []
    for column, ours in made.items():
        theirs = table[column].fillna("nothing").unique() if column in table else ["unknown"]
        found += [f"{column}: {other}, not {ours}" for other in theirs if other != ours][:1]
    return found


def make_room(path: Path, made: Mapping[str, str]) -> str:
    """Put a table that something else made aside under a name of its own, and take back the one that `made` made, where
    that was put aside before; returns the sentence that says so, or "" where the table may be gone on with."""

    def name(identity: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(repr([identity[column] for column in IDENTITY]).encode()).hexdigest()
        return path.with_name(f"{path.stem}.{digest[:8]}{path.suffix}")

    with alone(path):
        table, note = read_table(path), ""
        if len(table):
            if not (other := differences(table, made)):
                return ""
            aside = name(table.reindex(columns=IDENTITY).iloc[0])
            while aside.exists():
                aside = aside.with_suffix(f".more{path.suffix}")
            os.replace(path, aside)
            note = f"the rows of {path} were made otherwise ({'; '.join(other)}): they are kept in {aside.name}"
        if name(made).exists():
            os.replace(name(made), path)
        return note


def sweep(
    recipe: Recipe, runs: Sequence[Run], path: Path, *, jobs: int = 1, say: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """Do the runs that the table at `path` lacks, adding each row as it is done; returns the table.

    The file is replaced whole each time: a sweep that is killed goes on where it was. jobs: processes; the threads of
    this one are shared among them. say: told each row. A run that fails (diverges, say) gets a row with its error and no
    score; one that lacked memory is done again the next time. Raises ValueError, before any run, for a table whose rows
    another model, data, … made.
    """
    with alone(path):
        return _sweep(recipe, runs, path, jobs, say)


def _sweep(recipe: Recipe, runs: Sequence[Run], path: Path, jobs: int, say: Callable[[str], None]) -> pd.DataFrame:
    table = read_table(path)
    model, tokenizer = load(recipe.model)
    made = recipe.identity(model)
    if len(table) and (other := differences(table, made)):
        raise ValueError(
            f"the rows of {path} were made otherwise ({'; '.join(other)}): name another --out or remove them"
        )
    table, runs = _without(table, runs)
    if runs:
        require_writable(path.parent)
        seeds = {run.seed for run in runs if run.pruner in ("wanda", "sparsegpt")}
        recipe.check(model, tokenizer, {run.sparsity for run in runs}, len(seeds))
        recipe = replace(recipe.tokenized(tokenizer), progress=False)
    del model
    rows = table.to_dict("records")
    with closing(_rows(recipe, runs, jobs)) as found:  # stopped, it ends its processes
        bar = tqdm(found, total=len(runs), desc=path.stem, disable=None if runs else True)
        for number, row in enumerate(bar, 1):
            if row.get("model", made["model"]) != made["model"]:
                raise ValueError(f"{recipe.model} was replaced while its sweep went on: start again with another --out")
            rows.append(row | made)
            write_table(pd.DataFrame(rows), path)
            what = " ".join(str(row[name]) for name in KEY)
            scores = [f"{name} {row[name]:.4g}" for name in SCORES if name in row]
            say(f"{number} of {len(runs)}: {what}: {row['error'] or ', '.join(scores)} ({row['seconds']:.0f} s)")
    return pd.DataFrame(rows)


def _without(table: pd.DataFrame, runs: Sequence[Run]) -> tuple[pd.DataFrame, list[Run]]:
    """The table without the rows that are done again, which lacked memory; the runs that are to be done."""
    known = [Run(*values) for values in table.reindex(columns=KEY).itertuples(index=False)]
    lacked = table.reindex(columns=["error"])["error"].astype(str).str.contains("memory", case=False)
    done = {run for run, again in zip(known, lacked, strict=True) if not again}
    runs = [run for run in dict.fromkeys(runs) if run not in done]
    return table[[run not in set(runs) for run in known]], runs


def _rows(recipe: Recipe, runs: Sequence[Run], jobs: int) -> Iterator[dict]:
    if jobs == 1:
        yield from (do_run(recipe, run) for run in runs)
        return
    threads, others = max(1, torch.get_num_threads() // jobs), multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (threads,)) as pool:
        futures = [pool.submit(do_run, recipe, run) for run in runs]
        try:
            yield from (future.result() for future in as_completed(futures))
        except BrokenExecutor:
            why = "a process was killed, for lack of memory perhaps: try fewer jobs; the rows that are done are kept"
            raise ChildProcessError(why) from None
        except BaseException:  # Ctrl-C too: nobody waits for runs whose rows are not wanted
            pool.shutdown(wait=False, cancel_futures=True)
            for process in {*multiprocessing.active_children()}.difference(others):
                process.terminate()
            raise


def _begin(threads: int) -> None:
    """In a process of a sweep: it leaves Ctrl-C to the one that started it, and ends with that one, however that ends."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a CSV whole or not at all, see replaced(). Returns path.

    What made a row comes last, so that a row that was cut short cannot pass for one that was not.
    """
    table = table[sorted(table, key=IDENTITY.__contains__)]
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    try:
        with replaced(path) as new:
            table.to_csv(new, index=False)
    except OSError as error:
        raise ValueError(str(error)) from None
    return path
