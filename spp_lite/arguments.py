"""What a caller may give: a model that is loaded, its tokenizer, numbers of the right kind. All else is named in a sentence."""

import math
from itertools import pairwise
from numbers import Integral, Real

import torch
from torch import distributed as dist
from torch import nn


def require_model(model) -> None:
    """Raise ValueError for load()'s two things, a name, None: what is no torch model."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"a {type(model).__name__} is no model: load() returns two things, model and tokenizer")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"a {type(model).__name__} wraps the model: give what it wraps, model.module")


def require_weights(model) -> None:
    """Raise ValueError for what is no model, and for one without values that nobody will bring."""
    require_model(model)
    empty = next((name for name, weight in model.named_parameters() if weight.is_meta), None)
    ranks = dist.is_available() and dist.is_initialized()
    if empty and not ranks and not any(hasattr(module, "_hf_hook") for module in model.modules()):
        raise ValueError(f"{empty} is on meta, without values: load the model's weights, as load() does")


def require_tokenizer(tokenizer) -> None:
    """Raise ValueError for a name, None, records: what does not tokenize."""
    if not (callable(tokenizer) and hasattr(tokenizer, "eos_token_id")):
        raise ValueError(f"a {type(tokenizer).__name__} is no tokenizer: load() returns it beside the model")


def require_unpacked(positions, mask, where: str) -> None:
    """Raise ValueError for position_ids (one text's; mask None: no padding) that start anew: records in a row see each other."""
    kept = positions if mask is None else [place for place, counts in zip(positions, mask, strict=True) if counts]
    real = [int(place) for place in kept]
    if start := next((at for at, (one, after) in enumerate(pairwise(real), 1) if after <= one), None):
        raise ValueError(
            f"{where}: position_ids start anew at token {start}: what is packed there would see what stands before it; "
            "give every record a row of its own"
        )


def require_dtype(dtype) -> None:
    """Raise ValueError for what is neither "auto" nor one of torch's types of real numbers, itself or by its name."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype={dtype!r}: give torch.float32, torch.bfloat16, torch.float16, one's name, or 'auto'")


def whole(least: int = 1, most: float = math.inf, /, **settings) -> None:
    """Raise ValueError, by name, for a setting that is no whole number from `least` to `most`."""
    number(least, most, Integral, **settings)


def number(least: float = 0, most: float = math.inf, kind: type = Real, /, **settings) -> None:
    """Raise ValueError, by name, for a setting that is no finite number (of this kind) from `least` to `most`."""
    span = f"{least} or more" if most == math.inf else f"{least} to {most}"
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most or value == math.inf:
            raise ValueError(f"{name}={value!r}: give a {'whole' if kind is Integral else 'finite'} number, {span}")
