"""The checks of notebook 03 accept right variants and say what is wrong with plausible wrong ones."""

import torch

from spp_lite.pruning.allocation import budget
from spp_lite.teaching.checks.model import ex_03a, ex_03b


def spent(sizes, given):
    return sum(given[name] * sizes[name] for name in given)


def left(sizes, given):
    return sum(size for name, size in sizes.items() if name not in given)


def in_a_loop(sizes, given, target):
    zeros, free = 0.0, 0
    for name, size in sizes.items():
        zeros += target * size
        if name in given:
            zeros -= given[name] * size
        else:
            free += size
    return zeros / free


def per_zero(scan):
    return scan["damage"] / scan["zeros"]


def library(sizes, given, target):
    return next(ratio for name, ratio in budget(given, sizes, target).items() if name not in given)


RIGHT = [
    (ex_03a, library),
    (ex_03a, in_a_loop),
    (ex_03a, lambda s, g, t: torch.tensor((t * sum(s.values()) - spent(s, g)) / left(s, g))),
    (ex_03a, lambda s, g, t: t + sum((t - g[name]) * s[name] for name in g) / left(s, g)),
    (ex_03b, lambda scan: scan.loc[per_zero(scan).sort_values(ascending=False).index, "kind"].tolist()),
    (ex_03b, lambda scan: scan.assign(x=per_zero(scan)).nlargest(len(scan), "x")["kind"]),
    (ex_03b, lambda scan: scan.set_index("kind").eval("damage / zeros").sort_values()[::-1].index),
    (ex_03b, lambda scan: tuple(scan["kind"].to_numpy()[per_zero(scan).to_numpy().argsort()[::-1]])),
]
WRONG = [
    (ex_03a, lambda s, g, t: ..., "still blank"),
    (ex_03a, lambda s, g, t: (t * len(s) - sum(g.values())) / (len(s) - len(g)), "count weights, not layers"),
    (ex_03a, lambda s, g, t: t, "the others must make up for that"),
    (ex_03a, lambda s, g, t: t * sum(s.values()) - spent(s, g), "number of zeros still to find"),
    (ex_03a, lambda s, g, t: (t * sum(s.values()) - spent(s, g)) / sum(s.values()), "not by all"),
    (ex_03a, lambda s, g, t: t * sum(s.values()) / left(s, g), "take them off first"),
    (ex_03a, lambda s, g, t: (t * sum(s.values()) - sum(s[n] for n in g)) / left(s, g), "not all its weights"),
    (ex_03a, lambda s, g, t: (t * sum(s.values()) - sum(g.values())) / left(s, g), "multiply by the size"),
    (ex_03a, lambda s, g, t: (t * left(s, g) - spent(s, g)) / left(s, g), "holds for all weights"),
    (ex_03a, lambda s, g, t: 1 - in_a_loop(s, g, t), "weights that stay"),
    (ex_03a, lambda s, g, t: 100 * in_a_loop(s, g, t), "not a percentage"),
    (ex_03b, lambda scan: None, "still blank"),
    (ex_03b, lambda scan: scan.sort_values("damage", ascending=False)["kind"].tolist(), "because it is large"),
    (ex_03b, lambda scan: scan.loc[per_zero(scan).sort_values().index, "kind"].tolist(), "upside down"),
    (ex_03b, lambda scan: scan.sort_values("zeros")["kind"].tolist(), "by size alone"),
    (ex_03b, lambda scan: scan.sort_values("damage")["kind"].tolist(), "not per zero"),
    (ex_03b, lambda scan: scan["kind"].tolist(), "the table's own order"),
    (ex_03b, lambda scan: scan["kind"][per_zero(scan).idxmax()], "not only the first"),
    (ex_03b, lambda scan: scan.sort_values("damage"), "return a table"),
    (ex_03b, lambda scan: per_zero(scan).sort_values(ascending=False), "numbers or rows"),
    (ex_03b, lambda scan: 0.5, "return a list of kinds"),
    (ex_03b, lambda scan: scan["loss"], "stopped with KeyError"),
    (
        ex_03b,
        lambda scan: scan.loc[(scan["damage"] * scan["zeros"]).sort_values(ascending=False).index, "kind"],
        "do not multiply",
    ),
]
