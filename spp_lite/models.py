"""Find and load a model with its tokenizer: the embedded one, a packaged one, a folder, a GGUF file, a hub id.

Knows transformers' loading. Knows nothing about pruning, adapters or training.
"""

import os
import tempfile
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

import torch
from accelerate.utils import parse_flag_from_env
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .arguments import require_dtype
from .convert import PACKAGED, converted, packaged_folder
from .packed import packed_files, read_packed
from .storage import (
    TOKENIZER,
    cache_folder,
    embedded,
    environment,
    fingerprint,
    peak_memory,
    require_writable,
    reset_peak_memory,
    save,
)  # fmt: skip

WEIGHTS = "model.safetensors", "model.safetensors.index.json"
SHARDING = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"  # what `accelerate launch` sets


def model_name(name: str | Path | None = None) -> str:
    """The name itself; None or "": what $SPP_MODEL names, else "tiny"."""
    return str(name or os.environ.get("SPP_MODEL") or "tiny")


def is_tiny(model: str | Path | None = None) -> bool:
    """Is this (None: what $SPP_MODEL names) the embedded model, whose world the embedded data are about?"""
    return model_name(model) == "tiny"


def load(
    name: str | Path | None = None, *, dtype: torch.dtype | str | None = None, device_map=None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model, in eval mode, and its tokenizer.

    name: "tiny" (embedded), "smollm2" (after `spp-lite fetch smollm2`), a folder, a GGUF file (converted once, into the
    cache) or a hub id; None: $SPP_MODEL, else "tiny". dtype: None is float32 on a CPU and
    the type of the files on a GPU. device_map: as in transformers; None puts the model on the GPU where there is one, but
    leaves it in main memory where accelerate is to cut it into shards (FSDP, ZeRO): it may be too large for one GPU.
    What goes to disk lies in a temporary folder ($TMPDIR) as long as the model lives. A folder that save_sparse wrote is
    read, too.
    Raises ValueError for a folder that is no model, whose weights are cut off, missing or of other shapes, that has no
    tokenizer, for what is no dtype, and when the hub cannot be reached.

    >>> from spp_lite import load
    >>> model, tokenizer = load("tiny")
    >>> type(model).__name__, model.training
    ('LlamaForCausalLM', False)
    """
    return _load(name, dtype, device_map)


def _load(name, dtype, device_map, *, exact: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """load(); exact: every tensor of save_sparse's layout in the type that it has there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = ("auto" if device == "cuda" else torch.float32) if dtype is None else dtype
    require_dtype(dtype)
    source = resolve(name)
    tokenizer = load_tokenizer(source)
    settings = {"dtype": dtype, "device_map": device_map, "use_safetensors": True, "output_loading_info": True}
    settings["trust_remote_code"] = False  # None: it would ask
    if device_map is not None:
        offload = tempfile.TemporaryDirectory(prefix="spp-lite-")  # prune() may write here, not into the checkpoint
        settings["offload_folder"] = offload.name
    try:
        model, found = _from_pretrained(source, settings, exact)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of safetensors, of the operating system, of configs: transformers lets all of them out
        raise ValueError(f"the model {source} cannot be loaded: {_first_line(error)}") from None
    _check_whole(source, model, found)
    if device_map is not None:
        weakref.finalize(model, offload.cleanup)
    elif not any(map(parse_flag_from_env, SHARDING)):
        model = model.to(device)
    _give_padding(tokenizer, model.get_input_embeddings().num_embeddings, source)
    return model.eval(), tokenizer


def stored_type(model: PreTrainedModel, name: str | Path | None = None) -> torch.dtype:
    """The type that config.json names, where no weight changes by it: load(name) may have made float32 of 16 bits."""
    kind = AutoConfig.from_pretrained(resolve(name), trust_remote_code=False).dtype
    weights = [*model.parameters()]
    if kind is None or any(weight.is_meta for weight in weights):
        return model.dtype
    return kind if all(torch.equal(weight.to(kind).to(weight.dtype), weight) for weight in weights) else model.dtype


def _check_whole(source: str, model, found: dict) -> None:
    """Raise ValueError for tensors that the model lacks; warn of those that it has no place for."""
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(
            f"{source} lacks {len(lacking)} of the model's tensors, {lacking[0]} among them: they would be random; "
            "copy the whole model"
        )
    if more := sorted(found["unexpected_keys"]):
        where = (
            f"that a {type(model).__name__} has no place for: they are not loaded, and what is saved from it lacks them"
        )
        warnings.warn(f"{source} holds {len(more)} tensors, {more[0]} among them, {where}", stacklevel=3)


def _give_padding(tokenizer, rows: int, source: str) -> None:
    """Another padding token where the model has no embedding for its own."""
    if tokenizer.pad_token_id >= rows:  # only ever a filler, never read: any token that has an embedding serves
        fits = tokenizer.unk_token_id is not None and tokenizer.unk_token_id < rows
        spare = tokenizer.unk_token if fits else tokenizer.eos_token
        warnings.warn(
            f"{source}: the padding token {tokenizer.pad_token!r} has the number {tokenizer.pad_token_id}, the model "
            f"only {rows} embeddings: {spare!r} pads instead",
            stacklevel=3,
        )
        tokenizer.pad_token = spare


def load_sparse(
    folder: str | Path, *, dtype: torch.dtype | str = "auto", device_map=None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The dense model that save_sparse wrote, bit for bit, in eval mode, and its tokenizer.

    dtype: "auto" is the type of the files. Otherwise, and in its errors, as load(); ValueError for another layout.
    """
    path = Path(folder).expanduser()
    if path.is_dir() and not packed_files(path):
        raise ValueError(f"{path} holds no *.sparse.safetensors, which save_sparse writes: take load()")
    return _load(path, dtype, device_map, exact=dtype == "auto")


def _from_pretrained(source: str, settings: dict, exact: bool):
    """transformers' from_pretrained, which is handed the tensors where they lie in save_sparse's layout."""
    if _is_whole(Path(source)) or not packed_files(source):
        return AutoModelForCausalLM.from_pretrained(source, **settings)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    with torch.device("meta"):
        kind = type(AutoModelForCausalLM.from_config(config))
    tensors = read_packed(source)
    model, found = kind.from_pretrained(None, config=config, state_dict=dict(tensors), **settings)
    for name, value in model.named_parameters() if exact else ():  # "auto" is one type for all, also for float32 norms
        if name in tensors and value.dtype != tensors[name].dtype and value.shape == tensors[name].shape:
            value.data = tensors[name].to(value.device)
    if (Path(source) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(source)
    return model, found


def _is_whole(path: Path) -> bool:
    """Does the folder hold weights in transformers' own layout?"""
    return any((path / file).is_file() for file in WEIGHTS)


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    text = "it needs code of its own, which is never run" if "trust_remote_code" in str(error) else text
    return f"{type(error).__name__}: {text[:300]}"


def resolve(name: str | Path | None = None) -> str:
    """What transformers is asked for: the folder of a local or the embedded model, or the hub id; errors as in load."""
    name = model_name(name)
    if name in PACKAGED:
        return str(packaged_folder(name))
    path = embedded("tiny-llama") if name == "tiny" else Path(name).expanduser()
    files = [path] if path.is_file() else sorted(path.glob("*.gguf")) if not (path / "config.json").is_file() else []
    if files and _is_gguf(files[0]):
        if len(files) > 1:
            raise ValueError(f"{path} holds {len(files)} GGUF files: name the one that is meant")
        return str(converted(files[0]))
    if not path.is_dir():
        if path.is_file():
            raise ValueError(f"{path} is a file, and no GGUF: name the folder that holds the model")
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ValueError(f"there is no folder {path}: name a model folder, a hub id, or 'tiny'")
        require_network(name)
        return name
    if (path / "adapter_config.json").is_file():  # transformers would attach it in silence
        raise ValueError(f"{path} holds an adapter: name the pruned model's own folder, the adapter with --adapter")
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a model: it has no config.json")
    if not _is_whole(path) and not packed_files(path):
        other = next((file.name for file in path.glob("*.safetensors")), None)
        why = f"its {other} is in another layout" if other else "pickled weights are not loaded"
        raise ValueError(f"{path} has no {WEIGHTS[0]} ({why}): convert it to transformers' format first")
    for file in path.glob("*.safetensors"):
        if file.stat().st_size < 1024 and file.read_bytes().startswith(b"version "):
            raise ValueError(f"{file} is a git-lfs pointer, not the weights: fetch them with `git lfs pull`")
    return str(path)


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with a padding token (LLaMA's has none: <unk> serves, as the authors do)."""
    try:
        tokenizer, why = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False), ""
        usable = len(tokenizer) > len(tokenizer.all_special_tokens)  # without files, transformers may make an empty one
    except Exception as error:  # of any type
        usable, why = False, _first_line(error)
    if not usable and (any(map(TOKENIZER.fullmatch, os.listdir(source))) if os.path.isdir(source) else why):
        raise ValueError(f"the tokenizer of {source} cannot be loaded: {why or 'it has no tokens'}")
    if not usable:
        raise ValueError(f"{source} has no tokenizer: copy its tokenizer.json or tokenizer.model into that folder")
    if tokenizer.pad_token_id is None:
        if not (tokenizer.unk_token or tokenizer.eos_token):
            raise ValueError(f"the tokenizer of {source} has neither <unk>, EOS nor padding: give it an eos_token")
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def require_network(name: str, *, kind: str = "model", cache: str | None = None) -> None:
    """Raise ValueError at once, not after half a minute of retries, when `name` is not cached and no hub answers."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    root, own = Path(cache or constants.HF_HUB_CACHE), name.replace("/", "--")
    if any((root / folder).is_dir() for folder in (f"models--{own}", f"datasets--{own}", name.replace("/", "___"))):
        return
    if not constants.HF_HUB_OFFLINE:
        with suppress(Exception):  # any failure to connect means the same: there is no way to fetch it
            get_session().head(constants.ENDPOINT, timeout=3)
            return
    raise ValueError(
        f"the {kind} '{name}' is neither a local path nor in the cache, and {constants.ENDPOINT} cannot be reached: "
        f"copy it to this machine and name its {'folder' if kind == 'model' else 'file'}, or use 'tiny'"
    )
