"""The checks of notebook 09 accept right variants and say what is wrong with plausible wrong ones."""

import math

import numpy as np
import torch

from spp_lite.teaching.checks.real import ex_09a, ex_09b, ex_09c, ex_09d

TRIED = (1, 2, 4, 8, 16, 32, 64)


def first(fits):
    return next((n for n in TRIED if fits(n)), 0)


def doubled(stays, block, grows, card):
    n = 1
    while (stays + grows) / n + (block if n > 1 else 0) > card:
        n *= 2
        if n > 64:
            return 0
    return n


RIGHT = [
    (ex_09a, lambda f, t, b: b * f + 4 * 4 * t),
    (ex_09a, lambda f, t, b: torch.tensor(f * b + t * (4 + 4 + 8.0), dtype=torch.float64)),
    (ex_09b, lambda n, h, k, v, b: n * (b * h * k + b * v + 4 * v + 4 * v)),
    (ex_09b, lambda n, h, k, v, b: np.float64(n) * (b * (h * k + v) + 8 * v)),
    (ex_09c, doubled),
    (ex_09c, lambda s, k, g, c: first(lambda n: s / n + (n > 1) * k + g / n <= c)),
    (ex_09d, lambda a, n: math.exp(sum(x * y for x, y in zip(a, n, strict=True)) / sum(n))),
    (ex_09d, lambda a, n: float(np.exp(np.average(a, weights=n)))),
]
WRONG = [
    (ex_09a, lambda f, t, b: None, "still blank"),
    (ex_09a, lambda f, t, b: f + 16 * t, "b bytes, not one"),
    (ex_09a, lambda f, t, b: 16 * (f + t), "neither gradients nor moments"),
    (ex_09a, lambda f, t, b: b * f + 4 * t, "moments take room"),
    (ex_09a, lambda f, t, b: b * f + 12 * t, "one of four is missing"),
    (ex_09a, lambda f, t, b: b * f + 4 * b * t, "whatever b is"),
    (ex_09a, lambda f, t, b: b * f + 8 * t, "two moments"),
    (ex_09a, lambda f, t, b: (b * f + 16 * t) / 2**30, "not GiB"),
    (ex_09b, lambda n, h, k, v, b: ..., "still blank"),
    (ex_09b, lambda n, h, k, v, b: b * n * h * k + b * n * v, "two float32 copies"),
    (ex_09b, lambda n, h, k, v, b: b * n * h * k + (b + 4) * n * v, "log-probabilities and gradient"),
    (ex_09b, lambda n, h, k, v, b: b * n * h + (b + 8) * n * v, "number of blocks"),
    (ex_09b, lambda n, h, k, v, b: b * n * h * k + 3 * b * n * v, "whatever b is"),
    (ex_09b, lambda n, h, k, v, b: b * n * h * k + (b + 8) * v, "at every token"),
    (ex_09b, lambda n, h, k, v, b: (b + 8) * n * v, "inputs of the blocks are missing"),
    (ex_09c, lambda s, k, g, c: ..., "still blank"),
    (ex_09c, lambda s, k, g, c: first(lambda n: (s + g) / n <= c), "whole on every GPU"),
    (ex_09c, lambda s, k, g, c: first(lambda n: s / n + k * (n > 1) + g <= c), "divide what grows"),
    (ex_09c, lambda s, k, g, c: first(lambda n: (s + k + g) / n <= c), "undivided|nothing to gather"),
    (ex_09c, lambda s, k, g, c: first(lambda n: (s + g) / n + k <= c), "nothing to gather"),
    (ex_09c, lambda s, k, g, c: first(lambda n: (s + g) / n + k * (n > 1) < c), "just fits"),
    (ex_09c, lambda s, k, g, c: doubled(s, k, g, c) or 64, "not even 64"),
    (ex_09d, lambda a, n: None, "still blank"),
    (ex_09d, lambda a, n: math.exp(sum(a) / len(a)), "weigh each loss"),
    (ex_09d, lambda a, n: sum(map(math.exp, a)) / len(a), "exp once"),
    (ex_09d, lambda a, n: sum(math.exp(x) * y for x, y in zip(a, n, strict=True)) / sum(n), "exp comes last"),
    (ex_09d, lambda a, n: sum(x * y for x, y in zip(a, n, strict=True)) / sum(n), "mean loss; perplexity"),
    (ex_09d, lambda a, n: math.exp(sum(a) / sum(n)), "is their sum"),
]
