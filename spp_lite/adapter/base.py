"""The weights that an adapter sits on: read them wherever they are, note where their zeros are, tell two bases apart.

Knows PEFT's quantised layers and accelerate's offloading. Knows nothing about factors.
"""

import math
from contextlib import contextmanager
from itertools import chain

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from ..pruning.blocks import computed
from ..pruning.sparsity import SparsityError, fingerprint

COARSENESS = ("torch.float64", "torch.float32", "torch.bfloat16", "torch.float16", "Int8Params")  # others: more
SAMPLE = 256  # fixed positions of each weight whose zeros are noted


def is_quantised(layer: nn.Module) -> bool:
    """Does this linear keep its weight in a quantised form that PEFT can dequantise (bitsandbytes, HQQ, torchao)?"""
    kind = type(getattr(layer, "weight", None))
    bitsandbytes, torchao = kind.__name__ in ("Params4bit", "Int8Params"), kind.__module__.startswith("torchao.")
    return bitsandbytes or torchao or hasattr(layer, "W_q")


def read(module: nn.Module, name: str) -> Tensor | None:
    """A tensor of a module, loaded from where accelerate offloaded it."""
    if not has_offloaded_params(module) or getattr(module, name) is None:
        return getattr(module, name)
    with align_module_device(module):
        return getattr(module, name)


def read_weight(layer: nn.Module) -> Tensor:
    """W (out, in) of a linear, dequantised or loaded where need be."""
    if not is_quantised(layer):
        return read(layer, "weight")
    with align_module_device(layer):
        kept = getattr(layer, "weight", None)
        made = dequantize_module_weight(layer)
        if kept is not None and layer.weight is not kept:  # PEFT replaces 8-bit weights on a CPU, scales lost
            layer.weight = kept
        return made


def misfit(layer: nn.Module, parent: nn.Module | None = None) -> str | None:
    """Why W′ cannot take the place of this layer's weight, in words; None where it can."""
    if isinstance(parent, nn.MultiheadAttention):
        return "is never called: nn.MultiheadAttention reads its weight"
    if is_quantised(layer):
        return None
    if isinstance(layer, BaseTunerLayer):
        return f"carries an adapter already, {type(layer).__name__}: merge or unload that one first"
    if why := computed(layer):
        return why
    if not isinstance(layer, nn.Linear):
        return f"is a {type(layer).__name__}: SPP works on linears"
    if type(layer).forward is not nn.Linear.forward and not _acts_as_linear(layer):
        return f"is a {type(layer).__name__} with a forward of its own, which SPP would pass by"
    if str(layer.weight.dtype) not in COARSENESS:
        return f"holds {layer.weight.dtype}"
    return None


def _acts_as_linear(layer: nn.Linear) -> bool:
    """Does a subclass's own forward compute x Wᵀ + b all the same (Falcon's does)? Asked of two rows."""
    try:
        weight, bias = read(layer, "weight"), read(layer, "bias")
        x = torch.linspace(1, 9, 2 * layer.in_features, device=weight.device).sin().view(2, -1).to(weight.dtype)
        with torch.no_grad():
            return torch.allclose(layer(x), nn.functional.linear(x, weight, bias), rtol=1e-2, atol=1e-3)
    except Exception:  # a router's tuple, another type, a device that is not there
        return False


def is_compiled(model: nn.Module) -> bool:
    """Does torch.compile wrap the model or a part of it, whose weights then have other names?"""
    return any(hasattr(module, "_orig_mod") for module in model.modules())


def require_outermost(model: nn.Module) -> None:
    """Raise SparsityError for an adapted model that torch.compile wraps, or that stands in another one."""
    if isinstance(getattr(model, "_orig_mod", None), PeftModel):
        raise SparsityError("torch.compile wraps the adapted model: give what it wraps, model._orig_mod")
    if any(isinstance(module, PeftModel) for module in model.modules() if module is not model):
        raise SparsityError(
            "an adapted model stands in another one (get_peft_model twice): merge() the inner one, base_model.model, first, or "
            "add a second adapter by add_adapter()"
        )


def norm_names(model: nn.Module) -> list[str]:
    """The names of a model's norms, for modules_to_save of any PEFT adapter: few weights, which merging keeps.

    >>> from spp_lite import SppConfig, load
    >>> from spp_lite.adapter import norm_names, norm_weights
    >>> model, _ = load("tiny")
    >>> config = SppConfig(modules_to_save=norm_names(model))  # trains the norms beside the factors
    >>> len(norm_weights(model)) == 2 * model.config.num_hidden_layers + 1
    True
    """
    if hasattr(model, "peft_config"):
        raise ValueError("the model carries an adapter: ask the plain model for its norms' names, then insert")
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_norm(module)}
    wrong = [name for name, module in model.named_modules() if name.endswith((*names,)) and not _is_norm(module)]
    if wrong or not names:  # PEFT looks at how names end
        what = f"share the ends of their names with {wrong[0]}" if wrong else "have no weights"
        raise ValueError(f"the norms of {type(model).__name__} {what}: name modules_to_save yourself")
    return sorted(names)


def norm_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of every norm, of those that an adapter trains the copies, too."""
    return [weight for module in model.modules() if _is_norm(module) for weight in module.parameters(recurse=False)]


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and any(True for _ in module.parameters(recurse=False))


@contextmanager
def restored_on_error(model: nn.Module):
    """Within: what fails leaves the model's modules and parameters in their places, and what is trainable trainable."""
    tree = [
        (module, vars(module).get("peft_config"), [*module.named_children(), *module.named_parameters(recurse=False)])
        for module in model.modules()
    ]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    except BaseException:
        for module, config, parts in tree:
            for name, part in parts:
                setattr(module, name, part)
            vars(module).pop("peft_config", None)
            if config is not None:
                module.peft_config = config
        for parameter, flag in trained:
            parameter.requires_grad = flag
        raise


def coarseness(kind: str) -> int:
    """Rounding adds zeros: of two types of one base's weights, the coarser has all zeros of the finer."""
    return COARSENESS.index(kind) if kind in COARSENESS else len(COARSENESS)


def compare(adapter: str, made_on: tuple[str, str, dict], here: tuple[str, str, dict]) -> str | None:
    """Are two bases one? Each: mask fingerprint, coarsest type, layer → sample_zeros().

    None when both have the same zeros; a warning when one is the other, rounded; raises SparsityError when neither.
    """
    if made_on[0] == here[0]:
        return None
    (_, fine, finer), (_, coarse, coarser) = sorted((made_on, here), key=lambda base: coarseness(base[1]))
    pairs = [(int(zeros, 16), int(coarser.get(name, "0"), 16)) for name, zeros in finer.items()]
    kept = sum(SAMPLE - few.bit_count() for few, _ in pairs)
    lost = sum((more & ~few).bit_count() for few, more in pairs)
    many = lost > kept / 8  # of a dense weight 4 bits take a twelfth
    nested = finer.keys() == coarser.keys() and not any(few & ~more for few, more in pairs)
    if many or not nested or coarseness(fine) == coarseness(coarse):
        raise SparsityError(
            f"adapter {adapter!r} was made on a base with other zeros (mask {made_on[0]}, this one {here[0]}): load the "
            "pruned model that it was trained on"
        )
    return (
        f"adapter {adapter!r} was made on weights of type {made_on[1]}, here they are {here[1]}: rounding made zeros of "
        f"{lost / max(1, kept):.1%} of the others; all zeros of the {fine} base are zeros of both"
    )


def compare_values(
    adapter: str, made_on: dict[str, list[float]], here: dict[str, list[float]], kinds: tuple[str, str]
) -> None:
    """Raise SparsityError where the surviving weights of two bases with the same zeros differ by more than rounding.

    Each: layer → some values, as sample() gives them; kinds: their types. What was merged for a few steps may differ by
    half a percent, which is more than rounding does to a float; of integers the mean over all layers is looked at.
    """
    kind = max(kinds, key=coarseness)
    pairs = [[*zip(values, here.get(name, ()), strict=False)] for name, values in made_on.items()]
    pairs = pairs if kind in COARSENESS[:4] else [[*chain(*pairs)]]
    sides = [[*zip(*pair, strict=True)] for pair in pairs if pair]
    off = max((math.dist(a, b) / (math.hypot(*a) or 1) for a, b in sides), default=0.0)
    floats = 1e-4 if kinds[0] == kinds[1] else 2.5e-3  # six digits were noted; bfloat16 rounds by 2e-3 at most
    if off > (floats if kind in COARSENESS[:4] else 0.05 if kind in COARSENESS else 0.3):
        raise SparsityError(
            f"adapter {adapter!r} was made on a base with the same zeros and other weights ({off:.2%} apart): load the "
            "pruned model that it was trained on, and not one into which it was merged"
        )


def sample(weight: Tensor) -> tuple[str, list[float]]:
    """Which of SAMPLE fixed positions of a weight are zero, as hex digits, one bit each; the first 8 other values."""
    positions = torch.arange(1, SAMPLE + 1, device=weight.device) * 2654435761 % weight.numel()
    values = weight.detach().reshape(-1)[positions].tolist()
    bits = sum((value == 0) << place for place, value in enumerate(values))
    return f"{bits:0{SAMPLE // 4}x}", [float(f"{value:.6g}") for value in values if value != 0][:8]


def describe(layers: dict[str, nn.Module]) -> tuple[str, str, dict[str, str], dict[str, list[float]]]:
    """What tells a base from others: fingerprint of the mask, coarsest type, layer → sample()'s zeros and values.

    layers: name → a layer with `base_layer` and `base_weight`.
    """
    zeros, values = {}, {}

    def weights():
        for name, layer in layers.items():
            weight = layer.base_weight  # one at a time: it may have been made for this
            zeros[name], values[name] = sample(weight)
            yield name, weight

    kind = max((kind_of(layer.base_layer) for layer in layers.values()), key=coarseness)
    return fingerprint(weights()), kind, zeros, values


def check_base(adapter: str, config, layers: dict[str, nn.Module]) -> str | None:
    """Is the base still the one that the config notes? As compare(); SparsityError also where its weights are others."""
    *here, values = describe(layers)
    noted = (config.mask_fingerprint, config.mask_type, config.mask_samples or {})
    rounded = compare(adapter, noted, tuple(here))
    same = {name: kept for name, kept in (config.mask_values or {}).items() if noted[2].get(name) == here[2].get(name)}
    compare_values(adapter, same, values, (noted[1], here[1]))
    return rounded


def kind_of(layer: nn.Module) -> str:
    """The type of a linear's weight, by name."""
    quantised = type(layer if hasattr(layer, "W_q") else layer.weight).__name__
    return quantised if is_quantised(layer) else str(layer.weight.dtype)
