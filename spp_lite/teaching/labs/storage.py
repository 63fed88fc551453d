"""Notebook 07: sparse formats, their sizes and their speed. Knows tensors and tables, no model."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ...experiment.plotting import STYLE
from ...inference import to_csr as to_csr

CLEAR = 1.1  # times as fast: less is noise of the clock


def overtakes(times: pd.DataFrame, tokens: int) -> str:
    """From how many zeros on CSR is clearly faster than dense with so many tokens at a time, in words."""
    rows = times[times["tokens"] == tokens].sort_values("zeros")
    slower = rows.loc[CLEAR * rows["csr"] > rows["dense"], "zeros"]
    faster = rows[rows["zeros"] > slower.max()] if len(slower) else rows
    return f"from {faster['zeros'].iloc[0]} % zeros on" if len(faster) else "not at any share of zeros tried"


def plot_speed(times: pd.DataFrame) -> Figure:
    """times: columns zeros (%), tokens, dense and csr (the same unit) → how many times faster CSR is than dense."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.8), layout="constrained")
        axes = figure.add_subplot()
        looks = (("#0072B2", "o", "-"), ("#E69F00", "v", "-."))
        for (tokens, rows), (colour, marker, dash) in zip(times.groupby("tokens"), looks, strict=True):
            label = f"{tokens} token{'s' if tokens > 1 else ''} at a time"
            ratio = rows["dense"] / rows["csr"]
            axes.plot(rows["zeros"], ratio, color=colour, marker=marker, linestyle=dash, markersize=8, label=label)
        axes.axhline(1, color="black", linewidth=1, linestyle="--")
        axes.annotate("dense", (50, 1), xytext=(0, 4), textcoords="offset points", va="bottom")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_yticks(ticks := [0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50], [f"{tick:g}×" for tick in ticks])
        axes.set_xlabel("zeros in the weight (%)")
        axes.set_ylabel("speed of CSR (dense = 1×)")
        axes.set_title(f"With one token at a time, CSR is faster than dense {overtakes(times, 1)}")
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_sizes(sizes: dict[str, tuple[float, float]], title: str) -> Figure:
    """Stacked bars of bytes, drawn in MB. sizes: file → (the decoder's linears or factors, all the rest)."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(9.5, 1.7 + 0.55 * len(sizes)), layout="constrained")
        axes = figure.add_subplot()
        for row, (first, rest) in enumerate(sizes.values()):
            bars = (
                {"label": "the linears, or the factors", "color": "#0072B2"},
                {"label": "the rest", "color": "#BDBDBD"},
            )
            for left, width, looks in zip((0, first), (first, rest), bars, strict=True):
                axes.barh(row, width / 1e6, left=left / 1e6, height=0.6, **({**looks, "label": None} if row else looks))
            axes.text((first + rest) / 1e6, row, f" {(first + rest) / 1e6:,.0f} MB", va="center")
        axes.set_yticks(range(len(sizes)), sizes)
        axes.set(ylim=(len(sizes) - 0.5, -0.5), xlim=(0, 1.15 * max(map(sum, sizes.values())) / 1e6))
        axes.set_xlabel("size of the file (MB)")
        axes.set_title(title)
        axes.legend(fontsize=12, frameon=False, loc="lower right")
    return figure
