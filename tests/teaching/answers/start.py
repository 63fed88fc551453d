"""Each check accepts right variants and rejects plausible wrong answers, saying why."""

import numpy as np
import torch

from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.checks import ex_00a, ex_00b


def weights(model):
    return [linear.weight for linear in block_linears(model).values()]


def zeros(model):
    return sum(int((w == 0).sum()) for w in weights(model))


def size(model):
    return sum(w.numel() for w in weights(model))


RIGHT = [
    (ex_00a, lambda m: zeros(m) / size(m)),
    (ex_00a, lambda m: torch.cat([(w == 0).flatten() for w in weights(m)]).float().mean()),
    (ex_00b, lambda d, p, r: (r - p) / (d - p)),
    (ex_00b, lambda d, p, r: np.float64(1 - (d - r) / (d - p))),
]
WRONG = [
    (ex_00a, lambda m: ..., "still blank"),
    (ex_00a, lambda m: None, "still blank"),
    (ex_00a, lambda m: 1 - zeros(m) / size(m), "that are not zero"),
    (ex_00a, lambda m: 100 * zeros(m) / size(m), "not a percentage"),
    (ex_00a, lambda m: zeros(m), "divide by the number"),
    (ex_00a, lambda m: zeros(m) / sum(p.numel() for p in m.parameters()), "embeddings and biases"),
    (ex_00a, lambda m: np.mean([float((w == 0).float().mean()) for w in weights(m)[:2]]), "you return"),
    (ex_00a, lambda m: m.nothing, "stopped with AttributeError"),
    (ex_00b, lambda d, p, r: ..., "still blank"),
    (ex_00b, lambda d, p, r: r - p, "divide it by what pruning took"),
    (ex_00b, lambda d, p, r: r / d, "compare with what pruning took"),
    (ex_00b, lambda d, p, r: (d - r) / (d - p), "still missing"),
    (ex_00b, lambda d, p, r: 100 * (r - p) / (d - p), "not a percentage"),
    (ex_00b, lambda d, p, r: max(0, (r - p) / (d - p)), "retraining can also hurt"),
]
