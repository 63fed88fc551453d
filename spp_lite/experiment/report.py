"""What is said and drawn of a table of runs: its cells, what paired differences tell apart, every figure that it allows.

Returns text and figures. Computes no run, prints nothing, writes nothing.
"""

import itertools
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from . import panels, plotting
from .statistics import by_sparsity, finite, gap_recovered, paired, ratio_of, summarise

SCORES = ("accuracy", "perplexity", "alpaca_perplexity")


def texts_of(table: pd.DataFrame) -> Iterator[str]:
    """Each pruner's cells, a score at a time, then what is told apart from SPP."""
    scores = _scores(table)
    for pruner, score in itertools.product(filter("dense".__ne__, table["pruner"].unique()), scores):
        unit = " in percent" if score == "accuracy" else ""
        cells = summarise(table[table["pruner"] == pruner], score)
        scale = 100 if unit else 1
        text = [
            f"{scale * row.mean:.1f}" + f" ± {scale * row.half:.1f}" * (row.n > 1) + _partly(row) if row.n else "failed"
            for row in cells.itertuples()
        ]
        yield f"{pruner}: mean {score}{unit} ± half of its 95 % interval over seeds\n{_grid(cells.assign(text=text))}"
    for score in scores:
        found, scale = _against_spp(table, score), 100 if score == "accuracy" else 1
        for pruner, rows in found[found["n"] > 1].groupby("pruner", sort=False):
            text = [
                f"{scale * row.mean:+.1f} ± {scale * row.half:.1f}, {row.verdict}{_partly(row)}"
                for row in rows.itertuples()
            ]
            head = f"{pruner}: {score} minus that of SPP, paired by seed, 95 % interval; SPP wins, loses, undecided"
            yield f"{head}\n{_grid(rows.assign(text=text))}"


def _partly(row) -> str:
    return f" ({row.n} of {row.n + row.failed})" if row.failed else ""


def _scores(table: pd.DataFrame) -> list[str]:
    """Those that any run has."""
    return [name for name in SCORES if name in table and finite(table[name]).notna().any()]


def _against_spp(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """paired(), of no rows where no run of SPP has the score."""
    ours = finite(table.loc[table["method"] == "spp", score]).notna().any()
    return paired(table, score) if ours else pd.DataFrame(columns=["pruner", "n"])


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["error"].fillna("") == ""] if "error" in table else table


def _grid(cells: pd.DataFrame) -> str:
    """A row a method, a column a sparsity."""
    found = cells.pivot(index="method", columns="sparsity", values="text")
    return found.loc[cells["method"].unique(), by_sparsity(cells["sparsity"])].to_string(na_rep="-")


def figures_of(table: pd.DataFrame, chance: float | None = None) -> dict[str, Figure]:
    """Name → figure: each score against sparsity, of the criterion that most methods were tried with; then the others."""
    if not _whole(table)["pruner"].ne("dense").any():
        return {}
    sparse = table[table["pruner"] != "dense"]
    pruner = sparse.groupby("pruner", sort=False)["method"].nunique().idxmax()
    here = table[table["pruner"].isin(["dense", pruner])]
    scores = _scores(table)
    about = {"chance": chance, "title": f"pruned by {pruner}"}
    figures = {name: plotting.plot_accuracy_vs_sparsity(here, value=name, **about) for name in scores}
    if "none" in set(table["method"]):
        figures["criteria"] = plotting.plot_criteria(table, value=scores[min(1, len(scores) - 1)], chance=chance)
    if "accuracy" not in scores:
        return figures
    learned = here[here["parameters"] > 0]
    asked = set((learned if len(learned) else here[here["pruner"] == pruner])["sparsity"])
    cell = {"sparsity": "75%" if "75%" in asked else max(asked, key=ratio_of), "pruner": pruner}
    if _whole(table)["method"].eq("dense").any() and len(gap_recovered(here)):
        figures["gap"] = plotting.plot_gap_recovered(table, pruner=pruner)
    if (_against_spp(here, "accuracy")["n"] > 0).any():
        figures["paired"] = plotting.plot_paired(table, pruner=pruner)
    trained = table[~table["method"].isin(["dense", "none"])]
    if trained["pruner"].nunique() > 1 and len(panels.shared_cells(table)):  # of pruning alone, criteria says it all
        figures["pruners"] = panels.plot_pruners(table, chance=chance)
    if len(learned):
        figures["parameters"] = plotting.plot_parameters(table, **cell)
    if plotting.task_columns(table):
        figures["tasks"] = plotting.plot_tasks(table, **cell)
    return figures
