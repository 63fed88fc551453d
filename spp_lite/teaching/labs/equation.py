"""Notebook 05: the equation as boxes, and what a layer keeps for its backward pass. Knows tensors, no model."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ...experiment.plotting import STYLE

ALPHA, BETA, ZERO, KEPT = ("#0072B2", "#56B4E9"), "#E69F00", "#BDBDBD", "#FFFFFF"
OUT, IN = 8, 6  # of the boxes; r = 2


def plot_equation() -> Figure:
    """W′ = W ⊙ (1 + s R(α)β) as boxes: the two rows of α are repeated over two blocks of outputs, β is one column."""
    with mpl.rc_context({**STYLE, "axes.grid": False, "font.size": 13}):
        figure = Figure(figsize=(11, 4.3), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(-5.5, 33), ylim=(14.2, -2.2), aspect="equal", title="W′ is W times a number for every weight")
        axes.axis("off")
        grey = [[ZERO if (3 * row + 5 * column) % 4 < 2 else KEPT for column in range(IN)] for row in range(OUT)]
        stripes = [[ALPHA[2 * row // OUT]] * IN for row in range(OUT)]
        for left, top, colours in (
            (0, 0, grey),
            (12.5, 0, stripes),
            (21.5, 0, [[BETA]] * OUT),
            (12.5, 11, stripes[3:5]),
        ):
            _box(axes, left, top, colours)
        for left, words in ((9.3, "⊙ ( 1 + s ·"), (20, "·"), (23.4, ")")):
            axes.text(left, OUT / 2, words, ha="center", va="center", fontsize=18)
        for left, words in ((3, "W"), (15.5, "R(α)"), (22, "β")):
            axes.text(left, -0.5, words, ha="center", va="bottom", fontsize=15, fontweight="bold")
        axes.text(-4, OUT / 2, "W′  =", ha="center", va="center", fontsize=18)
        axes.text(-0.4, OUT / 2, "out", ha="right", va="center")
        axes.text(3, OUT + 0.3, "in", ha="center", va="top")
        axes.text(12.1, 12, "α", ha="right", va="center", fontsize=15, fontweight="bold")
        axes.text(15.5, 13.2, "in", ha="center", va="top")
        axes.text(18.9, 12, "r rows, here 2", va="center")
        axes.text(19.6, 9.6, "each row of α is repeated over one block of outputs", va="center")
        axes.text(24.5, 2.2, "one number for\nevery output,\nthe same for\nall its inputs", va="center")
        axes.text(24.5, 6.4, "grey: a zero of W,\nand so of W′", va="center")
        axes.annotate("", (15.5, OUT + 0.2), (15.5, 10.8), arrowprops={"arrowstyle": "-|>", "linewidth": 2})
    return figure


def _box(axes, left: float, top: float, colours: Sequence[Sequence[str]]) -> None:
    for row, line in enumerate(colours):
        for column, colour in enumerate(line):
            looks = {"facecolor": colour, "edgecolor": "#777777", "linewidth": 0.8}
            axes.add_patch(Rectangle((left + column, top + row), 1, 1, **looks))


def kept_for_backward(run: Callable[[], object], own: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The shapes of the tensors that autograd keeps while run() goes forward, without those in own and their views."""
    owned = {tensor.untyped_storage().data_ptr() for tensor in own}
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in owned:
            found[place] = tensor if tensor.is_contiguous() else tensor.mT  # a transposed view counts as what it views
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return [tuple(tensor.shape) for tensor in found.values()]


def plot_kept(kept: dict[str, list[tuple[int, ...]]], weight: Tensor) -> Figure:
    """What layers keep for backward beside x, W, α and β, one bar a layer, in sizes of W. kept: layer → shapes."""
    sizes = {name: [torch.Size(shape).numel() / weight.numel() for shape in shapes] for name, shapes in kept.items()}
    most = max(sizes, key=lambda name: sum(sizes[name]))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(10, 1.3 + 0.75 * len(kept)), layout="constrained")
        axes = figure.add_subplot()
        for row, (name, shapes) in enumerate(kept.items()):
            left = 0.0
            for size, shape in zip(sizes[name], shapes, strict=True):
                axes.barh(row, size, left=left, color="#E69F00", edgecolor="black", height=0.6)
                if size > 0.3:
                    axes.text(left + size / 2, row, " × ".join(map(str, shape)), ha="center", va="center")
                left += size
            if not shapes:
                axes.text(0.03, row, "nothing", va="center")
        axes.set_yticks(range(len(kept)), kept)
        axes.set(xlim=(0, None), ylim=(len(kept) - 0.5, -0.5))
        axes.set_xlabel("kept for the backward pass beside x, W, α and β (1 = as much as W)")
        nothing = " and ".join(name for name in kept if not kept[name])
        axes.set_title(
            f"{most} keeps {sum(sizes[most]):.2g} times the size of W" + f", {nothing} nothing" * bool(nothing)
        )
    return figure
