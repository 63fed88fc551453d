"""The SPP adapter as a PEFT tuner: SppConfig → SppModel → SppLinear, on one fused linear.

W′ = W ⊙ (1 + s · R(α)β): a zero of W is a zero of W′ for every α and β (Lu et al. 2024, Eq. 5). Importing this file
registers "SPP" with PEFT, so every PEFT verb works on it. Knows nothing about training or about how zeros came about.
"""

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import register_peft_method
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from ..pruning.calibration import block_linears, decoder_blocks
from ..pruning.sparsity import SparsityError, fingerprint, measure
from .kernels import effective_weight, row_blocks, spp_linear

if "SPP" in PeftType.__members__:
    raise ImportError("this version of peft has an SPP of its own: use a spp_lite made for it")
_member = str.__new__(PeftType, "SPP")  # an enum cannot be extended by its own means; plain strings break PEFT's status
_member._name_, _member._value_ = "SPP", "SPP"
PeftType._member_map_["SPP"] = PeftType._value2member_map_["SPP"] = _member
PeftType._member_names_.append("SPP")
type.__setattr__(PeftType, "SPP", _member)


@dataclass
class SppConfig(PeftConfig):
    """Settings of an SPP adapter.

    r: row blocks of α (any r ≥ 1). scaling: s. dropout: on the input of the SPP branch; above 0 training takes the
    residual form, about 5/3 of the matrix work. token_fraction: below 1, dα and dβ are estimated from that share of the
    tokens (unbiased). target_modules: None for every linear of the decoder blocks, else names, a regex or "all-linear".
    rank_pattern, scaling_pattern: name pattern → r, s. mask_fingerprint: filled in; compared when an adapter is loaded.
    """

    r: int = 16
    scaling: float = 2.0
    dropout: float = 0.0
    token_fraction: float = 1.0
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    scaling_pattern: dict[str, float] = field(default_factory=dict)
    init_weights: bool = True
    mask_fingerprint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.SPP
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        for name, r in {"r": self.r, **self.rank_pattern}.items():
            if not isinstance(r, int) or r < 1:
                raise ValueError(f"SppConfig: r={r!r} for {name!r}: give a whole number of row blocks, at least 1")
        if not 0 <= self.dropout < 1 or not 0 < self.token_fraction <= 1:
            raise ValueError(
                f"SppConfig: dropout={self.dropout} must be in [0, 1), token_fraction={self.token_fraction} in (0, 1]"
            )


class SppLayer(BaseTunerLayer):
    """What PEFT needs to know of a layer with SPP factors."""

    adapter_layer_names = ("spp_alpha", "spp_beta")
    other_param_names = ("r", "scaling", "dropout", "token_fraction")


class SppLinear(nn.Module, SppLayer):
    """A frozen linear with one or more pairs of factors α (r, in), β (out,), float32; their updates add."""

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config: SppConfig, r: int, scaling: float) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.spp_alpha, self.spp_beta = nn.ParameterDict(), nn.ParameterDict()
        self.r, self.scaling, self.dropout, self.token_fraction = {}, {}, {}, {}
        self._disable_adapters, self.merged_adapters = False, []
        self._before_merge: Tensor | None = None  # on the CPU: un-merging restores it bit for bit
        self._active_adapter = adapter_name
        self.train(base_layer.training)
        self.update_layer(adapter_name, config, r, scaling)

    def update_layer(self, name: str, config: SppConfig, r: int, scaling: float, inference_mode: bool = False) -> None:
        """Add the factors of one adapter: α Kaiming-uniform (a = √5), β zero, so that nothing changes yet."""
        self.r[name], self.scaling[name] = r, float(scaling)
        self.dropout[name], self.token_fraction[name] = config.dropout, config.token_fraction
        self.spp_alpha[name] = nn.Parameter(torch.empty(r, self.in_features))
        self.spp_beta[name] = nn.Parameter(torch.zeros(self.out_features))
        nn.init.kaiming_uniform_(self.spp_alpha[name], a=math.sqrt(5))
        if not config.init_weights:
            nn.init.normal_(self.spp_beta[name])
        self._move_adapter_to_device_of_base_layer(name)
        for factors in (self.spp_alpha, self.spp_beta):  # PEFT moves them to the weight's type; they stay float32
            factors[name].data = factors[name].data.float()
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    @property
    def base_weight(self) -> Tensor:
        """The frozen W (out, in); quantised bases are dequantised."""
        quantised = is_quantised(self.base_layer)
        return dequantize_module_weight(self.base_layer) if quantised else self.base_layer.weight

    def factors(self, names: list[str]) -> list[tuple[Tensor, Tensor, float]]:
        """(α, β, s) of the named adapters that this layer has."""
        return [(self.spp_alpha[n], self.spp_beta[n], self.scaling[n]) for n in names if n in self.spp_alpha]

    def get_delta_weight(self, adapter: str) -> Tensor:
        """W ⊙ s · R(α)β of one adapter, (out, in), float32."""
        return effective_weight(self.base_weight.float(), self.factors([adapter])) - self.base_weight.float()

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """y = x W′ᵀ + b. x: (…, in). Returns (…, out)."""
        names = [name for name in self.active_adapters if name in self.spp_alpha]
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        weight, bias = self.base_weight, self.base_layer.bias
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else weight.dtype
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            if self.training and any(self.dropout[name] for name in names):
                return self._residual_form(x, weight, bias, names)
            if len(names) > 1:
                return F.linear(x, effective_weight(weight, self.factors(names)).to(dtype), bias)
            return spp_linear(x, weight, bias, *self.factors(names)[0], self.token_fraction[names[0]])

    def _residual_form(self, x: Tensor, weight: Tensor, bias: Tensor | None, names: list[str]) -> Tensor:
        """y = x Wᵀ + s · dropout(x) [W ⊙ R(α)β]ᵀ (Eq. 5 as written)."""
        y = F.linear(x, weight.to(x.dtype), bias)
        for name, (alpha, beta, scaling) in zip(names, self.factors(names), strict=True):
            block = row_blocks(self.out_features, len(alpha), alpha.device)
            update = weight.float() * (scaling * beta[:, None] * alpha[block])
            y = y + F.linear(F.dropout(x, self.dropout[name]), update.to(x.dtype))
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write W′, the very tensor that forward uses, into the weight; W is kept on the CPU for unmerge()."""
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.spp_alpha]
        if not names:
            return
        if is_quantised(self.base_layer):
            raise SparsityError(
                f"cannot merge into a {type(self.base_layer).__name__}: load the pruned model unquantised, then merge"
            )
        weight = self.base_layer.weight
        before = weight.detach().cpu().clone() if self._before_merge is None else self._before_merge
        merged = effective_weight(before.to(weight.device), self.factors(self.merged_adapters + names))
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"the merged weight is not finite: adapter {', '.join(names)} seems to be broken")
        self._before_merge = before
        weight.data.copy_(merged)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Restore W bit for bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self.base_layer.weight.data.copy_(self._before_merge)
        self._before_merge, self.merged_adapters = None, []

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """False: the update is W ⊙ (…), which no low-rank sum equals."""
        return False

    def __repr__(self) -> str:
        return "spp." + super().__repr__()


def is_quantised(layer: nn.Module) -> bool:
    """Does this linear keep its weight in a quantised form that PEFT can dequantise (bitsandbytes, HQQ)?"""
    return type(layer.weight).__name__ in ("Params4bit", "Int8Params") or hasattr(layer, "W_q")


class SppModel(BaseTuner):
    """Inserts SppLinear layers into a model; used through get_peft_model."""

    prefix = "spp_"
    tuner_layer_cls = SppLayer
    target_module_mapping: ClassVar[dict] = {}

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, parameter_name=None
    ) -> None:
        patterns = peft_config.rank_pattern, peft_config.scaling_pattern
        r, scaling = (
            found.get(get_pattern_key(found.keys(), current_key), default)
            for found, default in zip(patterns, (peft_config.r, peft_config.scaling), strict=True)
        )
        if isinstance(target, SppLayer):
            target.update_layer(adapter_name, peft_config, r, scaling, inference_mode=peft_config.inference_mode)
            return
        if not isinstance(target, nn.Linear):
            raise ValueError(f"{current_key} is a {type(target).__name__}: SPP works on linears, leave it out")
        new = SppLinear(target, adapter_name, peft_config, r, scaling)
        if is_quantised(target) and measure(new.base_weight) == 0:
            raise SparsityError(
                f"{current_key}: its {type(target).__name__} has no exact zero left: quantise with a type that has one"
            )
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def inject_adapter(self, model, adapter_name, *args, **kwargs) -> None:
        """Insert the factors; remember the base's mask, or compare it with the one that the adapter was made on."""
        config = self.peft_config[adapter_name]
        if config.target_modules is None:
            names = {name.removesuffix(".base_layer").rpartition(".")[2] for name in block_linears(model)}
            pattern = rf"(.*\.)?{decoder_blocks(model)[0]}\.\d+\.(.*\.)?({'|'.join(sorted(names))})"
            config = replace(config, target_modules=pattern)  # a copy: the user's object may serve other models
            self.peft_config[adapter_name] = config
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SppLinear)}
        layers = {name: layer for name, layer in layers.items() if adapter_name in layer.spp_alpha}
        if any(layer.base_layer.weight.is_meta for layer in layers.values()):
            return
        found = fingerprint({n: y._before_merge if y.merged else y.base_weight for n, y in layers.items()})
        if config.mask_fingerprint not in (None, found):
            raise SparsityError(
                f"adapter {adapter_name!r} was made on a base with other zeros (mask {config.mask_fingerprint}, "
                f"this one {found}): load the pruned model that it was trained on"
            )
        self.peft_config[adapter_name] = replace(config, mask_fingerprint=found)
        dense = [name for name, layer in layers.items() if measure(layer.base_weight) == 0]
        if dense:
            warnings.warn(
                f"{len(dense)} of {len(layers)} linears have no zeros, {dense[0]} among them: SPP has nothing to "
                "preserve there; prune the model first",
                stacklevel=2,
            )


register_peft_method(name="spp", config_cls=SppConfig, model_cls=SppModel, is_mixed_compatible=False)
