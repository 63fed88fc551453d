"""Notebook 09: a diagram of FSDP, and SmolLM2 before and after. Knows tables and boxes, no model."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...experiment.plotting import LOOKS, STYLE

GPUS, BLOCKS, AT_WORK = 4, 4, 1


def draw_fsdp() -> Figure:
    """Four GPUs and four blocks: each keeps its quarter of every block; one block is gathered whole, on all of them."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(11.5, 5), layout="constrained")
        axes = figure.add_subplot()
        for gpu in range(GPUS):
            _gpu(axes, gpu, 3.2 * gpu)
        words = [f"block {block}, frozen W" for block in range(BLOCKS)]
        words[AT_WORK] = f"block {AT_WORK}, at work"
        words += ["α, β, gradients, moments", "records"]
        for word, height in zip(words, (4.05, 2.95, 1.85, 0.75, -0.55, -1.6), strict=True):
            axes.text(-0.2, height, word, ha="right", va="center")
        for left in (2.55, 5.75, 8.95):
            looks = {"arrowstyle": "<->", "color": "black", "linewidth": 1.5}
            axes.annotate("", (left + 0.7, 2.95), (left, 2.95), arrowprops=looks)
        axes.set(xlim=(-4.6, 12.5), ylim=(-2.2, 5.4))
        axes.set_axis_off()
        axes.set_title("FSDP: each of four GPUs keeps a quarter of every block, and gathers the block at work")
    return figure


def _gpu(axes, gpu: int, left: float) -> None:
    """One GPU: four blocks in quarters, the factors, its own records."""
    own, other = LOOKS["spp"][1], "#FFFFFF"
    axes.text(left + 1.3, 4.95, f"GPU {gpu}", ha="center", fontweight="bold")
    for block in range(BLOCKS):
        bottom = 3.6 - 1.1 * block
        for quarter in range(GPUS):
            colour = own if quarter == gpu else LOOKS["masked-full"][1] if block == AT_WORK else other
            place = (left + 0.1 + 0.6 * quarter, bottom)
            axes.add_patch(Rectangle(place, 0.6, 0.9, facecolor=colour, edgecolor="#666666"))
    for bottom, words, colour in (
        (-0.9, "its quarter", LOOKS["lora*"][1]),
        (-1.95, f"part {gpu} of {GPUS}", "#DDDDDD"),
    ):
        axes.add_patch(Rectangle((left + 0.1, bottom), 2.4, 0.7, facecolor=colour, edgecolor="#666666"))
        axes.text(left + 1.3, bottom + 0.35, words, ha="center", va="center", fontsize=12)


def plot_before_after(rows: pd.DataFrame, title: str) -> Figure:
    """rows: perplexity by method ("dense", …), in the order of the path → a mark each, on a logarithmic axis."""
    ticks = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.6 + 0.6 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(rows["perplexity"]["dense"], color=LOOKS["dense"][1], linestyle=LOOKS["dense"][3], linewidth=1)
        for place, (method, value) in enumerate(rows["perplexity"].items()):
            _, colour, marker, _ = LOOKS[method]
            axes.plot(value, place, color=colour, marker=marker or "|", markersize=13, markeredgewidth=2)
            axes.annotate(f"{value:,.1f}", (value, place), xytext=(12, 0), textcoords="offset points", va="center")
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xlim(0.6 * rows["perplexity"].min(), 2 * rows["perplexity"].max())
        axes.set_yticks(range(len(rows)), [LOOKS[method][0] for method in rows.index])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("perplexity of encyclopedia prose, windows of 2,048 tokens (lower is better)")
        axes.set_title(title, fontsize=13)
    return figure
