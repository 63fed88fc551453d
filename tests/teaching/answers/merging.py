"""The checks of notebook 07 accept right variants and say what is wrong with plausible wrong ones."""

import torch

from spp_lite.teaching.checks import ex_07a, ex_07b


def groups(weight, m):
    return (weight != 0).reshape(-1, m).sum(1)


def by_loops(weight, n, m):
    for row in weight.tolist():
        for start in range(0, len(row), m):
            if sum(value != 0 for value in row[start : start + m]) > n:
                return False
    return True


RIGHT = [
    (ex_07a, lambda b, a: int(((b == 0) & (a != 0)).sum())),
    (ex_07a, lambda b, a: torch.count_nonzero(a[b == 0])),
    (ex_07a, lambda b, a: sum(x == 0 and y != 0 for x, y in zip(b.flatten(), a.flatten(), strict=True))),
    (ex_07b, lambda w, n, m: bool((groups(w, m) <= n).all())),
    (ex_07b, lambda w, n, m: w.unfold(1, m, m).count_nonzero(-1).max() <= n),
    (ex_07b, by_loops),
]
WRONG = [
    (ex_07a, lambda b, a: ..., "still blank"),
    (ex_07a, lambda b, a: int(((b == 0) & (a > 0)).sum()), "negative numbers, and NaN, fill a zero too"),
    (ex_07a, lambda b, a: int(((b == 0) & (a.abs() > 1e-6)).sum()), "tiny number, or a NaN, in place of a zero"),
    (ex_07a, lambda b, a: int(((b == 0) & (a.abs() > 0)).sum()), "NaN is not zero, and not above zero either"),
    (ex_07a, lambda b, a: float(((b == 0) & (a != 0)).sum() / (b == 0).sum()), "share of the zeros"),
    (ex_07a, lambda b, a: float(((b == 0) & (a != 0)).float().mean()), "that is a share; the number"),
    (ex_07a, lambda b, a: int((b == 0).sum() - (a == 0).sum()), "must not make up for filled ones"),
    (ex_07a, lambda b, a: int(((b == 0) & (a == 0)).sum()), "zeros that stayed"),
    (ex_07a, lambda b, a: int(((b != 0) & (a == 0)).sum()), "before and after are swapped"),
    (ex_07a, lambda b, a: int((b != a).sum()), "every entry that changed"),
    (ex_07a, lambda b, a: int((a != 0).sum()), "all entries that are not zero now"),
    (ex_07a, lambda b, a: (b == 0) & (a != 0), "you return"),
    (ex_07a, lambda b, a: ((b == 0) and (a != 0)).sum(), "stopped with RuntimeError"),
    (ex_07b, lambda w, n, m: None, "still blank"),
    (ex_07b, lambda w, n, m: bool((groups(w.T, m) <= n).all()), "of one row .not of a column."),
    (ex_07b, lambda w, n, m: bool(((w != 0).sum(1) <= n).all()), "at most n non-zeros"),
    (ex_07b, lambda w, n, m: bool((groups(w, m) == n).all()), "at most n, not exactly n"),
    (ex_07b, lambda w, n, m: bool(groups(w, m).float().mean() <= n), "every group counts"),
    (ex_07b, lambda w, n, m: bool(((w != 0).float().mean(1) <= n / m).all()), "every group counts"),
    (ex_07b, lambda w, n, m: bool(((w > 0).reshape(-1, m).sum(1) <= n).all()), "ask for != 0"),
    (ex_07b, lambda w, n, m: bool((groups(w[:1], m) <= n).all()), "look at every group"),
    (ex_07b, lambda w, n, m: bool((w.unfold(1, m, 1).count_nonzero(-1) <= n).all()), "do not overlap"),
    (ex_07b, lambda w, n, m: bool((groups(w, m) <= m - n).all()), "n counts what is kept, not what is pruned"),
    (ex_07b, lambda w, n, m: bool((groups(w, 4) <= n).all()), "groups of 8 hold four"),
    (ex_07b, lambda w, n, m: groups(w, m) <= n, "one True or False for the whole weight"),
    (ex_07b, lambda w, n, m: int(groups(w, m).max()), "return True or False, not 2"),
]  # fmt: skip
