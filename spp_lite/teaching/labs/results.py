"""Notebook 08: the results explorer, over the table of `spp-lite sweep`."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE, draw_methods
from ...experiment.statistics import paired, summarise
from ...models import embedded
from ..widgets import Lab, choice, slider


def sweep_table() -> pd.DataFrame:
    """The committed runs: one row a run; those that failed are left out."""
    table = pd.read_csv(embedded("results", "sweep.csv"))
    return table.dropna(subset=["accuracy"])


class ResultsLab(Lab):
    """Two methods, a pruner, a metric and a number of seeds: means, 95 % intervals, and what pairs of runs tell apart."""

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
        """What the paired differences tell apart, as text."""
        found = paired(table, column, against=method) if method in set(table["method"]) else table[:0]
        if found.empty:
            return f"{pruner}: {method} and {other} have no sparsity in common."
        count = [int((found["verdict"] == verdict).sum()) for verdict in ("wins", "loses", "undecided")]
        return (
            f"{pruner}, {seeds} seed{'s' if seeds > 1 else ''}: {method} minus {other}, paired by seed, is "
            f"{-100 * found['mean'].mean():+.1f} points on average over {len(found)} sparsities; it wins at {count[0]}, "
            f"loses at {count[1]}, and {count[2]} are undecided (their interval holds 0)."
        )
