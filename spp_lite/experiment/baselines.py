"""What a fair comparison needs beside SPP, behind one interface: recover(model, method, train).

LoRA and HiRA are PEFT's own. Knows nothing about data or the training loop: `train` is a function that trains the
trainable parameters of the model it is given.
"""

from collections.abc import Callable

import torch.nn.functional as F
from peft import HiraConfig, LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from ..adapter.base import norm_names, norm_weights
from ..adapter.config import FORMS
from ..adapter.merging import merge
from ..adapter.tuner import SppConfig
from ..pruning.blocks import block_linears

METHODS = {
    "none": "pruned, not retrained",
    "spp": "SPP: W ⊙ (1 + s R(α)β)",
    "direct": "our variant of SPP: W ⊙ (1 + R(α))(1 + β)",
    "lora": "LoRA, merged: refills the zeros; a dense reference",
    "lora*": "LoRA, merged, then masked again",
    "masked-lora": "masked LoRA: W + M ⊙ sBA",
    "hira": "HiRA: W ⊙ (1 + BA)",
    "masked-full": "full fine-tuning of the surviving weights",
}


class MaskedLoraLinear(LoraLinear):
    """LoRA whose update is masked by the zeros of its base: y = x (W + M ⊙ sBA)ᵀ; it merges without refilling."""

    def get_delta_weight(self, adapter: str) -> Tensor:
        """M ⊙ sBA, (out, in)."""
        return super().get_delta_weight(adapter) * (self.get_base_layer().weight != 0)

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """x: (…, in) → (…, out)."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        base = self.get_base_layer()
        update = sum(self.get_delta_weight(name) for name in self.active_adapters)
        return F.linear(x, base.weight + update.to(base.weight.dtype), base.bias)


def attach(model: nn.Module, method: str, *, r: int | None = None, norms: bool = False) -> nn.Module:
    """Make a pruned model trainable by one method: only that method's parameters require gradients.

    norms: the norms' weights, too. r: α's row blocks for SPP (16), the rank for LoRA (8) and HiRA (16). Raises ValueError for unknown methods.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    targets = sorted(block_linears(model))
    more = {"modules_to_save": norm_names(model)} if norms else {}
    if method in FORMS:
        return get_peft_model(model, SppConfig(r=16 if r is None else r, form=method, **more))
    if method == "hira":
        return get_peft_model(model, HiraConfig(r=16 if r is None else r, target_modules=targets, **more))
    if method in ("lora", "lora*", "masked-lora"):
        rank = 8 if r is None else r
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, **more)
        if method == "masked-lora":
            config._register_custom_module({nn.Linear: MaskedLoraLinear})
        return get_peft_model(model, config)
    model.requires_grad_(False)
    if method == "masked-full":
        for weight in [linear.weight for linear in block_linears(model).values()] + norm_weights(model) * norms:
            weight.requires_grad_(True)
    return model


def recover(
    model: nn.Module, method: str, train: Callable[[nn.Module], object], *, r: int | None = None, norms: bool = False
) -> nn.Module:  # fmt: skip
    """Retrain a pruned model by one method and return an ordinary model, in eval mode.

    Every method but "lora" keeps each zero. train: called with the trainable model (not for "none"). r, norms: attach().
    """
    masks = {name: linear.weight != 0 for name, linear in block_linears(model).items()}
    trainable = attach(model, method, r=r, norms=norms)
    if method == "masked-full":
        with_masked_gradients(model, masks, train)
    elif method != "none":
        train(trainable)
    if method in (*FORMS, "masked-lora", "hira"):
        model, _ = merge(trainable)
    elif method in ("lora", "lora*"):
        model = trainable.merge_and_unload()
    if method == "lora*":
        for name, linear in block_linears(model).items():
            linear.weight.data.mul_(masks[name])
    return model.eval()


def with_masked_gradients(model: nn.Module, masks: dict[str, Tensor], train: Callable[[nn.Module], object]) -> None:
    """Train with the gradients of zeros masked: their moments, updates and decay are then exactly 0 in Adam and SGD."""
    handles = [
        linear.weight.register_hook(lambda gradient, keep=masks[name]: gradient * keep)
        for name, linear in block_linears(model).items()
    ]
    try:
        train(model)
    finally:
        for handle in handles:
            handle.remove()
