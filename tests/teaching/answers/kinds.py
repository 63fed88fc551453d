"""Kinds of answers that any exercise may get: other dresses of the right one, and habits that are wrong everywhere."""

from fractions import Fraction

import numpy as np
import torch
from scipy import stats

from spp_lite.teaching.checks import (
    ex_00a,
    ex_00b,
    ex_00c,
    ex_01a,
    ex_02a,
    ex_02b,
    ex_02c,
    ex_03d,
    ex_03e,
    ex_04a,
    ex_04c,
    ex_06e,
    ex_07b,
    ex_07c,
    ex_07d,
    ex_08a,
    ex_08b,
    ex_08c,
    ex_09c,
)
from spp_lite.teaching.checks.results import T95, half_width, paired_gain


def flipped(weight, ratio):
    return np.flip(np.flip(ex_01a.library(weight, ratio).numpy(), 0).copy(), 0)


def exact(scores):
    return stats.t(len(scores) - 1).ppf(0.975) * stats.sem(scores)


def near_zero(model):
    weights = [linear.weight for name, linear in model.named_modules() if isinstance(linear, torch.nn.Linear)]
    return sum(int((w.abs() < 1e-3).sum()) for w in weights) / sum(w.numel() for w in weights)


def listening(linear, run):
    rows = []
    handle = linear.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(0, -2)) or args[0] * 2)
    run()
    handle.remove()
    return torch.cat(rows).square().mean(0).sqrt()


def rounded(weight, norm, ratio):
    count = round(ratio * weight.shape[1])
    lowest = (weight.abs() * norm).argsort(1)[:, :count]
    return torch.ones_like(weight, dtype=torch.bool).scatter(1, lowest, False)


def in_place(row, H, q):
    inverse = H.inverse()
    row -= row[q] / inverse[q, q] * inverse[:, q]
    row[q] = 0
    return row


def popped(sizes, given, target):
    right = ex_03d.library(dict(sizes), dict(given), target)
    sizes.clear()
    return right


def two_of_four(linears, merged, n, m):
    return ex_07c.library(linears, merged, 2, 4)


def through_b_alone(weight, A, B, scaling):
    return scaling * (B @ A.detach()) * (weight != 0)


def in_half(weight):
    values, places = ex_07d.library(weight)
    return values.half(), places


def scored(pick):
    def rates(table):
        scores = pick(table.groupby(["method", "lr"])["accuracy"])
        return dict(scores.dropna().groupby("method").idxmax().tolist())

    return rates


def by_column(table, method, other):
    scores = table.pivot(index="seed", columns="method", values="accuracy").dropna(subset=["a", "b"])
    gains = list(scores["a"] - scores["b"])
    return float(np.mean(gains)), half_width(gains)


def no_end(step, steps, peak, warmup):
    if step < warmup:
        return peak * step / warmup


def cheapest_first(scan, target):
    """Every step by its price, also before the one that leads to it."""
    steps = scan.sort_values(["kind", "ratio"])
    before = steps.groupby("kind")[["zeros", "damage"]].shift(fill_value=0)
    more, price = (
        steps["zeros"] - before["zeros"],
        (steps["damage"] - before["damage"]) / (steps["zeros"] - before["zeros"]),
    )
    sizes = (steps["zeros"] / steps["ratio"]).groupby(steps["kind"]).first()
    taken, missing = dict.fromkeys(sizes.index, 0.0), target * sizes.sum()
    for place in price.round(9).sort_values(kind="stable").index:
        step = min(more[place], missing)
        taken[steps.loc[place, "kind"]] += step
        missing -= step
    return {kind: taken[kind] / sizes[kind] for kind in taken}


def on(most):
    def fewest(stays, block, grows, card):
        counts = [2**k for k in range(12) if 2**k <= most]
        return next((n for n in counts if (stays + grows) / n + block * (n > 1) <= card), 0)

    return fewest


def largest_change(before, after):
    was, now = (table[table["metric"] == "acc"].set_index("task")["value"] for table in (before, after))
    return str((was - now).abs().idxmax())


RIGHT = [
    (ex_00b, lambda dense, pruned, recovered: Fraction(recovered - pruned) / Fraction(dense - pruned)),
    (ex_01a, flipped),
    (ex_01a, lambda weight, ratio: ex_01a.library(weight, ratio).int().tolist()),
    (ex_02b, lambda *given: ex_02b.library(*given).numpy().astype(np.float64)),
    (ex_08b, exact),
    (ex_08c, lambda table, method, other: np.array(paired_gain(table, method, other))),
]
CHANGES = "your function changes what it is given: work on a copy"
WRONG = [
    (ex_00a, near_zero, "Ex 00a"),
    (ex_00c, largest_change, "that task gained: before minus after"),
    (ex_01a, lambda weight, ratio: ex_01a.library(weight.abs_(), ratio), CHANGES),
    (ex_02a, listening, "your hook returns something, which becomes the linear's input"),
    (ex_02b, rounded, "one zero too many in every row"),
    (ex_02c, in_place, CHANGES),
    (ex_03d, popped, CHANGES),
    (ex_03e, cheapest_first, "Ex 03e"),
    (ex_04a, lambda W, D: float(((W + D).abs()[W == 0] > 1e-3).float().mean()), "Ex 04a"),
    (ex_04c, through_b_alone, "no gradient reaches both A and B"),
    (ex_06e, no_end, "is still blank in this case: end every way"),
    (ex_07b, lambda weight, n, m: bool(((weight != 0).reshape(-1, m).sum(1) <= 2).all()), "you return True"),
    (ex_07b, lambda weight, n, m: bool(((weight.abs() > 1e-3).reshape(-1, m).sum(1) <= n).all()), "small negative"),
    (ex_07b, lambda weight, n, m: (group for group in weight), "return True or False, not <generator"),
    (ex_07c, two_of_four, "you accept weights of 2:4 where 1:4 is asked for"),
    (ex_07d, in_half, "rebuilt from your values and places"),
    (ex_07d, lambda weight: ([[1.0], [1.0, 2.0]], [[0], [1, 2]]), "two tensors are asked for, with two entries"),
    (
        ex_08a,
        scored(lambda groups: groups.agg(lambda runs: runs.sum(skipna=False))),
        "a sum favours rates with more runs",
    ),
    (ex_08a, scored(lambda groups: groups.agg(lambda runs: runs.min(skipna=False))), "the best worst run"),
    (ex_08a, scored(lambda groups: groups.agg(lambda runs: runs.fillna(0).mean())), "a rate with which a run failed"),
    (ex_08b, lambda scores: 1.02 * T95[len(scores)] * stats.sem(scores), "you return"),
    (ex_08c, by_column, "the sign is wrong"),
    (ex_09c, on(32), "Ex 09c"),
    (ex_09c, on(512), "64 GPUs are the most that is asked about"),
]
