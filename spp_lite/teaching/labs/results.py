"""Notebook 08: the results explorer, over the table of `spp-lite sweep`."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE, draw_methods
from ...experiment.statistics import summarise
from ...models import embedded
from ..widgets import Lab, choice, slider


def sweep_table() -> pd.DataFrame:
    """The committed runs: one row a run; those that failed are left out."""
    table = pd.read_csv(embedded("results", "sweep.csv"))
    return table.dropna(subset=["accuracy"])


class ResultsLab(Lab):
    """Two methods, a pruner, a metric and a number of seeds: means, 95 % intervals and who leads."""

    height = 420

    def __init__(self, table: pd.DataFrame | None = None) -> None:
        self.table = sweep_table() if table is None else table
        self.tasks = [name for name in self.table if name.startswith("tiny_")]
        super().__init__()

    def controls(self):
        methods = [name for name in LOOKS if name in set(self.table["method"]) - {"dense"}]
        seeds = sorted(self.table["seed"].unique())
        return {
            "pruner": choice("pruner", [name for name in self.table["pruner"].unique() if name != "dense"]),
            "method": choice("method", methods, "spp"),
            "other": choice("against", methods, "none"),
            "metric": choice("metric", ["average", *(name.removeprefix("tiny_") for name in self.tasks)]),
            "seeds": slider("seeds", range(1, len(seeds) + 1), len(seeds)),
        }

    def render(self, pruner, method, other, metric, seeds):
        column = "accuracy" if metric == "average" else f"tiny_{metric}"
        chosen = self.table["method"].isin([method, other]) & (self.table["pruner"] == pruner)
        table = self.table[(chosen & (self.table["seed"] < seeds)) | (self.table["method"] == "dense")]
        with rc_context(STYLE):
            figure = Figure(figsize=(9, 4.8), layout="constrained")
            panels = draw_methods(figure, summarise(table, column))
            panels[0].set_ylabel(f"{metric} accuracy (%)")
        return figure, self.read(table, pruner, method, other, column, seeds)

    def read(self, table, pruner, method, other, column, seeds) -> str:
        """How many sparsities each of the two wins by more than both intervals, as text."""
        cells = summarise(table[table["method"] != "dense"], column).set_index(["sparsity", "method"])
        shared = [name for name in table["sparsity"].unique() if (name, method) in cells.index]
        shared = [name for name in shared if (name, other) in cells.index]
        if not shared:
            return f"{pruner}: {method} and {other} have no sparsity in common."
        wins = losses = 0
        for sparsity in shared:
            one, two = cells.loc[(sparsity, method)], cells.loc[(sparsity, other)]
            wins += one["mean"] - one["half"] > two["mean"] + two["half"]
            losses += two["mean"] - two["half"] > one["mean"] + one["half"]
        gain = (cells.xs(method, level=1)["mean"] - cells.xs(other, level=1)["mean"]).dropna().mean()
        return (
            f"{pruner}, {seeds} seed{'s' if seeds > 1 else ''}: {method} is {100 * gain:+.1f} points from {other} on "
            f"average; clearly above at {wins} of {len(shared)} sparsities, clearly below at {losses} (intervals apart)."
        )
