"""Notebook 00: accuracy of the pruned and the recovered model at one sparsity, from logged runs."""

import pandas as pd

from ..data import embedded
from ..plotting import plot_accuracy_vs_sparsity
from ..widgets import Lab, slider


class RecoveryLab(Lab):
    """A sparsity slider over the table that `spp-lite demo` wrote."""

    def __init__(self) -> None:
        self.table = pd.read_csv(embedded("results", "start.csv"))
        super().__init__()

    def controls(self):
        return {"sparsity": slider("sparsity", self.table["sparsity"].unique()[1:])}

    def render(self, sparsity):
        table = self.table
        figure = plot_accuracy_vs_sparsity(table)
        here = table[table["sparsity"] == sparsity].set_index("method")["accuracy"]
        dense = table["accuracy"].iloc[0]
        axes = figure.axes[0]
        zeros = 100 * table.loc[table["sparsity"] == sparsity, "zeros"].iloc[0]
        axes.axvline(zeros, color="#666666", linewidth=1)
        back = (here["spp"] - here["none"]) / (dense - here["none"])
        return figure, (
            f"{sparsity}: dense {dense:.1%}, pruned {here['none']:.1%}, recovered {here['spp']:.1%}: "
            f"SPP brings back {back:.0%} of the accuracy that pruning took."
        )
