"""Load the embedded, a local or a hub model; save one without ever losing what was there; tell the environment.

Knows transformers' loading and saving. Knows nothing about pruning, adapters or training.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from accelerate.utils import align_module_device
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PACKAGES = ("spp_lite", "torch", "transformers", "peft", "datasets", "accelerate", "lm_eval", "numpy", "pandas")
WEIGHTS = "model.safetensors", "model.safetensors.index.json"
OURS = re.compile(  # what a model folder holds, and so what writing another model there may replace
    r"(generation_)?config\.json|model[-.\w]*\.safetensors(\.index\.json)?|(special_tokens_map|added_tokens|vocab)\.json"
    r"|tokenizer(_config)?\.(json|model)|merges\.txt|chat_template\.\w+|pruning_report\.csv|README\.md|\.gitattributes"
)


def embedded(*parts: str) -> Path:
    """A file or folder of the embedded data: inside the installed package, else in the repository's `data/`."""
    package = Path(__file__).parent
    for root in (package / "_data", package.parent / "data"):
        if root.joinpath(*parts).exists():
            return root.joinpath(*parts)
    raise FileNotFoundError(f"the embedded data {'/'.join(parts)} is missing: reinstall spp_lite")


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

    name: "tiny" (embedded), a folder, or a hub id; None: $SPP_MODEL, else "tiny". dtype: None is float32 on a CPU and
    the type of the files on a GPU. device_map: as in transformers; None puts the model on the GPU where there is one.
    Raises ValueError for a folder that is no model, whose weights are cut off, missing or of other shapes, that has no
    tokenizer, and when the hub cannot be reached.
    """
    source = resolve(name)
    tokenizer = load_tokenizer(source)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = ("auto" if device == "cuda" else torch.float32) if dtype is None else dtype
    settings = {"dtype": dtype, "device_map": device_map, "use_safetensors": True, "output_loading_info": True}
    try:
        model, found = AutoModelForCausalLM.from_pretrained(source, **settings)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of safetensors, of the operating system, of configs: transformers lets all of them out
        raise ValueError(f"the model {source} cannot be loaded: {_first_line(error)}") from None
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(
            f"{source} lacks {len(lacking)} of the model's tensors, {lacking[0]} among them: they would be random; "
            "copy the whole model"
        )
    if device_map is None:
        model = model.to(device)
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token_id >= rows:  # only ever a filler, never read: any token that has an embedding serves
        spare = tokenizer.unk_token if (tokenizer.unk_token_id or rows) < rows else tokenizer.eos_token
        warnings.warn(
            f"{source}: the padding token {tokenizer.pad_token!r} has the number {tokenizer.pad_token_id}, the model "
            f"only {rows} embeddings: {spare!r} pads instead",
            stacklevel=2,
        )
        tokenizer.pad_token = spare
    return model.eval(), tokenizer


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return f"{type(error).__name__}: {text[:300]}"


def resolve(name: str | Path | None = None) -> str:
    """What transformers is asked for: the folder of a local or the embedded model, or the hub id; errors as in load."""
    name = model_name(name)
    path = embedded("tiny-llama") if name == "tiny" else Path(name).expanduser()
    if not path.is_dir():
        if path.is_file():
            raise ValueError(f"{path} is a file: name the folder that holds the model")
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ValueError(f"there is no folder {path}: name a model folder, a hub id, or 'tiny'")
        require_network(name)
        return name
    if (path / "adapter_config.json").is_file():  # transformers would attach it in silence
        raise ValueError(f"{path} holds an adapter: name the pruned model's own folder, the adapter with --adapter")
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a model: it has no config.json")
    if not any((path / file).is_file() for file in WEIGHTS):
        other = next((file.name for file in path.glob("*.safetensors")), None)
        why = f"its {other} is in another layout" if other else "pickled weights are not loaded"
        raise ValueError(f"{path} has no {WEIGHTS[0]} ({why}): convert it to transformers' format first")
    for file in path.glob("*.safetensors"):
        if file.stat().st_size < 1024 and file.read_bytes().startswith(b"version "):
            raise ValueError(f"{file} is a git-lfs pointer, not the weights: fetch them with `git lfs pull`")
    return str(path)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with a padding token (LLaMA's has none: <unk> serves, as the authors do)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source))
        usable = len(tokenizer) > len(tokenizer.all_special_tokens)  # without files, transformers may make an empty one
    except Exception:  # of any type, and of no use to a reader
        usable = False
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

    root = Path(cache or constants.HF_HUB_CACHE)
    if any(root.glob(f"*{name.replace('/', '--')}*")) or any(root.glob(f"{name.replace('/', '___')}*")):
        return
    if not constants.HF_HUB_OFFLINE:
        with suppress(Exception):  # any failure to connect means the same: there is no way to fetch it
            get_session().head(constants.ENDPOINT, timeout=3)
            return
    raise ValueError(
        f"the {kind} '{name}' is neither a local path nor in the cache, and {constants.ENDPOINT} cannot be reached: "
        f"copy it to this machine and name its {'folder' if kind == 'model' else 'file'}, or use 'tiny'"
    )


def fingerprint(model: torch.nn.Module, *, frozen: bool = False) -> str:
    """What a model is: 16 hex digits over every (frozen: untrained) parameter's name, shape, type and bytes."""
    digest = hashlib.sha256()
    for prefix, module in model.named_modules():
        with align_module_device(module):  # loads what accelerate offloaded
            for name, value in module.named_parameters(recurse=False):
                if frozen and value.requires_grad:
                    continue
                digest.update(f"{prefix}.{name} {tuple(value.shape)} {value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def require_writable(folder: str | Path, *, model: bool = False, keep: Sequence = (), size: int = 0) -> Path:
    """The folder, absolute; raises ValueError now, not after an hour's work, when it cannot take what will be written.

    model: the whole folder is to become a model, so that nothing else may lie there. keep: folders that are read, and
    would be lost. size: bytes that must be free.
    """
    folder = Path(folder).expanduser().resolve()
    if any(name and Path(name).expanduser().resolve() == folder for name in keep):
        raise ValueError(f"{folder} is read by this command and would be overwritten: name another folder to write to")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder to write to")
    if model and folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if not OURS.fullmatch(path.name))
        if foreign:
            raise ValueError(f"{folder} exists and is not a model folder alone ({foreign[0]} is there): choose another")
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        raise ValueError(f"nothing can be written to {folder}: {error.strerror} at {there}") from None
    if free < size:
        raise ValueError(f"{folder} needs {size / 1e9:.2f} GB and has {free / 1e9:.2f} GB free: choose another disk")
    return folder


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path) -> Path:
    """Write a model (and tokenizer) to `folder` whole or not at all: the old one stays until the new is complete."""
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    folder = require_writable(folder, model=True, size=size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mount = folder.is_mount()  # cannot be renamed, and may be another disk than its parent
    with tempfile.TemporaryDirectory(dir=folder if mount else folder.parent, prefix=f".{folder.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        model.save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        if mount:
            _replace_files(new, folder)
            return folder
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    return folder


def _replace_files(new: Path, folder: Path) -> None:
    """Put new's files in the place of folder's own; without config.json, which comes last, it is no model."""
    for path in sorted((p for p in folder.iterdir() if p.is_file()), key=lambda p: p.name != "config.json"):
        path.unlink()
    for path in sorted(new.iterdir(), key=lambda p: p.name == "config.json"):
        path.rename(folder / path.name)


def environment() -> dict[str, str]:
    """Versions and hardware, for reports and result tables."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: importlib.metadata.version(package) for package in PACKAGES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return found | {"threads": str(torch.get_num_threads()), "gpu": gpu}


def reset_peak_memory() -> None:
    """Start peak_memory() anew, where the system can: CUDA, and Linux."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes: of CUDA tensors where there is a GPU, else of the process; since reset_peak_memory(), else since its start."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    import resource  # not on Windows

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
