"""A linear with SPP factors as PEFT wants it: W′ = W ⊙ (1 + s · R(α)β) (Lu et al. 2024, Eq. 5), on one fused linear; our
variant W ⊙ (1 + R(α))(1 + β) is the same, less one: shift both factors by 1, take s = 1.

A zero of W is a zero of W′ for every α and β. Knows nothing about models.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from accelerate.utils import has_offloaded_params
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from ..pruning.sparsity import SparsityError
from .base import is_quantised, read, read_weight
from .kernels import effective_weight, spp_linear_sum, wide_type


class SppLayer(BaseTunerLayer):
    """What PEFT needs to know of a layer with SPP factors."""

    adapter_layer_names = ("spp_alpha", "spp_beta")
    other_param_names = ("r", "scaling", "dropout", "token_fraction", "shift")


class SppLinear(nn.Module, SppLayer):
    """A frozen linear with one or more pairs of factors α (r, in), β (out,), float32; their updates add."""

    _z3_leaf = True  # DeepSpeed's ZeRO-3 gathers the base's weight, whose module is not called, with the factors

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config, r: int, scaling: float) -> None:
        super().__init__()
        self.base_layer, self.quantised = base_layer, is_quantised(base_layer)
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.spp_alpha, self.spp_beta = nn.ParameterDict(), nn.ParameterDict()
        self.r, self.scaling, self.dropout, self.token_fraction, self.shift = {}, {}, {}, {}, {}
        self._disable_adapters, self.merged_adapters = False, []
        self._before_merge: Tensor | None = None  # on the CPU: un-merging restores it bit for bit
        self._active_adapter = adapter_name
        self.train(base_layer.training)
        self.update_layer(adapter_name, config, r, scaling)

    def update_layer(self, name: str, config, r: int, scaling: float, inference_mode: bool = False) -> None:
        """Add the factors of one adapter, so that nothing changes yet: β zero, α Kaiming-uniform (a = √5), or zero, too."""
        self.shift[name] = float(config.form == "direct")
        self.r[name], self.scaling[name] = r, 1.0 if self.shift[name] else float(scaling)
        self.dropout[name], self.token_fraction[name] = config.dropout, config.token_fraction
        self.spp_alpha[name] = nn.Parameter(torch.empty(r, self.in_features))
        self.spp_beta[name] = nn.Parameter(torch.zeros(self.out_features))
        nn.init.kaiming_uniform_(self.spp_alpha[name], a=math.sqrt(5))
        if self.shift[name] and config.init_weights:
            nn.init.zeros_(self.spp_alpha[name])
        if not config.init_weights:
            nn.init.normal_(self.spp_beta[name])
        self._move_adapter_to_device_of_base_layer(name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device=None) -> None:
        """PEFT moves factors to the weight's type too; these stay as wide as they are: float32 keeps small steps."""
        if device is None:
            device = read(self.base_layer, "weight" if hasattr(self.base_layer, "weight") else "W_q").device
        for factors in (self.spp_alpha, self.spp_beta):
            old = factors[adapter_name]
            if old.device != device and not old.is_meta:  # after low_cpu_mem_usage it is filled when it is loaded
                factors[adapter_name] = nn.Parameter(old.data.to(device), requires_grad=old.requires_grad)

    @property
    def base_weight(self) -> Tensor:
        """The frozen W (out, in), as it was before merging; quantised bases are dequantised, offloaded ones loaded."""
        if self._before_merge is not None:
            return self._before_merge.to(read(self.base_layer, "weight").device)
        return read_weight(self.base_layer)

    def factors(self, names: list[str]) -> list[tuple[Tensor, Tensor, float]]:
        """(α, β, s) of the named adapters that this layer has; (1 + α, 1 + β, 1) in the direct form, less 1 (start())."""
        names = [name for name in names if name in self.scaling]
        pairs = [[read(factors, name) for factors in (self.spp_alpha, self.spp_beta)] for name in names]
        for name, pair in zip(names, pairs, strict=True):
            if self.shift[name]:
                pair[:] = [factor.to(wide_type(factor.dtype)) + 1 for factor in pair]
        return [(*pair, self.scaling[name]) for name, pair in zip(names, pairs, strict=True)]

    def start(self, names: list[str]) -> float:
        """What the products of factors() are added to, so that their sum is 1 + the updates."""
        return 1 - sum(self.shift.get(name, 0.0) for name in names)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """W ⊙ s · R(α)β of one adapter, (out, in), float32; the same while merged."""
        weight = self.base_weight.float()
        return effective_weight(weight, self.factors([adapter]), self.start([adapter])) - weight

    def forward(self, x: Tensor) -> Tensor:
        """y = x W′ᵀ + b. x: (…, in). Returns (…, out)."""
        names = [name for name in self.active_adapters if name in self.scaling]
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x)
        if self.training and any(self.dropout[name] for name in names):
            return self._residual_form(x, names)
        fraction = max(self.token_fraction[name] for name in names)
        return self._fused(x, names, read(self.base_layer, "bias"), fraction, self.start(names))

    def _residual_form(self, x: Tensor, names: list[str]) -> Tensor:
        """y = x Wᵀ + b + s · dropout(x) [W ⊙ R(α)β]ᵀ (Eq. 5 as written)."""
        y = self.base_layer(x)
        for name in names:
            x_kept, start = F.dropout(x, self.dropout[name]), self.start([name]) - 1
            y = y + self._fused(x_kept, [name], None, self.token_fraction[name], start)
        return y

    def _fused(self, x: Tensor, names: list[str], bias: Tensor | None, fraction: float, start: float) -> Tensor:
        """spp_linear in autocast's type, else in the weight's; a weight that must be made first is made twice, not kept."""
        made = self.quantised or has_offloaded_params(self.base_layer)
        weight = (lambda: self.base_weight) if made else self.base_layer.weight
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype if made else weight.dtype
        with torch.autocast(kind, enabled=False):
            bias = None if bias is None else bias.to(dtype)
            return spp_linear_sum(x.to(dtype), weight, bias, self.factors(names), fraction, start)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write W′, the very tensor that forward uses, into the weight; W is kept on the CPU for unmerge()."""
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.scaling]
        if not names:
            return
        if self.quantised:
            raise SparsityError(
                f"cannot merge into a {type(self.base_layer).__name__}: load the pruned model unquantised, then merge"
            )
        weight = self.base_layer.weight
        before = weight.detach().cpu().clone() if self._before_merge is None else self._before_merge
        every = self.merged_adapters + names
        merged = effective_weight(before.to(weight.device), self.factors(every), self.start(every))
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"NaNs detected in the merged weights. The adapter {', '.join(names)} seems to be broken")
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

    def __repr__(self) -> str:
        return "spp." + super().__repr__()
