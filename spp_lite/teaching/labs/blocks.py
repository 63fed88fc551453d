"""Notebook 03: diagrams of a decoder block with its seven linears, and of the walk that prunes block after block.

Knows shapes and names. Knows no model.
"""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure

from ...experiment.plotting import STYLE
from ..figures import MODULES

PLACES = {  # kind: left, bottom of its box
    "q_proj": (1.9, 3.2), "k_proj": (1.9, 1.8), "v_proj": (1.9, 0.4), "o_proj": (5.7, 1.8),
    "gate_proj": (10.3, 2.7), "up_proj": (10.3, 0.9), "down_proj": (13.8, 1.8),
}  # fmt: skip
WIDTH, HEIGHT = 1.7, 1.0
STEPS = {
    "calibrate": "1 calibrate: note the inputs\nof the block's seven linears",
    "prune": "2 prune: score the weights,\nzero the lowest",
    "feed": "3 feed: run the pruned block,\nits output is the next input",
}


def draw_block(shapes: Mapping[str, tuple[int, int]]) -> Figure:
    """A decoder block from left to right, its seven linears in their colours; shapes: kind → (out, in)."""
    figure, axes = _canvas((12.6, 4.1), (-0.6, 17.6), (-0.3, 5.6))
    for kind, (left, bottom) in PLACES.items():
        words = f"{kind}\n{shapes[kind][0]} × {shapes[kind][1]}"
        _box(axes, left, bottom, WIDTH, HEIGHT, words, MODULES[kind][0])
    for left, words in ((0.5, "norm"), (8.9, "norm"), (4.3, "atten-\ntion"), (12.5, "SiLU\n(gate)\n× up")):
        _box(axes, left, 1.8, 0.9 if left < 12 else 1.1, HEIGHT, words, "#DDDDDD")
    for x in (8.1, 16.3):
        axes.text(x, 2.3, "+", fontsize=20, ha="center", va="center")
    for start, stop in _arrows():
        _arrow(axes, start, stop)
    for start, stop in ((0.1, 8.1), (8.5, 16.3)):  # the residual path goes round
        axes.plot([start, start, stop], [2.3, 4.6, 4.6], color="#666666", linewidth=1.2)
        _arrow(axes, (stop, 4.6), (stop, 2.65))
    axes.text(4.1, 4.75, "unchanged (residual)", fontsize=11, ha="center", color="#444444")
    axes.text(12.4, 4.75, "unchanged (residual)", fontsize=11, ha="center", color="#444444")
    axes.text(-0.5, 2.75, "in", fontsize=12)
    axes.text(16.8, 2.75, "out", fontsize=12)
    axes.set_title("A decoder block: seven linears (coloured, out × in), and nothing else is pruned")
    return figure


def _arrows() -> list[tuple]:
    """From → to, along the block."""
    middle = 2.3
    found = [((-0.5, middle), (0.5, middle)), ((5.2, middle), (5.7, middle)), ((7.4, middle), (7.9, middle))]
    found += [((8.3, middle), (8.9, middle)), ((13.6, middle), (13.8, middle)), ((15.5, middle), (16.1, middle))]
    for kind in ("q_proj", "k_proj", "v_proj"):
        height = PLACES[kind][1] + HEIGHT / 2
        found += [((1.4, middle), (1.9, height)), ((1.9 + WIDTH, height), (4.3, middle))]
    for kind in ("gate_proj", "up_proj"):
        height = PLACES[kind][1] + HEIGHT / 2
        found += [((9.8, middle), (10.3, height)), ((10.3 + WIDTH, height), (12.5, middle))]
    return [*found, ((16.5, middle), (17.3, middle))]


def draw_walk() -> Figure:
    """calibrate → prune → feed: the walk stands at its second block, the first is pruned, the third still dense."""
    figure, axes = _canvas((11.5, 4.3), (-0.8, 15.2), (-1.9, 4.4))
    blocks = {
        0.8: ("block 0\npruned", "#BBBBBB"),
        5.8: ("block 1\nits turn", "#EEEEEE"),
        10.8: ("block 2\ndense", "white"),
    }
    for left, (words, colour) in blocks.items():
        _box(axes, left, 0.4, 2.4, 2.0, words, colour)
    for start, stop in ((-0.7, 0.8), (3.2, 5.8), (8.2, 10.8), (13.2, 14.8)):
        _arrow(axes, (start, 1.4), (stop, 1.4))
    axes.text(-0.7, 1.6, "texts", fontsize=12)
    for x, y, step in ((2.9, 3.3, "calibrate"), (7.0, -1.5, "prune"), (11.0, 3.3, "feed")):
        looks = {"boxstyle": "round", "facecolor": "white", "edgecolor": "#333333"}
        axes.text(x, y, STEPS[step], fontsize=12, ha="center", bbox=looks)
    for start, stop in (((4.0, 3.1), (5.3, 1.55)), ((7.0, -0.7), (7.0, 0.4)), ((10.2, 3.1), (9.6, 1.55))):
        _arrow(axes, start, stop, "#666666")
    axes.set_title("The walk: every block is pruned for the inputs that the pruned blocks before it deliver")
    return figure


def _canvas(size: tuple[float, float], across: tuple[float, float], up: tuple[float, float]):
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
    axes.set(xlim=across, ylim=up)
    axes.set_axis_off()
    return figure, axes


def _box(axes, left: float, bottom: float, width: float, height: float, words: str, colour: str) -> None:
    axes.add_patch(mpl.patches.Rectangle((left, bottom), width, height, facecolor=colour, edgecolor="black"))
    ink = "white" if colour in ("#0072B2", "#8C6D1F", "#D55E00", "#009E73") else "black"
    axes.text(left + width / 2, bottom + height / 2, words, fontsize=11, ha="center", va="center", color=ink)


def _arrow(axes, start: tuple[float, float], stop: tuple[float, float], colour: str = "#333333") -> None:
    axes.annotate("", stop, start, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.4})
