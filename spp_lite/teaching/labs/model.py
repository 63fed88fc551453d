"""Notebook 03: figures of a pruned model, and one budget of zeros spent over three groups of linears.

Knows tables: kind, ratio, zeros, damage. Knows no model.
"""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE
from ..widgets import Lab, slider

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUPS = {"attention": KINDS[:4], "gate, up": KINDS[4:6], "down": KINDS[6:]}
BLACK = LOOKS["dense"][1]
NAMES = ("spp", "lora*", "masked-lora", "hira", "masked-full", "reconstruct", "none")  # six dashes come first
LINES = [LOOKS[name][1:] for name in NAMES]  # colour, marker, dash
DAMAGE = "damage (nats per token)"


def plot_drift(errors: Sequence[float], drift: Sequence[float]) -> Figure:
    """Per block: the mean relative error of its linears, and how far its output is from the dense model's."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot()
        parts = {"output of the block": drift, "mean over its linears, each on its own": errors}
        for (colour, marker, dash), (label, values) in zip(LINES, parts.items(), strict=False):
            axes.plot(range(len(values)), values, color=colour, marker=marker, linestyle=dash, label=label)
        axes.set_xticks(range(len(drift)))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("decoder block")
        axes.set_ylabel("relative squared error")
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_methods(table: pd.DataFrame, dense: Mapping[str, float]) -> Figure:
    """One panel per yardstick: damage, perplexity, accuracy against the ratio, a line per pruning method.

    table: method, ratio, damage, perplexity, accuracy; dense: the dense model's values, drawn as a line.
    """
    labels = {"damage": DAMAGE, "perplexity": "perplexity (log scale)", "accuracy": "accuracy (%)"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.4), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 3), labels.items(), strict=True):
            scale = 100 if name == "accuracy" else 1
            axes.axhline(scale * dense[name], color=BLACK, linestyle="--", linewidth=1, label="dense model")
            for (colour, marker, dash), (method, rows) in zip(LINES, table.groupby("method", sort=False), strict=False):
                looks = {"color": colour, "marker": marker, "linestyle": dash, "label": method}
                axes.plot(100 * rows["ratio"], scale * rows[name], **looks)
            axes.set_xticks(sorted(100 * table["ratio"].unique()))
            axes.set_xlabel("zeros (%)")
            axes.set_ylabel(label)
        figure.axes[1].set_yscale("log")
        figure.axes[1].yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        figure.axes[1].yaxis.set_major_formatter("{x:g}")
        figure.axes[1].yaxis.set_minor_locator(mpl.ticker.NullLocator())
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=12, ncols=4, frameon=False, loc="outside lower center")
    return figure


def plot_scan(scan: pd.DataFrame, ratio: float) -> Figure:
    """Left: damage against the ratio, one kind pruned alone; right: damage per million zeros at one ratio.

    scan: kind, ratio, zeros, damage.
    """
    here = scan[scan["ratio"] == ratio].set_index("kind")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for number, (kind, rows) in enumerate(scan.groupby("kind", sort=False)):
            colour, marker, dash = LINES[number % len(LINES)]
            left.plot(100 * rows["ratio"], rows["damage"], color=colour, marker=marker, linestyle=dash, label=kind)
            right.barh(kind, 1e6 * here.loc[kind, "damage"] / here.loc[kind, "zeros"], color=colour, edgecolor=BLACK)
        left.set_xlabel("zeros in this kind of linear (%)")
        left.set_ylabel(DAMAGE)
        left.legend(fontsize=12, frameon=False)
        right.invert_yaxis()
        right.grid(axis="y", visible=False)
        right.set_xlabel(f"damage per million zeros, at {ratio:.0%}")
    return figure


def plot_allocations(table: pd.DataFrame) -> Figure:
    """Damage and accuracy of several ways to spend one budget; table: allocation, damage, accuracy."""
    panels = {"damage": (1, DAMAGE, "%.2f"), "accuracy": (100, "accuracy (%)", "%.0f")}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        for axes, (name, (scale, label, digits)) in zip(
            figure.subplots(1, 2, sharey=True), panels.items(), strict=True
        ):
            for (colour, _, _), row in zip(LINES, table.to_dict("records"), strict=False):
                bar = axes.barh(row["allocation"], scale * row[name], color=colour, edgecolor=BLACK)
                axes.bar_label(bar, fmt=digits, padding=4)
            axes.margins(x=0.15)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel(label)
        figure.axes[0].invert_yaxis()
    return figure


def predicted(scan: pd.DataFrame, ratios: Mapping[str, float]) -> dict[str, float]:
    """Kind → damage read from the scan: linear between the scanned ratios, 0 where nothing is pruned.

    Their sum predicts the damage of pruning all kinds at once, as if kinds did not disturb each other.
    """
    found = {}
    for kind, ratio in ratios.items():
        rows = scan[scan["kind"] == kind].sort_values("ratio")
        found[kind] = float(np.interp(ratio, [0, *rows["ratio"]], [0, *rows["damage"]]))
    return found


class BudgetLab(Lab):
    """A slider per group of kinds: how many zeros that makes of a budget, and what the scan predicts it costs."""

    height = 300
    stops = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def __init__(self, scan: pd.DataFrame, target: float = 0.7) -> None:
        """scan: kind, ratio, zeros, damage, all seven kinds of a LLaMA; target: the budget, as a share of all weights."""
        self.scan, self.target = scan, target
        sizes = (scan["zeros"] / scan["ratio"]).groupby(scan["kind"]).mean()
        self.sizes = {kind: float(sizes[kind] / sizes.sum()) for kind in KINDS}  # shares of all weights
        worst = predicted(scan, dict.fromkeys(KINDS, max(self.stops)))
        self.top = 1.15 * max(sum(worst[kind] for kind in kinds) for kinds in GROUPS.values())  # of all states
        super().__init__()

    def controls(self):
        options = [(f"{stop:.0%}", stop) for stop in self.stops]
        return {group: slider(f"zeros in {group}", options, 0.7) for group in GROUPS}

    def ratios(self, state: Mapping[str, float]) -> dict[str, float]:
        """Kind → ratio."""
        return {kind: state[group] for group, kinds in GROUPS.items() for kind in kinds}

    def reached(self, state: Mapping[str, float]) -> float:
        """The share of zeros over all kinds."""
        return sum(ratio * self.sizes[kind] for kind, ratio in self.ratios(state).items())

    def damage(self, state: Mapping[str, float]) -> float:
        """The predicted damage: the sum of what the scan says of every kind."""
        return sum(predicted(self.scan, self.ratios(state)).values())

    def allocation(self, state: Mapping[str, float]) -> dict[str, float]:
        """Name pattern → ratio, as prune() takes it."""
        return {f"*.{kind}": ratio for kind, ratio in self.ratios(state).items()}

    def cheapest(self) -> dict[str, float]:
        """Of all positions of the sliders that meet the budget, the one with the lowest predicted damage."""
        table = {
            (group, stop): sum(predicted(self.scan, dict.fromkeys(kinds, stop)).values())
            for group, kinds in GROUPS.items()
            for stop in self.stops
        }
        states = [dict(zip(GROUPS, stops, strict=True)) for stops in itertools.product(self.stops, repeat=len(GROUPS))]
        met = [state for state in states if self.reached(state) >= self.target - 1e-4]
        return min(met, key=lambda state: sum(table[pair] for pair in state.items()))

    def render(self, **state):
        ratios, reached = self.ratios(state), self.reached(state)
        costs = predicted(self.scan, ratios)
        zeros = {group: 100 * sum(ratios[kind] * self.sizes[kind] for kind in kinds) for group, kinds in GROUPS.items()}
        cost = {group: sum(costs[kind] for kind in kinds) for group, kinds in GROUPS.items()}
        uniform = sum(predicted(self.scan, dict.fromkeys(KINDS, reached)).values())
        gap = 100 * (reached - self.target)
        verdict = "exactly met" if abs(gap) < 0.01 else f"{abs(gap):.1f} points too {'many' if gap > 0 else 'few'}"
        taken = "; ".join(f"{group} {value:.1f}" for group, value in zeros.items())
        return self.figure(zeros, cost), (
            f"{reached:.1%} zeros in all, budget {self.target:.0%}: {verdict}. Zeros in % of all weights: {taken}. "
            f"Predicted damage {sum(cost.values()):.2f} nats per token, mostly from {max(cost, key=cost.get)}; "
            f"as many zeros, uniform: {uniform:.2f}. A prediction: it adds up what each kind costs alone."
        )

    def figure(self, zeros: Mapping[str, float], cost: Mapping[str, float]) -> Figure:
        """What each group gives (with its size as an outline), and what it costs."""
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(10, 3.4))
            left, right = figure.subplots(1, 2)
            figure.subplots_adjust(left=0.11, right=0.97, bottom=0.19, top=0.95, wspace=0.12)
            for number, (group, kinds) in enumerate(GROUPS.items()):
                colour = LINES[number][0]
                size = 100 * sum(self.sizes[kind] for kind in kinds)
                left.barh(number, size, fill=False, edgecolor="#666666", linestyle="--")
                left.barh(number, zeros[group], color=colour, edgecolor=BLACK)
                bar = right.barh(number, cost[group], color=colour, edgecolor=BLACK)
                right.bar_label(bar, fmt="%.2f", padding=4)
            for axes in (left, right):
                axes.set_ylim(len(GROUPS) - 0.4, -0.6)
                axes.grid(axis="y", visible=False)
            left.set_yticks(range(len(GROUPS)), list(GROUPS))
            right.set_yticks(range(len(GROUPS)), [])
            right.set_xlim(0, max(self.top, 0.01))
            left.set_xlabel("zeros (% of all weights); dashed: its size")
            right.set_xlabel("predicted damage (nats per token)")
        return figure
