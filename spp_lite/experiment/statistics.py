"""Statistics of the experiment's table: means with intervals over seeds, the share of the loss that came back.

Works on plain tables. Draws nothing. A run that failed has no score: it is counted, never averaged away.
"""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from ..pruning.sparsity import Sparsity

SAME = ("model", "data", "calibration", "text", "tasks")  # columns of one value in all that is compared
BUDGET = ("max_steps", "batch_size", "cutoff", "bf16")  # and these in all that was trained
LOWER = ("loss", "perplexity", "seconds", "peak_mib", "parameters")  # in the name of what is better when it is less


def ratio_of(sparsity: str) -> float:
    """ "75%" → 75.0, "2:8" → 75.0, "row:0.5" → 50.0: the percentage of zeros, for an axis."""
    return round(100 * Sparsity.parse(sparsity).ratio, 8)


def is_pattern(sparsity: str) -> bool:
    """Is it n of every m, which is no point on an axis of ratios?"""
    return Sparsity.parse(sparsity).m is not None


def by_sparsity(names) -> list[str]:
    """In the order of axes and tables: ratios, then patterns, the fewest zeros first."""
    return sorted(set(names), key=lambda name: (is_pattern(name), ratio_of(name), name))


def summarise(table: pd.DataFrame, value: str = "accuracy", by: str = "sparsity") -> pd.DataFrame:
    """Mean and half-width of the 95 % interval over seeds (Student's t; 0 for one seed), per method and sparsity.

    n: the runs with a finite score, which the mean is of; failed: those without. Raises ValueError for a table with two
    runs of one cell and seed, of two pruners, say: they would pass for seeds; and of two models or budgets (SAME, BUDGET).
    """
    table = _checked(table, value, "method", by)
    _require_one(table, "method", by, "seed")
    cells = table.assign(**{value: finite(table[value])}).groupby(["method", by], sort=False)[value]
    found = cells.agg(mean="mean", std="std", n="count", failed="size").reset_index()
    found["failed"] -= found["n"]
    found["half"] = (stdtrit(found["n"] - 1, 0.975) * found["std"] / np.sqrt(found["n"])).fillna(0.0)
    return found.assign(zeros=found[by].map(ratio_of)) if by == "sparsity" else found


def paired(table: pd.DataFrame, value: str = "accuracy", against: str = "spp") -> pd.DataFrame:
    """Every method minus `against`, seed by seed: same pruner, sparsity and seed, so same mask, records and order.

    Returns method, pruner, sparsity, n (whole pairs), failed (pairs with a run that failed), mean, half (of the 95 %
    interval, Student's t; NaN below two pairs) and verdict: what `against` does, "wins" or "loses" where the interval is
    clear of 0, else "undecided". Of what LOWER names the smaller is better. Raises ValueError when `against` has no
    finite score, and as summarise() does.
    """
    key = ["pruner", "sparsity", "seed"]
    table = _checked(table, value, "method", *key)
    _require_one(table, "method", *key)
    scores = table.assign(score=finite(table[value]))
    ours = scores[scores["method"] == against][[*key, "score"]].rename(columns={"score": "ours"})
    if not ours["ours"].notna().any():
        raise ValueError(f"no run of {against} has the score {value!r}: there is nothing to compare with")
    pairs = scores[~scores["method"].isin(["dense", against])].merge(ours, on=key)
    pairs["gain"] = pairs["score"] - pairs["ours"]
    cells = pairs.groupby(["method", "pruner", "sparsity"], sort=False)["gain"]
    found = cells.agg(mean="mean", std="std", n="count", failed="size").reset_index()
    found["failed"] -= found["n"]
    found["half"] = stdtrit(found["n"] - 1, 0.975) * found["std"] / np.sqrt(found["n"])
    better = -1 if any(part in value for part in LOWER) else 1
    sign = better * np.sign(found["mean"]) * (found["mean"].abs() > found["half"])
    return found.assign(verdict=sign.map({1: "loses", -1: "wins"}).fillna("undecided")).drop(columns="std")


def _checked(table: pd.DataFrame, value: str, *columns: str) -> pd.DataFrame:
    """The table, each sparsity called as it was written first; ValueError where a column is missing."""
    if lacking := [name for name in (value, *columns) if name not in table]:
        what = "score" if lacking[0] == value else "column"
        raise ValueError(f"no run of the table has the {what} {lacking[0]!r}: it has {', '.join(table)}")
    first: dict[Sparsity, str] = {}
    written = table.get("sparsity", pd.Series(dtype=str)).unique()
    names = {name: first.setdefault(Sparsity.parse(name), name) for name in written}
    return table.assign(sparsity=table["sparsity"].map(names)) if names else table


def _require_one(table: pd.DataFrame, *key: str) -> None:
    """Raise ValueError where two runs have the same key, which ends in the seed, or another seed another rate."""
    if "seed" not in table or not (twice := table.duplicated(list(key), keep=False)).any():
        rates = table.groupby(list(key[:-1]))["lr"].nunique() if "lr" in table else pd.Series(0)
        if rates.max() > 1:
            cell = " ".join(map(str, rates.idxmax()))
            raise ValueError(f"the table's runs of {cell} are of several learning rates: choose the rows of one")
        return require_alike(table, key)
    run = table.loc[twice, list(key)].iloc[0]
    both = table[(table[list(key)] == run).all(axis=1)]
    names = [name for name in ("model", "pruner", "sparsity", "lr") if name in both and both[name].nunique() > 1]
    of = f"of two values of {names[0]}" if names else "alike in what it names"
    raise ValueError(f"the table has two runs of {' '.join(map(str, run))}, {of}: nobody can tell which is meant")


def require_alike(table: pd.DataFrame, key: tuple = ()) -> None:
    """Raise ValueError where runs differ in SAME or, trained, in BUDGET, but in what is part of the key."""
    trained = ~table["method"].isin(["dense", "none"])
    for name in [name for name in (*SAME, *BUDGET) if name in table and name not in key]:
        if len(found := table.loc[trained | (name in SAME), name].dropna().unique()) > 1:
            raise ValueError(f"the table mixes runs whose {name} is {found[0]} and {found[1]}: choose the rows of one")


def finite(scores: pd.Series) -> pd.Series:
    """The scores as floats, NaN where they are no finite number."""
    return pd.to_numeric(scores, errors="coerce").replace([np.inf, -np.inf], np.nan)


def gap_recovered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the methods that train, with `gap`: (accuracy − pruned) / (dense − pruned), pruned by the same seed.

    Cells in which pruning cost less than two points, or of which no pruned run was asked, are left out: there is no gap
    to speak of. The gap is NaN where one of its runs failed.
    """
    key = ["pruner", "sparsity", "seed"]
    table = _checked(table, "accuracy", "method", *key)
    accuracy = finite(table["accuracy"])
    _require_one(table, "method", *key)
    dense = accuracy[table["method"] == "dense"].mean()
    if np.isnan(dense):
        raise ValueError("the table has no score of the dense model, against which a gap is measured")
    pruned = table.assign(pruned=accuracy)[table["method"] == "none"].set_index(key)["pruned"]
    found = table.assign(accuracy=accuracy)[~table["method"].isin(["dense", "none"])].join(pruned, on=key, how="inner")
    found = found[~(dense - found["pruned"] <= 0.02)]
    return found.assign(gap=(found["accuracy"] - found["pruned"]) / (dense - found["pruned"]))
