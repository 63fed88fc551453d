"""Notebook 06: rows of tokens made by the reader's two functions, and figures of learning rates."""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import pandas as pd
from datasets import Dataset
from matplotlib import rc_context
from matplotlib.figure import Figure

from ...experiment.plotting import LOOKS, STYLE
from ...recover.data import IGNORED, encode


def cut_record(record: Mapping[str, str], tokenizer, build_prompt: Callable) -> tuple[list[int], list[int]]:
    """The ids of the prompt and of the answer, tokenized as one text; a token that spans the border is the answer's."""
    text = build_prompt(record)
    alone, ids = encode(tokenizer, [text, text + record["output"]])
    border = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, ids, strict=False)))
    return ids[:border], ids[border:]


def rows_of(
    records: Dataset, tokenizer, build_prompt: Callable, build_labels: Callable, *, cutoff: int = 512
) -> Dataset:
    """Every record as a row for finetune(), by build_prompt(record) and build_labels(prompt_ids, answer_ids, eos).

    What exceeds the cutoff is cut off; a record of which nothing is left to learn is left out.
    """
    rows = []
    for record in records:
        pair = build_labels(*cut_record(record, tokenizer, build_prompt), tokenizer.eos_token_id)
        ids, labels = ([int(token) for token in part][:cutoff] for part in pair)
        if any(label != IGNORED for label in labels):
            rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return Dataset.from_list(rows)


def plot_schedule(mine: Sequence[float], logged: Sequence[float]) -> Figure:
    """The learning rate of every step: what the reader's function says as a line, what the trainer used as dots."""
    off = max(abs(one - two) for one, two in zip(mine, logged, strict=True)) / max(logged)
    with rc_context(STYLE):
        figure = Figure(figsize=(8.5, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(logged, "o", color="#888888", markersize=6, label="logged by the trainer")
        axes.plot(mine, color="#000000", linewidth=1.5, label="rate_at()")
        axes.set(xlabel="step, counted from 0", ylabel="learning rate")
        said = "The trainer does what rate_at() says" if off < 1e-6 else f"They differ by up to {off:.0%} of the peak"
        axes.set_title(said, fontsize=13)
        axes.legend(fontsize=12, frameon=False)
    return figure


def plot_real_rates(table: pd.DataFrame, *, method: str = "spp", sparsity: str = "2:4") -> Figure:
    """SmolLM2-135M: the loss of held-out answers against the learning rate, mean over the seeds that were run."""
    cell = table[(table["method"] == method) & (table["sparsity"] == sparsity) & (table["pruner"] == "wanda")]
    losses = cell.groupby("lr")["alpaca_loss"].mean()
    best = losses.idxmin()
    edge = ", the largest that was tried" if best == losses.index.max() else ""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.5, 3.8), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(losses, color=LOOKS[method][1], marker=LOOKS[method][2], markersize=8)
        for rate, loss in losses.items():
            axes.annotate(f"{loss:.2f}", (rate, loss), xytext=(0, 9), textcoords="offset points", ha="center")
        axes.set_xscale("log")
        axes.set_xticks(list(losses.index), [f"{rate:g}" for rate in losses.index])
        axes.minorticks_off()
        axes.margins(x=0.08, y=0.2)
        axes.set(xlabel="learning rate (logarithmic)", ylabel="loss of held-out answers (nats)")
        axes.set_title(f"SmolLM2-135M, Wanda {sparsity}: {best:g} ends lowest{edge}", fontsize=13)
    return figure
