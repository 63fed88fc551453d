"""Notebook 03: figures of a pruned model, and one budget of zeros spent over the seven kinds of linears.

Knows tables: kind, ratio, zeros, damage. Knows no model.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE
from ..figures import MODULES

KINDS = tuple(MODULES)
BLACK = LOOKS["dense"][1]
DAMAGE = "damage (nats per token)"
HIGHER = ("accuracy",)  # the yardsticks of which more is better


def plot_windows(found: Mapping[int, float]) -> Figure:
    """Perplexity against the length of the windows that the text is cut into."""
    best = min(found, key=found.get)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4), layout="constrained")
        axes = figure.add_subplot(title=f"Perplexity is lowest in windows of {best} tokens")
        axes.plot([*found], [*found.values()], color=BLACK, marker="o")
        axes.set_xscale("log", base=2)
        axes.set_xticks([*found], [str(length) for length in found])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("length of a window (tokens)")
        axes.set_ylabel("perplexity")
    return figure


def plot_errors(table: pd.DataFrame) -> Figure:
    """Relative output error of every linear, in the order of the model; table: PruningReport.table."""
    parts = table["layer"].str.extract(r"\.(?P<block>\d+)\..*?(?P<kind>\w+)$")
    blocks, worst = parts["block"].astype(int), table["error"].idxmax()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for kind, (colour, marker) in MODULES.items():
            here = table.index[parts["kind"] == kind]
            axes.plot(here, 100 * table["error"][here], color=colour, marker=marker, ls="", label=kind, clip_on=False)
        middle = table.index.to_series().groupby(blocks).mean()
        middle = middle[middle.index % (1 + len(middle) // 9) == 0]  # labels that do not collide
        axes.set_xticks(middle, [f"block {block}" for block in middle.index])
        axes.grid(False, axis="x")
        for edge in blocks.index[blocks.diff() > 0]:
            axes.axvline(edge - 0.5, color="#dddddd", zorder=0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("relative output error (%)")
        name = f"{parts['kind'][worst]} of block {blocks[worst]}"
        axes.set_title(f"The largest error of a linear: {table['error'][worst]:.1%}, in {name}")
        figure.legend(fontsize=12, frameon=False, ncols=7, loc="outside lower center", columnspacing=1, handletextpad=0)
    return figure


def plot_drift(errors: Sequence[float], drift: Sequence[float]) -> Figure:
    """Per block: the mean relative error of its linears, and how far its output is from the dense model's."""
    errors, drift = [*errors], [*drift]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.2), layout="constrained")
        axes = figure.add_subplot()
        at = range(len(drift))
        axes.plot(at, drift, color=BLACK, marker="o", label="output of the block, against the dense model's")
        axes.plot(at, errors, color="#777777", marker="s", linestyle="--", label="mean error of its seven linears")
        axes.set_xticks(at)
        axes.set_ylim(bottom=0, top=1.3 * max(*drift, *errors))
        axes.set_xlabel("decoder block")
        axes.set_ylabel("relative squared error")
        axes.set_title(f"The last block's output is {drift[-1] / errors[-1]:.1f} times as wrong as one of its linears")
        axes.legend(fontsize=12, frameon=False, loc="upper left")
    return figure


def best_by(table: pd.DataFrame, yardstick: str, ratio: float) -> str:
    """The criterion that a yardstick puts first at one ratio; table: method, ratio and the yardstick."""
    here = table[table["ratio"] == ratio].set_index("method")[yardstick]
    return str(here.idxmax() if yardstick in HIGHER else here.idxmin())


def plot_methods(table: pd.DataFrame, dense: Mapping[str, float]) -> Figure:
    """One panel per yardstick: damage, perplexity, accuracy against the ratio, a line per criterion.

    table: method, ratio, damage, perplexity, accuracy; dense: the dense model's values, drawn as a line.
    """
    labels = {"damage": DAMAGE, "perplexity": "perplexity (log scale)", "accuracy": "accuracy (%)"}
    top = table["ratio"].max()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.8), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(1, 3), labels.items(), strict=True):
            _draw_criteria(axes, table, name, dense[name])
            axes.set_title(f"{name} at {top:.0%} zeros:\n{LOOKS[best_by(table, name, top)][0].split()[-1]} is best")
            axes.set_ylabel(label)
        _log(figure.axes[1])
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=12, ncols=4, frameon=False, loc="outside lower center")
    return figure


def _draw_criteria(axes, table: pd.DataFrame, name: str, dense: float) -> None:
    scale = 100 if name in HIGHER else 1
    axes.axhline(scale * dense, color=BLACK, linestyle="--", linewidth=1, label=LOOKS["dense"][0])
    for method, rows in table.sort_values("ratio").groupby("method", sort=False):
        label, colour, marker, dash = LOOKS[method]
        looks = {"color": colour, "marker": marker, "linestyle": dash, "label": label}
        axes.plot(100 * rows["ratio"], scale * rows[name], **looks)
    axes.set_xticks(sorted(100 * table["ratio"].unique()))
    axes.set_xlabel("zeros (%)")


def _log(axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1,) if high > 1e3 * low else (1, 2, 5)
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())


def plot_two_models(tables: Mapping[str, tuple[pd.DataFrame, float]]) -> Figure:
    """Perplexity against zeros, a panel per model; tables: name → (method, ratio, perplexity; the dense model's)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 4.8), layout="constrained")
        for axes, (name, (table, dense)) in zip(
            figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True
        ):
            _draw_criteria(axes, table, "perplexity", dense)
            last = table.pivot(index="ratio", columns="method", values="perplexity").dropna().iloc[-1]
            worst = LOOKS[last.idxmax()][0].split()[-1]
            axes.set_title(
                f"{name}: {worst} is worst at {last.name:.0%},\n{last.max() / last.min():,.3g} times the best"
            )
            axes.set_ylabel("perplexity (log scale)")
            _log(axes)
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=12, ncols=4, frameon=False, loc="outside lower center")
    return figure


def plot_scan(scan: pd.DataFrame) -> Figure:
    """Left: damage against the ratio, one kind pruned alone; right: the price of the next zero, per million, log scale.

    scan: kind, ratio, zeros, damage, price (of a zero on the way to the row's ratio).
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for kind, rows in scan.groupby("kind", sort=False):
            colour, marker = MODULES[kind]
            looks = {"color": colour, "marker": marker, "label": kind}
            left.plot(100 * rows["ratio"], rows["damage"], **looks)
            before = rows["ratio"].shift(fill_value=0)
            right.plot(50 * (before + rows["ratio"]), 1e6 * rows["price"], **looks)  # in the middle of its step
        total = scan.groupby("kind", sort=False)["damage"].last()
        left.set_title(f"{total.idxmax()} hurts most, pruned alone to {scan['ratio'].max():.0%}")
        last = scan.groupby("kind", sort=False)["price"].last()
        right.set_title(f"The last zeros cost most in {last.idxmax()}, least in {last.idxmin()}")
        left.set_ylabel(DAMAGE)
        right.set_ylabel("damage per million more zeros (log scale)")
        right.set_yscale("log")
        for axes in (left, right):
            axes.set_xlabel("zeros in this kind of linear (%)")
        figure.legend(
            *left.get_legend_handles_labels(), fontsize=12, ncols=7, frameon=False, loc="outside lower center"
        )
    return figure


def plot_allocations(paired: pd.DataFrame) -> Figure:
    """Damage minus that of the uniform allocation, with 95 % intervals; paired: method, mean, half."""
    rows = paired.sort_values("mean").reset_index(drop=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=BLACK, linestyle="--")
        axes.errorbar(rows["mean"], rows.index, xerr=rows["half"], color=BLACK, fmt="o", markersize=8, capsize=4)
        axes.set_yticks(rows.index, rows["method"])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        half = rows["half"].fillna(0)  # of one draw
        ends = pd.concat([rows["mean"] - half, rows["mean"] + half])
        near = 10 ** math.ceil(math.log10(max(ends.groupby(level=0).apply(lambda both: both.abs().max()).min(), 1e-6)))
        axes.set_xscale("symlog", linthresh=near, linscale=1.5)  # else one bad way would squash all others
        axes.set_xlim(min(1.3 * ends.min(), -near), max(1.5 * ends.max(), near))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(
            f"damage minus that of uniform, the dashed line\n(nats per token; logarithmic beyond ±{near:g})"
        )
        less = [row.method for row in rows.itertuples() if row.mean + row.half < 0]
        axes.set_title(f"Less damage than uniform, same zeros: {', '.join(less) or 'none'}")
    return figure


def predicted(scan: pd.DataFrame, ratios: Mapping[str, float]) -> dict[str, float]:
    """Kind → damage read from the scan: linear between the scanned ratios, 0 where nothing is pruned.

    Their sum predicts the damage of pruning all kinds at once, as if kinds did not disturb each other.
    """
    found = {}
    for kind, ratio in ratios.items():
        rows = scan[scan["kind"] == kind].sort_values("ratio")
        found[kind] = float(np.interp(ratio, [0, *rows["ratio"]], [0, *rows["damage"]]))
    return found
