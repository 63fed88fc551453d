"""Notebook 01: one weight under a mask. Knows patterns and tensors, no model."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...experiment.plotting import LOOKS, STYLE
from ...pruning.sparsity import Sparsity
from ..widgets import Lab, choice, slider
from .boxes import shade

KEPT, GONE = "#6A51A3", "#BBBBBB"  # a weight that stays, one that becomes zero: colours of no method
LINES = {  # family of patterns, from free to strict: colour, marker, dash
    "unstructured": ("#2D004B", "o", "-"),
    "row-wise": ("#6A51A3", "D", "--"),
    "n:8": ("#9E6EBD", "v", "-."),
    "n:4": ("#C77DBB", "P", (0, (5, 1))),
    "random zeros": ("#777777", "x", ":"),
}


def family(name: str) -> list[Sparsity]:
    """The patterns of one family whose ratio is a multiple of 1/8, from few zeros to many."""
    if name.startswith("n:"):
        m = int(name[2:])
        return [Sparsity.parse(f"{n}:{m}") for n in range(m - 1, 0, -1)]
    return [Sparsity(eighths / 8, per_row=name == "row-wise") for eighths in range(1, 8)]


def nearest(name: str, ratio: float) -> Sparsity:
    """The pattern of a family whose ratio is nearest to the one asked for; "n:m" has few."""
    if name.startswith("n:"):
        return min(family(name), key=lambda one: abs(one.ratio - ratio))
    return Sparsity(ratio, per_row=name == "row-wise")


def plot_histogram(weight: Tensor, keep: Tensor, title: str = "") -> Figure:
    """How many weights of each size stay and go; the threshold, where one number parts them."""
    values, flags = weight.flatten().numpy(), keep.flatten().numpy()
    largest, smallest = weight[~keep].abs().max().item(), weight[keep].abs().min().item()
    edges = _edges(np.abs(values).max(), largest if largest <= smallest else None)
    kept, gone = np.histogram(values[flags], edges)[0], np.histogram(values[~flags], edges)[0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.stairs(kept, edges, fill=True, color=KEPT, label="stay")
        looks = {"facecolor": GONE, "edgecolor": "white", "linewidth": 0}
        axes.stairs(kept + gone, edges, baseline=kept, fill=True, hatch="///", label="become zero", **looks)
        if largest <= smallest:
            label = f"threshold |W| = {largest:.3g}"
            axes.axvline(largest, color="black", linestyle="--", label=label)
            axes.axvline(-largest, color="black", linestyle="--")
        axes.set_xlabel("weight (no unit)")
        axes.set_ylabel("number of weights")
        axes.set_title(title, fontsize=13)
        axes.legend(fontsize=12, frameon=False)
    return figure


def _edges(top: float, threshold: float | None) -> np.ndarray:
    """About 60 bins from −top to top; a threshold falls on an edge, so that no bin holds both sides of it."""
    width = top / 30
    if threshold:
        width = threshold * 1.0001 / max(1, round(threshold / width))
    return width * np.arange(-np.ceil(top / width), np.ceil(top / width) + 1)


def plot_masks(
    weight: Tensor, masks: dict[str, Tensor], title: str = "", *, rows: int = 16, columns: int = 24
) -> Figure:
    """The upper left corner of a weight under each mask: zeros white, the others the darker the larger.

    masks: pattern, as Sparsity.parse reads it → (out, in). Lines part the groups of an n:m pattern.
    """
    corner = weight[:rows, :columns].abs().numpy()
    colours = mpl.colors.ListedColormap(shade(np.linspace(0, 1, 256))).with_extremes(bad="white")
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        width = max(8.5, 4.4 * len(masks) + 1)
        figure = Figure(figsize=(width, 4.3))
        figure.suptitle(title, fontsize=14)
        figure.subplots_adjust(left=0.75 / width, right=1 - 1.2 / width, bottom=0.14, top=0.85, wspace=0.05)
        panels = np.atleast_1d(figure.subplots(1, len(masks), sharey=True))
        for axes, (pattern, keep) in zip(panels, masks.items(), strict=True):
            shown = np.ma.masked_array(corner, ~keep[:rows, :columns].numpy())
            image = axes.imshow(shown, cmap=colours, vmin=0, vmax=corner.max(), aspect="auto", interpolation="nearest")
            for border in range(0, corner.shape[1], Sparsity.parse(pattern).m or corner.shape[1])[1:]:
                axes.axvline(border - 0.5, color="black", linewidth=1.2)
            axes.set_xticks(range(0, corner.shape[1], 4))
            axes.set_title(pattern, fontsize=13)
            axes.set_xlabel("input (column of W)")
        panels[0].set_ylabel("output (row of W)")
        scale = figure.add_axes((1 - 1.05 / width, 0.14, 0.15 / width, 0.71))
        figure.colorbar(image, cax=scale, label="|W| of those that stay")
    return figure


def plot_errors(
    curves: dict[str, dict[float, float]], mark: tuple[float, float] | None = None, title: str = ""
) -> Figure:
    """Output error against the share of zeros, a line per family. curves: family → {ratio: error}."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.4), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            colour, marker, dash = LINES[name]
            share = {100 * ratio: 100 * error for ratio, error in curve.items()}
            axes.plot(*zip(*share.items(), strict=True), color=colour, marker=marker, linestyle=dash, label=name)
        if mark:
            looks = {"markersize": 18, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 2}
            axes.plot(100 * mark[0], 100 * mark[1], "o", **looks)
        axes.set_xlabel("zeros in the weight (%)")
        axes.set_ylabel("output error (% of ‖W x‖²)")
        axes.set_ylim(0, 100)
        axes.set_title(title, fontsize=13)
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_perplexity(table: pd.DataFrame, dense: float, title: str = "", label_x: str = "sparsity") -> Figure:
    """Perplexity of a pruned model, log scale. table: index sparsity or pattern, one column a criterion."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name in table:
            label, colour, marker, dash = LOOKS[name]
            axes.plot(range(len(table)), table[name], color=colour, marker=marker, linestyle=dash, label=label)
        axes.axhline(dense, color=LOOKS["dense"][1], linestyle=LOOKS["dense"][3], label="dense model")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xticks(range(len(table)), table.index)
        axes.set_xlim(-0.3, len(table) - 0.7)
        axes.set_xlabel(label_x)
        axes.set_ylabel("perplexity (lower is better)")
        axes.set_title(title, fontsize=13)
        figure.legend(fontsize=12, ncols=2, frameon=False, loc="outside lower center")
    return figure


class MaskLab(Lab):
    """A ratio and a pattern for one weight: the mask, the histogram, the error."""

    height = 340

    def __init__(self, weight: Tensor, *, size: int = 512) -> None:
        """weight: (out, in), in divisible by 8; of a larger one, its upper left corner of size × size is used."""
        self.weight = weight.detach().cpu().float()[:size, :size].contiguous()
        self.scores = self.weight.abs()
        self.inputs_x = torch.randn(512, self.weight.shape[1], generator=torch.Generator().manual_seed(1))
        names = [name for name in LINES if name != "random zeros"]
        self.curves = {name: {one.ratio: self.error(one.mask(self.scores)) for one in family(name)} for name in names}
        super().__init__()

    def controls(self):
        percent = [10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90]
        return {
            "ratio": slider("zeros asked for", [(f"{each}%", each / 100) for each in percent], 0.5),
            "pattern": choice("pattern", list(self.curves)),
            "view": choice("view", ["mask", "histogram", "error"]),
        }

    def error(self, keep: Tensor) -> float:
        """‖X (W − W ⊙ M)ᵀ‖² / ‖X Wᵀ‖² for the lab's random inputs X."""
        lost = self.inputs_x @ (self.weight * ~keep).T
        return float(lost.square().sum() / (self.inputs_x @ self.weight.T).square().sum())

    def render(self, ratio, pattern, view):
        sparsity = nearest(pattern, ratio)
        keep = sparsity.mask(self.scores)
        error = self.error(keep)
        if view == "mask":
            figure = plot_masks(self.weight, {str(sparsity): keep}, columns=32)
        elif view == "histogram":
            figure = plot_histogram(self.weight, keep, f"{sparsity}, {error:.1%} output error")
        else:
            figure = plot_errors(self.curves, (sparsity.ratio, error), f"{sparsity}, {error:.1%} output error")
        return figure, self.read(ratio, pattern, sparsity, keep, error)

    def read(self, ratio: float, pattern: str, sparsity: Sparsity, keep: Tensor, error: float) -> str:
        """Zeros in all and in the rows, where the sizes part, and the error, as text."""
        asked = f"{sparsity}" if sparsity.m else f"{pattern} {sparsity.ratio:.0%}"
        if sparsity.ratio != ratio:
            asked = f"{ratio:.0%} asked for; the nearest {pattern} is {sparsity}, {sparsity.ratio:.1%} zeros"
        rows = (~keep).float().mean(1)
        least, most = f"{rows.min():.0%}", f"{rows.max():.0%}"
        shares = f"{least} of every row" if least == most else f"{least} to {most} of a row"
        largest, smallest = self.scores[~keep].max(), self.scores[keep].min()
        return (
            f"{asked}: {int((~keep).sum()):,} of {keep.numel():,} weights become zero, {shares}. "
            f"The largest that goes has |W| = {largest:.4f}, the smallest that stays "
            f"{smallest:.4f}. Output error on random inputs: {error:.1%}."
        )
