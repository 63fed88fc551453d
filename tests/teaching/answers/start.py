"""Each check accepts right variants and rejects plausible wrong answers, saying why."""

import numpy as np
import torch

from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.checks import ex_00a, ex_00b, ex_00c


def weights(model):
    return [linear.weight for linear in block_linears(model).values()]


def zeros(model):
    return sum(int((w == 0).sum()) for w in weights(model))


def size(model):
    return sum(w.numel() for w in weights(model))


def acc(table):
    return table[table["metric"] == "acc"].set_index("task")["value"]


def in_a_loop(before, after):
    most, name = -1.0, None
    for row in before[before["metric"] == "acc"].itertuples():
        fell = row.value - after[(after["task"] == row.task) & (after["metric"] == "acc")]["value"].item()
        most, name = max((most, name or ""), (fell, row.task))
    return name


def merged(before, after):
    both = before.merge(after, on=["task", "metric"])
    both = both[both["metric"] == "acc"]
    return both.loc[(both["value_y"] - both["value_x"]).idxmin(), "task"]


def by_place(before, after):
    """The rows of the two tables are taken for the same tasks."""
    keep = before["metric"] == "acc"
    fell = before["value"].to_numpy() - after["value"].to_numpy()
    return before["task"][int((fell * keep).argmax())]


RIGHT = [
    (ex_00a, lambda m: zeros(m) / size(m)),
    (ex_00a, lambda m: torch.cat([(w == 0).flatten() for w in weights(m)]).float().mean()),
    (ex_00b, lambda d, p, r: (r - p) / (d - p)),
    (ex_00b, lambda d, p, r: np.float64(1 - (d - r) / (d - p))),
    (ex_00c, in_a_loop),
    (ex_00c, merged),
]
WRONG = [
    (ex_00a, lambda m: ..., "still blank"),
    (ex_00a, lambda m: None, "still blank"),
    (ex_00a, lambda m: 1 - zeros(m) / size(m), "that are not zero"),
    (ex_00a, lambda m: 100 * zeros(m) / size(m), "not a percentage"),
    (ex_00a, lambda m: zeros(m), "divide by the number"),
    (ex_00a, lambda m: zeros(m) / sum(p.numel() for p in m.parameters()), "embeddings and biases"),
    (ex_00a, lambda m: np.mean([float((w == 0).float().mean()) for w in weights(m)[:2]]), "you return"),
    (ex_00a, lambda m: m.nothing, "stopped with AttributeError"),
    (ex_00b, lambda d, p, r: ..., "still blank"),
    (ex_00b, lambda d, p, r: r - p, "divide it by what pruning took"),
    (ex_00b, lambda d, p, r: r / d, "compare with what pruning took"),
    (ex_00b, lambda d, p, r: (d - r) / (d - p), "still missing"),
    (ex_00b, lambda d, p, r: 100 * (r - p) / (d - p), "not a percentage"),
    (ex_00b, lambda d, p, r: max(0, (r - p) / (d - p)), "retraining can also hurt"),
    (ex_00c, lambda before, after: ..., "still blank"),
    (ex_00c, lambda before, after: acc(after).idxmin(), "the lowest afterwards"),
    (ex_00c, lambda before, after: (acc(after) / acc(before)).idxmin(), "not shares"),
    (ex_00c, lambda before, after: (acc(after) - acc(before)).idxmax(), "that task gained"),
    (
        ex_00c,
        lambda before, after: (before.groupby("task")["value"].last() - after.groupby("task")["value"].last()).idxmax(),
        "metric acc alone",
    ),
    (ex_00c, lambda before, after: (acc(before) - acc(after)).max(), "name of one task"),
    (ex_00c, by_place, "Ex 00c"),
    (ex_00c, lambda before, after: before["loss"], "stopped with KeyError"),
]
