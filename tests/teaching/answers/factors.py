"""The checks of notebook 05's equation accept right variants and say what is wrong with plausible wrong ones."""

import torch
import torch.nn.functional as F

from spp_lite.teaching.checks import ex_05a, ex_05b, ex_05c


def blocks(out, r):
    return torch.arange(out) * r // out


def even(out, r):
    return torch.arange(out) // -(-out // r)


def rows(a, out, block=blocks):
    return a[block(out, len(a))]


def looped_rows(a, out):
    return torch.stack([a[i * len(a) // out] for i in range(out)])


def filled_rows(a, out):
    found = torch.zeros(out, a.shape[1])
    for i in range(out):
        found[i] = a[i * len(a) // out]
    return found


def update(x, w, a, b):
    return x @ (w * rows(a, len(w)) * b[:, None]).T


def hot(out, r, block=blocks):
    return F.one_hot(block(out, r), r).float()


def products(G, w, a, b, s):
    product = s * G * w
    return hot(len(w), len(a)).T @ (product * b[:, None]), (product * rows(a, len(w))).sum(1)


def looped_gradients(G, w, a, b, s):
    da, db = torch.zeros_like(a, dtype=torch.float64), torch.zeros_like(b, dtype=torch.float64)
    for i in range(len(w)):
        k = i * len(a) // len(w)
        da[k] += s * b[i] * G[i] * w[i]
        db[i] = s * (a[k] * G[i]) @ w[i]
    return [da, db]


def by_autograd(G, w, a, b, s):
    a, b = a.requires_grad_(), b.requires_grad_()
    return torch.autograd.grad((G * w * (1 + s * rows(a, len(w)) * b[:, None])).sum(), (a, b))


def changed(dalpha=None, dbeta=None):
    """The right gradients but for one of them."""

    def wrong(*given):
        da, db = products(*given)
        return (dalpha or (lambda *_: da))(*given), (dbeta or (lambda *_: db))(*given)

    return wrong


RIGHT = [
    (ex_05a, rows),
    (ex_05a, looped_rows),
    (ex_05a, filled_rows),
    (ex_05a, lambda a, out: hot(out, len(a)) @ a),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + s * update(d(x), w, a, b)),
    (ex_05b, lambda x, w, a, b, s, d: F.linear(x, w) + s * b * F.linear(d(x), w * rows(a, len(w)))),
    (ex_05b, lambda x, w, a, b, s, d: F.linear(x.double(), w.double()) + s * update(d(x), w, a, b)),
    (ex_05c, products),
    (ex_05c, looped_gradients),
    (ex_05c, by_autograd),
]
WRONG = [
    (ex_05a, lambda a, out: ..., "still blank"),
    (ex_05a, lambda a, out: a[torch.arange(out) % len(a)], "blocks are contiguous"),
    (ex_05a, lambda a, out: rows(a, out, even), "more than one row"),
    (ex_05a, lambda a, out: a[(torch.arange(out) // max(1, out // len(a))).clamp(max=len(a) - 1)], "more than one row"),
    (ex_05a, lambda a, out: a.repeat_interleave(out // len(a), 0), "a tensor of shape"),  # right while r divides out
    (ex_05a, lambda a, out: rows(a, out).T, "transposed"),
    (ex_05a, lambda a, out: blocks(out, len(a)), "numbers of the blocks"),
    (ex_05a, lambda a, out: a.mean(0).expand(out, -1), "mean row"),
    (ex_05a, lambda a, out: a[:1].expand(out, -1), "took row 0"),
    (ex_05a, lambda a, out: rows(a.flip(0), out), "reversed"),
    (ex_05a, lambda a, out: list(looped_rows(a, out)), "return one tensor"),
    (ex_05a, lambda a, out: rows(a, out).double(), "keep the type"),
    (ex_05a, lambda a, out: rows(a, out).detach(), "could not be trained"),
    (ex_05a, lambda a, out: a[torch.arange(out) * len(a) / out], "stopped with IndexError"),
    (ex_05b, lambda x, w, a, b, s, d: None, "still blank"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T, "the update is missing"),
    (ex_05b, lambda x, w, a, b, s, d: s * update(d(x), w, a, b), "add the frozen term"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + update(d(x), w, a, b), "scaling s is missing"),
    (ex_05b, lambda x, w, a, b, s, d: s * (x @ w.T + update(d(x), w, a, b)), "s belongs to the update only"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T - s * update(d(x), w, a, b), "not taken away"),
    (ex_05b, lambda x, w, a, b, s, d: x @ (w * (1 + s * rows(a, len(w)) * b[:, None])).T, "no input was dropped"),
    (ex_05b, lambda x, w, a, b, s, d: d(x) @ w.T + s * update(d(x), w, a, b), "the frozen term sees x itself"),
    (ex_05b, lambda x, w, a, b, s, d: d(x) @ w.T + s * update(x, w, a, b), "swapped"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + s * d(x) @ (rows(a, len(w)) * b[:, None]).T, "fill the zeros"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + s * d(x) @ (w * rows(a, len(w))).T, "β is missing"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + s * d(x) @ (w * b[:, None]).T, "α is missing"),
    (
        ex_05b,
        lambda x, w, a, b, s, d: x @ w.T + s * d(x) @ (w * a[torch.arange(len(w)) % len(a)] * b[:, None]).T,
        "blocks are contiguous",
    ),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + s * d(x) @ (w * rows(a, len(w), even) * b[:, None]).T, "more than one"),
    (ex_05b, lambda x, w, a, b, s, d: w * (1 + s * rows(a, len(w)) * b[:, None]), "the outputs are asked for"),
    (ex_05b, lambda x, w, a, b, s, d: x @ w.T + s * x @ (w * a * b).T, "stopped with RuntimeError"),
    (ex_05c, lambda G, w, a, b, s: ..., "still blank"),
    (ex_05c, lambda *given: products(*given)[0], "return two tensors"),
    (ex_05c, lambda *given: products(*given)[::-1], "dα first, then dβ"),
    (ex_05c, lambda G, w, a, b, s: products(G, w, a, b, 1), "dα, 12 .*the scaling s is missing"),
    (ex_05c, changed(lambda G, w, a, b, s: s * hot(len(w), len(a)).T @ (G * w)), "β is missing"),
    (ex_05c, changed(lambda G, w, a, b, s: s * hot(len(w), len(a)).T @ (G * b[:, None])), "W is missing"),
    (ex_05c, changed(lambda G, w, a, b, s: s * hot(len(w), len(a)).T @ (w * b[:, None])), "G is missing"),
    (ex_05c, changed(lambda G, w, a, b, s: s * G * w * b[:, None]), "one row for every output"),
    (ex_05c, changed(lambda G, w, a, b, s: (s * G * w * b[:, None]).sum(0).expand(len(a), -1)), "only those of a block"),
    (ex_05c, changed(lambda G, w, a, b, s: -products(G, w, a, b, s)[0]), "sign"),
    (ex_05c, changed(lambda G, w, a, b, s: s * hot(len(w), len(a), even).T @ (G * w * b[:, None])), "more than one row"),
    (ex_05c, changed(None, lambda G, w, a, b, s: products(G, w, a, b, 1)[1]), "dβ, 12 .*the scaling s is missing"),
    (ex_05c, changed(None, lambda G, w, a, b, s: s * (G * w).sum(1)), "R.α. is missing"),
    (ex_05c, changed(None, lambda G, w, a, b, s: s * (G * rows(a, len(w))).sum(1)), "W is missing"),
    (ex_05c, changed(None, lambda G, w, a, b, s: s * (w * rows(a, len(w))).sum(1)), "G is missing"),
    (ex_05c, changed(None, lambda G, w, a, b, s: s * (G * w * rows(a, len(w))).mean(1)), "mean over the inputs"),
    (ex_05c, changed(None, lambda G, w, a, b, s: s * (G * w * rows(a, len(w))).sum(0)), "added up the outputs"),
    (ex_05c, changed(None, lambda G, w, a, b, s: s * G * w * rows(a, len(w))), "one number for every weight"),
    (ex_05c, changed(None, lambda G, w, a, b, s: products(G, w, a, b, s)[1][:, None]), "a tensor of shape"),
]  # fmt: skip
