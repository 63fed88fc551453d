"""Notebook 02: inputs of one linear, what three criteria keep of it, and the error that they leave. No model in here."""

from functools import cache

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...experiment.plotting import LOOKS, STYLE
from ...pruning.criteria import inverse_factor, magnitude_scores, sparsegpt, wanda_scores
from ...pruning.sparsity import Sparsity
from ..widgets import Lab, choice, slider

CRITERIA = {  # colour, marker, dash
    "magnitude": LOOKS["none"][1:],
    "wanda": (*LOOKS["spp"][1:3], "-."),
    "sparsegpt": LOOKS["masked-lora"][1:],
}


def prune_by(criterion: str, weight: Tensor, rows: Tensor, sparsity: str | float) -> Tensor:
    """The pruned weight (out, in) by "magnitude", "wanda" or "sparsegpt"; rows: calibration inputs (tokens, in)."""
    asked = Sparsity.parse(sparsity)
    if criterion == "sparsegpt":
        return sparsegpt(weight, *inverse_factor(2 * rows.T @ rows / len(rows)), asked)
    if criterion == "wanda":
        return weight * asked.mask(wanda_scores(weight, rows.square().mean(0).sqrt()), per_row=True)
    return weight * asked.mask(magnitude_scores(weight))


def output_error(weight: Tensor, new: Tensor, rows: Tensor) -> float:
    """‖rows (new − weight)ᵀ‖² / ‖rows weightᵀ‖²: the part of the output that pruning loses, 0 for nothing."""
    return float((rows @ (new - weight).T).square().sum() / (rows @ weight.T).square().sum())


def plot_norms(norms: dict[str, Tensor]) -> Figure:
    """Sizes of the inputs of one or two linears, sorted, each over its own median. norms: name → (in,)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for (name, norm), method in zip(norms.items(), ("hira", "lora*"), strict=False):
            _, colour, marker, dash = LOOKS[method]
            sizes = (norm / norm.median()).sort(descending=True).values.cpu()
            at = 100 * torch.arange(len(sizes)) / (len(sizes) - 1)
            axes.plot(at, sizes, color=colour, marker=marker, linestyle=dash, markevery=0.04, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("inputs, from the largest to the smallest (%)")
        axes.set_ylabel("size of an input (1 = median)")
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_kept(norm: Tensor, keeps: dict[str, Tensor]) -> Figure:
    """Of each input, the share of its weights that a criterion keeps. norm: (in,); keeps: criterion → mask (out, in)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name, keep in keeps.items():
            colour, marker, _ = CRITERIA[name]
            share = 100 * keep.float().mean(0).cpu()
            axes.plot(norm.cpu(), share, color=colour, marker=marker, linestyle="", alpha=0.6, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("size of the input ‖x‖ (root mean square)")
        axes.set_ylabel("weights kept (%)")
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_errors(table: pd.DataFrame) -> Figure:
    """Output error against zeros. table: index share of zeros, one column a criterion, entries between 0 and 1."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name in table:
            colour, marker, dash = CRITERIA[name]
            axes.plot(100 * table.index, 100 * table[name], color=colour, marker=marker, linestyle=dash, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("zeros in the weight (%)")
        axes.set_ylabel("output error on new texts (%)")
        axes.legend(fontsize=12, frameon=False)
    return figure


class OutlierLab(Lab):
    """A made-up layer of 64 × 64 in which four inputs are larger than the others: who keeps what, and who errs least."""

    height = 330
    outliers = (9, 22, 41, 54)
    sizes = (1, 2, 5, 10, 30)
    ratios = (0.25, 0.5, 0.75, 0.9)

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.weight = torch.randn(64, 64, generator=draw)
        shared, own = torch.randn(1024, 8, generator=draw), torch.randn(1024, 64, generator=draw)
        self.inputs = own + 0.6 * shared @ torch.randn(8, 64, generator=draw)  # inputs vary together, as in a model
        self.inputs /= self.inputs.square().mean(0).sqrt()
        self.inputs_at = {size: self._scaled(size) for size in self.sizes}
        self.outcome = cache(self._outcome)  # computed once a state
        super().__init__()

    def _scaled(self, size: float) -> Tensor:
        scale = torch.ones(64)
        scale[list(self.outliers)] = float(size)
        return self.inputs * scale

    def _outcome(self, size: float, ratio: float) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
        """Sizes of the inputs; by criterion the share kept of each input's weights, and the output error."""
        rows, new_rows = self.inputs_at[size].split(512)  # the criteria see the first half, errors come from the second
        pruned = {name: prune_by(name, self.weight, rows, ratio) for name in CRITERIA}
        shares = {name: (new != 0).float().mean(0) for name, new in pruned.items()}
        errors = {name: output_error(self.weight, new, new_rows) for name, new in pruned.items()}
        return rows.square().mean(0).sqrt(), shares, errors

    def controls(self):
        return {
            "size": slider("size of the four outliers", [(f"{size} ×", size) for size in self.sizes], 10),
            "ratio": slider("zeros", [(f"{ratio:.0%}", ratio) for ratio in self.ratios], 0.75),
            "criterion": choice("criterion", list(CRITERIA), "wanda"),
        }

    def render(self, size, ratio, criterion):
        norm, shares, errors = self.outcome(size, ratio)
        kept = shares[criterion]
        is_outlier = torch.zeros(64, dtype=torch.bool)
        is_outlier[list(self.outliers)] = True
        figure = _three_panels(norm, kept, is_outlier, errors, criterion)
        told = ", ".join(f"{name} {error:.1%}" for name, error in errors.items())
        return figure, (
            f"Outliers {size} ×, {ratio:.0%} zeros: {criterion} keeps {kept[is_outlier].mean():.0%} of the outliers' "
            f"weights and {kept[~is_outlier].mean():.0%} of the others'. Output error on new inputs: {told}."
        )


def _three_panels(norm: Tensor, kept: Tensor, is_outlier: Tensor, errors: dict[str, float], criterion: str) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 4))
        left, middle, right = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.06, right=0.99, bottom=0.16, top=0.9, wspace=0.3)
        _by_input(left, norm, is_outlier, "size of the input ‖x‖", "the inputs")
        _by_input(middle, 100 * kept, is_outlier, "weights kept (%)", f"what {criterion} keeps")
        left.set_yscale("log")
        left.set_ylim(0.5, 300)
        left.set_yticks([1, 10, 100], ["1", "10", "100"])
        left.minorticks_off()
        left.legend(fontsize=12, frameon=False, loc="upper left")
        middle.set_ylim(-4, 108)
        middle.set_yticks([0, 50, 100])
        for number, (name, error) in enumerate(errors.items()):
            looks = {"edgecolor": "black", "linewidth": 2} if name == criterion else {}
            right.bar(number, 100 * error, 0.6, color=CRITERIA[name][0], zorder=2, **looks)
            right.annotate(
                f"{error:.1%}", (number, 100 * error), xytext=(0, 4), textcoords="offset points", ha="center"
            )
        right.set_xticks(range(len(errors)), list(errors))
        right.set_ylim(0, 80)
        right.set_yticks([0, 20, 40, 60, 80])
        right.set_ylabel("output error (%)")
        right.set_title("the error, all three", fontsize=13)
    return figure


def _by_input(axes: Axes, values: Tensor, is_outlier: Tensor, label: str, title: str) -> None:
    """One point per input; outliers look different."""
    at = torch.arange(len(values))
    groups = ((~is_outlier, "#999999", "o", "other inputs"), (is_outlier, "#CC79A7", "D", "outliers"))
    for here, colour, marker, name in groups:
        axes.plot(at[here], values[here], color=colour, marker=marker, linestyle="", markersize=7, label=name)
    axes.set_xticks([0, 30, 60])
    axes.set_xlabel("input")
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=13)
