"""The checks of notebook 05's counting and of HiRA's B accept right variants and say what is wrong with others."""

import torch
import torch.nn.functional as F

from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.checks import ex_05d, ex_05e


def blocks(out, r):
    return torch.arange(out) * r // out


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
    (ex_05d, lambda m, r: sum(r * i + o for o, i in shapes(m))),
    (ex_05d, lambda m, r: torch.tensor([r * i + o for o, i in shapes(m)]).sum()),
    (
        ex_05d,
        lambda m, r: sum(torch.empty(r, y.in_features).numel() + len(y.weight) for y in block_linears(m).values()),
    ),
    (ex_05e, lambda b, r, s: s * b[:, None] * hot(b, r)),
    (ex_05e, lambda b, r, s: torch.diag(s * b) @ hot(b, r).float()),
    (ex_05e, looped_b),
]
WRONG = [
    (ex_05d, lambda m, r: None, "still blank"),
    (ex_05d, lambda m, r: sum(r * (i + o) for o, i in shapes(m)), "HiRA's or LoRA's count"),
    (ex_05d, lambda m, r: sum(r * o + i for o, i in shapes(m)), "in and out are swapped"),
    (ex_05d, lambda m, r: sum(r * i for o, i in shapes(m)), "β is missing"),
    (ex_05d, lambda m, r: sum(o for o, i in shapes(m)), "α is missing"),
    (ex_05d, lambda m, r: sum(i + o for o, i in shapes(m)), "α has r rows"),
    (ex_05d, lambda m, r: sum(o * i for o, i in shapes(m)), "those are the frozen weights"),
    (ex_05d, lambda m, r: sum(o * i + r * i + o for o, i in shapes(m)), "not trained: leave them out"),
    (ex_05d, lambda m, r: sum(r * o * i for o, i in shapes(m)), "it is r × in"),
    (ex_05d, lambda m, r: sum(r * i + o for o, i in shapes(m)[:4]), "every block"),
    (
        ex_05d,
        lambda m, r: sum(r * y.in_features + y.out_features for y in m.modules() if isinstance(y, torch.nn.Linear)),
        "the output head carries no adapter",
    ),
    (ex_05e, lambda b, r, s: ..., "still blank"),
    (ex_05e, lambda b, r, s: b[:, None] * hot(b, r), "fold the scaling s into B"),
    (ex_05e, lambda b, r, s: s * hot(b, r), "β is missing"),
    (ex_05e, lambda b, r, s: hot(b, r), "one-hot pattern"),
    (ex_05e, lambda b, r, s: (s * b)[:, None].expand(len(b), r), "every column is filled"),
    (ex_05e, lambda b, r, s: s * b[:, None] * F.one_hot(torch.arange(len(b)) % r, r), "blocks are contiguous"),
    (ex_05e, lambda b, r, s: s * b[:, None] * hot(b, r, even), "more than one row"),
    (ex_05e, lambda b, r, s: (s * b[:, None] * hot(b, r)).T, "transposed"),
    (ex_05e, lambda b, r, s: (1 + s * b)[:, None] * hot(b, r), "leave the 1 out of B"),
    (ex_05e, lambda b, r, s: s * s * b[:, None] * hot(b, r), "s is in it twice"),
    (ex_05e, lambda b, r, s: s * b, "a tensor of shape"),
]
