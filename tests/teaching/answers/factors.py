"""The checks of notebook 05 accept right variants and say what is wrong with plausible wrong ones."""

import torch
import torch.nn.functional as F

from spp_lite.adapter.kernels import spp_linear
from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.checks import ex_05a, ex_05b, ex_05c


def blocks(out, r):
    return torch.arange(out) * r // out


def update(x, w, a, b):
    return x @ (w * a[blocks(len(w), len(a))] * b[:, None]).T


def looped(x, w, a, b, s):
    merged = torch.stack([row * (1 + s * b[i] * a[i * len(a) // len(w)]) for i, row in enumerate(w)])
    return F.linear(x, merged)


def even(out, r):
    return torch.arange(out) // -(-out // r)


def shapes(model):
    return [tuple(linear.weight.shape) for linear in block_linears(model).values()]


def hot(beta, r, rows=blocks):
    return F.one_hot(rows(len(beta), r), r)


def looped_b(beta, r, s):
    b = torch.zeros(len(beta), r, dtype=torch.float64)
    for i, value in enumerate(beta.tolist()):
        b[i, i * r // len(beta)] = s * value
    return b


RIGHT = [
    (ex_05a, lambda x, w, a, b, s: x @ w.T + s * update(x, w, a, b)),
    (ex_05a, lambda x, w, a, b, s: x @ (w * (1 + s * a[blocks(len(w), len(a))] * b[:, None])).T),
    (ex_05a, lambda x, w, a, b, s: spp_linear(x, w, None, a, b, s)),
    (ex_05a, lambda x, w, a, b, s: F.linear(x, w) + s * b * F.linear(x, w * a[blocks(len(w), len(a))])),
    (ex_05a, looped),
    (ex_05b, lambda m, r: sum(r * i + o for o, i in shapes(m))),
    (ex_05b, lambda m, r: torch.tensor([r * i + o for o, i in shapes(m)]).sum()),
    (
        ex_05b,
        lambda m, r: sum(torch.empty(r, y.in_features).numel() + len(y.weight) for y in block_linears(m).values()),
    ),
    (ex_05c, lambda b, r, s: s * b[:, None] * hot(b, r)),
    (ex_05c, lambda b, r, s: torch.diag(s * b) @ hot(b, r).float()),
    (ex_05c, looped_b),
]
WRONG = [
    (ex_05a, lambda x, w, a, b, s: ..., "still blank"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T, "the update is missing"),
    (ex_05a, lambda x, w, a, b, s: s * update(x, w, a, b), "add the frozen term"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T + update(x, w, a, b), "strength s is missing"),
    (ex_05a, lambda x, w, a, b, s: s * (x @ w.T + update(x, w, a, b)), "s belongs to the update only"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T - s * update(x, w, a, b), "not taken away"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T + s * x @ (a[blocks(len(w), len(a))] * b[:, None]).T, "fill the zeros"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T + s * x @ (w * a[blocks(len(w), len(a))]).T, "β is missing"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T + s * x @ (w * b[:, None]).T, "α is missing"),
    (
        ex_05a,
        lambda x, w, a, b, s: x @ w.T + s * x @ (w * a[torch.arange(len(w)) % len(a)] * b[:, None]).T,
        "blocks are contiguous",
    ),
    (ex_05a, lambda x, w, a, b, s: x @ w.T + s * x @ (w * a[even(len(w), len(a))] * b[:, None]).T, "more than one row"),
    (ex_05a, lambda x, w, a, b, s: w * (1 + s * a[blocks(len(w), len(a))] * b[:, None]), "the output y = x W′ᵀ"),
    (ex_05a, lambda x, w, a, b, s: x @ w.T + s * x @ (w * a * b).T, "stopped with RuntimeError"),
    (
        ex_05a,  # right only while r divides out
        lambda x, w, a, b, s: x @ (w * (1 + s * a.repeat_interleave(len(w) // len(a), 0) * b[:, None])).T,
        "stopped with RuntimeError",
    ),
    (ex_05b, lambda m, r: None, "still blank"),
    (ex_05b, lambda m, r: sum(r * (i + o) for o, i in shapes(m)), "HiRA's or LoRA's count"),
    (ex_05b, lambda m, r: sum(r * o + i for o, i in shapes(m)), "in and out are swapped"),
    (ex_05b, lambda m, r: sum(r * i for o, i in shapes(m)), "β is missing"),
    (ex_05b, lambda m, r: sum(o for o, i in shapes(m)), "α is missing"),
    (ex_05b, lambda m, r: sum(i + o for o, i in shapes(m)), "α has r rows"),
    (ex_05b, lambda m, r: sum(o * i for o, i in shapes(m)), "those are the frozen weights"),
    (ex_05b, lambda m, r: sum(r * o * i for o, i in shapes(m)), "it is r × in"),
    (ex_05b, lambda m, r: sum(r * i + o for o, i in shapes(m)[:4]), "every block"),
    (
        ex_05b,
        lambda m, r: sum(r * y.in_features + y.out_features for y in m.modules() if isinstance(y, torch.nn.Linear)),
        "the output head carries no adapter",
    ),
    (ex_05c, lambda b, r, s: ..., "still blank"),
    (ex_05c, lambda b, r, s: b[:, None] * hot(b, r), "fold the strength s into B"),
    (ex_05c, lambda b, r, s: s * hot(b, r), "β is missing"),
    (ex_05c, lambda b, r, s: hot(b, r), "one-hot pattern"),
    (ex_05c, lambda b, r, s: (s * b)[:, None].expand(len(b), r), "every column is filled"),
    (ex_05c, lambda b, r, s: s * b[:, None] * F.one_hot(torch.arange(len(b)) % r, r), "blocks are contiguous"),
    (ex_05c, lambda b, r, s: s * b[:, None] * hot(b, r, even), "more than one row"),
    (ex_05c, lambda b, r, s: (s * b[:, None] * hot(b, r)).T, "transposed"),
    (ex_05c, lambda b, r, s: (1 + s * b)[:, None] * hot(b, r), "leave the 1 out of B"),
    (ex_05c, lambda b, r, s: s * b, "a tensor of shape"),
]
