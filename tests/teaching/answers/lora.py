"""The checks of notebook 04 accept right variants and say what is wrong with plausible wrong ones."""

import numpy as np
import torch

from spp_lite.teaching.checks import ex_04a, ex_04b


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


RIGHT = [
    (ex_04a, lambda w, u: float((u[w == 0] != 0).float().mean())),
    (ex_04a, by_rows),
    (ex_04a, lambda w, u: torch.tensor(filled(w, u)) / zeros(w)),
    (ex_04b, lambda w, a, b, s: (w != 0) * (s * b @ a)),
    (ex_04b, by_loop),
    (ex_04b, lambda w, a, b, s: torch.where(w == 0, 0.0, torch.einsum("or,ri->oi", b, a) * s)),
]
WRONG = [
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
    (ex_04a, lambda w, u: filled(w, w.add_(u)), "changes the tensors"),
    (ex_04a, lambda w, u: (w + u)[w == 0], "you return tensor"),
    (ex_04b, lambda w, a, b, s: None, "still blank"),
    (ex_04b, lambda w, a, b, s: s * b @ a, "the mask is missing"),
    (ex_04b, lambda w, a, b, s: s * (b @ a) * (w == 0), "upside down"),
    (ex_04b, lambda w, a, b, s: (b @ a) * (w != 0), "strength s is missing"),
    (ex_04b, lambda w, a, b, s: s / len(a) * (b @ a) * (w != 0), "do not divide by the rank"),
    (ex_04b, lambda w, a, b, s: s * (b @ a) * w, "multiply by W itself"),
    (ex_04b, lambda w, a, b, s: s * (b @ a) * (w > 0), "negative weights survive"),
    (ex_04b, lambda w, a, b, s: w + s * (b @ a) * (w != 0), "that is W′"),
    (ex_04b, lambda w, a, b, s: (w + s * (b @ a)) * (w != 0), "that is W′"),
    (ex_04b, lambda w, a, b, s: w + s * b @ a, "LoRA's merged weight"),
    (ex_04b, lambda w, a, b, s: (s * (b @ a) * (w != 0)).T, "transposed"),
    (ex_04b, lambda w, a, b, s: a @ b, "stopped with RuntimeError"),
    (ex_04b, lambda w, a, b, s: w.ne_(0) * (s * b @ a), "changes the tensors"),
]
