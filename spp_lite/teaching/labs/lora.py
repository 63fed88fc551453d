"""Notebook 04: what LoRA's update does to the zeros of one weight. Knows tensors and layers, no table of runs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from ...experiment.baselines import MaskedLoraLinear
from ...experiment.plotting import LOOKS, STYLE
from ...pruning.sparsity import measure
from ..widgets import Lab, choice, slider

COLOURS = mpl.colormaps["PuOr"].with_extremes(bad="#BDBDBD")  # grey: exactly zero


def kept_share(update: Tensor, mask: Tensor) -> float:
    """‖M ⊙ Δ‖² / ‖Δ‖²: how much of an update's squared norm lies on the surviving weights; 0 for no update."""
    return float((update * mask).square().sum() / update.square().sum().clamp_min(1e-30))


def ranks(update: Tensor, mask: Tensor) -> tuple[int, int]:
    """The ranks of an update (out, in) and of what of it lies under a mask (out, in)."""
    whole, under = (int(torch.linalg.matrix_rank(matrix)) for matrix in (update, update.where(mask, 0.0)))
    return whole, under


def with_update(model: nn.Module, update: Callable) -> nn.Module:
    """attach(…, "masked-lora")'s model, whose layers from now on compute their update by update(weight, A, B, scaling)."""
    for layer in model.modules():
        if isinstance(layer, MaskedLoraLinear):
            layer.get_delta_weight = partial(_delta, layer, update)
    return model


def _delta(layer: MaskedLoraLinear, update: Callable, adapter: str) -> Tensor:
    a, b = (part[adapter].weight for part in (layer.lora_A, layer.lora_B))
    return update(layer.get_base_layer().weight, a, b, layer.scaling[adapter])


def plot_merge(weight: Tensor, a: Tensor, b: Tensor, scaling: float, *, masked: bool = False) -> Figure:
    """The upper left corner of W + s BA, or of W + M ⊙ s BA, as boxes of the right shapes; grey is exactly zero.

    weight: a pruned (out, in); a: (r, in); b: (out, r).
    """
    weight, a, b = (part.detach().cpu().float() for part in (weight[:16, :16], a[:, :16], b[:16]))
    mask = (weight != 0).float()
    merged = weight + scaling * (b @ a) * (mask if masked else 1)
    parts = [("+ s", None), ("B", b), ("·", None), ("A", a), ("=", None), ("W′", merged)]
    parts = [("W", weight), *([("+", None), ("M", mask), ("⊙ s", None)] if masked else parts[:1]), *parts[1:]]
    left, zeros = int((merged == 0).sum()), int((weight == 0).sum())
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(12, 3.3), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(f"{left} of the {zeros} zeros of this corner are left after merging")
        end = _draw_parts(axes, parts)
        axes.set(xlim=(-0.5, end + 0.5), ylim=(18.2, -2.2), aspect="equal")
        axes.axis("off")
    return figure


def _draw_parts(axes, parts: Sequence[tuple[str, Tensor | None]]) -> float:
    """Matrices and the signs between them, from left to right; returns where they end."""
    shapes = {"W": "out × in", "M": "1 or 0", "B": "out × r", "A": "r × in", "W′": "out × in"}
    at, middle = 0.0, 8.0
    for name, values in parts:
        if values is None:
            width = 2.4 + len(name.replace(" ", ""))
            axes.text(at + width / 2, middle, name, ha="center", va="center", fontsize=17)
            at += width
            continue
        rows, columns = values.shape
        top, unit = middle - rows / 2, float(values.abs().max()) * (2 if name == "M" else 1)
        shown = np.ma.masked_equal(values.numpy(), 0.0)
        box = (at, at + columns, top + rows, top)
        axes.imshow(shown, cmap=COLOURS, vmin=-unit, vmax=unit, extent=box, interpolation="nearest")
        axes.add_patch(Rectangle((at, top), columns, rows, fill=False, edgecolor="#555555"))
        axes.text(at + columns / 2, top - 0.4, name, ha="center", va="bottom", fontsize=14, weight="bold")
        axes.text(at + columns / 2, top + rows + 0.4, shapes[name], ha="center", va="top", fontsize=12)
        at += columns
    return at


def plot_saved(kept: Mapping[str, Sequence[tuple[int, ...]]], weight: Tensor) -> Figure:
    """What a layer keeps for its backward pass, every matrix as a box to scale; kept: method → shapes (rows, columns)."""
    out, inputs = weight.shape
    names = {name: LOOKS[name][0].split(" merged")[0] for name in kept}
    sizes = {name: sum(torch.Size(shape).numel() for shape in shapes) for name, shapes in kept.items()}
    most, least = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        axes = figure.add_subplot()
        end = _draw_boxes(axes, 0.0, [(out, inputs)], "white", f"W itself: {weight.numel():,}", inputs)
        for name, shapes in kept.items():
            end = _draw_boxes(axes, end, shapes, LOOKS[name][1], f"{names[name]} keeps {sizes[name]:,}", inputs)
        axes.set(xlim=(-0.02 * inputs, end), ylim=(1.25 * out, -0.3 * out), aspect="equal")
        axes.axis("off")
        axes.set_title(f"{names[most]} keeps {sizes[most] / sizes[least]:.0f} times as many numbers as {names[least]}")
    return figure


def _draw_boxes(axes, left: float, shapes: Sequence[tuple[int, ...]], colour: str, title: str, unit: int) -> float:
    """Boxes from `left` on, the largest first; returns where the next group starts."""
    axes.text(left, -0.08 * unit, title, ha="left", va="bottom", fontsize=13)
    for rows, columns in sorted(shapes, key=lambda shape: -torch.Size(shape).numel()):
        axes.add_patch(Rectangle((left, 0), columns, rows, facecolor=colour, edgecolor="black", alpha=0.75))
        axes.text(left, rows + 0.05 * unit, f"{rows} × {columns}", ha="left", va="top", fontsize=12)
        left += max(columns, 0.45 * unit) + 0.12 * unit
    return left + 0.3 * unit


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
    """Rank, scaling and a merge switch over a corner of a pruned weight; how many zeros are left, and what is lost."""

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
            "scale": slider("scaling s", [0.0, 0.5, 1.0, 2.0], 2.0),
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
