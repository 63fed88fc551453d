"""The checks of notebook 01 on errors and storage accept right variants and say what is wrong with plausible wrong ones."""

import numpy as np
import torch

from spp_lite.teaching.checks import ex_01c, ex_01d


def by_loop(weight, keep, X):
    lost = whole = 0.0
    for x in X.double():
        for row, stays in zip(weight.double(), keep, strict=True):
            lost += float((row[~stays] * x[~stays]).sum()) ** 2
            whole += float((row * x).sum()) ** 2
    return lost / whole


def outputs(weight, keep, X):
    return X @ (weight * ~keep).T, X @ (weight * keep).T, X @ weight.T


def share(part, whole):
    return part.square().sum() / whole.square().sum()


def slowly(values, places):
    out, half = values.shape
    weight = np.zeros((out, 2 * half))
    for i in range(out):
        for k in range(half):
            weight[i, 4 * (k // 2) + int(places[i, k])] = values[i, k]
    return weight


def by_columns(values, places):
    at = places + 4 * (torch.arange(values.shape[1]) // 2)
    return torch.zeros(len(values), 2 * values.shape[1]).scatter(1, at, values)


def grouped(values, places):
    return by_columns(values, places).view(len(values), -1, 4)


def beside(values):
    return torch.cat([values, 0 * values], 1)


RIGHT = [
    (ex_01c, by_loop),
    (ex_01c, lambda w, m, x: share((x @ (w - w * m).T).double(), (x @ w.T).double())),
    (ex_01c, lambda w, m, x: (outputs(w, m, x)[0].norm() / outputs(w, m, x)[2].norm()).item() ** 2),
    (ex_01d, slowly),
    (ex_01d, by_columns),
    (ex_01d, lambda v, p: grouped(v, p).double().flatten(1)),
]
WRONG = [
    (ex_01c, lambda w, m, x: None, "still blank"),
    (ex_01c, lambda w, m, x: share(x @ (w - w * m), x @ w), "stopped with RuntimeError"),
    (ex_01c, lambda w, m, x: share(*outputs(w, m, x)[::2]).sqrt(), "ratio of norms"),
    (ex_01c, lambda w, m, x: share(*outputs(w, m, x)[1:]), "what stays"),
    (ex_01c, lambda w, m, x: 1 - share(*outputs(w, m, x)[1:]), "squares do not"),
    (ex_01c, lambda w, m, x: share(*outputs(w, m, x)[:2]), "of the pruned one"),
    (ex_01c, lambda w, m, x: 1 / share(*outputs(w, m, x)[::2]), "upside down"),
    (ex_01c, lambda w, m, x: outputs(w, m, x)[0].square().sum(), "the error is a share"),
    (ex_01c, lambda w, m, x: share(w * ~m, w), "X is left out"),
    (ex_01c, lambda w, m, x: outputs(w, m, x)[0].abs().sum() / outputs(w, m, x)[2].abs().sum(), "adds up squares"),
    (ex_01c, lambda w, m, x: (outputs(w, m, x)[0] / outputs(w, m, x)[2]).square().mean(), "every entry's ratio"),
    (ex_01c, lambda w, m, x: outputs(w, m, x)[0].square() / outputs(w, m, x)[2].square(), "one number an entry"),
    (ex_01c, lambda w, m, x: 0.5, "you return 0.5"),
    (ex_01d, lambda v, p: ..., "still blank"),
    (ex_01d, lambda v, p: torch.zeros(len(v), 2 * v.shape[1]).scatter(1, p, v), "within a group"),
    (ex_01d, grouped, "still in groups"),
    (ex_01d, lambda v, p: by_columns(v, p) != 0, "that is the mask"),
    (ex_01d, lambda v, p: by_columns(v, p).flatten(), "in one line"),
    (ex_01d, lambda v, p: by_columns(v, p.view(len(p), -1, 2).flip(2).flatten(1)), "changed places"),
    (ex_01d, lambda v, p: by_columns(v, 3 - p), "place 0 is the first"),
    (ex_01d, lambda v, p: beside(v), "side by side"),
    (ex_01d, lambda v, p: v.repeat_interleave(2, 1), "stands twice"),
    (ex_01d, lambda v, p: v, "shape"),
]
