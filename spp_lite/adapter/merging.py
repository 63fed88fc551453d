"""Merge with proof: fold an adapter into its pruned model and show, layer by layer, that every zero is still one.

Works on any PEFT adapter whose layers can merge: SPP passes, LoRA is caught refilling. Also the exact export to HiRA.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from peft import HiraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from ..pruning.sparsity import SparsityError, find_pattern, measure
from .kernels import row_blocks
from .tuner import SppLinear, is_quantised

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class MergeReport:
    """table: one row a layer: layer, pattern, before, after (share of zeros), densification (share of the zeros that
    the update refills), change (‖W′ − W‖ / ‖W‖). logits_error: largest difference of the logits of the merged and the
    unmerged model on probe tokens, relative to their largest; tolerance: what the weights' type allows."""

    table: pd.DataFrame
    logits_error: float
    tolerance: float

    @property
    def densification(self) -> float:
        """The largest over the layers: 0 for SPP."""
        return float(self.table["densification"].max())


def merge(peft_model: PeftModel) -> tuple[nn.Module, MergeReport]:
    """Merge the active adapters and return the plain model with the proof that no zero was filled.

    Checks for every layer: zeros still zero, n:m pattern intact, weights finite; and the logits of merged and unmerged
    model on probe tokens. Raises SparsityError, and leaves the model as it was, when a check fails.
    """
    layers = _tuner_layers(peft_model)
    before = {name: layer.get_base_layer().weight.detach().cpu().clone() for name, layer in layers.items()}
    training = peft_model.training
    peft_model.eval()
    probe = _probe(peft_model)
    try:
        expected = _logits(peft_model, probe)
        peft_model.merge_adapter()
        rows = [_prove(name, before[name], layer.get_base_layer().weight) for name, layer in layers.items()]
        error, tolerance = _compare(expected, _logits(peft_model, probe), next(iter(before.values())).dtype)
    except BaseException:
        _restore(layers, before)
        peft_model.train(training)
        raise
    model = peft_model.base_model.unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model.eval(), MergeReport(pd.DataFrame(rows), error, tolerance)


def _tuner_layers(peft_model) -> dict[str, BaseTunerLayer]:
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in peft_model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    if not layers:
        raise SparsityError("the model carries no adapter: there is nothing to merge")
    for name, layer in layers.items():
        if is_quantised(layer.get_base_layer()):
            raise SparsityError(f"{name} is quantised: load the pruned model unquantised, then merge")
        if layer.merged:
            raise SparsityError(f"{name} is merged already: call unmerge_adapter() first, so that it can be checked")
    return layers


def _prove(name: str, before: Tensor, weight: Tensor) -> dict:
    """One row of the report; raises SparsityError when a zero was filled or a weight is not finite."""
    after = weight.detach().cpu()
    if not torch.isfinite(after).all():
        raise SparsityError(
            f"{name}: the merged weight is not finite in {after.dtype}: train with a smaller learning rate"
        )
    pruned = before == 0
    refilled = int(torch.count_nonzero(after[pruned]))
    share = refilled / max(1, int(pruned.sum()))
    if refilled:
        raise SparsityError(
            f"{name}: merging fills {refilled} of {int(pruned.sum())} zeros ({share:.1%}): use an adapter that keeps "
            "them (SPP), or mask the merged weight again"
        )
    pattern = find_pattern(before)
    if pattern is not None:
        pattern.check(after, name)
    change = float((after.double() - before.double()).norm() / before.double().norm().clamp_min(1e-30))
    return {
        "layer": name, "pattern": str(pattern or "unstructured"), "before": measure(before), "after": measure(after),
        "densification": share, "change": change,
    }  # fmt: skip


def _compare(expected: Tensor, found: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    tolerance = TOLERANCE[dtype]
    if not error <= tolerance:
        raise SparsityError(
            f"the merged model's logits differ by {error:.2g} of the largest, more than {tolerance:g} for {dtype}: "
            "the base changed, or the adapter does more than its weights say"
        )
    return error, tolerance


def _restore(layers: dict[str, BaseTunerLayer], before: dict[str, Tensor]) -> None:
    for name, layer in layers.items():
        if layer.merged:
            layer.unmerge()
        layer.get_base_layer().weight.data.copy_(before[name])


def _probe(model) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (2, 16), generator=draw).to(model.device)


@torch.no_grad()
def _logits(model, probe: Tensor) -> Tensor:
    return model(input_ids=probe).logits.double().cpu()


def to_hira(peft_model: PeftModel, folder: str | Path, adapter_name: str = "default") -> Path:
    """Write an SPP adapter as a HiRA adapter that stock PEFT loads without spp_lite; exact.

    W ⊙ s R(α)β = W ⊙ (B A) with A = α and B (out, r) one-hot by block, B[i, block(i)] = s · β_i (HiRA has no scale).
    Raises ValueError for another kind of adapter.
    """
    layers = _tuner_layers(peft_model)
    for name, layer in layers.items():
        if not isinstance(layer, SppLinear) or adapter_name not in layer.spp_alpha:
            raise ValueError(f"{name} carries no SPP adapter {adapter_name!r}: only SPP can be written as HiRA")
    rank = max(layer.r[adapter_name] for layer in layers.values())  # fewer blocks are padded with zeros
    tensors = {}
    for name, layer in layers.items():
        alpha, beta = layer.spp_alpha[adapter_name].detach().cpu(), layer.spp_beta[adapter_name].detach().cpu()
        columns = torch.zeros(len(beta), rank)
        columns[torch.arange(len(beta)), row_blocks(len(beta), len(alpha))] = layer.scaling[adapter_name] * beta
        tensors[f"base_model.model.{name}.hira_A"] = nn.functional.pad(alpha, (0, 0, 0, rank - len(alpha)))
        tensors[f"base_model.model.{name}.hira_B"] = columns
    own = peft_model.peft_config[adapter_name]
    config = HiraConfig(
        r=rank, target_modules=sorted(layers), task_type=own.task_type, inference_mode=True,
        base_model_name_or_path=own.base_model_name_or_path,
    )  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        save_file(tensors, Path(scratch) / "adapter_model.safetensors")
        config.save_pretrained(scratch)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            os.replace(Path(scratch) / name, folder / name)
    return folder
