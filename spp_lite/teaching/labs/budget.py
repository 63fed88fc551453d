"""Notebook 03's lab: one budget of zeros, a slider for each of the seven kinds of linears.

Knows tables: kind, ratio, zeros, damage. Knows no model.
"""

from collections.abc import Mapping
from functools import reduce

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...experiment.plotting import STYLE
from ..figures import MODULES
from ..widgets import Lab, slider
from .model import BLACK, KINDS, predicted


class BudgetLab(Lab):
    """A slider per kind of linear: how many zeros that makes of a budget, and what the scan predicts it costs."""

    height = 330
    stops = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def __init__(self, scan: pd.DataFrame, target: float = 0.7) -> None:
        """scan: kind, ratio, zeros, damage, all seven kinds of a LLaMA; target: the budget, as a share of all weights."""
        self.scan, self.target = scan, target
        sizes = (scan["zeros"] / scan["ratio"]).groupby(scan["kind"]).mean()
        self.sizes = {kind: float(sizes[kind] / sizes.sum()) for kind in KINDS}  # shares of all weights
        self.costs = {stop: predicted(scan, dict.fromkeys(KINDS, stop)) for stop in self.stops}
        self.top = 1.15 * max(self.costs[max(self.stops)].values())  # of all states
        super().__init__()

    def controls(self):
        options = [(f"{stop:.0%}", stop) for stop in self.stops]
        return {kind: slider(f"zeros in {kind}", options, 0.7) for kind in KINDS}

    def reached(self, ratios: Mapping[str, float]) -> float:
        """The share of zeros over all kinds."""
        return sum(ratios[kind] * self.sizes[kind] for kind in KINDS)

    def damage(self, ratios: Mapping[str, float]) -> float:
        """The predicted damage: the sum of what the scan says of every kind."""
        return sum(predicted(self.scan, ratios).values())

    def allocation(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Name pattern → ratio, as prune() takes it."""
        return {f"*.{kind}": ratio for kind, ratio in ratios.items()}

    def cheapest(self) -> dict[str, float]:
        """Of all positions of the sliders that meet the budget, the one with the lowest predicted damage."""
        zeros = reduce(np.add.outer, [np.multiply(self.stops, self.sizes[kind]) for kind in KINDS])
        costs = reduce(np.add.outer, [[self.costs[stop][kind] for stop in self.stops] for kind in KINDS])
        best = np.where(zeros >= self.target - 1e-4, costs, np.inf).argmin()
        places = np.unravel_index(best, costs.shape)
        return {kind: self.stops[place] for kind, place in zip(KINDS, places, strict=True)}

    def render(self, **ratios):
        reached, costs = self.reached(ratios), predicted(self.scan, ratios)
        uniform = sum(predicted(self.scan, dict.fromkeys(KINDS, reached)).values())
        gap = 100 * (reached - self.target)
        verdict = "exactly met" if abs(gap) < 0.01 else f"{abs(gap):.1f} points too {'many' if gap > 0 else 'few'}"
        return self.figure(ratios, costs, f"{reached:.1%} zeros, budget {self.target:.0%}: {verdict}"), (
            f"{reached:.1%} zeros in all, budget {self.target:.0%}: {verdict}. "
            f"Predicted damage {sum(costs.values()):.2f} nats per token, the most ({max(costs.values()):.2f}) from {max(costs, key=costs.get)}; "
            f"as many zeros, uniform: {uniform:.2f}. A prediction: it adds up what each kind costs alone."
        )

    def figure(self, ratios: Mapping[str, float], costs: Mapping[str, float], title: str) -> Figure:
        """What each kind gives (with its size as an outline), and what it costs."""
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(10, 4))
            left, right = figure.subplots(1, 2)
            figure.subplots_adjust(left=0.1, right=0.97, bottom=0.15, top=0.9, wspace=0.08)
            colours = [MODULES[kind][0] for kind in KINDS]
            sizes = np.array([100 * self.sizes[kind] for kind in KINDS])
            zeros = sizes * [ratios[kind] for kind in KINDS]
            left.barh(KINDS, sizes, fill=False, edgecolor="#666666", linestyle="--")
            left.barh(KINDS, zeros, color=colours, edgecolor=BLACK)
            bars = right.barh(KINDS, [costs[kind] for kind in KINDS], color=colours, edgecolor=BLACK)
            right.bar_label(bars, fmt="%.2f", padding=4)
            for axes in (left, right):
                axes.set_ylim(len(KINDS) - 0.4, -0.6)
                axes.grid(axis="y", visible=False)
                axes.locator_params(axis="x", nbins=5)
            right.set_yticklabels([])
            right.set_xlim(0, max(self.top, 0.01))
            left.set_title(title)
            right.set_title(f"predicted damage in all: {sum(costs.values()):.2f}")
            left.set_xlabel("zeros (% of all weights); dashed: the kind's size")
            right.set_xlabel("predicted damage (nats per token)")
        return figure
