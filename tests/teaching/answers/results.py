"""The checks of notebook 08 accept right variants and say what is wrong with plausible wrong ones."""

import itertools
import math
import statistics

import numpy as np
import pandas as pd
import torch

from spp_lite.teaching.checks import ex_08a, ex_08b, ex_08c, ex_08d
from spp_lite.teaching.checks.results import T95


def se(scores):
    return np.std(scores, ddof=1) / math.sqrt(len(scores))


def half(scores):
    return T95[len(scores)] * se(scores)


def mean_of(table, skip=False):
    return table.groupby(["method", "lr"], as_index=False)["accuracy"].agg(lambda runs: runs.mean(skipna=skip))


def top(table):
    return table.dropna().sort_values("accuracy").groupby("method")["lr"].last()


def looped_rates(table):
    best = {}
    for method, mine in table.groupby("method"):
        scores = {lr: runs["accuracy"].to_numpy().mean() for lr, runs in mine.groupby("lr")}
        best[method] = max((lr for lr in scores if scores[lr] == scores[lr]), key=scores.get)
    return best


def one_rate(table):
    return dict.fromkeys(table["method"].unique(), table.groupby("lr")["accuracy"].mean().idxmax())


def of(table, method):
    return table[table["method"] == method].set_index("seed")["accuracy"]


def gains(table, method, other):
    return (of(table, method) - of(table, other)).dropna()


def merged_gain(table, method, other):
    pairs = table[table["method"] == method].merge(table[table["method"] == other], on="seed")
    found = (pairs["accuracy_x"] - pairs["accuracy_y"]).dropna().to_numpy()
    return torch.tensor([found.mean(), half(found)])


def by_rows(table, method, other):
    found = np.array([x - y for x, y in zip(of(table, method), of(table, other), strict=False)])
    return found.mean(), half(found)


def apart(table, method, other):
    ours, theirs = of(table, method).dropna(), of(table, other).dropna()
    return ours.mean() - theirs.mean(), half(ours) + half(theirs)


def signed(gains):
    ways = itertools.product((1, -1), repeat=len(gains))
    return [statistics.mean(s * g for s, g in zip(way, gains, strict=True)) for way in ways]


def flipped(gains):
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * len(gains))
    means = (signs * torch.tensor(gains)).mean(1).abs()
    return (means >= means[0]).float().mean()


def share(found):
    return sum(found) / len(found)


RIGHT = [
    (ex_08a, looped_rates),
    (ex_08a, lambda t: top(mean_of(t))),
    (ex_08b, lambda s: T95[len(s)] * statistics.stdev(s) / len(s) ** 0.5),
    (ex_08b, lambda s: torch.tensor(s, dtype=torch.float64).std() * T95[len(s)] / math.sqrt(len(s))),
    (ex_08b, lambda s: T95[len(s)] * pd.Series(s).sem()),
    (ex_08c, lambda t, m, o: (gains(t, m, o).mean(), half(gains(t, m, o)))),
    (ex_08c, merged_gain),
    (ex_08d, lambda d: share([abs(x) >= abs(statistics.mean(d)) - 1e-9 for x in signed(d)])),
    (ex_08d, flipped),
]
WRONG = [
    (ex_08a, lambda t: None, "still blank"),
    (ex_08a, lambda t: t.groupby("method")["lr"].max(), "largest rates"),
    (ex_08a, lambda t: t.groupby("method")["lr"].min(), "smallest rates"),
    (ex_08a, lambda t: t.groupby("method")["accuracy"].max(), "return accuracies"),
    (ex_08a, one_rate, "one rate for all"),
    (ex_08a, top, "best single run"),
    (ex_08a, lambda t: top(mean_of(t, skip=True)), "must not skip"),
    (ex_08a, lambda t: top(t[t["seed"] == 0]), "looked at one seed"),
    (ex_08a, lambda t: 0.03, "return a dict"),
    (ex_08b, lambda s: ..., "still blank"),
    (ex_08b, lambda s: np.std(s, ddof=1), "spread of single runs"),
    (ex_08b, se, "standard error"),
    (ex_08b, lambda s: 1.96 * se(s), "1.96 is for many runs"),
    (ex_08b, lambda s: T95[len(s)] * np.std(s, ddof=1), "square root of the number of runs"),
    (ex_08b, lambda s: T95[len(s)] * np.std(s, ddof=1) / len(s), "not by n"),
    (ex_08b, lambda s: T95[len(s)] * np.std(s) / math.sqrt(len(s)), "ddof=1"),
    (ex_08b, lambda s: 2 * half(s), "whole width"),
    (ex_08b, lambda s: T95[70] * se(s), "stopped with KeyError"),
    (ex_08c, lambda t, m, o: None, "still blank"),
    (ex_08c, lambda t, m, o: gains(t, m, o).mean(), "return two numbers"),
    (ex_08c, lambda t, m, o: (gains(t, o, m).mean(), half(gains(t, m, o))), "the sign is wrong"),
    (ex_08c, by_rows, "rows stand in any order"),
    (ex_08c, apart, "say nothing about pairs"),
    (ex_08c, lambda t, m, o: (gains(t, m, o).mean(), gains(t, m, o).std()), "the spread of the differences"),
    (ex_08c, lambda t, m, o: (gains(t, m, o).mean(), se(gains(t, m, o))), "standard error"),
    (ex_08c, lambda t, m, o: (100 * gains(t, m, o).mean(), 100 * half(gains(t, m, o))), "no percentages"),
    (ex_08c, lambda t, m, o: (apart(t, m, o)[0], half(gains(t, m, o))), "only seeds that both methods have"),
    (ex_08c, lambda t, m, o: ((d := of(t, m) - of(t, o)).mean(), half(d)), "count the pairs"),
    (ex_08d, lambda d: ..., "still blank"),
    (ex_08d, lambda d: sum(abs(x) >= abs(statistics.mean(d)) for x in signed(d)), "that is how many ways"),
    (ex_08d, lambda d: share([x >= statistics.mean(d) for x in signed(d)]), "look at both sides"),
    (ex_08d, lambda d: share([abs(x) > abs(statistics.mean(d)) for x in signed(d)]), "use >="),
    (ex_08d, lambda d: 1 - flipped(d), "nearer to 0"),
    (ex_08d, lambda d: 100 * flipped(d), "not a percentage"),
    (ex_08d, lambda d: 0.05, "you return 0.05"),
]
