"""The checks of notebook 01 accept every right mask and say what is wrong with plausible wrong ones."""

import numpy as np
import torch

from spp_lite import Sparsity
from spp_lite.teaching.checks import ex_01a, ex_01b, ex_01e


def by_sort(weight, ratio, *, flip=False, extra=0):
    """Ones, but 0 for the lowest; of the tied ones the first go, or with flip the last."""
    keep = np.ones(weight.numel())
    values = weight.abs().flatten().numpy()
    order = np.argsort(values, kind="stable")
    if flip:
        order = len(values) - 1 - np.argsort(values[::-1], kind="stable")
    keep[order[: int(ratio * weight.numel()) + extra]] = 0
    return keep.reshape(weight.shape)


def by_threshold(weight, ratio, compare):
    ordered = weight.abs().flatten().sort().values
    return compare(weight.abs(), ordered[max(0, int(ratio * weight.numel()) - 1)])


def right_a(weight, ratio):
    return Sparsity(ratio).mask(weight.abs())


def right_b(scores, n, m):
    return Sparsity.parse(f"{n}:{m}").mask(scores)


def slowly(scores, n, m):
    keep = np.zeros(tuple(scores.shape), bool)
    for row in range(scores.shape[0]):
        for start in range(0, scores.shape[1], m):
            for place in sorted(range(m), key=lambda i: -scores[row, start + i])[:n]:
                keep[row, start + place] = True
    return keep


def down(scores, n, m):
    groups = scores.T.reshape(-1, m) if scores.numel() % m == 0 else scores
    return right_b(groups, n, m).view(scores.T.shape).T


def apart(scores, n, m):
    out, width = scores.shape
    groups = scores.view(out, m, width // m).transpose(1, 2)
    return right_b(groups.reshape(-1, m), n, m).view(groups.shape).transpose(1, 2).reshape(out, width)


def at_least_the_nth(scores, n, m):
    groups = scores.view(-1, m)
    return (groups >= groups.topk(n, dim=1).values[:, -1:]).view(scores.shape)


def dealt(weight):
    """The inputs, from large to small, dealt out to the groups in turn."""
    order = weight.norm(dim=0).argsort(descending=True)
    return order.view(4, -1).T.flatten()


def by_swaps(weight):
    order = torch.arange(weight.shape[1])
    for i in range(len(order)):
        for j in range(i):
            new = order.clone()
            new[i], new[j] = order[j], order[i]
            if kept(weight[:, new]) > kept(weight[:, order]):
                order = new
    return order


def kept(weight):
    return float((weight * right_b(weight.abs(), 2, 4)).square().sum())


def by_luck(weight):
    return max((np.random.default_rng(seed).permutation(weight.shape[1]) for seed in range(200)),
               key=lambda order: kept(weight[:, order.copy()]))  # fmt: skip


RIGHT = [
    (ex_01a, right_a),
    (ex_01a, by_sort),
    (ex_01a, lambda w, r: torch.tensor(by_sort(w, r, flip=True)).bool()),  # other ones of the tied go
    (ex_01a, lambda w, r: by_sort(w, r).astype(int).tolist()),
    (ex_01b, right_b),
    (ex_01b, slowly),
    (ex_01b, lambda s, n, m: torch.zeros(s.numel() // m, m).scatter(1, s.view(-1, m).topk(n).indices, 1).view_as(s)),
    (ex_01b, lambda s, n, m: (s.view(-1, m).argsort().argsort() >= m - n).view(s.shape)),
]
RIGHT += [(ex_01e, dealt), (ex_01e, by_swaps), (ex_01e, by_luck), (ex_01e, lambda w: dealt(w.double()).tolist())]
WRONG = [
    (ex_01a, lambda w, r: ..., "still blank"),
    (ex_01a, lambda w, r: w.abs() > w.flatten().abs().kthvalue(int(r * w.numel())).values, "with ties.*some may go"),
    (ex_01a, lambda w, r: w * right_a(w, r), "you return numbers"),
    (ex_01a, lambda w, r: "mask", "return a tensor"),
    (ex_01a, lambda w, r: right_a(w, r).flatten(), r"your mask has shape \(48,\)"),
    (ex_01a, lambda w, r: ~right_a(w, r), "upside down"),
    (ex_01a, lambda w, r: Sparsity(r).mask(-w.abs()), "keep the smallest"),
    (ex_01a, lambda w, r: Sparsity(r).mask(w), "signed weights"),
    (ex_01a, lambda w, r: right_a(w, 1 - r), "share of zeros, not of those that stay"),
    (ex_01a, lambda w, r: Sparsity(r, per_row=True).mask(w.abs()), "not within rows"),
    (ex_01a, lambda w, r: Sparsity(r, per_row=True).mask(w.abs().T).T, "not within columns"),
    (ex_01a, lambda w, r: by_sort(w, r, extra=1), "13 zeros, .* = 12 are asked for: round down"),
    (ex_01a, lambda w, r: by_threshold(w, r, torch.ge), "11 zeros, .* = 12 are asked for: .*threshold"),
    (ex_01a, lambda w, r: by_threshold(w, r, torch.gt), "with ties.* some may go"),
    (ex_01a, lambda w, r: Sparsity(r).mask(torch.rand(w.shape)), "number of zeros is right, but"),
    (ex_01a, lambda w, r: torch.ones_like(w), "no weight becomes zero, 12 are to"),
    (ex_01a, lambda w, r: w.abs() > r * w.abs().max(), "zeros, ⌊ratio · size⌋ = 12 are asked for"),
    (ex_01a, lambda w, r: by_sort(w, r) if r else torch.zeros_like(w), "ratio 0.*upside down"),
    (ex_01b, lambda s, n, m: None, "still blank"),
    (ex_01b, lambda s, n, m: s.view(-1, m + 1), "stopped with RuntimeError"),
    (ex_01b, lambda s, n, m: right_b(s, n, m).view(-1, m), r"your mask has shape \(24, 4\)"),
    (ex_01b, lambda s, n, m: s * right_b(s, n, m), "you return numbers"),
    (ex_01b, lambda s, n, m: ~right_b(s, n, m), "upside down"),
    (ex_01b, lambda s, n, m: right_b(s, m - n, m), "1:4 keeps 1 of 4, you let 1 of 4 go"),
    (ex_01b, lambda s, n, m: right_b(-s, n, m), "keep the lowest scores"),
    (ex_01b, down, "run down the outputs"),
    (ex_01b, apart, "gather inputs that lie apart"),
    (ex_01b, lambda s, n, m: Sparsity(1 - n / m).mask(s), "in total, but not in every row"),
    (ex_01b, lambda s, n, m: Sparsity(1 - n / m, per_row=True).mask(s), "in every row, but not in every group of 4"),
    (ex_01b, at_least_the_nth, r"with ties.*keeps 3 of 4; exactly 2"),
    (ex_01b, lambda s, n, m: right_b(torch.rand(s.shape), n, m), "not the highest scores"),
    (ex_01b, lambda s, n, m: torch.ones_like(s), "keeps 4 of 4; exactly 1"),
    (ex_01e, lambda w: ..., "still blank"),
    (ex_01e, lambda w: torch.arange(w.shape[1]), "nothing changes"),
    (ex_01e, lambda w: w[:, dealt(w)], "you return a matrix"),
    (ex_01e, lambda w: dealt(w)[:4], r"your order has shape \(4,\)"),
    (ex_01e, lambda w: torch.randint(0, 3, (w.shape[1],)), "exactly once"),
    (ex_01e, lambda w: w.norm(dim=0), "exactly once"),
    (ex_01e, lambda w: "order", "return the numbers of the inputs"),
    (ex_01e, lambda w: w.norm(dim=0).argsort(), "was lost before"),
]
