"""Adapter folders: taken whole, or refused in one sentence that says what is wrong with them.

Works for every kind of PEFT adapter. Knows nothing about how one was trained.
"""

import json
import warnings
from pathlib import Path

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..arguments import require_weights
from ..pruning.sparsity import SparsityError
from .base import restored_on_error
from .tuner import MASK, saved_mask

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SETTINGS = ("form", "r", "scaling", "rank_pattern", "scaling_pattern", "lora_alpha", "alpha_pattern", "use_rslora")


def load_adapter(model: nn.Module, folder: str | Path, *, trainable: bool = False) -> peft.PeftModel:
    """Insert the adapter of a folder into the pruned model that it was made on: SPP, or any other kind that PEFT knows.

    trainable: to go on training it; else it is frozen, and the model in eval mode. Raises ValueError (SparsityError
    where the zeros differ) that names the folder, what is wrong and the way out; the model is then as it was.

    >>> from peft import get_peft_model
    >>> from spp_lite import SppConfig, load, prune
    >>> from spp_lite.adapter import check_adapter_weights, load_adapter, unsaved
    >>> model, _ = load("tiny")
    >>> _ = prune(model, sparsity="50%", method="magnitude", progress=False)
    >>> adapted = get_peft_model(model, SppConfig())
    >>> adapted.save_pretrained("adapter")
    >>> check_adapter_weights(adapted, "adapter")
    >>> unsaved(adapted)  # nothing is trained that the folder lacks
    []
    >>> adapted = load_adapter(adapted.unload(), "adapter", trainable=True)
    >>> load_adapter(load("tiny")[0], "adapter")
    Traceback (most recent call last):
    spp_lite.pruning.sparsity.SparsityError: ...
    """
    require_weights(model)
    folder = Path(folder).expanduser()
    config, tensors = _read_config(folder), _read_tensors(folder)
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError(f"the model carries an adapter already: load {folder} into the plain pruned model")
    config.inference_mode = not trainable
    with restored_on_error(model):
        try:
            adapted = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, peft.PeftModel)(model, config)
        except SparsityError as error:
            raise SparsityError(f"{folder}: {error}") from None
        except Exception as error:  # PEFT's tuners raise whatever they meet
            raise ValueError(f"{folder} does not fit this {type(model).__name__}: {_first_line(error)}") from None
        _check(adapted, folder, config, tensors)
        peft.set_peft_model_state_dict(adapted, tensors)
    return adapted if trainable else adapted.eval()


def check_adapter_weights(model: peft.PeftModel, folder: str | Path) -> None:
    """Raise what load_adapter raises unless the folder's adapter (a checkpoint) can take the place of the active one."""
    folder = Path(folder).expanduser()
    if not isinstance(model, peft.PeftModel):
        raise ValueError(f"the model carries no adapter that {folder} could be compared with: insert it first")
    _check(model, folder, _read_config(folder), _read_tensors(folder))


def unsaved(model: peft.PeftModel) -> list[str]:
    """The names of trainable weights that no adapter's folder or checkpoint would hold: unfrozen beside the adapters."""
    with warnings.catch_warnings():  # where the hub is asked for the base's vocabulary, and does not answer
        warnings.simplefilter("ignore")
        states = [peft.get_peft_model_state_dict(model, adapter_name=name) for name in model.peft_config]
    held = {value.data_ptr() for state in states for value in state.values()}
    prompt = any(config.is_prompt_learning for config in model.peft_config.values())  # saved as what it computes
    trained = [] if prompt else [one for one in model.named_parameters() if one[1].requires_grad and not one[1].is_meta]
    return [name for name, weight in trained if weight.data_ptr() not in held]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _require(path: Path, without: str) -> None:
    """Raise ValueError unless the file is there and no git-lfs pointer."""
    if not path.is_file():
        raise ValueError(f"{path.parent} {without}: name the folder that finetune or save_pretrained wrote")
    with path.open("rb") as file:
        if file.read(20) == b"version https://git-":
            raise ValueError(f"{path} is a git-lfs pointer, not the file: fetch it with `git lfs pull`")


def _read_config(folder: Path) -> peft.PeftConfig:
    _require(folder / CONFIG, f"is no adapter (it has no {CONFIG})" if folder.is_dir() else "is no folder")
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = found.get("peft_type") if isinstance(found, dict) else None
        if kind in list(peft.PEFT_TYPE_TO_CONFIG_MAPPING):
            return peft.PeftConfig.from_pretrained(str(folder))
        problem = f"PEFT knows no adapter of type {kind!r}"
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        problem = _first_line(error)
    raise ValueError(f"{folder / CONFIG} is not an adapter's settings ({problem}): copy or write the adapter again")


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    pickled = ", and pickled weights are not loaded" if (folder / "adapter_model.bin").is_file() else ""
    _require(folder / WEIGHTS, f"has no {WEIGHTS}{pickled}")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        problem = f"was cut short or is damaged ({_first_line(error)})"
        raise ValueError(f"{folder / WEIGHTS} {problem}: copy it again, or take an earlier checkpoint") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{folder / WEIGHTS}: {name} has values that are not finite: take an earlier checkpoint")
    return {name: value.to(torch.uint8) if name.endswith(MASK) else value for name, value in tensors.items()}


def _check(model: peft.PeftModel, folder: Path, config: peft.PeftConfig, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError unless config and tensors are those of the model's active adapter, but for their values."""
    name = model.active_adapters[0]
    own = model.peft_config[name]
    if config.peft_type != own.peft_type:
        raise ValueError(f"{folder} holds a {config.peft_type.value} adapter, the model's is {own.peft_type.value}")
    made_on, here = saved_mask(tensors), getattr(own, "mask_fingerprint", None)
    made_on = made_on or getattr(config, "mask_fingerprint", None)
    if here and made_on != here:
        zeros = f"was made on a base with other zeros (mask {made_on}, this one {here})"
        raise SparsityError(f"{folder} {zeros}: load the pruned model that it was trained on")
    for setting in SETTINGS:
        there, now = getattr(config, setting, None), getattr(own, setting, None)
        if there != now:
            raise ValueError(f"{folder} was made with {setting}={there}, the adapter has {now}: use one of both")
    _check_tensors(model, name, folder, tensors)


def _check_tensors(model: peft.PeftModel, name: str, folder: Path, tensors: dict[str, Tensor]) -> None:
    expected = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    more = tensors.keys() > expected.keys()  # the embeddings of a larger vocabulary
    allowed = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=more)
    way_out = f"it was made for another model, or this {WEIGHTS} is not the one of its {CONFIG}"
    if lacking := sorted(expected.keys() - tensors.keys()):
        raise ValueError(
            f"{folder} lacks {len(lacking)} of {len(expected)} tensors, {lacking[0]} among them: {way_out}"
        )
    for key, tensor in tensors.items():
        if key not in allowed:
            raise ValueError(f"{folder} holds {key}, for which there is no place here: {way_out}")
        there, now = (
            f"{'float' if t.is_floating_point() else t.dtype} {tuple(t.shape)}" for t in (tensor, allowed[key])
        )
        if there != now:
            raise ValueError(f"{folder}: {key} is {there}, here it is {now}: {way_out}")
