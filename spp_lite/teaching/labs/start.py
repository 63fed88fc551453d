"""Notebook 00: accuracy of the pruned and the recovered model at one sparsity, from logged runs."""

from ...experiment.plotting import plot_accuracy_vs_sparsity
from ...experiment.statistics import ratio_of
from ..widgets import Lab, slider
from .results import sweep_table


class RecoveryLab(Lab):
    """A sparsity slider over the runs of `spp-lite sweep` with Wanda and SPP, means over seeds."""

    def __init__(self) -> None:
        table = sweep_table()
        self.table = table[table["method"].isin(["dense", "none", "spp"]) & table["pruner"].isin(["dense", "wanda"])]
        self.means = self.table.groupby(["sparsity", "method"])["accuracy"].mean()
        super().__init__()

    def controls(self):
        found = self.table.loc[self.table["method"] == "none", "sparsity"].unique()
        return {"sparsity": slider("sparsity", sorted(found, key=lambda text: (":" in text, ratio_of(text))))}

    def render(self, sparsity):
        figure = plot_accuracy_vs_sparsity(self.table)
        ratios, patterns = figure.axes
        names = [tick.get_text() for tick in patterns.get_xticklabels()]
        place = (patterns, names.index(sparsity)) if sparsity in names else (ratios, ratio_of(sparsity))
        place[0].axvline(place[1], color="#666666", linewidth=1)
        dense, here = self.means["0%", "dense"], self.means[sparsity]
        back = (here["spp"] - here["none"]) / (dense - here["none"])
        return figure, (
            f"{sparsity}: dense {dense:.1%}, pruned {here['none']:.1%}, recovered {here['spp']:.1%}: "
            f"SPP brings back {back:.0%} of the accuracy that pruning took."
        )
