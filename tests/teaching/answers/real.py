"""The checks of notebook 09 accept right variants and say what is wrong with plausible wrong ones."""

import numpy as np
import torch

from spp_lite.teaching.checks.real import ex_09a, ex_09b

RIGHT = [
    (ex_09a, lambda shapes, r: sum(r * i + o for o, i in shapes)),
    (ex_09a, lambda shapes, r: int((np.array(shapes) * [1, r]).sum())),
    (ex_09a, lambda shapes, r: torch.tensor(sum(torch.empty(r, i).numel() + o for o, i in shapes))),
    (ex_09b, lambda f, t: 2 * f + 4 * 4 * t),
    (ex_09b, lambda f, t: f * torch.bfloat16.itemsize + t * (4 + 4 + 8.0)),
]
WRONG = [
    (ex_09a, lambda shapes, r: ..., "still blank"),
    (ex_09a, lambda shapes, r: sum(r * o + i for o, i in shapes), "swapped"),
    (ex_09a, lambda shapes, r: sum(r * (o + i) for o, i in shapes), "LoRA's count"),
    (ex_09a, lambda shapes, r: sum(o * i for o, i in shapes), "frozen weights"),
    (ex_09a, lambda shapes, r: sum(r * i for o, i in shapes), "beta is missing"),
    (ex_09a, lambda shapes, r: sum(o for o, i in shapes), "alpha is missing"),
    (ex_09a, lambda shapes, r: shapes.total(), "stopped with AttributeError"),
    (ex_09b, lambda f, t: None, "still blank"),
    (ex_09b, lambda f, t: 4 * f + 16 * t, "2 bytes each"),
    (ex_09b, lambda f, t: 16 * (f + t), "neither gradients nor moments"),
    (ex_09b, lambda f, t: 2 * f + 4 * t, "moments take room"),
    (ex_09b, lambda f, t: 2 * f + 12 * t, "one of four is missing"),
    (ex_09b, lambda f, t: 2 * (f + t), "float32"),
    (ex_09b, lambda f, t: (2 * f + 16 * t) / 2**30, "not GiB"),
]
