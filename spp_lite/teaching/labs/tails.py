"""Notebooks 01 and 02: how far the largest weights and inputs stand out from the others, a row for each linear.

Measures any model; a model too large to measure in a notebook comes as a table (data/results/smollm2/layers.csv).
"""

import math
from collections.abc import Iterable
from statistics import NormalDist

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ...experiment.plotting import STYLE
from ...pruning.blocks import block_linears
from ...pruning.calibration import walk
from ...pruning.criteria import magnitude_scores, wanda_scores
from ...pruning.sparsity import Sparsity
from ..figures import MODULES

LARGER = 50, 25, 5, 1, 0.1  # percent of a linear's weights that are larger than a quantile
QUANTILES = [f"larger_{share:g}" for share in LARGER]  # their columns
INPUTS = {"q_proj": "q, k and v", "o_proj": "o", "gate_proj": "gate and up", "down_proj": "down"}  # q, k, v share one
NORMAL = NormalDist()
BELL = [NORMAL.inv_cdf(1 - share / 200) * math.sqrt(math.pi / 2) for share in LARGER]  # QUANTILES of normal numbers
BELL_HALF = 0.5 - 2 * NORMAL.inv_cdf(0.75) * NORMAL.pdf(NORMAL.inv_cdf(0.75))  # and their `half`


def weight_tails(weight: Tensor) -> dict[str, float]:
    """QUANTILES of |W| over its mean, and `half`: the share of the squares in the smaller half. weight: (out, in)."""
    sizes = np.sort(weight.detach().float().abs().cpu().numpy().ravel())
    squares = sizes.astype(float) ** 2
    found = np.quantile(sizes, [1 - share / 100 for share in LARGER]) / sizes.mean()
    half = squares[: len(squares) // 2].sum() / squares.sum()
    return dict(zip(QUANTILES, found.tolist(), strict=True)) | {"half": float(half)}


def input_tails(weight: Tensor, norm: Tensor) -> dict[str, float]:
    """How uneven a linear's inputs are, and what that does to a mask of half. weight: (out, in); norm: (in,).

    largest: input size over the median; top: share of the squares in the largest 1 % of inputs (at least one); moved: of
    the weights that |W| · ‖x‖ keeps, the share that |W| alone drops, both compared within rows; times: how many times as
    much output |W| loses as |W| · ‖x‖ does, if inputs vary independently of each other: the sum of W² ‖x‖² that goes.
    """
    squares = norm.double().square().sort(descending=True).values
    scores = wanda_scores(weight.detach(), norm)
    half = Sparsity.parse("row:50%")
    wanda, magnitude = half.mask(scores), half.mask(magnitude_scores(weight.detach()))
    lost = scores.double().square()
    return {
        "largest": float(norm.max() / norm.median()),
        "top": float(squares[: max(1, len(squares) // 100)].sum() / squares.sum()),
        "moved": float((wanda & ~magnitude).sum() / wanda.sum()),
        "times": float(lost[~magnitude].sum() / lost[~wanda].sum()),
    }


def weights_of(model: nn.Module) -> pd.DataFrame:
    """weight_tails of every linear in the decoder's blocks; index: its full name."""
    rows = {name: weight_tails(linear.weight) for name, linear in block_linears(model).items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("linear")


def inputs_of(model: nn.Module, calibration: Iterable[Tensor]) -> pd.DataFrame:
    """input_tails of every linear in the decoder's blocks, on calibration batches (batch, length); index: its full name."""
    rows = {}
    for run in walk(model, calibration):
        seen = run.statistics()
        for name, linear in run.linears.items():
            rows[name] = input_tails(linear.weight, seen[name].squares.sqrt())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("linear")


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """The median over blocks for each kind of linear, in the order of MODULES. table: of weights_of or inputs_of."""
    kinds = table.index.str.rsplit(".", n=1).str[-1]
    return table.groupby(kinds).median().reindex([kind for kind in MODULES if kind in kinds])


def plot_weight_tails(models: dict[str, pd.DataFrame], title: str = "") -> Figure:
    """A panel a model, a line a kind of linear: how large are the largest weights? models: name → weights_of."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels(models, title)
        for axes, table in zip(panels, models.values(), strict=True):
            for kind, row in by_kind(table).iterrows():
                colour, marker = MODULES[kind]
                axes.plot(range(len(LARGER)), row[QUANTILES], color=colour, marker=marker, label=kind, alpha=0.8)
            axes.plot(range(len(LARGER)), BELL, color="black", linestyle="--", zorder=3, label="normal (a bell)")
            axes.set_xticks(range(len(LARGER)), [f"{share:g}" for share in LARGER])
            axes.set_xlabel("weights that are larger (%)")
        panels[0].set_ylabel("|W| (1 = mean |W| of the linear)")
        _legend(figure, panels[0])
    return figure


def plot_input_tails(models: dict[str, pd.DataFrame], title: str = "") -> Figure:
    """A panel a model: the largest input over the median, block by block. models: name → inputs_of."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels(models, title)
        for axes, table in zip(panels, models.values(), strict=True):
            for kind, label in INPUTS.items():
                colour, marker = MODULES[kind]
                largest = table.loc[table.index.str.endswith(kind), "largest"]
                axes.plot(range(len(largest)), largest, color=colour, marker=marker, label=f"inputs of {label}")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("block")
        panels[0].set_ylabel("largest input (1 = median)")
        _legend(figure, panels[0])
    return figure


def _panels(models: dict[str, pd.DataFrame], title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    figure.suptitle(title, fontsize=13)
    panels = list(figure.subplots(1, len(models), sharey=True, squeeze=False)[0])
    for axes, (name, table) in zip(panels, models.items(), strict=True):
        axes.set_title(f"{name}, {len(table)} linears", fontsize=12)
    return figure, panels


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), fontsize=12, ncols=4, frameon=False, loc="outside lower center")
