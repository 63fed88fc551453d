"""Merge with proof: fold an adapter into its pruned model and show, layer by layer, that every zero is still one.

Works on any PEFT adapter whose layers can merge: SPP passes, LoRA is caught refilling. Also the exact export to HiRA.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate.utils import extract_model_from_parallel, has_offloaded_params
from peft import HiraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import save_file
from torch import Tensor, nn

from ..arguments import require_weights
from ..models import require_writable
from ..pruning.sparsity import SparsityError, find_pattern, measure
from ..writing import added, alone
from .base import check_base, is_quantised, read, require_outermost, restored_on_error
from .config import plain
from .kernels import row_blocks

CONFIG = "adapter_config.json"
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

    Checks on the model that is returned: in every layer that the adapter changes, or replaces (modules_to_save), zeros
    are still zero, n:m patterns intact, weights finite; its logits on probe tokens are the adapted model's, heads tied
    as its config says. Raises SparsityError, and leaves the model as it was, when a check fails.

    >>> from peft import get_peft_model
    >>> from spp_lite import SppConfig, load, merge, prune
    >>> model, _ = load("tiny")
    >>> _ = prune(model, sparsity="2:4", method="magnitude", progress=False)
    >>> merged, proof = merge(get_peft_model(model, SppConfig()))
    >>> type(proof).__name__, proof.table["pattern"].unique().tolist(), proof.table["after"].unique().tolist()
    ('MergeReport', ['2:4'], [0.5])
    """
    before, layers = _weights_before(peft_model), _tuner_layers(peft_model)
    model, training = peft_model.base_model.model, peft_model.training
    config = getattr(model, "config", None)
    tied = getattr(config, "tie_word_embeddings", None)
    extract_model_from_parallel(peft_model.eval(), keep_fp32_wrapper=False)  # Trainer(bf16=True) rounds its logits
    with restored_on_error(peft_model):
        try:
            expected = _logits(peft_model)
            for name, module in list(model.named_modules()):  # PEFT cannot unwrap what has no weight of its own
                if isinstance(module, AuxiliaryTrainingWrapper):
                    parent, _, leaf = name.rpartition(".")
                    whole = module.unload_and_optionally_merge_module(True, False, None)
                    setattr(model.get_submodule(parent), leaf, whole)
            peft_model.base_model.merge_and_unload()
            rows = [_prove(name, weight, model.get_submodule(name).weight) for name, weight in before.items()]
            if hasattr(model, "tie_weights"):  # as whoever loads it will
                model.tie_weights()
            error, tolerance = _compare(expected, _logits(model), {weight.dtype for weight in before.values()})
        except BaseException:
            for name, layer in layers.items():
                if layer.merged:
                    layer.unmerge()
                layer.get_base_layer().weight.data.copy_(before[name])
            if tied is not None:
                config.tie_word_embeddings = tied
            peft_model.train(training)
            raise
    return model.eval(), MergeReport(pd.DataFrame(rows), error, tolerance)


def _tuner_layers(peft_model) -> dict[str, BaseTunerLayer]:
    """Every adapted layer, by its name in the plain model."""
    require_outermost(peft_model)
    named = peft_model.named_modules() if isinstance(peft_model, PeftModel) else ()
    layers = {plain(name): module for name, module in named if isinstance(module, BaseTunerLayer)}
    if not layers:
        other = not isinstance(peft_model, PeftModel) and any(
            isinstance(m, BaseTunerLayer) for m in peft_model.modules()
        )
        way = "insert it with peft.get_peft_model, not with model.add_adapter" if other else "there is nothing to merge"
        raise SparsityError(f"the model {'is no PeftModel' if other else 'carries no adapter'}: {way}")
    return layers


def _weights_before(peft_model) -> dict[str, Tensor]:
    """Copies of the weights that merging changes, by name; raises SparsityError when it cannot be done or proved."""
    require_weights(peft_model)
    layers, active = _tuner_layers(peft_model), set()
    embeddings = {id(module.weight) for module in peft_model.modules() if isinstance(module, nn.Embedding)}
    for name, layer in layers.items():
        if wrong := _unprovable(layer, embeddings):
            raise SparsityError(f"{name} {wrong}")
        for part, factor in layer.named_parameters():
            names = set() if part.startswith("base_layer.") else set(part.split(".")) & set(layer.active_adapters)
            if names and not torch.isfinite(factor).all():
                raise SparsityError(f"{name}: {part} is not finite: train with a smaller learning rate")
            active |= names
    for adapter in sorted(active):
        config = peft_model.peft_config[adapter]
        if getattr(config, "mask_fingerprint", None):  # of SPP: the base may have been trained, or loaded anew
            check_base(adapter, config, {name: layer for name, layer in layers.items() if adapter in layer.scaling})
    if not active:
        raise SparsityError(f"none of the adapters {', '.join(peft_model.peft_config)} is active: set_adapter() first")
    weights = {name: layer.get_base_layer().weight for name, layer in layers.items()}
    for name, module in peft_model.named_modules():  # what an adapter saves whole has to keep the zeros, too
        if isinstance(module, nn.Linear) and ".original_module" in name and measure(module.weight) > 0:
            weights[plain(name)] = module.weight
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def _unprovable(layer: BaseTunerLayer, embeddings: set[int]) -> str:
    """Why a layer cannot be merged with proof, in words; "" where it can. embeddings: ids of the model's weights of them."""
    base = layer.get_base_layer()
    if is_quantised(base):
        return "is quantised: load the pruned model unquantised, then merge"
    if not isinstance(getattr(base, "weight", None), Tensor):
        what = f"adapts a parameter of a {type(base).__name__} (target_parameters)"
        return f"{what}, of which a merge cannot be proved: adapt linears, by target_modules"
    if has_offloaded_params(base) or base.weight.is_meta:
        return "is offloaded: load the pruned model without device_map, then merge"
    if layer.merged:
        return "is merged already: call unmerge_adapter() first, so that it can be checked"
    if layer.disable_adapters:
        return "has its adapters disabled: call base_model.enable_adapter_layers() first"
    if isinstance(base, nn.Linear) and id(base.weight) in embeddings:
        return "shares its weight with the embeddings, which a merge would change, too: adapt other linears"
    return ""


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


def _compare(expected: Tensor, found: Tensor, dtypes: set[torch.dtype]) -> tuple[float, float]:
    if not torch.isfinite(expected).all():
        raise SparsityError("the adapted model's logits are not finite: nothing can be proved; train it anew")
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    tolerance = max(TOLERANCE.get(dtype, 0) for dtype in dtypes)
    if not error <= tolerance:
        raise SparsityError(
            f"the merged model's logits differ by {error:.2g} of the largest, more than {tolerance:g} for "
            f"{', '.join(map(str, dtypes))}: the base changed, or the adapter does more than its weights say"
        )
    return error, tolerance


@torch.no_grad()
def _logits(model) -> Tensor:
    """(1, 32, vocabulary), float64, on probe tokens that no model takes for an image's or for padding."""
    try:
        text = model.config.get_text_config()
        settings = {**model.config.to_dict(), **text.to_dict()}
        special = {v for k, v in settings.items() if k.endswith(("token_id", "token_index")) and isinstance(v, int)}
        tokens = torch.tensor([token for token in range(text.vocab_size) if token not in special])
        draw = torch.Generator().manual_seed(0)
        probe = tokens[torch.randint(len(tokens), (1, 32), generator=draw)].to(model.device)
        more = {"decoder_input_ids": probe} if model.config.is_encoder_decoder else {}
        return model(input_ids=probe, **more)[0].double().cpu()
    except Exception as error:  # of any kind: what models want differs
        raise ValueError(
            f"{type(model).__name__} cannot be run on token ids alone, so a merge cannot be proved "
            f"({type(error).__name__}: {error})"
        ) from error


def to_hira(peft_model: PeftModel, folder: str | Path, adapter_name: str = "default") -> Path:
    """Write an SPP adapter as a HiRA adapter that stock PEFT loads without spp_lite; exact, modules_to_save included.

    W ⊙ s R(α)β = W ⊙ (B A) with A = α and B (out, r) one-hot by block, B[i, block(i)] = s · β_i (HiRA has no scale). The
    direct form takes rank r + 1: R(α)(1 + β) + β = B A with A = [α; 1], B[i, block(i)] = 1 + β_i, B[i, r] = β_i.
    Raises ValueError for another kind of adapter.

    >>> import json
    >>> from peft import get_peft_model
    >>> from spp_lite import SppConfig, load, prune, to_hira
    >>> model, _ = load("tiny")
    >>> _ = prune(model, sparsity="50%", method="magnitude", progress=False)
    >>> folder = to_hira(get_peft_model(model, SppConfig()), "hira")
    >>> json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    'HIRA'
    """
    require_weights(peft_model)
    layers = {name: layer for name, layer in _tuner_layers(peft_model).items() if hasattr(layer, "spp_alpha")}
    layers = {name: layer for name, layer in layers.items() if adapter_name in layer.scaling}
    if not layers:
        raise ValueError(f"the model carries no SPP adapter {adapter_name!r}: only SPP can be written as HiRA")
    state = get_peft_model_state_dict(peft_model, adapter_name=adapter_name)
    tensors = {key: value.cpu().clone() for key, value in state.items() if "spp_" not in key.rpartition(".")[2]}
    direct = peft_model.peft_config[adapter_name].form == "direct"
    rank = max(layer.r[adapter_name] for layer in layers.values()) + direct  # fewer blocks are padded with zeros
    for name, layer in layers.items():
        key = f"base_model.model.{name}.hira_"
        tensors[f"{key}A"], tensors[f"{key}B"] = _as_hira(layer, adapter_name, rank, direct)
    if broken := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"{broken[0]} would not be finite: export an earlier checkpoint")
    own = peft_model.peft_config[adapter_name]
    config = HiraConfig(
        r=rank, target_modules=sorted(layers), task_type=own.task_type, inference_mode=True,
        base_model_name_or_path=own.base_model_name_or_path, modules_to_save=own.modules_to_save,
    )  # fmt: skip
    folder = require_writable(folder)
    there = json.loads((folder / CONFIG).read_text()).get("peft_type") if (folder / CONFIG).is_file() else "HIRA"
    if (folder / "config.json").exists() or there != "HIRA":
        raise ValueError(f"{folder} holds a model or another adapter, which would be lost: name another folder")
    with alone(folder), added(folder, last=CONFIG) as new:
        config.save_pretrained(new)
        save_file(tensors, new / "adapter_model.safetensors")
    return folder


def _as_hira(layer: nn.Module, adapter_name: str, rank: int, direct: bool) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) of one layer."""
    factors = (read(factors, adapter_name) for factors in (layer.spp_alpha, layer.spp_beta))
    rows, beta = (factor.detach().float().cpu() for factor in factors)
    columns, r = torch.zeros(len(beta), rank), len(rows)
    columns[torch.arange(len(beta)), row_blocks(len(beta), r)] = layer.scaling[adapter_name] * (beta + direct)
    if direct:
        rows, columns[:, r] = torch.cat([rows, torch.ones(1, rows.shape[1])]), beta
    return nn.functional.pad(rows, (0, 0, 0, rank - len(rows))), columns
