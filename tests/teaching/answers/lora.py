"""The checks of notebook 04 accept right variants and say what is wrong with plausible wrong ones."""

import numpy as np
import torch

from spp_lite.teaching.checks import ex_04a, ex_04b, ex_04c, ex_04d


def filled(weight, update):
    return int(((weight == 0) & (weight + update != 0)).sum())


def zeros(weight):
    return int((weight == 0).sum())


def by_rows(weight, update):
    pairs = list(zip(weight.flatten().tolist(), update.flatten().tolist(), strict=True))
    return sum(w == 0 and w + u != 0 for w, u in pairs) / sum(w == 0 for w, _ in pairs)


def by_loop(weight, a, b, scaling):
    found = torch.zeros_like(weight)
    for i, j in torch.nonzero(weight).tolist():
        found[i, j] = scaling * torch.dot(b[i], a[:, j])
    return found


def by_elimination(weight, a):
    free = 0
    for row in weight.double():
        _, sizes, _ = torch.linalg.svd(a.double()[:, row == 0], full_matrices=False)
        free += int((sizes > 1e-6).sum()) < len(a)
    return torch.tensor(free)


def by_null_space(weight, a):
    ranks = np.array([np.linalg.matrix_rank(a.numpy()[:, (row == 0).numpy()]) for row in weight])
    return (ranks < len(a)).sum()


def spare_by_loop(weight, a, b):
    a, b = a.clone(), b.clone()
    for j in range(weight.shape[1]):
        if not weight[:, j].any():
            a[:, j] = 0
    for i in range(weight.shape[0]):
        if not weight[i].any():
            b[i] = 0
    return [a, b]


def rank(row, a):
    return int(torch.linalg.matrix_rank(a[:, row == 0]))


RIGHT = [
    (ex_04b, by_elimination),
    (ex_04b, by_null_space),
    (ex_04b, lambda w, a: float(sum(rank(row, a) < len(a) for row in w))),
    (ex_04d, spare_by_loop),
    (ex_04d, lambda w, a, b: (torch.where((w == 0).all(0), 0, a).double(), b * (w.abs().sum(1, keepdim=True) > 0))),
    (ex_04a, lambda w, u: float((u[w == 0] != 0).float().mean())),
    (ex_04a, by_rows),
    (ex_04a, lambda w, u: torch.tensor(filled(w, u)) / zeros(w)),
    (ex_04c, lambda w, a, b, s: (w != 0) * (s * b @ a)),
    (ex_04c, by_loop),
    (ex_04c, lambda w, a, b, s: torch.where(w == 0, 0.0, torch.einsum("or,ri->oi", b, a) * s)),
]
WRONG = [
    (ex_04b, lambda w, a: ..., "still blank"),
    (ex_04b, lambda w, a: int(((w == 0).sum(1) < len(a)).sum()), "counting zeros is not enough"),
    (ex_04b, lambda w, a: sum(rank(row, a) == len(a) for row in w), "rows that may not change"),
    (ex_04b, lambda w, a: sum(rank(row == 0, a) < len(a) for row in w), "where the weight survived"),
    (ex_04b, lambda w, a: sum(rank(row, a) <= len(a) for row in w), "may not change at all"),
    (ex_04b, lambda w, a: sum(rank(row, a) < len(a) for row in w) / len(w), "not a share"),
    (ex_04b, lambda w, a: [rank(row, a) < len(a) for row in w], "return one number"),
    (ex_04b, lambda w, a: int((w != 0).all(1).sum()), "a few zeros can be free too"),
    (ex_04b, lambda w, a: sum(rank(column, a) for column in w.T), "stopped with IndexError"),
    (ex_04d, lambda w, a, b: ..., "still blank"),
    (ex_04d, lambda w, a, b: (a, b), "A still touches zeros"),
    (ex_04d, lambda w, a, b: (a * (w != 0).any(0), b), "B still touches zeros"),
    (ex_04d, lambda w, a, b: (a * (w == 0).all(0), b), "upside down"),
    (ex_04d, lambda w, a, b: (a * 0, b), "trains nothing"),
    (ex_04d, lambda w, a, b: (a[:, (w != 0).any(0)], b), "do not cut"),
    (ex_04d, lambda w, a, b: spare_by_loop(w, a, b)[::-1], "return A first"),
    (ex_04d, lambda w, a, b: b @ a * (w != 0), "return two tensors"),
    (ex_04c, lambda w, a, b, s: (s * b @ a * (w != 0)).detach(), "no gradient reaches"),
    (ex_04a, lambda w, u: ..., "still blank"),
    (ex_04a, filled, "divide by the number of zeros"),
    (ex_04a, lambda w, u: 100 * filled(w, u) / zeros(w), "not a percentage"),
    (ex_04a, lambda w, u: filled(w, u) / w.numel(), "divided by all entries"),
    (ex_04a, lambda w, u: filled(w, u) / int((w != 0).sum()), "divided by the weights that are not zero"),
    (ex_04a, lambda w, u: filled(w, u) / int((w + u != 0).sum()), "divided by the non-zeros of W"),
    (ex_04a, lambda w, u: 1 - zeros(w + u) / zeros(w), "hide filled ones"),
    (ex_04a, lambda w, u: 1 - filled(w, u) / zeros(w) if (u == 0).any() else 1.0, "share of the zeros that stay"),
    (ex_04a, lambda w, u: zeros(w + u) / w.numel(), "share of zeros that W"),
    (ex_04a, lambda w, u: np.mean((w + u).numpy() != 0), "counted all non-zeros"),
    (ex_04a, lambda w, u: (zeros(w) - zeros(w + u)) / w.numel(), "how much the share of zeros falls"),
    (ex_04a, lambda w, u: filled(w, w.add_(u)), "changes what it is given"),
    (ex_04a, lambda w, u: (w + u)[w == 0], "you return tensor"),
    (ex_04c, lambda w, a, b, s: None, "still blank"),
    (ex_04c, lambda w, a, b, s: s * b @ a, "the mask is missing"),
    (ex_04c, lambda w, a, b, s: s * (b @ a) * (w == 0), "upside down"),
    (ex_04c, lambda w, a, b, s: (b @ a) * (w != 0), "scaling s is missing"),
    (ex_04c, lambda w, a, b, s: s / len(a) * (b @ a) * (w != 0), "do not divide by the rank"),
    (ex_04c, lambda w, a, b, s: s * (b @ a) * w, "multiply by W itself"),
    (ex_04c, lambda w, a, b, s: s * (b @ a) * (w > 0), "negative weights survive"),
    (ex_04c, lambda w, a, b, s: w + s * (b @ a) * (w != 0), "that is W′"),
    (ex_04c, lambda w, a, b, s: (w + s * (b @ a)) * (w != 0), "that is W′"),
    (ex_04c, lambda w, a, b, s: w + s * b @ a, "LoRA's merged weight"),
    (ex_04c, lambda w, a, b, s: (s * (b @ a) * (w != 0)).T, "transposed"),
    (ex_04c, lambda w, a, b, s: a @ b, "stopped with RuntimeError"),
    (ex_04c, lambda w, a, b, s: w.ne_(0) * (s * b @ a), "changes what it is given"),
]
