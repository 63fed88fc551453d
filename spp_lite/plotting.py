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
        for method in [name for name in LOOKS if name in set(summary["method"])]:
            _draw_method(axes, summary[summary["method"] == method], method, scale)
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
