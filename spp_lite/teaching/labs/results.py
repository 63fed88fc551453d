"""Notebook 08: the results explorer over the table of `spp-lite sweep`, and figures of rates, pairs and costs."""

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ...experiment.plotting import SCORE, STYLE, draw_methods, draw_points, look_of, methods_of
from ...experiment.statistics import by_sparsity, paired, summarise
from ...models import embedded
from ..widgets import Lab, choice, slider

DENSE = ("dense", "lora")  # methods whose result is a dense model


def sweep_table() -> pd.DataFrame:
    """The committed runs: one row a run; those that failed are left out."""
    table = pd.read_csv(embedded("results", "sweep.csv"))
    return table.dropna(subset=["accuracy"])


def leaders(table: pd.DataFrame) -> pd.DataFrame:
    """Of the methods that keep the zeros, at every sparsity: the highest mean, and what pairs do not tell apart from it."""
    table, rows = table[~table["method"].isin(DENSE)], []
    for sparsity in by_sparsity(table["sparsity"]):
        here = table[table["sparsity"] == sparsity]
        means = here.groupby("method")["accuracy"].mean()
        found = paired(here, against=means.idxmax())
        level = found.loc[found["verdict"] == "undecided", "method"]
        told = ", ".join(level) if len(level) < 4 else f"{len(level)} of {len(found)} others"
        rows.append((sparsity, means.idxmax(), f"{means.max():.1%}", told or "nobody"))
    return pd.DataFrame(rows, columns=["sparsity", "highest mean", "accuracy", "not told apart from it"])


def plot_rates(grid: pd.DataFrame, title: str) -> Figure:
    """Validation accuracy against the learning rate. grid: a row a method, a column a rate, scores from 0 to 1."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 4.8), layout="constrained")
        axes = figure.add_subplot()
        for method, scores in grid.iterrows():
            label, colour, marker, dash = look_of(method)
            scores = scores.dropna()  # rates that it was not tried with
            axes.plot(100 * scores, color=colour, marker=marker, linestyle=dash, label=label)
            axes.plot(scores.idxmax(), 100 * scores.max(), color=colour, marker="o", markersize=15, mfc="none", mew=2)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("learning rate (logarithmic; a ring: the method's best)")
        floor = 100 * grid.max(axis=1).min() - 6  # below it a rate has ruined the run, by how much says nothing
        axes.set_ylim(bottom=floor)
        axes.set_ylabel(f"validation accuracy (%)\n(from {floor:.0f} % on)")
        axes.set_title(title)
        figure.legend(fontsize=12, frameon=False, ncols=3, loc="outside lower center")
    return figure


def plot_pairs(table: pd.DataFrame, method: str, other: str, mean: float, half: float) -> Figure:
    """Left: both scores of every seed, joined. Right: their differences, method minus other, and the interval."""
    scores = table.pivot(index="seed", columns="method", values="accuracy")[[other, method]].dropna()
    gains = 100 * (scores[method] - scores[other])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for _, row in scores.iterrows():
            left.plot([0, 1], 100 * row, color="#777777", linewidth=1.2)
        for place, name in enumerate((other, method)):
            _, colour, marker, _ = look_of(name)
            left.plot(
                [place] * len(scores), 100 * scores[name], color=colour, marker=marker, linestyle="", markersize=9
            )
        left.set_xticks([0, 1], [look_of(name)[0] for name in (other, method)])
        left.set(xlim=(-0.5, 1.5), ylabel="accuracy (%)", title="every line is a pair: one seed, one mask")
        right.axhline(0, color="black", linewidth=1.2)
        places = [0.1 * (place - (len(gains) - 1) / 2) for place in range(len(gains))]  # equal pairs stand side by side
        right.plot(places, gains, color="#777777", marker="o", linestyle="", markersize=8, label="a pair")
        looks = {"color": look_of(method)[1], "marker": look_of(method)[2], "markersize": 10, "capsize": 6}
        right.errorbar(1, 100 * mean, 100 * half, label="their mean, 95 % interval", **looks)
        right.set_xticks([])
        right.set(
            xlim=(-0.7, 1.7), ylabel="difference (points)", title=f"mean {100 * mean:+.1f} ± {100 * half:.1f} points"
        )
        figure.legend(
            *right.get_legend_handles_labels(), fontsize=12, frameon=False, ncols=2, loc="outside lower center"
        )
    return figure


def plot_trained(table: pd.DataFrame, trained: Mapping[str, int], title: str) -> Figure:
    """Accuracy against the numbers that a method can change, on a logarithmic axis; equal counts stand side by side."""
    cells = summarise(table[table["method"].isin(list(trained))]).set_index("method")
    places = _apart({name: trained[name] for name in cells.index})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 5), layout="constrained")
        axes = figure.add_subplot()
        for method, place in places.items():
            label = f"{look_of(method)[0]}: {trained[method]:,}"
            looks = {"linestyle": "", "markersize": 10, "label": label}
            draw_points(axes, pd.Series([place]), cells.loc[[method]], method, 100, **looks)
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = [digit * 10**power for power in range(3, 12) for digit in (1, 2, 5)]
        ticks = [tick for tick in ticks if min(places.values()) / 2 <= tick <= 2 * max(places.values())]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xlabel("numbers that training can change (logarithmic; nearly equal ones are drawn side by side)")
        axes.set_ylabel(SCORE["accuracy"])
        axes.set_title(title)
        figure.legend(fontsize=12, frameon=False, ncols=2, loc="outside lower center")
    return figure


def _apart(counts: Mapping[str, int]) -> dict[str, float]:
    """Method → its place on a logarithmic axis: counts within a tenth of one another stand around their first one."""
    groups: list[list[str]] = []
    for name in sorted(counts, key=lambda name: counts[name]):
        if groups and counts[name] < 1.1 * counts[groups[-1][0]]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return {
        name: counts[group[0]] * 1.05 ** (place - (len(group) - 1) / 2)
        for group in groups
        for place, name in enumerate(group)
    }


class ResultsLab(Lab):
    """Two methods, a pruner, a metric and a number of seeds: means, 95 % intervals, and what pairs of runs tell apart."""

    height = 420

    def __init__(self, table: pd.DataFrame | None = None) -> None:
        self.table = sweep_table() if table is None else table
        self.tasks = [name for name in self.table if name.startswith("tiny_")]
        super().__init__()

    def controls(self):
        methods = [name for name in methods_of(self.table) if name != "dense"]
        seeds = sorted(self.table["seed"].unique())
        compared = self.table.groupby("pruner", sort=False)["method"].nunique()  # of the others there is pruning alone
        return {
            "pruner": choice("pruner", list(compared.index[compared > 1])),
            "method": choice("method", methods, "spp"),
            "other": choice("against", methods, "none"),
            "metric": choice("metric", ["average", *(name.removeprefix("tiny_") for name in self.tasks)]),
            "seeds": slider("seeds", range(1, len(seeds) + 1), len(seeds)),
        }

    def render(self, pruner, method, other, metric, seeds):
        column = "accuracy" if metric == "average" else f"tiny_{metric}"
        chosen = self.table["method"].isin([method, other]) & (self.table["pruner"] == pruner)
        table = self.table[(chosen & (self.table["seed"] < seeds)) | (self.table["method"] == "dense")]
        title, text = self.read(table, pruner, method, other, column, seeds)
        with rc_context(STYLE):
            figure = Figure(figsize=(9, 4.8), layout="constrained")
            panels = draw_methods(figure, summarise(table, column))
            panels[0].set_ylabel(f"{metric} accuracy (%)")
            figure.suptitle(title)
        return figure, text

    def read(self, table, pruner, method, other, column, seeds) -> tuple[str, str]:
        """A title and a sentence: what the paired differences tell apart."""
        found = paired(table, column, against=method) if method in set(table["method"]) else table[:0]
        if found.empty:
            nothing = f"{pruner}: {method} and {other} have no sparsity in common."
            return nothing, nothing
        wins, loses, undecided = (int((found["verdict"] == name).sum()) for name in ("wins", "loses", "undecided"))
        why = "their interval holds 0" if seeds > 1 else "a single pair has no interval"
        return (
            f"paired by seed, {method} wins at {wins} of {len(found)} sparsities against {other}, and loses at {loses}",
            f"{pruner}, {f'up to {seeds} seeds' if seeds > 1 else '1 seed'}: {method} minus {other}, paired by seed, is "
            f"{-100 * found['mean'].mean():+.1f} points on average over {len(found)} sparsities; it wins at {wins}, "
            f"loses at {loses}, and {undecided} are undecided ({why}).",
        )
