"""Every figure: takes a table or tensors, returns a matplotlib Figure. Knows column names, nothing that computes them.

Colours are Okabe and Ito's colour-blind-safe set; every line also has its own marker and dash.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

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
}
PAPER = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # Student's t, by sample size


def ratio_of(sparsity: str) -> float:
    """ "75%" → 75.0, "2:8" → 75.0: the percentage of zeros, for an axis."""
    if ":" in sparsity:
        n, m = sparsity.split(":")
        return 100.0 * (1 - int(n) / int(m))
    return float(sparsity.rstrip("%"))


def summarise(table: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """Mean and half-width of the 95 % interval over seeds, per method and sparsity (half-width 0 for one seed)."""
    groups = table.groupby(["method", "sparsity"], sort=False)[value]
    found = groups.agg(mean="mean", std="std", n="size").reset_index()
    t = found["n"].map(lambda n: T95.get(n, 2.0))
    found["half"] = (t * found["std"] / np.sqrt(found["n"])).fillna(0.0)
    found["zeros"] = found["sparsity"].map(ratio_of)
    return found


def plot_accuracy_vs_sparsity(
    table: pd.DataFrame, *, value: str = "accuracy", chance: float | None = None, title: str = ""
) -> Figure:
    """The paper's headline: a score against the percentage of zeros, one line per method, N:M patterns as open markers.

    table: columns method, sparsity ("50%", "2:4", …; "0%" for dense) and `value`; several rows of a cell (seeds) give
    the mean and its 95 % interval. Accuracy (0 to 1) is drawn in percent; any other value as it is.
    """
    percent = value == "accuracy"
    scale = 100.0 if percent else 1.0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 5), layout="constrained")
        axes = figure.add_subplot()
        summary = summarise(table, value)
        draw_methods(axes, summary, scale)
        if chance is not None:
            axes.axhline(scale * chance, color="#666666", linewidth=1, linestyle=":")
            axes.annotate(
                "chance", (0.01, scale * chance), xycoords=("axes fraction", "data"), va="bottom", fontsize=11
            )
        if percent:
            axes.set_ylim(min(30, 100 * summary["mean"].min() - 5), 102)
        axes.set_xlim(min(45, summary.loc[summary["method"] != "dense", "zeros"].min() - 5), 95)
        axes.set_xlabel("zeros in the decoder's linear weights (%)")
        axes.set_ylabel("average zero-shot accuracy (%)" if percent else value)
        axes.set_title(title)
        axes.legend(fontsize=11, frameon=False)
    return figure


def draw_methods(axes, summary: pd.DataFrame, scale: float = 100.0) -> None:
    """Lines and N:M points of every method in a summarise() table."""
    for method in [name for name in LOOKS if name in set(summary["method"])]:
        _draw_method(axes, summary[summary["method"] == method], method, scale)


def _draw_method(axes, rows: pd.DataFrame, method: str, scale: float) -> None:
    label, colour, marker, dash = LOOKS[method]
    if method == "dense":
        axes.axhline(scale * rows["mean"].iloc[0], color=colour, linestyle=dash, label=label)
        return
    is_nm = rows["sparsity"].str.contains(":")
    line, points = rows[~is_nm].sort_values("zeros"), rows[is_nm]
    if len(line):
        axes.errorbar(
            line["zeros"], scale * line["mean"], scale * line["half"], color=colour, marker=marker, linestyle=dash,
            label=label, capsize=3, markersize=7,
        )  # fmt: skip
    if len(points):
        axes.errorbar(
            points["zeros"], scale * points["mean"], scale * points["half"], color=colour, marker=marker, linestyle="",
            mfc="white", capsize=3, markersize=9, label=None if len(line) else label,
        )  # fmt: skip
        for row in points.itertuples():  # patterns of one ratio, methods of one pattern: labels keep apart
            right, above = row.sparsity != "4:8", method == "spp"
            axes.annotate(
                row.sparsity, (row.zeros, scale * row.mean), xytext=(9 if right else -9, 2 if above else -11),
                textcoords="offset points", ha="left" if right else "right", fontsize=11, color=colour,
            )  # fmt: skip


def _of_pruner(table: pd.DataFrame, pruner: str = "wanda") -> pd.DataFrame:
    return table[table["pruner"].isin(["dense", pruner])] if "pruner" in table else table


def gap_recovered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the methods that train, with `gap`: (accuracy − pruned) / (dense − pruned), pruned by the same seed.

    Cells in which pruning cost less than two points are left out: there is no gap to speak of.
    """
    dense = table.loc[table["method"] == "dense", "accuracy"].mean()
    key = ["pruner", "sparsity", "seed"]
    pruned = table[table["method"] == "none"].set_index(key)["accuracy"].rename("pruned")
    found = table[~table["method"].isin(["dense", "none"])].join(pruned, on=key)
    found = found[dense - found["pruned"] > 0.02]
    return found.assign(gap=(found["accuracy"] - found["pruned"]) / (dense - found["pruned"]))


def plot_gap_recovered(table: pd.DataFrame, *, pruner: str = "wanda") -> Figure:
    """The share of the lost accuracy that comes back, per method and sparsity, with 95 % intervals over seeds."""
    found = gap_recovered(_of_pruner(table, pruner))
    summary = summarise(found, "gap")
    sparsities = sorted(summary["sparsity"].unique(), key=lambda text: (":" in text, ratio_of(text)))
    return _bars(summary, sparsities, 100.0, "accuracy recovered (% of what pruning took)", pruner)


def plot_tasks(table: pd.DataFrame, *, sparsity: str = "75%", pruner: str = "wanda") -> Figure:
    """Accuracy per task family at one sparsity, with 95 % intervals over seeds."""
    tasks = [name for name in table if name.startswith("tiny_")] or [name for name in table if name in PAPER]
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
    """Accuracy against sparsity, one panel per pruning criterion."""
    pruners = [name for name in table["pruner"].unique() if name != "dense"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(pruners) + 1, 4.6), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(pruners), sharey=True))
        for axes, pruner in zip(panels, pruners, strict=True):
            summary = summarise(_of_pruner(table, pruner))
            for method in [name for name in LOOKS if name in set(summary["method"])]:
                _draw_method(axes, summary[summary["method"] == method], method, 100.0)
            if chance is not None:
                axes.axhline(100 * chance, color="#666666", linewidth=1, linestyle=":")
            axes.set_title(pruner)
            axes.set_xlabel("zeros (%)")
        panels[0].set_ylabel("average zero-shot accuracy (%)")
        figure.legend(
            *panels[0].get_legend_handles_labels(), fontsize=11, ncols=3, frameon=False, loc="outside lower center"
        )
    return figure


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
        axes.set_xlabel("trainable parameters")
        axes.set_ylabel("average zero-shot accuracy (%)")
        axes.set_title(f"{pruner}, {sparsity}")
        axes.legend(fontsize=11, frameon=False)
    return figure


def plot_pruning_report(table: pd.DataFrame) -> Figure:
    """Relative output error and reached sparsity per layer, from PruningReport.table."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        kind = table["layer"].str.rsplit(".", n=1).str[-1]
        colours = [look[1] for look in LOOKS.values()]
        for number, name in enumerate(dict.fromkeys(kind)):
            here = table.index[kind == name]
            looks = {"color": colours[number % len(colours)], "marker": "osD^vPX*"[number % 8], "linestyle": ""}
            top.plot(here, table.loc[here, "error"], label=name, **looks)
            bottom.plot(here, 100 * table.loc[here, "reached"], **looks)
        top.set_ylabel("relative output error")
        top.legend(fontsize=11, ncols=4, frameon=False)
        bottom.set_ylabel("zeros (%)")
        bottom.set_xlabel("linear, in the order of the model")
    return figure


def plot_training(history: list[dict]) -> Figure:
    """Training loss against steps, from TrainOutput.metrics["history"]."""
    rows = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*rows, strict=True), color="#0072B2", marker="o", markersize=4)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss (nats per token)")
    return figure
