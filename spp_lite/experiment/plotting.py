"""Every figure: takes a table or tensors, returns a matplotlib Figure. Knows column names, nothing that computes them.

Colours are Okabe and Ito's colour-blind-safe set; every line also has its own marker and dash.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..pruning.sparsity import Sparsity
from .statistics import by_sparsity, gap_recovered, is_pattern, paired, summarise

STYLE = {"font.size": 12, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
SCORE = {"accuracy": "average zero-shot accuracy (%)"}  # other columns are called by their names
LEGEND = {"fontsize": 12, "ncols": 3, "frameon": False, "loc": "outside lower center"}
LOOKS = {  # method: label, colour, marker, dash
    "dense": ("dense model", "#000000", "", "--"),
    "none": ("pruned, not retrained", "#D55E00", "s", "-"),
    "spp": ("pruned + SPP", "#0072B2", "o", "-"),
    "direct": ("SPP, direct form (ours)", "#004466", "h", "-"),
    "magnitude": ("pruned by magnitude", "#D55E00", "s", "-"),
    "wanda": ("pruned by Wanda", "#0072B2", "o", "--"),
    "sparsegpt": ("pruned by SparseGPT", "#009E73", "D", "-."),
    "lora": ("LoRA merged (refills the zeros)", "#999999", "^", ":"),
    "lora*": ("LoRA* (merged, re-masked)", "#E69F00", "v", "-."),
    "masked-lora": ("masked LoRA", "#009E73", "D", "--"),
    "hira": ("HiRA", "#CC79A7", "P", (0, (5, 1))),
    "masked-full": ("masked full fine-tuning", "#56B4E9", "X", (0, (3, 1, 1, 1))),
}
PAPER = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")


def look_of(method: str) -> tuple:
    """Label, colour, marker and dash; a method+extra that LOOKS lacks takes after its method."""
    label, colour, _, dash = LOOKS.get(method.partition("+")[0], (method, "#444444", "", "-"))
    return LOOKS.get(method, (" + ".join([label, *method.split("+")[1:]]), colour, ">", dash))


def methods_of(table: pd.DataFrame) -> list[str]:
    """The methods of a table in the order of LOOKS; those that it lacks come last."""
    return sorted(set(table["method"]), key=lambda name: ([*LOOKS, name].index(name), name))


def draw_points(axes, at, rows: pd.DataFrame, method: str, scale: float, **looks) -> None:
    """The means of a method's cells with their intervals, in its look; looks: what differs from it."""
    label, colour, marker, dash = look_of(method)
    given = {"color": colour, "marker": marker, "label": label, "linestyle": dash, "markersize": 7, "capsize": 3}
    axes.errorbar(at, scale * rows["mean"], scale * rows["half"], **given | looks)
    mark_failed(axes, at, rows, scale)


def mark_failed(axes, at, rows: pd.DataFrame, scale: float) -> None:
    """Say beside a cell that some of its runs failed: its mean is of the others alone."""
    for x, row in zip(at, rows.itertuples(), strict=True):
        if row.failed > 0:
            y, system = (scale * row.mean, "data") if row.n else (0.02, "axes fraction")
            text = f" {row.n:.0f} of {row.n + row.failed:.0f} runs"
            axes.annotate(text, (x, y), xycoords=("data", system), fontsize=9, rotation=90, va="bottom")


def plot_accuracy_vs_sparsity(
    table: pd.DataFrame, *, value: str = "accuracy", chance: float | None = None, title: str = ""
) -> Figure:
    """The paper's headline: a score against the percentage of zeros, one line per method, N:M patterns beside it.

    table: columns method, sparsity ("50%", "2:4", …; "0%" for dense) and `value`; several rows of a cell (seeds) give
    the mean and its 95 % interval. Accuracy (0 to 1) is drawn in percent, perplexity on a logarithmic axis.
    """
    percent = value == "accuracy"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 5.6), layout="constrained")
        panels = draw_methods(figure, summarise(table, value), 100.0 if percent else 1.0, chance if percent else None)
        panels[0].set_ylabel(SCORE.get(value, value.replace("_", " ")))
        if "perplexity" in value:
            panels[0].set_yscale("log")
        figure.suptitle(title)
    return figure


def plot_criteria(table: pd.DataFrame, *, value: str = "accuracy", chance: float | None = None) -> Figure:
    """A score of the pruned models, not retrained, against the percentage of zeros, one line per criterion."""
    pruned = table[table["method"].isin(["dense", "none"])]
    named = pruned["method"].where(pruned["method"] == "dense", pruned["pruner"])
    return plot_accuracy_vs_sparsity(
        pruned.assign(method=named), value=value, chance=chance, title="pruned, not retrained"
    )


def draw_methods(figure: Figure, summary: pd.DataFrame, scale: float = 100.0, chance: float | None = None) -> list:
    """Every method of a summarise() table: ratios as lines, N:M patterns as open markers in a panel of their own.

    Methods stand slightly apart sideways, so that their intervals can be told apart. Returns the axes, left to right.
    """
    is_nm = summary["sparsity"].map(is_pattern).astype(bool)
    dense, parts = summary["method"] == "dense", [summary[~is_nm], summary[is_nm]]
    parts = [part for part in parts if len(part[part["method"] != "dense"])] or [summary]
    shares = [1.0 + part["sparsity"].nunique() * (0.35 if part is parts[0] else 0.25) for part in parts]
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False, width_ratios=shares)[0]
    methods = methods_of(summary[~dense])
    panels[0].set_xlabel("zeros in the decoder's linear weights (%)")
    for axes, part in zip(panels, parts, strict=True):
        if dense.any():
            label, colour, _, dash = LOOKS["dense"]
            axes.axhline(scale * summary.loc[dense, "mean"].iloc[0], color=colour, linestyle=dash, label=label)
        if chance is not None:
            axes.axhline(scale * chance, color="#666666", linewidth=1, linestyle=":", label="chance")
        names = by_sparsity(filter(is_pattern, part["sparsity"]))
        if names:
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.set_xlabel("N of M kept")
        for number, method in enumerate(methods):
            rows, place = part[part["method"] == method], number - (len(methods) - 1) / 2
            if names:
                at = rows["sparsity"].map(names.index).astype(float) + 0.09 * place  # of no rows, too
                draw_points(axes, at, rows, method, scale, linestyle="", mfc="white")
            else:
                rows = rows.sort_values(["zeros", "sparsity"])
                draw_points(axes, rows["zeros"] + 0.25 * place, rows, method, scale)
    figure.legend(*panels[0].get_legend_handles_labels(), **LEGEND)
    return list(panels)


def _of_pruner(table: pd.DataFrame, pruner: str = "wanda") -> pd.DataFrame:
    return table[table["pruner"].isin(["dense", pruner])] if "pruner" in table else table


def _cells(table: pd.DataFrame, pruner: str, sparsity: str) -> pd.DataFrame:
    """The runs of a criterion at a sparsity, however it is spelled; ValueError where there is none."""
    wanted = Sparsity.parse(sparsity)
    there = table[table["pruner"] == pruner]
    if (found := there[[Sparsity.parse(one) == wanted for one in there["sparsity"]]]).empty:
        have = ", ".join(by_sparsity(there["sparsity"])) or "nothing"
        raise ValueError(f"no run of the table is pruned by {pruner} at {sparsity}: of {pruner} it has {have}")
    return found


def plot_gap_recovered(table: pd.DataFrame, *, pruner: str = "wanda") -> Figure:
    """The share of the lost accuracy that comes back, per method and sparsity, with 95 % intervals over seeds."""
    rows = gap_recovered(_of_pruner(table, pruner))
    if rows.empty:
        raise ValueError("no method was trained where pruning took two points or more: there is no gap to bring back")
    summary = summarise(rows, "gap")
    return _bars(
        summary, by_sparsity(summary["sparsity"]), "accuracy recovered (% of what pruning took)", f"pruned by {pruner}"
    )


def plot_paired(table: pd.DataFrame, *, value: str = "accuracy", against: str = "spp", pruner: str = "wanda") -> Figure:
    """Each method minus `against`, paired by seed, per sparsity, with 95 % intervals: what holds 0 is not told apart."""
    found = paired(_of_pruner(table, pruner), value, against)
    names, methods = by_sparsity(found["sparsity"]), methods_of(found)
    with mpl.rc_context(STYLE):
        long = max(len(look_of(method)[0]) for method in (*methods, against)) > 32
        figure = Figure(figsize=(max(1.1 * len(names) + 3, 9 if long else 6.5), 5), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=LOOKS["spp"][1], linewidth=1.5, label=look_of(against)[0])
        for number, method in enumerate(methods):
            rows = found[found["method"] == method]
            at = rows["sparsity"].map(names.index) + 0.7 * (number - (len(methods) - 1) / 2) / len(methods)
            draw_points(axes, at, rows, method, 100 if value == "accuracy" else 1, linestyle="")
        axes.set_xticks(range(len(names)), names)
        unit = " (points)" * (value == "accuracy")
        minus = [f"{value.replace('_', ' ')} minus that of", look_of(against)[0] + unit]
        axes.set_ylabel(("\n" if long else " ").join(minus))
        axes.set_title(f"pruned by {pruner}")
        figure.legend(**LEGEND | {"ncols": 2 if long else 3})
    return figure


def task_columns(table: pd.DataFrame) -> list[str]:
    """The columns that hold one task's accuracy."""
    return [name for name in table if name.removeprefix("tiny_").removesuffix("_val") in PAPER]


def plot_tasks(table: pd.DataFrame, *, sparsity: str = "75%", pruner: str = "wanda") -> Figure:
    """Accuracy per task family at one sparsity, with 95 % intervals over seeds."""
    tasks = task_columns(table)
    here = pd.concat([table[table["method"] == "dense"], _cells(table, pruner, sparsity)])
    parts = [summarise(here.assign(sparsity="0%"), task).assign(sparsity=task.removeprefix("tiny_")) for task in tasks]
    labels = [task.removeprefix("tiny_") for task in tasks]
    return _bars(pd.concat(parts), labels, "accuracy (%)", f"pruned by {pruner}, {sparsity}")


def _bars(summary: pd.DataFrame, groups: list[str], label: str, title: str) -> Figure:
    methods = methods_of(summary)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.add_subplot()
        for number, method in enumerate(methods):
            rows = summary[summary["method"] == method].set_index("sparsity").reindex(groups)
            name, colour, _, _ = look_of(method)
            at = np.arange(len(groups)) + (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
            looks = {"color": colour, "label": name, "hatch": ["", "//", "..", "xx"][number % 4], "edgecolor": "white"}
            axes.bar(at, 100 * rows["mean"], 0.8 / len(methods), yerr=100 * rows["half"], capsize=2, **looks)
            mark_failed(axes, at, rows, 100)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(label)
        axes.set_title(title)
        axes.legend(fontsize=11, ncols=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    return figure


def plot_parameters(table: pd.DataFrame, *, sparsity: str = "75%", pruner: str = "wanda") -> Figure:
    """Accuracy against the number of trainable parameters at one sparsity, one point a method."""
    here = _cells(table[table["parameters"] > 0], pruner, sparsity)
    counts = here.groupby("method")["parameters"].first()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for method, rows in summarise(here).groupby("method", sort=False):
            draw_points(axes, counts[[method]], rows, method, 100, linestyle="", markersize=9)
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = [count for count in sorted(set(counts)) if not counts.between(count / 1.1, count - 1).any()]
        axes.set_xticks(ticks, [f"{count:,}" for count in ticks])
        axes.set_xlabel("trainable parameters")
        axes.set_ylabel(SCORE["accuracy"])
        axes.set_title(f"pruned by {pruner}, {sparsity}")
        axes.legend(fontsize=11, frameon=False)
    return figure
