"""Notebook 04: what LoRA's update does to the zeros of one weight, and what the masks cost over the logged runs."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ...experiment.plotting import LOOKS, STYLE, draw_methods
from ...experiment.statistics import summarise
from ...pruning.sparsity import measure
from ..widgets import Lab, choice, slider

COLOURS = mpl.colormaps["PuOr"].with_extremes(bad="#BDBDBD")  # grey: exactly zero
KINDS = ("lora", "lora*", "masked-lora")


def kept_share(update: Tensor, mask: Tensor) -> float:
    """‖M ⊙ Δ‖² / ‖Δ‖²: how much of an update's squared norm lies on the surviving weights; 0 for no update."""
    return float((update * mask).square().sum() / update.square().sum().clamp_min(1e-30))


def gains(table: pd.DataFrame, against: str = "lora*", methods=("lora", "masked-lora")) -> pd.DataFrame:
    """Rows of `methods` with `gain`: accuracy − accuracy of `against` in the run with the same pruner, sparsity, seed."""
    key = ["pruner", "sparsity", "seed"]
    base = table[table["method"] == against].set_index(key)["accuracy"].rename("base")
    found = table[table["method"].isin(methods)].join(base, on=key).dropna(subset=["base"])
    return found.assign(gain=found["accuracy"] - found["base"])


def plot_gains(table: pd.DataFrame) -> Figure:
    """Paired differences to LoRA* by sparsity, from gains(), with 95 % intervals; LoRA* itself is the zero line."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 5), layout="constrained")
        panels = draw_methods(figure, summarise(table, "gain"))
        for axes in panels:
            axes.axhline(0, color=LOOKS["lora*"][1], linewidth=2, linestyle=LOOKS["lora*"][3])
        panels[0].text(0.02, 0.1, "LoRA*", color="#8A6000", va="bottom", transform=panels[0].get_yaxis_transform())
        panels[0].set_ylabel("accuracy minus LoRA*'s (points)")
    return figure


def plot_recovery(runs: pd.DataFrame, sweep: pd.DataFrame) -> Figure:
    """Accuracy by method: a hollow marker for the run at hand, a filled one for the mean of the sweep and its interval.

    runs: method, accuracy, zeros (share left), one row a method; sweep: rows of one pruner and sparsity.
    """
    means = summarise(sweep).set_index("method")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 4), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(runs.itertuples()):
            _, colour, marker, _ = LOOKS[row.method]
            looks = {"color": colour, "marker": marker, "markersize": 10, "linestyle": ""}
            axes.plot(100 * row.accuracy, place - 0.17, mfc="white", mew=2, **looks)
            mean, half = 100 * means.loc[row.method, ["mean", "half"]]
            axes.errorbar(mean, place + 0.17, xerr=half, capsize=4, **looks)
            axes.text(1.02, place, f"{row.zeros:.0%} zeros", transform=axes.get_yaxis_transform(), va="center")
        axes.plot([], [], "ko", mfc="white", mew=2, markersize=9, label="this notebook's run")
        axes.plot([], [], "ko", markersize=9, label="mean of the logged seeds, 95 % interval")
        axes.set_yticks(range(len(runs)), [LOOKS[name][0] for name in runs["method"]])
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel("average zero-shot accuracy (%)")
        figure.legend(fontsize=12, ncols=2, frameon=False, loc="outside upper center")
    return figure


def plot_update(weight: Tensor, update: Tensor, merged: Tensor, titles: tuple[str, str, str]) -> Figure:
    """Three small matrices (out, in) side by side, zeros grey, a dot on every zero of `weight` that `merged` fills."""
    unit = float(weight.abs().max())
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(13, 4.3))
        panels = [figure.add_axes((0.045 + 0.322 * number, 0.31, 0.3, 0.6)) for number in range(3)]
        for axes, values, title in zip(panels, (weight, update, merged), titles, strict=True):
            values = np.ma.masked_equal(values.numpy(), 0.0)
            image = axes.imshow(values, cmap=COLOURS, vmin=-unit, vmax=unit, aspect="auto", interpolation="nearest")
            axes.set_title(title, fontsize=14)
            axes.set_xlabel("input")
            axes.set_xticks([0, 10, 20])
            axes.set_yticks([0, 5, 10, 15], [0, 5, 10, 15] if axes is panels[0] else [])  # text takes most of the time
        row, column = torch.nonzero((weight == 0) & (merged != 0), as_tuple=True)
        panels[2].plot(column, row, linestyle="", marker=".", markersize=5, color="black")
        panels[0].set_ylabel("output")
        bar = figure.colorbar(image, cax=figure.add_axes((0.25, 0.12, 0.5, 0.04)), orientation="horizontal")
        bar.locator = MaxNLocator(4)
        bar.set_label("value (grey: exactly 0; dot in the right picture: a zero that was filled)")
    return figure


class LoraLab(Lab):
    """Rank, strength and a merge switch over a corner of a pruned weight; how many zeros are left, and what is lost."""

    height = 330
    rows, columns = 16, 24
    modes = ("keep apart", "merge", "merge, then mask", "masked LoRA")

    def __init__(self, weight: Tensor) -> None:
        """weight: a pruned (out, in), at least 16 × 24; its upper left corner is shown. A and B are drawn at random."""
        self.weight = weight.detach().cpu().float()[: self.rows, : self.columns].clone()
        draw = torch.Generator().manual_seed(0)
        size = float(self.weight[self.weight != 0].std()) / 3
        self.a = torch.randn(self.rows, self.columns, generator=draw)
        self.b = torch.randn(self.rows, self.rows, generator=draw) * size
        super().__init__()

    def controls(self):
        return {
            "rank": slider("rank r", [1, 2, 4, 8, 16], 4),
            "scale": slider("strength s", [0.0, 0.5, 1.0, 2.0], 2.0),
            "mode": choice("A and B are", self.modes, "merge"),
        }

    def update(self, rank: int, scale: float) -> Tensor:
        """s · BA (16, 24); B is drawn smaller for a larger rank, so that s alone sets the size."""
        return scale * (self.b[:, :rank] / rank**0.5) @ self.a[:rank]

    def render(self, rank, scale, mode):
        weight, mask = self.weight, self.weight != 0
        update = self.update(rank, scale)
        added = update * mask if "mask" in mode else update
        merged = weight if mode == "keep apart" else weight + added
        second = "M ⊙ sBA" if mode == "masked LoRA" else "sBA"
        last = {
            "keep apart": "W, with A and B beside it", "merge": "W′ = W + sBA",
            "merge, then mask": "W′ = M ⊙ (W + sBA)", "masked LoRA": "W′ = W + M ⊙ sBA",
        }[mode]  # fmt: skip
        shown = added if mode == "masked LoRA" else update
        figure = plot_update(weight, shown, merged, ("W, pruned", second, last))
        return figure, self.read(rank, scale, mode, update, added, merged)

    def read(self, rank, scale, mode, update, added, merged) -> str:
        """Zeros before and after, what the mask throws away, the rank of what is added, as text."""
        zeros, left = self.weight == 0, int((merged == 0).sum())
        filled = int((zeros & (merged != 0)).sum())
        text = (
            f"r = {rank}, s = {scale:g}, {mode}: {int(zeros.sum())} zeros in W ({measure(self.weight):.0%}), {left} left "
            f"({measure(merged):.0%}); {filled} filled. "
        )
        lost = 1 - kept_share(update, self.weight != 0) if update.any() else 0.0
        if "mask" in mode:
            text += f"The mask throws away {lost:.0%} of the squared norm of sBA. "
        if mode == "keep apart":
            return text + f"Beside W stand {rank * (self.rows + self.columns)} numbers, for two more products."
        return text + f"The rank of what is added: {int(torch.linalg.matrix_rank(added))}."
