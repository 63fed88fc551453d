"""What is said and drawn of a table of runs: its cells, what paired differences tell apart, every figure that it allows.

Returns text and figures. Computes no run, prints nothing, writes nothing.
"""

import itertools
from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from . import panels, plotting
from .statistics import by_sparsity, finite, gap_recovered, paired, ratio_of, summarise

SCORES = ("accuracy", "perplexity", "alpaca_perplexity")


def texts_of(table: pd.DataFrame) -> Iterator[str]:
    """Each pruner's cells, a score at a time, then what is told apart from SPP."""
    scores = _scores(table)
    for pruner, score in itertools.product(filter("dense".__ne__, table["pruner"].unique()), scores):
        cells, number = summarise(table[table["pruner"] == pruner], score), _number(score)
        text = [
            number(row.mean) + f" ± {number(row.half)}" * (row.n > 1) + _partly(row) if row.n else "failed"
            for row in cells.itertuples()
        ]
        unit = " in percent" if score == "accuracy" else ""
        yield f"{pruner}: mean {score}{unit} ± half of its 95 % interval over seeds\n{_grid(cells.assign(text=text))}"
    for score, against, part in ((name, *one) for name in scores for one in _comparable(table, name)):
        found, number, ours = paired(part, score, against), _number(score), against.replace("spp", "SPP")
        for pruner, rows in found[found["n"] > 1].groupby("pruner", sort=False):
            gains = [f"{'+' * (row.mean >= 0)}{number(row.mean)} ± {number(row.half)}" for row in rows.itertuples()]
            text = [f"{gain}, {row.verdict}{_partly(row)}" for gain, row in zip(gains, rows.itertuples(), strict=True)]
            head = (
                f"{pruner}: {score} minus that of {ours}, paired by seed, 95 % interval; {ours} wins, loses, undecided"
            )
            yield f"{head}\n{_grid(rows.assign(text=text))}"


def _number(score: str) -> Callable[[float], str]:
    """How a value of this score is written: accuracy in percent."""
    return (lambda value: f"{100 * value:.1f}") if score == "accuracy" else "{:.2f}".format


def _partly(row) -> str:
    return f" ({row.n} of {row.n + row.failed})" if row.failed else ""


def _scores(table: pd.DataFrame) -> list[str]:
    """Those that any run has."""
    return [name for name in SCORES if name in table and finite(table[name]).notna().any()]


def _comparable(table: pd.DataFrame, score: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(against, rows to pair with it): methods against SPP with the same extras; then a method's extras against it alone."""
    method, extras = table["method"].str.partition("+")[0], table["method"].str.partition("+")[2]
    parts = [("spp" + f"+{extra}" * bool(extra), extras == extra) for extra in sorted(extras.unique())]
    for against, part in [*parts, *((name, method == name) for name in method[extras != ""].unique())]:
        scored = set(table.loc[part & finite(table[score]).notna(), "method"])
        if against in scored and scored - {"dense", against}:
            yield against, table[part]


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
    for against, part in _comparable(here, "accuracy"):
        name = f"paired{against.removeprefix('spp')}"
        if against.startswith("spp") and name not in figures and (paired(part, against=against)["n"] > 0).any():
            figures[name] = plotting.plot_paired(part, against=against, pruner=pruner)
    trained = table[~table["method"].isin(["dense", "none"])]
    if trained["pruner"].nunique() > 1 and len(panels.shared_cells(table)):  # of pruning alone, criteria says it all
        figures["pruners"] = panels.plot_pruners(table, chance=chance)
    if len(learned):
        figures["parameters"] = plotting.plot_parameters(table, **cell)
    if plotting.task_columns(table):
        figures["tasks"] = plotting.plot_tasks(table, **cell)
    return figures
