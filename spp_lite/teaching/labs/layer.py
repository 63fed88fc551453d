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
from ..figures import MODULES
from ..widgets import Lab, slider

CRITERIA = {name: LOOKS[name][1:] for name in ("magnitude", "wanda", "sparsegpt")}  # colour, marker, dash


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


def plot_norms(norms: dict[str, Tensor], title: str = "") -> Figure:
    """Sizes of the inputs of linears, sorted, each over its own median. norms: full name → (in,)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name, norm in norms.items():
            colour, marker = MODULES[name.rsplit(".", 1)[-1]]
            sizes = (norm / norm.median()).sort(descending=True).values.cpu()
            at = 100 * torch.arange(len(sizes)) / (len(sizes) - 1)
            axes.plot(at, sizes, color=colour, marker=marker, markevery=0.04, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(title, fontsize=13)
        axes.set_xlabel("inputs, from the largest to the smallest (%)")
        axes.set_ylabel("size of an input (1 = median)")
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_kept(norm: Tensor, keeps: dict[str, Tensor], title: str = "") -> Figure:
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
        axes.set_title(title, fontsize=13)
        axes.set_xlabel("size of the input ‖x‖ (root mean square)")
        axes.set_ylabel("weights kept (%)")
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_errors(table: pd.DataFrame, title: str = "") -> Figure:
    """Output error against zeros. table: index share of zeros, one column a criterion, entries between 0 and 1."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name in table:
            colour, marker, dash = CRITERIA[name]
            axes.plot(100 * table.index, 100 * table[name], color=colour, marker=marker, linestyle=dash, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(title, fontsize=13)
        axes.set_xlabel("zeros in the weight (%)")
        axes.set_ylabel("output error on new texts (%)")
        axes.legend(fontsize=12, frameon=False)
    return figure


class OutlierLab(Lab):
    """A made-up layer of 64 × 64 in which four inputs are larger than the others: three criteria side by side."""

    height = 340
    outliers = (9, 22, 41, 54)
    sizes = (1, 2, 5, 10, 30)
    ratios = (0.25, 0.5, 0.75, 0.9)
    together = ("not at all", "a little", "strongly")

    def __init__(self) -> None:
        self.draw = torch.Generator().manual_seed(0)
        self.weight = torch.randn(64, 64, generator=self.draw)
        self.shared = torch.randn(1024, 8, generator=self.draw) @ torch.randn(8, 64, generator=self.draw)
        self.own = torch.randn(1024, 64, generator=self.draw)
        self.is_outlier = torch.zeros(64, dtype=torch.bool)
        self.is_outlier[list(self.outliers)] = True
        self.outcome = cache(self._outcome)  # computed once a state
        super().__init__()

    def inputs_at(self, size: float, together: str) -> Tensor:
        """1024 input vectors, (1024, 64): every input has the size 1, an outlier `size`."""
        rows = self.own + (0, 0.3, 0.8)[self.together.index(together)] * self.shared
        return rows / rows.square().mean(0).sqrt() * torch.where(self.is_outlier, float(size), 1.0)

    def _outcome(self, size: float, ratio: float, together: str) -> tuple[dict[str, Tensor], dict[str, float]]:
        """By criterion: the share kept of each input's weights, and the output error."""
        rows, new_rows = self.inputs_at(size, together).split(512)  # criteria see the first half, errors the second
        pruned = {name: prune_by(name, self.weight, rows, ratio) for name in CRITERIA}
        shares = {name: (new != 0).float().mean(0) for name, new in pruned.items()}
        return shares, {name: output_error(self.weight, new, new_rows) for name, new in pruned.items()}

    def controls(self):
        return {
            "size": slider("size of the four outliers", [(f"{size} ×", size) for size in self.sizes], 10),
            "ratio": slider("zeros", [(f"{ratio:.0%}", ratio) for ratio in self.ratios], 0.75),
            "together": slider("inputs vary together", self.together, "strongly"),
        }

    def render(self, size, ratio, together):
        shares, errors = self.outcome(size, ratio, together)
        kept = ", ".join(f"{name} {share[self.is_outlier].mean():.0%}" for name, share in shares.items())
        told = ", ".join(f"{name} {error:.1%}" for name, error in errors.items())
        return _side_by_side(shares, errors, self.is_outlier), (
            f"Outliers {size} ×, {ratio:.0%} zeros, inputs vary together {together}. Of the outliers' weights stay: "
            f"{kept}. Output error on new inputs: {told}."
        )


def _side_by_side(shares: dict[str, Tensor], errors: dict[str, float], is_outlier: Tensor) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 4.2))
        panels = figure.subplots(1, 4)
        figure.subplots_adjust(left=0.06, right=0.99, bottom=0.25, top=0.9, wspace=0.32)
        for axes, (name, share) in zip(panels, shares.items(), strict=False):
            _by_input(axes, 100 * share, is_outlier, name)
        panels[0].set_ylabel("weights kept (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        looks = {"fontsize": 12, "ncols": 2, "frameon": False, "loc": "lower center", "bbox_to_anchor": (0.37, 0)}
        figure.legend(handles, labels, **looks).legend_handles[0].set_color("#777777")  # any criterion's
        right = panels[-1]
        for number, (name, error) in enumerate(errors.items()):
            right.bar(number, 100 * error, 0.6, color=CRITERIA[name][0], zorder=2)
            place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            right.annotate(f"{error:.1%}", (number, 100 * error), **place)
        right.set_xticks(range(len(errors)), list(errors), rotation=20)
        right.set_ylim(0, 85)
        right.set_ylabel("output error (%)")
        right.set_title("the error of each", fontsize=13)
    return figure


def _by_input(axes: Axes, share: Tensor, is_outlier: Tensor, name: str) -> None:
    """One point per input, in the criterion's look; outliers are filled black."""
    at, (colour, marker, _) = torch.arange(len(share)), CRITERIA[name]
    axes.plot(at[~is_outlier], share[~is_outlier], marker, color=colour, alpha=0.6, label="other inputs")
    axes.plot(at[is_outlier], share[is_outlier], "*", color="black", markersize=12, label="the four outliers")
    axes.set_ylim(-4, 108)
    axes.set_yticks([0, 50, 100])
    axes.set_xticks([0, 30, 60])
    axes.set_xlabel("input")
    axes.set_title(f"what {name} keeps", fontsize=13)
