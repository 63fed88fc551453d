"""Diagrams of notebooks 01 and 02, drawn from boxes: groups of a pattern, what is stored, what a hook sees, a walk."""

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ...experiment.plotting import STYLE
from ...pruning.sparsity import Sparsity


def plot_groups(row: Tensor) -> Figure:
    """Twelve weights of one output in groups of four: as they are, under the free half, under 2:4."""
    sizes = row[:12].abs().cpu()
    masks = {"6 of these 12": sizes >= sizes.sort().values[6], "2:4": Sparsity.parse("2:4").mask(sizes[None])[0]}
    figure, axes = _canvas("2:4 keeps two of every four neighbours; a free mask keeps the largest wherever they are", 3)
    _strip(axes, 2, "|W|, one row", sizes, torch.ones(12, dtype=torch.bool))
    for y, (name, keep) in zip((1, 0), masks.items(), strict=True):
        _strip(axes, y, name, sizes, keep)
        for group, stays in enumerate(keep.view(-1, 4).sum(1).tolist()):
            axes.text(4 * group + 2, y - 0.13, f"keeps {stays} of 4", ha="center", va="center", fontsize=12)
    for border in (0, 4, 8, 12):
        axes.plot([border, border], [-0.25, 2.95], color="black", linewidth=2)
    return figure


def plot_packed(row: Tensor) -> Figure:
    """Twelve weights of one output under 2:4, and below them what is stored: six values and six places of two bits."""
    sizes = row[:12].abs().cpu()
    keep = Sparsity.parse("2:4").mask(sizes[None])[0]
    figure, axes = _canvas(
        "What the 2:4 format stores: half of the values, and for each of them its place in its group", 3
    )
    _strip(axes, 2, "|W| under 2:4", sizes, keep)
    for number, place in enumerate(keep.nonzero().flatten().tolist()):
        at = 4 * (number // 2) + 1 + number % 2  # in the middle of its group
        axes.annotate("", (at + 0.5, 1.76), (place + 0.5, 2.02), arrowprops={"arrowstyle": "->", "color": "black"})
        _box(axes, at, 1, f"{sizes[place]:.3f}", shade(float(sizes[place] / sizes.max())))
        _box(axes, at, 0, f"{place % 4}", "white")
    for y, label in ((1, "values (16 bits)"), (0, "places (2 bits)")):
        axes.text(-0.2, y + 0.4, label, ha="right", va="center", fontsize=13)
    for border in (0, 4, 8, 12):
        axes.plot([border, border], [-0.05, 2.95], color="black", linewidth=2)
    return figure


def shade(share: float | np.ndarray) -> np.ndarray:
    """The colour of a weight by its share of the largest one."""
    return mpl.colormaps["Purples"](0.15 + 0.7 * np.asarray(share))


def _canvas(title: str, strips: int) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.05 * strips + 0.5), layout="constrained")
        axes = figure.add_subplot()
    axes.set_xlim(-3.2, 12.1)
    axes.set_ylim(-0.3, strips)
    axes.axis("off")
    axes.set_title(title, fontsize=13)
    return figure, axes


def _strip(axes: Axes, y: float, label: str, sizes: Tensor, keep: Tensor) -> None:
    """Boxes with the sizes that stay; 0 where one goes."""
    axes.text(-0.2, y + 0.4, label, ha="right", va="center", fontsize=13)
    for place, (size, stays) in enumerate(zip(sizes.tolist(), keep.tolist(), strict=True)):
        _box(axes, place, y, f"{size:.3f}" if stays else "0", shade(size / float(sizes.max())) if stays else "white")


def _box(axes: Axes, x: float, y: float, text: str, colour) -> None:
    axes.add_patch(Rectangle((x + 0.04, y), 0.92, 0.74, facecolor=colour, edgecolor="#555555"))
    dark = np.dot(mpl.colors.to_rgb(colour), (0.3, 0.6, 0.1)) < 0.5
    axes.text(x + 0.5, y + 0.37, text, ha="center", va="center", fontsize=12, color="white" if dark else "black")


def plot_hook() -> Figure:
    """A linear between what makes its input and what takes its output, and the hook that is called with its input."""
    figure, axes = _canvas("A forward pre-hook is called with the input, just before the linear runs", 3)
    for x, width, text, colour in (
        (-3.1, 2.9, "what makes\nthe input x", "white"), (3.6, 2.9, "the linear:\nW x", shade(0.4)),
        (9.1, 2.9, "what takes\nthe output", "white"),
    ):  # fmt: skip
        _wide(axes, x, 1.9, width, text, colour)
    _wide(axes, -0.9, 0, 5.7, "your hook(module, args)\nargs[0] is x; it may look and note", "#FFF3D6")
    arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.6}
    for start, stop in ((-0.2, 3.6), (6.5, 9.1)):
        axes.annotate("", (stop, 2.35), (start, 2.35), arrowprops=arrow)
    axes.text(1.7, 2.46, "(batch, length, in)", ha="center", va="bottom", fontsize=12)
    axes.text(7.8, 2.46, "(batch, length, out)", ha="center", va="bottom", fontsize=12)
    axes.annotate("", (1.7, 0.92), (1.7, 2.33), arrowprops={**arrow, "linestyle": "--"})
    axes.text(1.85, 1.5, "sees", fontsize=12, va="center")
    _wide(axes, 6.0, 0, 6.0, "handle = register…(hook): it is called\nhandle.remove(): it is called no more", "white")
    return figure


def plot_column_walk() -> Figure:
    """SparseGPT in the middle of its walk: columns that are done, the present one, those that make up for it."""
    figure, axes = _canvas("SparseGPT walks from left to right: only columns to the right make up for an error", 4.6)
    done = ((0, 3), (2, 3), (0, 1, 4), (1, 3))  # the zeros of the columns that are done, row by row
    for row in range(4):
        for column in range(12):
            gone = column in done[row] or (column == 5 and row in (1, 2))
            colour = "white" if gone else shade(0.45) if column < 5 else "#FFE3A8" if column == 5 else shade(0.1)
            _box(axes, column, 3.2 - 0.85 * row, "0" if gone else "", colour)
    for row in (1, 2):
        at = 3.57 - 0.85 * row
        axes.annotate("", (11.95, at), (5.95, at), arrowprops={"arrowstyle": "-|>", "color": "#D55E00", "linewidth": 2})
    axes.text(-0.2, 2.3, "rows: the outputs,\neach on its own", ha="right", va="center", fontsize=12)
    for x, text in ((2.5, "done: changes no more"), (5.5, "column j"), (9, "these make up for the error of j")):
        axes.text(x, 4.1, text, ha="center", va="bottom", fontsize=12)
    axes.set_ylim(0.4, 4.6)
    return figure


def _wide(axes: Axes, x: float, y: float, width: float, text: str, colour) -> None:
    axes.add_patch(Rectangle((x, y), width, 0.9, facecolor=colour, edgecolor="#555555"))
    axes.text(x + width / 2, y + 0.45, text, ha="center", va="center", fontsize=12)
