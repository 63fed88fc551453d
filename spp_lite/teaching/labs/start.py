"""Notebook 00: the whole path as a diagram, three accuracies as bars, and logged accuracies at one sparsity."""

import matplotlib as mpl
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE, plot_accuracy_vs_sparsity
from ...experiment.statistics import ratio_of
from ..widgets import Lab, slider
from .results import sweep_table

PATH = {  # step: what it does, the notebooks about it, its colour
    "dense model": ("W", "00", "white"),
    "prune": ("W ⊙ M: the mask M\nmakes weights zero", "01, 02, 03", LOOKS["none"][1]),
    "adapt": ("insert α and β,\nW stays frozen", "04, 05", LOOKS["spp"][1]),
    "train": ("on instructions:\nonly α, β change", "06", LOOKS["spp"][1]),
    "merge": ("W ⊙ (1 + s R(α) β):\nzeros stay zero", "07", LOOKS["spp"][1]),
    "score": ("accuracy against\nsparsity", "08, 09", "white"),
}


def draw_path() -> Figure:
    """From the dense model to the scored sparse one: six boxes, with the notebooks that open each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 3.0), layout="constrained")
        axes = figure.add_subplot()
    axes.set(xlim=(-0.1, 12.6), ylim=(-0.2, 2.8))
    axes.set_axis_off()
    for place, (step, (words, books, colour)) in enumerate(PATH.items()):
        left = 2.12 * place
        box = mpl.patches.Rectangle((left, 0.5), 1.8, 1.7, facecolor="white", edgecolor="black")
        axes.add_patch(box)
        axes.add_patch(mpl.patches.Rectangle((left, 1.75), 1.8, 0.45, facecolor=colour, edgecolor="black"))
        ink = "black" if colour == "white" else "white"
        axes.text(left + 0.9, 1.97, step, ha="center", va="center", fontsize=12, color=ink, weight="bold")
        axes.text(left + 0.9, 1.12, words, ha="center", va="center", fontsize=11)
        axes.text(left + 0.9, 0.2, f"notebook{'s' * (',' in books)} {books}", ha="center", va="center", fontsize=11)
        if place:
            looks = {"arrowstyle": "->", "linewidth": 1.6}
            axes.annotate("", (left, 1.35), (left - 0.32, 1.35), arrowprops=looks)
    axes.set_title("The whole path: a zero that pruning makes is still zero at the end")
    return figure


def plot_three(dense: float, pruned: float, recovered: float, chance: float) -> Figure:
    """Accuracy (0 to 1) of the dense, the pruned and the recovered model as three labelled bars; chance as a line."""
    found = {"dense": dense, "pruned": pruned, "recovered": recovered}
    colours = [LOOKS[name][1] for name in ("dense", "none", "spp")]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.4), layout="constrained")
        axes = figure.add_subplot()
        bars = axes.bar([*found], [100 * value for value in found.values()], width=0.6, color=colours)
        axes.bar_label(bars, fmt="%.0f %%", padding=3)
        axes.axhline(100 * chance, color="#666666", linestyle=":")
        axes.annotate(f"chance {chance:.1%}", (2.4, 100 * chance), va="bottom")
        axes.set(xlim=(-0.5, 3.1), ylim=(0, 108), ylabel="average accuracy (%)")
        axes.grid(axis="x", visible=False)
        axes.set_title(
            f"Pruning takes {100 * (dense - pruned):.0f} points, SPP brings back {100 * (recovered - pruned):.0f}"
        )
    return figure


class RecoveryLab(Lab):
    """A sparsity slider over the runs of `spp-lite sweep` with Wanda and SPP, means over seeds."""

    height = 400

    def __init__(self) -> None:
        table = sweep_table()
        self.table = table[table["method"].isin(["dense", "none", "spp"]) & table["pruner"].isin(["dense", "wanda"])]
        self.means = self.table.groupby(["sparsity", "method"])["accuracy"].mean()
        super().__init__()

    def controls(self):
        found = self.table.loc[self.table["method"] == "none", "sparsity"].unique()
        return {"sparsity": slider("sparsity", sorted(found, key=lambda text: (":" in text, ratio_of(text))))}

    def back(self, sparsity: str) -> float:
        """The share of the lost accuracy that SPP brings back, of the means over seeds."""
        here = self.means[sparsity]
        return (here["spp"] - here["none"]) / (self.means["0%", "dense"] - here["none"])

    def render(self, sparsity):
        dense, here = self.means["0%", "dense"], self.means[sparsity]
        lost, back = dense - here["none"], here["spp"] - here["none"]
        title = f"{sparsity}: pruning takes {100 * lost:.1f} points, SPP brings back {100 * back:.1f}"
        figure = plot_accuracy_vs_sparsity(self.table, title=title)
        ratios, patterns = figure.axes
        names = [tick.get_text() for tick in patterns.get_xticklabels()]
        place = (patterns, names.index(sparsity)) if sparsity in names else (ratios, ratio_of(sparsity))
        place[0].axvline(place[1], color="#666666", linewidth=1)
        return figure, (
            f"{sparsity}: dense {dense:.1%}, pruned {here['none']:.1%}, recovered {here['spp']:.1%}: "
            f"SPP brings back {self.back(sparsity):.0%} of the accuracy that pruning took."
        )
