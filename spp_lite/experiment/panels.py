"""Figures with one panel a sparsity: pruning criteria side by side, a score against the training budget."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .plotting import LEGEND, SCORE, STYLE, draw_points, methods_of
from .statistics import by_sparsity, summarise


def shared_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of methods and sparsities that every pruner of the table has."""
    sparse = table[table["pruner"] != "dense"]
    counts = sparse.groupby(["method", "sparsity"])["pruner"].transform("nunique")
    return sparse[counts == sparse["pruner"].nunique()]


def plot_pruners(table: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """Accuracy of every pruning criterion, one panel per sparsity that all of them have, one marker per method."""
    shared, pruners = shared_cells(table), list(table.loc[table["pruner"] != "dense", "pruner"].unique())
    if shared.empty:
        raise ValueError(f"no cell has runs of every pruner ({', '.join(pruners)}): there is nothing to compare")
    return _panels(shared, "pruner", pruners, chance, linestyle="", markersize=8)


def plot_budgets(table: pd.DataFrame, *, value: str = "accuracy", chance: float | None = None) -> Figure:
    """A score against the number of training steps (a logarithmic axis), one panel per sparsity, one line per method.

    table: rows of several sweeps that differ in the column max_steps, all of one pruner.
    """
    sparse = table[table["pruner"] != "dense"]
    return _panels(sparse, "max_steps", sorted(sparse["max_steps"].unique()), chance, value)


def _panels(
    table: pd.DataFrame, by: str, groups: list, chance: float | None, value: str = "accuracy", **looks
) -> Figure:
    """A panel a sparsity; the values of the column `by` along its axis, every method slightly apart."""
    scale, apart = 100 if value == "accuracy" else 1, 0.06 if by == "max_steps" else 0.15
    places = {group: np.log2(group) if by == "max_steps" else place for place, group in enumerate(groups)}
    names, methods = by_sparsity(table["sparsity"]), methods_of(table)
    with mpl.rc_context(STYLE):
        width = max(10, 0.65 * len(groups) * len(names) + 1.5)  # the legend needs 10
        figure = Figure(figsize=(width, 5), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=by != "max_steps", squeeze=False)[0]
        for axes, sparsity in zip(panels, names, strict=True):
            cells = summarise(table[table["sparsity"] == sparsity], value, by)
            for number, method in enumerate(methods):
                rows = cells[cells["method"] == method].sort_values(by, key=lambda values: values.map(groups.index))
                at = rows[by].map(places) + apart * (number - (len(methods) - 1) / 2)
                draw_points(axes, at, rows, method, scale, **looks)
            ticks = [f"{group:g} steps" if by == "max_steps" else group for group in groups]
            axes.set_xticks([*places.values()], ticks, rotation=30)
            axes.set_xlim(min(places.values()) - 0.5, max(places.values()) + 0.5)
            if chance is not None:
                axes.axhline(scale * chance, color="#666666", linewidth=1, linestyle=":", label="chance")
            axes.set_title(sparsity)
            axes.set_yscale("log" if "perplexity" in value else "linear")
        panels[0].set_ylabel(SCORE.get(value, value.replace("_", " ")))
        figure.legend(*panels[0].get_legend_handles_labels(), **LEGEND)
    return figure
