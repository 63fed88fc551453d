"""The checks of notebook 07 accept right variants and say what is wrong with plausible wrong ones."""

import torch

from spp_lite.teaching.checks import ex_07a, ex_07b, ex_07c, ex_07d


def groups(weight, m):
    return (weight != 0).reshape(-1, m).sum(1)


def by_loops(weight, n, m):
    for row in weight.tolist():
        for start in range(0, len(row), m):
            if sum(value != 0 for value in row[start : start + m]) > n:
                return False
    return True


def filled(before, after):
    return int(((before == 0) & (after != 0)).sum())


def merging(tests=("zeros", "pattern", "finite"), first="check", say=lambda name: name, count=None, error=ValueError):
    """A merge that may leave something out."""
    bad = {
        "zeros": lambda old, new, n, m: filled(old, new) > 0,
        "more": lambda old, new, n, m: ((old == 0) != (new == 0)).any(),
        "balance": lambda old, new, n, m: (new == 0).sum() < (old == 0).sum(),
        "pattern": lambda old, new, n, m: not bool((groups(new, m) <= n).all()),
        "finite": lambda old, new, n, m: not new.isfinite().all(),
        "nan": lambda old, new, n, m: new.isnan().any(),
    }

    def write(linears, merged):
        for name, new in merged.items():
            linears[name].weight = torch.nn.Parameter(new)

    def run(linears, merged, n, m):
        changed = sum(int((linears[name].weight != new).sum()) for name, new in merged.items())
        if first == "write":
            old = {name: linear.weight for name, linear in linears.items()}
            write(linears, merged)
        for name, new in merged.items():
            before = old[name] if first == "write" else linears[name].weight
            if any(bad[test](before, new, n, m) for test in tests):
                raise error(say(name))
            if first == "each":
                write(linears, {name: new})
        if first == "check":
            write(linears, merged)
        return changed if count is None else count(linears, merged)

    return run


def as_asserts(linears, merged, n, m):
    for name, new in merged.items():
        assert filled(linears[name].weight, new) == 0, name
    return merging()(linears, merged, n, m)


def pack(weight, rank=lambda groups: (groups != 0).int()):
    cut = weight.reshape(-1, 4)
    places = rank(cut).topk(2).indices
    return cut.gather(1, places), places


def looped_pack(weight):
    values, places = [], []
    for group in weight.reshape(-1, 4).tolist():
        kept = [i for i in range(4) if group[i] != 0]
        kept = sorted(kept + [i for i in range(4) if i not in kept][: 2 - len(kept)])
        places.append(kept)
        values.append([group[i] for i in kept])
    return values, places


def flat_places(weight):
    values, places = pack(weight)
    return values, places + 4 * torch.arange(len(places))[:, None]


RIGHT = [
    (ex_07a, lambda b, a: int(((b == 0) & (a != 0)).sum())),
    (ex_07a, lambda b, a: torch.count_nonzero(a[b == 0])),
    (ex_07a, lambda b, a: sum(x == 0 and y != 0 for x, y in zip(b.flatten(), a.flatten(), strict=True))),
    (ex_07b, lambda w, n, m: bool((groups(w, m) <= n).all())),
    (ex_07b, lambda w, n, m: w.unfold(1, m, m).count_nonzero(-1).max() <= n),
    (ex_07b, by_loops),
    (ex_07c, merging()),
    (ex_07c, merging(say=lambda name: f"merging {name} would spoil it")),
    (ex_07c, merging(tests=("finite", "zeros", "pattern"))),
    (ex_07d, pack),
    (ex_07d, lambda w: pack(w, lambda cut: cut.abs())),
    (ex_07d, looped_pack),
    (ex_07d, lambda w: (pack(w)[0], pack(w)[1].to(torch.uint8))),
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
    (ex_07c, lambda *given: ..., "still blank"),
    (ex_07c, merging(tests=("pattern", "finite")), "accept a bad merge .a zero moved"),
    (ex_07c, merging(tests=("balance", "pattern", "finite")), "accept a bad merge .a zero moved"),
    (ex_07c, merging(tests=("zeros", "finite")), "group of three"),
    (ex_07c, merging(tests=("zeros", "pattern")), "a kept weight is NaN"),
    (ex_07c, merging(tests=("zeros", "pattern", "nan")), "infinite"),
    (ex_07c, merging(tests=("more", "pattern", "finite")), "you refuse a right merge"),
    (ex_07c, merging(first="each"), "check all layers first"),
    (ex_07c, merging(first="write"), "check all layers first"),
    (ex_07c, merging(first="never"), "still hold their old weights"),
    (ex_07c, merging(say=lambda name: "a zero was filled"), "does not name it"),
    (ex_07c, merging(count=lambda linears, merged: len(merged)), "number of layers"),
    (ex_07c, merging(count=lambda linears, merged: sum(new.numel() for new in merged.values())), "all weights"),
    (ex_07c, merging(count=lambda linears, merged: 0), "count first"),
    (ex_07c, as_asserts, "stopped with AssertionError"),
    (ex_07d, lambda w: None, "still blank"),
    (ex_07d, lambda w: pack(w)[0], "return two tensors"),
    (ex_07d, lambda w: pack(w)[::-1], "Values come first"),
    (ex_07d, flat_places, "counted within its group"),
    (ex_07d, lambda w: pack(w, lambda cut: cut), "weights differ"),
    (ex_07d, lambda w: (w[w != 0].view(-1, 2), pack(w)[1]), "shape '.-1, 2.' is invalid|have to be"),
    (ex_07d, lambda w: (pack(w)[0], pack(w)[0] != 0), "whole numbers"),
    (ex_07d, lambda w: (pack(w)[0], torch.zeros(len(pack(w)[0]), 2, dtype=torch.long)), "one place twice"),
    (ex_07d, lambda w: pack(w.T.contiguous()), "weights differ"),
    (ex_07d, lambda w: [each.view(len(w), -1) for each in pack(w)], "each, yours are"),
]  # fmt: skip
