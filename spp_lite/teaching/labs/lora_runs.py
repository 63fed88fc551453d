"""Notebook 04: what the logged runs say of LoRA, LoRA* and masked LoRA, and what is measured on a real LLaMA so far."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE, draw_points, look_of
from ...experiment.statistics import by_sparsity, finite, paired, summarise
from ...models import embedded


def smollm2(name: str = "60-steps/sweep.csv") -> pd.DataFrame:
    """A committed table of SmolLM2-135M, by its path in results/smollm2; runs that failed are left out."""
    table = pd.read_csv(embedded("results", "smollm2") / name)
    return table[table["error"].fillna("").eq("")]


def name_of(method: str) -> str:
    """A method's name without what stands in brackets or after "merged"."""
    return "merged LoRA" if method == "lora" else look_of(method)[0].partition(" (")[0]


def verdicts(table: pd.DataFrame, method: str, against: str) -> dict[str, list[str]]:
    """Where `method` minus `against`, paired by seed, is above 0, below 0, or has an interval that holds 0: sparsities."""
    found = paired(table, against=against)
    found = found[found["method"] == method]
    words = {"loses": "above", "wins": "below", "undecided": "undecided"}  # paired() says what `against` does
    return {word: by_sparsity(found.loc[found["verdict"] == verdict, "sparsity"]) for verdict, word in words.items()}


def tell(table: pd.DataFrame, method: str, against: str) -> str:
    """verdicts() in one sentence."""
    found = verdicts(table, method, against)
    parts = [f"{word} at {', '.join(names)}" for word, names in found.items() if names]
    return f"{name_of(method)} minus {name_of(against)}: " + "; ".join(parts)


def plot_pairs(table: pd.DataFrame, against: str = "lora*", methods: Sequence[str] = ("lora", "masked-lora")) -> Figure:
    """Each of `methods` minus `against`, seed by seed, per sparsity, with 95 % intervals; `against` is the zero line."""
    found = paired(table, against=against)
    names = by_sparsity(found["sparsity"])
    clear = {method: verdicts(table, method, against)["above"] for method in methods}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.8), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=LOOKS[against][1], linewidth=2, linestyle=LOOKS[against][3], label=LOOKS[against][0])
        for number, method in enumerate(methods):
            rows = found[found["method"] == method]
            at = rows["sparsity"].map(names.index) + 0.24 * (number - (len(methods) - 1) / 2)
            draw_points(axes, at, rows, method, 100, linestyle="")
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel("zeros, or N of M kept")
        axes.set_ylabel(f"accuracy minus {name_of(against)}'s (points)")
        said = [f"{name_of(method)} at {len(clear[method])}" for method in methods]
        axes.set_title(
            f"Clearly above {name_of(against)}, of {len(names)} sparsities: {' and '.join(said)}", fontsize=13
        )
        figure.legend(fontsize=12, ncols=3, frameon=False, loc="outside lower center")
    return figure


def plot_recovery(runs: Mapping[str, tuple[float, float]], sweep: pd.DataFrame) -> Figure:
    """Accuracy by method: a hollow mark for the run at hand, dots for the logged seeds, a bar for their 95 % interval.

    runs: method → (share of zeros left, accuracy); sweep: rows of one pruner and sparsity.
    """
    means = summarise(sweep).set_index("method")
    best = max(runs, key=lambda name: runs[name][1])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for place, (name, (zeros, accuracy)) in enumerate(runs.items()):
            _, colour, marker, _ = LOOKS[name]
            looks = {"color": colour, "linestyle": ""}
            seeds = 100 * sweep.loc[sweep["method"] == name, "accuracy"]
            axes.plot(100 * accuracy, place - 0.22, marker=marker, mfc="white", mew=2, markersize=10, **looks)
            axes.plot(seeds, [place] * len(seeds), marker="o", markersize=5, **looks)
            mean, half = 100 * means.loc[name, ["mean", "half"]]
            axes.errorbar(mean, place + 0.22, xerr=half, capsize=4, marker="|", markersize=12, mew=2, **looks)
            axes.text(1.01, place, f"{zeros:.0%} zeros", transform=axes.get_yaxis_transform(), va="center")
        axes.plot([], [], "ko", mfc="white", mew=2, markersize=9, label="this notebook's run")
        axes.plot([], [], "ko", linestyle="", markersize=5, label="the logged seeds")
        axes.errorbar([], [], xerr=[], color="black", marker="|", markersize=12, linestyle="", label="their mean, 95 %")
        axes.set_yticks(range(len(runs)), [name_of(name) for name in runs])
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel("average zero-shot accuracy (%)")
        axes.set_title(f"This run's highest: {name_of(best)}. One run is one dot", fontsize=13)
        figure.legend(fontsize=12, ncols=3, frameon=False, loc="outside lower center")
    return figure


def plot_smollm2(table: pd.DataFrame, sparsity: str = "2:4", pruner: str = "wanda") -> Figure:
    """Perplexity of held-out Alpaca answers: SmolLM2-135M dense, pruned, and after every method that was measured; means
    over the seeds."""
    cell = table[(table["sparsity"] == sparsity) & (table["pruner"] == pruner) | (table["method"] == "dense")]
    found = finite(cell["alpaca_perplexity"]).groupby(cell["method"])
    scores, seeds = found.mean().sort_values(ascending=False), found.count()
    trained = scores.drop(["dense", "none"], errors="ignore")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.55 * len(scores)), layout="constrained")
        axes = figure.add_subplot()
        for place, (method, score) in enumerate(scores.items()):
            axes.barh(place, score, color=look_of(method)[1], height=0.6)
            many = f" ({seeds[method]} seeds)" if seeds[method] > 1 else ""
            axes.text(1.05 * score, place, f"{score:.1f}{many}", va="center")
        axes.set_yticks(range(len(scores)), [name_of(method) for method in scores.index])
        axes.set(xscale="log", xlim=(1, 2.5 * scores.max()), ylim=(len(scores) - 0.5, -0.5))
        axes.set_xlabel("perplexity of held-out Alpaca answers (logarithmic; lower is better)")
        said = f"SmolLM2-135M, Wanda {sparsity}"
        if len(trained):
            said += f": training brings {scores['none']:.0f} down to {trained.min():.1f}–{trained.max():.1f}"
        axes.set_title(said, fontsize=13)
    return figure
