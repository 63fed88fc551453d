"""Notebook 05: one weight under SPP's factors, and what the factors cost. Knows the two equations, no model."""

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ...adapter.kernels import effective_weight, row_blocks
from ...experiment.plotting import LOOKS, STYLE
from ..widgets import Lab, slider

COLOURS = mpl.colormaps["PuOr"]
GREY = (0.74, 0.74, 0.74, 1.0)  # a zero of W


def plot_factors(weight: Tensor, rows: Tensor, beta: Tensor, scaling: float, marks=()) -> Figure:
    """W, R(α), β and W′ side by side; zeros of W and W′ in grey, lines between the row blocks.

    weight: (out, in), small; rows: R(α), (out, in); beta: (out,). marks: (row, column, height, width, dash) in W′.
    """
    width = weight.shape[1]
    merged = weight * (1 + scaling * rows * beta[:, None])
    unit = 1.3 * float(weight.abs().max())
    parts = {
        "W": weight / unit,
        "R(α)": rows,
        "β": beta[:, None],
        f"W′ = W ⊙ (1 + {scaling:g} R(α)β)": merged / unit,
    }
    before, filled = int((weight == 0).sum()), int(((weight == 0) & (merged != 0)).sum())
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(12, 5))
        figure.suptitle(f"Of the {before} zeros of W, {before - filled} are zeros of W′, too", fontsize=14)
        axes = figure.add_axes((0.05, 0.27, 0.935, 0.57))
        starts = _side_by_side(axes, parts)
        for border in torch.nonzero((rows[1:] != rows[:-1]).any(1))[:, 0].tolist():
            axes.plot([starts[1] - 0.5, starts[1] + width - 0.5], [border + 0.5] * 2, color="black", linewidth=1.5)
        for row, column, height, wide, dash in marks:
            looks = {"fill": False, "edgecolor": "black", "linewidth": 2, "linestyle": dash}
            axes.add_patch(Rectangle((starts[3] + column - 0.5, row - 0.5), wide, height, **looks))
        _scale(figure.add_axes((0.25, 0.105, 0.5, 0.035)), unit)
    return figure


def _side_by_side(axes, parts: dict[str, Tensor]) -> list[int]:
    """Paint the matrices into one image, three columns apart; returns where each starts."""
    gap, starts, at = 3, [], 0
    rows = len(next(iter(parts.values())))
    picture = np.ones((rows, sum(part.shape[1] + gap for part in parts.values()) - gap, 4))
    ticks = []
    for title, values in parts.items():
        wide = values.shape[1]
        colours = COLOURS(values.clamp(-1, 1).numpy() / 2 + 0.5)
        colours[(values == 0).numpy() & title.startswith("W")] = GREY
        picture[:, at : at + wide] = colours
        axes.add_patch(Rectangle((at - 0.5, -0.5), wide, rows, fill=False, edgecolor="#444444", linewidth=1))
        axes.text(at + wide / 2 - 0.5, -0.8, title, ha="center", va="bottom", fontsize=13)
        ticks += [(at + column, column) for column in range(0, wide, 4) if wide > 1]
        starts.append(at)
        at += wide + gap
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.set_xticks(*zip(*ticks, strict=True))
    axes.set_yticks(range(0, rows, 2))
    axes.set_xlabel("input")
    axes.set_ylabel("output")
    return starts


def _scale(axes, unit: float) -> None:
    axes.imshow(np.linspace(-1, 1, 128)[None], cmap=COLOURS, aspect="auto", extent=(-1, 1, 0, 1))
    axes.set_xticks([-1, 0, 1], [f"α, β: −1\nW, W′: −{unit:.2g}", "0\n(grey: a zero weight)", f"1\n{unit:.2g}"])
    axes.set_yticks([])


def plot_one_hot(columns: Tensor) -> Figure:
    """Where HiRA's B (out, r) is not zero: one entry a row, a staircase of row blocks."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        row, column = torch.nonzero(columns, as_tuple=True)
        axes.scatter(row, column, color="#0072B2", marker="|", s=60)
        axes.set_xlabel("output (row of B)")
        axes.set_ylabel("column of B (block of rows)")
        axes.set_title(f"{len(row):,} of the {columns.numel():,} entries of B are not zero")
    return figure


class FactorLab(Lab):
    """Drag one α, one β and r over a corner of a pruned weight; see which entries of W′ move."""

    height = 330
    rows, columns, scaling = 12, 16, 2.0

    def __init__(self, weight: Tensor) -> None:
        """weight: a pruned (out, in), at least 12 × 16; its upper left corner is shown."""
        self.weight = weight.detach().cpu().float()[: self.rows, : self.columns].clone()
        survivors = (self.weight != 0).sum(1)
        self.row = 4 + int(survivors[4:8].argmax())  # a middle row with many survivors
        kept = (self.weight != 0).sum(0) * (self.weight[self.row] != 0)
        self.column = int(kept.argmax())
        draw = torch.Generator().manual_seed(0)
        self.alphas = torch.rand(self.rows, self.columns, generator=draw) * 0.5 - 0.25  # Kaiming's range for 16 inputs
        self.betas = torch.rand(self.rows, generator=draw) - 0.5
        super().__init__()

    def controls(self):
        values = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
        return {
            "r": slider("r, row blocks of α", [1, 2, 3, 4, 5, 6, 12], 3),
            "alpha": slider(f"the α of input {self.column} in the block of output {self.row}", values, 0.75),
            "beta": slider(f"β of output {self.row}", values, 0.75),
        }

    def factors(self, r: int, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
        """α (r, 16) and β (12,) with the two dragged entries in place."""
        alphas, betas = self.alphas[:r].clone(), self.betas.clone()
        alphas[row_blocks(self.rows, r)[self.row], self.column], betas[self.row] = alpha, beta
        return alphas, betas

    def render(self, r, alpha, beta):
        i, j, weight = self.row, self.column, self.weight
        alphas, betas = self.factors(r, alpha, beta)
        merged = effective_weight(weight, [(alphas, betas, self.scaling)])
        block = row_blocks(self.rows, r)
        mine = torch.nonzero(block == block[i])[:, 0].tolist()
        marks = [(mine[0], j, len(mine), 1, "-"), (i, 0, 1, self.columns, "--")]
        figure = plot_factors(weight, alphas[block], betas, self.scaling, marks)
        factor = 1 + self.scaling * alpha * beta
        return figure, (
            f"r = {r}: this α reaches {len(mine)} of {self.rows} outputs of input {j} (solid box), "
            f"{int((weight[mine, j] != 0).sum())} of them not zero; "
            f"β reaches output {i} (dashed box), {int((weight[i] != 0).sum())} of {self.columns} weights not zero. "
            f"Where they meet, W′ = {weight[i, j]:+.3f} · (1 + {self.scaling:g} · {alpha:g} · {beta:g}) = "
            f"{weight[i, j] * factor:+.3f}. Zeros: {int((weight == 0).sum())} in W, {int((merged == 0).sum())} in W′; "
            f"{int(((weight == 0) & (merged != 0)).sum())} were filled."
        )


def adapter_sizes(width: int, r: int, rank: int = 8) -> dict[str, int]:
    """Trainable parameters on one square linear of `width` inputs and outputs, by method; survivors at 50 % zeros."""
    return {
        "SPP": r * width + width,
        f"LoRA, rank {rank}": rank * (width + width),
        "HiRA, rank r": r * (width + width),
        "all survivors at 50 %": width * width // 2,
    }


class SizeLab(Lab):
    """Parameters against width, for one r."""

    widths = (128, 256, 512, 1024, 2048, 4096, 8192)
    looks = tuple(LOOKS[method][1:] for method in ("spp", "lora", "hira", "masked-full"))

    def controls(self):
        return {
            "r": slider("r", [1, 2, 4, 8, 15, 16, 32, 64], 16),
            "width": slider("width, inputs = outputs", self.widths, 4096),
        }

    def render(self, r, width):
        found = [adapter_sizes(each, r) for each in self.widths]
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(8.5, 4.6), layout="constrained")
            axes = figure.add_subplot()
            for (colour, marker, dash), method in zip(self.looks, found[0], strict=True):
                sizes = [each[method] for each in found]
                axes.loglog(self.widths, sizes, color=colour, marker=marker, linestyle=dash, label=method)
            axes.axvline(width, color="#666666", linewidth=1)
            axes.minorticks_off()
            axes.set_xticks(self.widths, [f"{each:,}" for each in self.widths])
            axes.set_xlabel("width of a square linear (inputs = outputs)")
            axes.set_ylabel("trainable parameters")
            share = adapter_sizes(width, r)["SPP"] / (width * width // 2)
            axes.set_title(f"Width {width:,}: SPP trains {share:.2%} of the number of survivors")
            axes.legend(fontsize=12, frameon=False)
        here = adapter_sizes(width, r)
        counts = ", ".join(f"{method} {count:,}" for method, count in here.items())
        return figure, f"width {width:,}, r = {r}: {counts}. SPP trains {share:.2%} of the number of survivors."
