"""Every figure: takes a table or tensors, returns a matplotlib Figure. Knows column names, nothing that computes them.

Colours are Okabe and Ito's colour-blind-safe set; every line also has its own marker and dash.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .statistics import gap_recovered, ratio_of, summarise

STYLE = {"font.size": 12, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
LOOKS = {  # method: label, colour, marker, dash
    "dense": ("dense model", "#000000", "", "--"),
    "none": ("pruned, not retrained", "#D55E00", "s", "-"),
    "spp": ("pruned + SPP", "#0072B2", "o", "-"),
    "lora": ("LoRA merged (refills the zeros)", "#999999", "^", ":"),
    "lora*": ("LoRA* (merged, re-masked)", "#E69F00", "v", "-."),
    "masked-lora": ("masked LoRA", "#009E73", "D", "--"),
    "hira": ("HiRA", "#CC79A7", "P", (0, (5, 1))),
    "masked-full": ("masked full fine-tuning", "#56B4E9", "X", (0, (3, 1, 1, 1))),
    "reconstruct": ("local reconstruction", "#8C6D1F", "*", (0, (1, 1))),
    "spp+distill": ("SPP, distilled from the dense model", "#004466", "h", "-"),
    "masked-lora+distill": ("masked LoRA, distilled", "#006633", "d", "--"),
    "masked-full+distill": ("masked full fine-tuning, distilled", "#2A7FB0", "p", (0, (3, 1, 1, 1))),
}
PAPER = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")


def plot_accuracy_vs_sparsity(
    table: pd.DataFrame, *, value: str = "accuracy", chance: float | None = None, title: str = ""
) -> Figure:
    """The paper's headline: a score against the percentage of zeros, one line per method, N:M patterns beside it.

    table: columns method, sparsity ("50%", "2:4", …; "0%" for dense) and `value`; several rows of a cell (seeds) give
    the mean and its 95 % interval. Accuracy (0 to 1) is drawn in percent; any other value as it is.
    """
    percent = value == "accuracy"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 5.6), layout="constrained")
        panels = draw_methods(figure, summarise(table, value), 100.0 if percent else 1.0, chance if percent else None)
        panels[0].set_ylabel("average zero-shot accuracy (%)" if percent else value)
        figure.suptitle(title)
    return figure


def draw_methods(figure: Figure, summary: pd.DataFrame, scale: float = 100.0, chance: float | None = None) -> list:
    """Every method of a summarise() table: ratios as lines, N:M patterns as open markers in a panel of their own.

    Methods stand slightly apart sideways, so that their intervals can be told apart. Returns the axes, left to right.
    """
    is_nm = summary["sparsity"].str.contains(":")
    dense, parts = summary["method"] == "dense", [summary[~is_nm], summary[is_nm]]
    parts = [part for part in parts if len(part[part["method"] != "dense"])] or [summary]
    shares = [1.0 + part["sparsity"].nunique() * (0.35 if part is parts[0] else 0.25) for part in parts]
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False, width_ratios=shares)[0]
    methods = [name for name in LOOKS if name in set(summary["method"]) - {"dense"}]
    for axes, part in zip(panels, parts, strict=True):
        if dense.any():
            label, colour, _, dash = LOOKS["dense"]
            axes.axhline(scale * summary.loc[dense, "mean"].iloc[0], color=colour, linestyle=dash, label=label)
        if chance is not None:
            axes.axhline(scale * chance, color="#666666", linewidth=1, linestyle=":", label="chance")
        for number, method in enumerate(methods):
            here = part[part["method"] == method].sort_values(["zeros", "sparsity"])
            _draw_method(axes, here, method, scale, number - (len(methods) - 1) / 2)
    panels[0].set_xlabel("zeros in the decoder's linear weights (%)")
    for axes, part in zip(panels, parts, strict=True):
        names = part.loc[part["sparsity"].str.contains(":")].sort_values(["zeros", "sparsity"])["sparsity"].unique()
        if len(names):
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.set_xlabel("N of M kept")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=12, ncols=3, frameon=False, loc="outside lower center")
    return list(panels)


def _draw_method(axes, rows: pd.DataFrame, method: str, scale: float, place: float) -> None:
    """A line over ratios (place: steps of 0.25 sideways), or open markers over N:M patterns (steps of 0.09)."""
    label, colour, marker, dash = LOOKS[method]
    looks = {"color": colour, "marker": marker, "capsize": 3, "markersize": 7, "label": label, "linestyle": dash}
    at = rows["zeros"] + 0.25 * place
    if rows["sparsity"].str.contains(":").all():
        looks |= {"linestyle": "", "mfc": "white"}
        at = np.arange(len(rows)) + 0.09 * place
    axes.errorbar(at, scale * rows["mean"], scale * rows["half"], **looks)


def _of_pruner(table: pd.DataFrame, pruner: str = "wanda") -> pd.DataFrame:
    return table[table["pruner"].isin(["dense", pruner])] if "pruner" in table else table


def plot_gap_recovered(table: pd.DataFrame, *, pruner: str = "wanda") -> Figure:
    """The share of the lost accuracy that comes back, per method and sparsity, with 95 % intervals over seeds."""
    found = gap_recovered(_of_pruner(table, pruner))
    summary = summarise(found, "gap")
    sparsities = sorted(summary["sparsity"].unique(), key=lambda text: (":" in text, ratio_of(text)))
    return _bars(summary, sparsities, 100.0, "accuracy recovered (% of what pruning took)", pruner)


def task_columns(table: pd.DataFrame) -> list[str]:
    """The columns that hold one task's accuracy."""
    return [name for name in table if name.removeprefix("tiny_").removesuffix("_val") in PAPER]


def plot_tasks(table: pd.DataFrame, *, sparsity: str = "75%", pruner: str = "wanda") -> Figure:
    """Accuracy per task family at one sparsity, with 95 % intervals over seeds."""
    tasks = task_columns(table)
    here = table[(table["method"] == "dense") | (table["pruner"] == pruner) & (table["sparsity"] == sparsity)]
    parts = [summarise(here.assign(sparsity="0%"), task).assign(sparsity=task.removeprefix("tiny_")) for task in tasks]
    labels = [task.removeprefix("tiny_") for task in tasks]
    return _bars(pd.concat(parts), labels, 100.0, "accuracy (%)", f"{pruner}, {sparsity}")


def _bars(summary: pd.DataFrame, groups: list[str], scale: float, label: str, title: str) -> Figure:
    methods = [name for name in LOOKS if name in set(summary["method"])]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.add_subplot()
        for number, method in enumerate(methods):
            rows = summary[summary["method"] == method].set_index("sparsity").reindex(groups)
            name, colour, _, _ = LOOKS[method]
            at = np.arange(len(groups)) + (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
            looks = {"color": colour, "label": name, "hatch": ["", "//", "..", "xx"][number % 4], "edgecolor": "white"}
            axes.bar(at, scale * rows["mean"], 0.8 / len(methods), yerr=scale * rows["half"], capsize=2, **looks)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(label)
        axes.set_title(title)
        axes.legend(fontsize=11, ncols=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    return figure


def plot_pruners(table: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """Accuracy of every pruning criterion, one panel per sparsity that all of them have, one marker per method."""
    sparse = table[table["pruner"] != "dense"]
    pruners = list(sparse["pruner"].unique())
    counts = sparse.groupby("sparsity")["pruner"].nunique()
    shared = sorted(counts.index[counts == len(pruners)], key=lambda text: (":" in text, ratio_of(text)))
    common = set.intersection(*(set(part["method"]) for _, part in sparse.groupby("pruner")))
    methods = [name for name in LOOKS if name in common]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(shared) + 1.5, 5), layout="constrained")
        panels = figure.subplots(1, len(shared), sharey=True, squeeze=False)[0]
        for axes, sparsity in zip(panels, shared, strict=True):
            _draw_pruners(axes, summarise(sparse[sparse["sparsity"] == sparsity], by="pruner"), methods, pruners)
            if chance is not None:
                axes.axhline(100 * chance, color="#666666", linewidth=1, linestyle=":", label="chance")
            axes.set_title(sparsity)
        panels[0].set_ylabel("average zero-shot accuracy (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=12, ncols=3, frameon=False, loc="outside lower center")
    return figure


def _draw_pruners(axes, cells: pd.DataFrame, methods: list[str], pruners: list[str]) -> None:
    for number, method in enumerate(methods):
        label, colour, marker, _ = LOOKS[method]
        rows = cells[cells["method"] == method]
        at = rows["pruner"].map(pruners.index) + 0.15 * (number - (len(methods) - 1) / 2)
        looks = {"color": colour, "marker": marker, "linestyle": "", "capsize": 3, "markersize": 8, "label": label}
        axes.errorbar(at, 100 * rows["mean"], 100 * rows["half"], **looks)
    axes.set_xticks(range(len(pruners)), pruners, rotation=30)


def plot_parameters(table: pd.DataFrame, *, sparsity: str = "75%", pruner: str = "wanda") -> Figure:
    """Accuracy against the number of trainable parameters at one sparsity, one point a method."""
    here = table[(table["pruner"] == pruner) & (table["sparsity"] == sparsity) & (table["parameters"] > 0)]
    counts = here.groupby("method")["parameters"].first()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for row in summarise(here).itertuples():
            name, colour, marker, _ = LOOKS[row.method]
            looks = {"color": colour, "marker": marker, "linestyle": "", "markersize": 9, "capsize": 3, "label": name}
            axes.errorbar(counts[row.method], 100 * row.mean, 100 * row.half, **looks)
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = [count for count in sorted(set(counts)) if not counts.between(count / 1.1, count - 1).any()]
        axes.set_xticks(ticks, [f"{count:,}" for count in ticks])
        axes.set_xlabel("trainable parameters")
        axes.set_ylabel("average zero-shot accuracy (%)")
        axes.set_title(f"{pruner}, {sparsity}")
        axes.legend(fontsize=11, frameon=False)
    return figure
