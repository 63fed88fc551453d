"""The checks of notebook 03, second part, accept right variants and say what is wrong with plausible wrong answers."""

import numpy as np
import torch

from spp_lite.pruning.allocation import budget
from spp_lite.teaching.checks import ex_03c, ex_03d, ex_03e
from spp_lite.teaching.checks.budget import marginal_prices, spend


def in_a_loop(scan):
    prices = []
    for row in scan.itertuples():
        before = scan[(scan["kind"] == row.kind) & (scan["ratio"] < row.ratio)].sort_values("ratio")
        zeros, damage = (before["zeros"].iloc[-1], before["damage"].iloc[-1]) if len(before) else (0, 0)
        prices.append((row.damage - damage) / (row.zeros - zeros))
    return prices


def differences(scan):
    steps = scan.groupby("kind")[["zeros", "damage"]].diff().fillna(scan[["zeros", "damage"]])
    return steps["damage"] / steps["zeros"]


def per_zero(scan):
    return scan["damage"] / scan["zeros"]


def given_zeros(sizes, given):
    return sum(given[name] * sizes[name] for name in given)


def left(sizes, given):
    return sum(size for name, size in sizes.items() if name not in given)


def one_by_one(sizes, given, target):
    zeros, free = 0.0, 0
    for name, size in sizes.items():
        zeros += target * size
        if name in given:
            zeros -= given[name] * size
        else:
            free += size
    return zeros / free


def library(sizes, given, target):
    return next(ratio for name, ratio in budget(given, sizes, target).items() if name not in given)


def greedy(scan, target):
    """Plain Python: a list of steps for each kind."""
    steps, ratios, sizes = {}, {}, {}
    for row, price in zip(scan.itertuples(), in_a_loop(scan), strict=True):
        steps.setdefault(row.kind, []).append((row.ratio, row.zeros, price))
        sizes[row.kind], ratios[row.kind] = row.zeros / row.ratio, 0.0
    missing = target * sum(sizes.values())
    while missing > 1e-9:
        kind = min((kind for kind in steps if steps[kind]), key=lambda kind: steps[kind][0][2])
        _, zeros, _ = steps[kind].pop(0)
        more = min(zeros - ratios[kind] * sizes[kind], missing)
        ratios[kind], missing = ratios[kind] + more / sizes[kind], missing - more
    return ratios


def by(price):
    """A spender that goes by another price."""
    from spp_lite.teaching.checks.budget import _spend

    return lambda scan, target: _spend(scan, target, price(scan))


RIGHT = [
    (ex_03c, in_a_loop),
    (ex_03c, differences),
    (ex_03c, lambda scan: torch.tensor(in_a_loop(scan))),
    (ex_03c, lambda scan: marginal_prices(scan).to_numpy()),
    (ex_03c, lambda scan: marginal_prices(scan).sort_values()),
    (ex_03d, library),
    (ex_03d, one_by_one),
    (ex_03d, lambda s, g, t: torch.tensor((t * sum(s.values()) - given_zeros(s, g)) / left(s, g))),
    (ex_03d, lambda s, g, t: t + sum((t - g[name]) * s[name] for name in g) / left(s, g)),
    (ex_03e, spend),
    (ex_03e, greedy),
]
WRONG = [
    (ex_03c, lambda scan: None, "still blank"),
    (ex_03c, per_zero, "the average price"),
    (ex_03c, lambda scan: scan.groupby("kind")["damage"].diff() / scan.groupby("kind")["zeros"].diff(), "first ratio"),
    (ex_03c, lambda scan: scan["damage"].diff() / scan["zeros"].diff(), "within each kind"),
    (ex_03c, lambda scan: 1 / marginal_prices(scan), "not zeros per damage"),
    (ex_03c, lambda scan: scan.groupby("kind")["damage"].diff().fillna(scan["damage"]), "divide by the zeros added"),
    (ex_03c, lambda scan: marginal_prices(scan).to_numpy()[::-1], "you return|differ"),
    (ex_03c, lambda scan: sorted(marginal_prices(scan)), "keep the order of the rows"),
    (ex_03c, lambda scan: scan.assign(price=marginal_prices(scan)), "return a table"),
    (ex_03c, lambda scan: marginal_prices(scan).groupby(scan["kind"]).max(), "one a row"),
    (ex_03c, lambda scan: {"up": 1.0}, "return a dictionary"),
    (ex_03c, lambda scan: "cheap", "return a column of numbers"),
    (ex_03c, lambda scan: scan["loss"], "stopped with KeyError"),
    (ex_03d, lambda s, g, t: ..., "still blank"),
    (ex_03d, lambda s, g, t: (t * len(s) - sum(g.values())) / (len(s) - len(g)), "count weights, not layers"),
    (ex_03d, lambda s, g, t: t, "the others must make up for that"),
    (ex_03d, lambda s, g, t: t * sum(s.values()) - given_zeros(s, g), "number of zeros still to find"),
    (ex_03d, lambda s, g, t: (t * sum(s.values()) - given_zeros(s, g)) / sum(s.values()), "not by all"),
    (ex_03d, lambda s, g, t: t * sum(s.values()) / left(s, g), "take them off first"),
    (ex_03d, lambda s, g, t: (t * sum(s.values()) - sum(s[n] for n in g)) / left(s, g), "not all its weights"),
    (ex_03d, lambda s, g, t: (t * sum(s.values()) - sum(g.values())) / left(s, g), "multiply by the size"),
    (ex_03d, lambda s, g, t: (t * left(s, g) - given_zeros(s, g)) / left(s, g), "holds for all weights"),
    (ex_03d, lambda s, g, t: 1 - one_by_one(s, g, t), "share of weights that stay|share that stays"),
    (ex_03d, lambda s, g, t: 100 * one_by_one(s, g, t), "not a percentage"),
    (ex_03e, lambda scan, target: ..., "still blank"),
    (ex_03e, lambda scan, target: dict.fromkeys(scan["kind"], target), "every kind has the same ratio"),
    (ex_03e, by(per_zero), "the average price"),
    (ex_03e, by(lambda scan: -marginal_prices(scan)), "the cheapest is asked for"),
    (ex_03e, by(lambda scan: scan["damage"]), "by the damage"),
    (ex_03e, lambda scan, target: {k: 1 - r for k, r in spend(scan, target).items()}, "share that stays"),
    (ex_03e, lambda scan, target: [*spend(scan, target).values()], "return a dictionary"),
    (ex_03e, lambda scan, target: {"up": target}, "return a dictionary"),
    (ex_03e, lambda scan, target: dict(zip(scan["kind"], np.ones(len(scan)), strict=True)), "you return"),
]
