"""SPP as a PEFT tuner: SppConfig → SppModel → SppLinear. Importing this file registers "SPP", so every PEFT verb works.

Knows which linears of a model get factors, and on which base they were made. Knows nothing about training or about how
zeros came about.
"""

import copy
import hashlib
import re
import warnings
from contextlib import contextmanager
from typing import ClassVar

import torch
from peft import PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, delete_adapter
from peft.utils import register_peft_method
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from ..pruning.blocks import block_linears, block_matrices, decoder_blocks, linears_of
from ..pruning.sparsity import SparsityError, measure
from ..storage import is_dense
from .base import check_base, describe, is_compiled, is_quantised, kind_of, misfit, restored_on_error
from .config import SppConfig, plain
from .layer import SppLayer, SppLinear

BITS = 8  # bytes of a mask's fingerprint
MASK = "spp_mask_fingerprint"  # a tensor beside the factors: what is loaded over others tells its base, too


class SppModel(BaseTuner):
    """Inserts SppLinear layers into a model; used through get_peft_model."""

    prefix = "spp_"
    tuner_layer_cls = SppLayer
    target_module_mapping: ClassVar[dict] = {}

    def __init__(self, model, peft_config, adapter_name, *args, **kwargs) -> None:
        if isinstance(model, PeftModel):
            way = "merge() it or unload() it first; a second one comes by add_adapter()"
            raise ValueError(f"a {type(model).__name__} carries an adapter already: {way}")
        if is_compiled(model):
            raise ValueError("the model is compiled, its names are no plain model's: insert first, then torch.compile")
        if not all(map(is_dense, model.parameters())):
            raise ValueError("the model is in a form for inference (to_sparse): load it again, to train it")
        known = vars(model).get("peft_config") or {}  # of other adapters, among which PEFT puts the new one at once
        before = dict(known)
        if adapter_name in known:  # it would start anew, or lose its settings, of whatever kind it is
            way = "merge() or unload() it first, or give another adapter_name"
            raise ValueError(f"the model carries an adapter {adapter_name!r} already: {way}")
        try:
            super().__init__(model, peft_config, adapter_name, *args, **kwargs)
        except BaseException:
            known.clear()
            known.update(before)
            raise

    def inject_adapter(self, model, adapter_name, *args, **kwargs) -> None:
        """Insert the factors, and note the base's mask, or compare it with the one that the adapter was made on.

        The config is a copy: the user's object may serve other models. What is refused leaves the model as it was.
        """
        given = self.peft_config[adapter_name]
        config = given if given.inference_mode else copy.deepcopy(given)  # what is loaded belongs to one model
        self.peft_config[adapter_name] = config
        if config.task_type in ("TOKEN_CLS", "QUESTION_ANS"):  # PEFT adds the head's name to the user's object, later
            given.modules_to_save = config.modules_to_save = list(dict.fromkeys(given.modules_to_save or ()))
        with restored_on_error(model):
            try:
                _resolve_targets(config, model)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="The following rank_pattern keys")  # refused below
                    super().inject_adapter(model, adapter_name, *args, **kwargs)
                if isinstance(config.target_modules, set):  # "all-linear" has become names, of wrappers too
                    config.target_modules = {name for name in config.target_modules if plain(name) == name}
                layers = {name: layer for name, layer in model.named_modules() if _is_spp(layer)}
                layers = {name: layer for name, layer in layers.items() if adapter_name in layer.scaling}
                _check_names(config, model, layers)
                _know_base(config, adapter_name, layers)
            except BaseException:
                delete_adapter(model, adapter_name, self.prefix, BaseTunerLayer)
                raise

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, parameter_name=None
    ) -> None:
        patterns = peft_config.rank_pattern, peft_config.scaling_pattern
        r, scaling = (
            found.get(get_pattern_key(found.keys(), current_key), default)
            for found, default in zip(patterns, (peft_config.r, peft_config.scaling), strict=True)
        )
        if _is_spp(target):
            target.update_layer(adapter_name, peft_config, r, scaling, inference_mode=peft_config.inference_mode)
            return
        if why := misfit(target, parent):
            raise ValueError(f"{current_key} {why}: leave it out")
        new = SppLinear(target, adapter_name, peft_config, r, scaling)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        setattr(parent, target_name, new)  # PEFT's _replace_module would move factors to an offloaded base's "meta"

    @staticmethod
    def _check_target_module_exists(peft_config, key):
        return peft_config.wants(key)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Factors are float32; autocast_adapter_dtype=False: in the base's own type."""
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        for layer in self.model.modules():
            if not autocast_adapter_dtype and _is_spp(layer) and adapter_name in layer.scaling:
                for factors in (layer.spp_alpha, layer.spp_beta):
                    factors[adapter_name].data = factors[adapter_name].data.to(layer.base_weight.dtype)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args, **kwargs):
        if kwargs.get("adapter_names") is not None:
            raise ValueError("SPP takes no adapter_names: it has one set of active adapters a batch; use set_adapter()")
        yield

    @classmethod
    def _get_adapter_state_dict(cls, model, config, *args, **kwargs) -> dict[str, Tensor]:
        found = super()._get_adapter_state_dict(model, config, *args, **kwargs)
        prefix = "base_model.model." if any(key.startswith("base_model.model.") for key in found) else ""
        known = bytes.fromhex(config.mask_fingerprint or "") + _settings(config) * bool(config.mask_fingerprint)
        return found | {prefix + MASK: torch.tensor(list(known), dtype=torch.uint8)}

    @classmethod
    def _remap_adapter_state_dict_for_load(cls, model, config, adapter_name, state_dict) -> dict[str, Tensor]:
        if any(adapter_name in layer.merged_adapters for layer in model.modules() if _is_spp(layer)):
            raise ValueError(
                f"adapter {adapter_name!r} is merged, so that its old factors would stay: unmerge_adapter() first"
            )
        made_on, here = saved_mask(state_dict), config.mask_fingerprint
        if made_on and here and made_on != here:
            raise SparsityError(
                f"these weights were made on a base with other zeros (mask {made_on}) than adapter {adapter_name!r} (mask "
                f"{here}): load the pruned model that they were trained on"
            )
        known = _saved(state_dict)
        if known[BITS:] not in (b"", _settings(config)):
            raise ValueError(
                f"these weights were made with another form, scaling or scaling_pattern than adapter {adapter_name!r} has: "
                "load them with spp_lite.adapter.load_adapter, which takes the settings of their folder"
            )
        factors = {name: value for name, value in state_dict.items() if not name.endswith(MASK)}
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, factors)


def saved_mask(tensors: dict[str, Tensor]) -> str | None:
    """The mask fingerprint that was saved beside an adapter's factors."""
    found = _saved(tensors)
    return found[:BITS].hex() if found else None


def _saved(tensors: dict[str, Tensor]) -> bytes:
    """What stands in MASK, also where somebody has cast all tensors of a file to bfloat16."""
    return next((bytes(value.to(torch.uint8).tolist()) for name, value in tensors.items() if name.endswith(MASK)), b"")


def _settings(config: SppConfig) -> bytes:
    """Four bytes of what the factors mean, beyond their shapes."""
    patterns = sorted((config.scaling_pattern or {}).items())
    return hashlib.sha256(repr([config.form, float(config.scaling), patterns]).encode()).digest()[:4]


def _is_spp(module: nn.Module) -> bool:
    """By its shape: models that live while this file is imported again hold layers of the class that was."""
    return isinstance(module, BaseTunerLayer) and hasattr(module, "spp_alpha")


def _resolve_targets(config: SppConfig, model: nn.Module) -> None:
    """Of None and "all-linear" leave out, and name, what does not fit; make a regex of None."""
    if config.target_modules not in (None, "all-linear"):
        return
    everywhere = config.target_modules is not None
    linears = linears_of(model) if everywhere else block_linears(model)
    weights = dict(model.named_parameters()) if everywhere else block_matrices(model)
    parents = {name: model.get_submodule(name.rpartition(".")[0]) for name in linears}
    unfit = {name: why for name, linear in linears.items() if (why := misfit(linear, parents[name]))}
    left = [f"{name} {why}" for name, why in unfit.items()]
    left += [f"{name} is no linear" for name, weight in weights.items() if weight.dim() == 3]  # fused experts
    if left:
        kinds = sorted({re.sub(r"\.\d+\.", ".*.", line) for line in left})
        warnings.warn(f"left without factors, {len(left)} in all: {'; '.join(kinds)}", stacklevel=4)
    if unfit and isinstance(config.exclude_modules, str):
        config.exclude_modules = "|".join([f"(?:{config.exclude_modules})", *map(re.escape, unfit)])
    elif unfit:
        config.exclude_modules = {*(config.exclude_modules or ()), *unfit}
    if not everywhere:
        names = {name.removesuffix(".base_layer").rpartition(".")[2] for name in linears if name not in unfit}
        config.target_modules = rf"(.*\.)?{decoder_blocks(model)[0]}\.\d+\.(.*\.)?({'|'.join(sorted(names))})"


def _check_names(config: SppConfig, model: nn.Module, layers: dict[str, SppLinear]) -> None:
    """Raise ValueError for a setting that names what is not there (a typo would be silent) or another adapter's layer."""
    for name, module in model.named_modules():
        if _is_spp(module) and plain(name) != name:
            raise ValueError(f"{plain(name)} has another adapter's factors: leave it out of modules_to_save")
    modules = [f".{plain(name)}" for name, _ in model.named_modules()]
    targets = () if isinstance(config.target_modules, str) else config.target_modules
    saved = set(config.modules_to_save or ()) - {"classifier", "score", "qa_outputs"}  # PEFT adds these by itself
    blocks = {config.block(name) for name in layers}
    absent = {
        "target_modules": [each for each in targets if not any(name.endswith(f".{each}") for name in modules)],
        "modules_to_save": [each for each in saved if not any(name.endswith(f".{each}") for name in modules)],
        "layers_to_transform": [each for each in config.layers_to_transform or () if each not in blocks],
    }
    for setting in ("rank_pattern", "scaling_pattern"):
        patterns = getattr(config, setting).keys()
        absent[setting] = sorted(set(patterns) - {get_pattern_key(patterns, name) for name in layers})
    for setting, names in absent.items():
        if names:
            raise ValueError(f"SppConfig: {setting}: {names} match nothing that is adapted: check the names")


def _know_base(config: SppConfig, adapter_name: str, layers: dict[str, SppLinear]) -> None:
    """Note where the base's zeros are, or compare them with those that the config brings."""
    if any(layer.base_weight.is_meta for layer in layers.values()):
        if config.mask_fingerprint is not None:
            message = f"adapter {adapter_name!r}: the base's weights are not loaded (meta): its mask cannot be checked"
            warnings.warn(message, stacklevel=4)
        return
    if config.mask_fingerprint is None:
        config.mask_fingerprint, config.mask_type, config.mask_samples, config.mask_values = describe(layers)
    elif rounded := check_base(adapter_name, config, layers):
        warnings.warn(rounded, stacklevel=4)
    dense = [name for name, layer in layers.items() if measure(layer.base_weight) == 0]
    for name in dense:
        if is_quantised(base := layers[name].base_layer):
            raise SparsityError(f"{name}: its {kind_of(base)} has no exact zero left: quantise to a type that has one")
    if dense:
        message = (
            f"{len(dense)} of {len(layers)} linears have no zeros, {dense[0]} among them: SPP has nothing to preserve"
        )
        warnings.warn(f"{message} there; prune the model first", stacklevel=4)


for _mapping in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING):
    _mapping.pop(PeftType.SPP, None)  # imported again: the new classes take the old ones' place
register_peft_method(name="spp", config_cls=SppConfig, model_cls=SppModel, is_mixed_compatible=False)
