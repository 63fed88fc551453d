"""Where a model's decoder blocks are, and the matrices in them, wherever accelerate keeps those.

No line here names an architecture beyond "which module list holds the decoder blocks".
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset, align_module_device, offload_weight
from torch import Tensor, nn

from ..arguments import require_model
from ..storage import is_dense


class CalibrationError(ValueError):
    """Calibration data or activations that give no statistics. Names the layer, the value and the way out."""


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The language model's decoder blocks and their dotted name: the largest list of modules that holds linears.

    Of a multimodal model only the text decoder is looked through; blocks may be of several classes, as in hybrids.
    """
    require_model(model)
    part = model.get_decoder() if hasattr(model, "get_decoder") else model
    lists = any(isinstance(module, nn.ModuleList) for module in part.modules())  # some name their output layer so
    return _blocks(model, part if lists else model)


def _blocks(model: nn.Module, part: nn.Module) -> tuple[str, nn.ModuleList]:
    prefix = next((name for name, module in model.named_modules() if module is part), "")
    found = [
        (f"{prefix}.{name}".strip("."), module)
        for name, module in (model.get_submodule(prefix) if prefix else model).named_modules()
        if isinstance(module, nn.ModuleList) and linears_of(module)
    ]
    if not found:
        other = {type(module).__name__ for module in model.modules()} & {"Conv1D"}
        why = "; its matrices are Conv1D, which is not pruned here" if other else ""
        raise CalibrationError(f"{type(model).__name__} has no decoder blocks: a list of modules with linears{why}")
    return max(found, key=lambda entry: sum(parameter.numel() for parameter in entry[1].parameters()))


def block_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every weight of two or more dimensions in the decoder blocks, by full name: what a share of zeros is counted
    against. Beside the linears' these are fused experts, routers, convolutions and an encoder's, which stay dense."""
    found = [decoder_blocks(model)]
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        found.append(_blocks(model, model.get_encoder()))
    weights = ((f"{prefix}.{name}", weight) for prefix, blocks in found for name, weight in blocks.named_parameters())
    return {name: weight for name, weight in weights if weight.dim() > 1}


def zeros(model: nn.Module) -> float:
    """Share of exact zeros over all matrices of the decoder blocks, what pruning cannot reach among them; quantised
    matrices, and those that are not loaded, do not count. Raises ValueError where a linear computes its weight, and
    for a model in a form for inference."""
    for name, linear in block_linears(model).items():
        if not is_dense(linear.weight):
            raise ValueError(f"{name} is in a form for inference, where zeros are not kept: count before to_sparse()")
        if why := computed(linear):
            raise ValueError(f"{name} {why}")
    weights = [weight for weight in block_matrices(model).values() if weight.is_floating_point() and not weight.is_meta]
    return sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))


def context(model: nn.Module) -> float:
    """How many tokens a model takes; infinite where it does not say."""
    tokens = getattr(model.config.get_text_config(), "max_position_embeddings", None) or -1
    return tokens if tokens > 0 else math.inf


def require_causal(model: nn.Module) -> None:
    """Raise ValueError for a model that sees the tokens it is asked for: an encoder, or one of both parts."""
    causal = any(getattr(module, "is_causal", False) for module in model.modules())
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) or (not causal and _sees_ahead(model)):
        way = "take a causal one (of BERT's kind: config.is_decoder=True)"
        raise ValueError(f"{type(model).__name__} is no causal language model, it sees what it shall predict: {way}")


@torch.no_grad()
def _sees_ahead(model: nn.Module) -> bool:
    """Does the prediction after a first token depend on the second?"""
    ids = torch.tensor([[1, 2], [1, 3]], device=model.get_input_embeddings().weight.device)
    with in_eval_mode(model):
        first, other = model(input_ids=ids).logits[:, 0]
    rounding = max(1e-3, 4 * torch.finfo(first.dtype).eps)
    return bool((first - other).abs().max() > rounding * first.abs().max())


def vocabulary(model: nn.Module) -> int:
    """How many tokens a model has embeddings for, below whatever an adapter puts over them."""
    return next(
        part.num_embeddings for part in model.get_input_embeddings().modules() if hasattr(part, "num_embeddings")
    )


def broken_weight(weights: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first that is not finite, of those that are loaded."""
    loaded = ((name, value) for name, value in weights if not value.is_meta)
    return next((name for name, value in loaded if not value.float().isfinite().all()), None)


def linears_of(module: nn.Module) -> dict[str, nn.Module]:
    """Every linear below a module, by dotted name: nn.Linear and what quantisation libraries derive from it."""
    return {name: child for name, child in module.named_modules() if isinstance(child, nn.Linear)}


def block_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear of the decoder blocks, by full name, in the model's order.

    >>> from spp_lite import load
    >>> from spp_lite.pruning import block_linears, decoder_blocks
    >>> model, _ = load("tiny")
    >>> name, blocks = decoder_blocks(model)
    >>> name, len(block_linears(model)) == 7 * len(blocks)
    ('model.layers', True)
    """
    prefix, blocks = decoder_blocks(model)
    return {f"{prefix}.{name}": linear for name, linear in linears_of(blocks).items()}


def computed(linear: nn.Module) -> str | None:
    """Why zeros that are written into this linear's weight would be gone at its next call, in words."""
    if "weight" in linear._parameters:
        return None
    return (
        "computes its weight at each call (torch.nn.utils.prune, a parametrization, a norm): make it plain first, by "
        "prune.remove(), remove_parametrizations() or remove_weight_norm()"
    )


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Within: the whole model in eval mode; afterwards each module in its own."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def without_autocast() -> Iterator[None]:
    """Within: statistics and scores are computed in float32, wherever prune() is called from."""
    with ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def weight_of(linear: nn.Module) -> Tensor:
    """A copy of its weight, fetched where it was offloaded."""
    with align_module_device(linear):
        return linear.weight.detach().clone()


def write_weight(name: str, linear: nn.Module, weight: Tensor) -> None:
    """Replace a weight at once, where it lives: in the module, or where accelerate offloaded it to."""
    store, key = place_of(name, linear)
    if store is None:
        linear.weight.data.copy_(weight)
    elif isinstance(store, OffloadedWeightsLoader) and key not in store.state_dict:
        offload_weight(weight, key, store.save_folder, store.index)
    else:
        store[key].copy_(weight)


def place_of(name: str, linear: nn.Module) -> tuple[Mapping | None, str]:
    """Where accelerate keeps an offloaded weight, and its key there; None for one that lies in its module."""
    hook = getattr(linear, "_hf_hook", None)
    store, key = hook.weights_map if getattr(hook, "offload", False) else None, "weight"
    while isinstance(store, PrefixedDataset):
        store, key = store.dataset, store.prefix + key
    disk = isinstance(store, OffloadedWeightsLoader) and key not in store.state_dict
    if disk and store.save_folder is None:
        raise CalibrationError(
            f"{name} is offloaded to the checkpoint itself, which must not change: load the model by load(), or give "
            "from_pretrained an offload_folder"
        )
    return store, key
