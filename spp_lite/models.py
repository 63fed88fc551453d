"""Load the embedded, a local or a hub model; save one without ever losing what was there; tell the environment.

Knows transformers' loading and saving. Knows nothing about pruning, adapters or training.
"""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PACKAGES = ("torch", "transformers", "peft", "datasets", "accelerate", "lm_eval", "numpy", "pandas", "matplotlib")


def embedded(*parts: str) -> Path:
    """A file or folder of the embedded data: inside the installed package, else in the repository's `data/`."""
    package = Path(__file__).parent
    for root in (package / "_data", package.parent / "data"):
        if root.joinpath(*parts).exists():
            return root.joinpath(*parts)
    raise FileNotFoundError(f"the embedded data {'/'.join(parts)} is missing: reinstall spp_lite")


def is_tiny(model: str | Path | None = None) -> bool:
    """Is this (None: what $SPP_MODEL names) the embedded model, whose world the embedded data are about?"""
    return str(model or os.environ.get("SPP_MODEL", "tiny")) == "tiny"


def load(
    name: str | Path | None = None, *, dtype: torch.dtype | str | None = None, device_map=None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model, in eval mode, and its tokenizer.

    name: "tiny" (embedded), a folder, or a hub id; None: $SPP_MODEL, else "tiny". dtype: None is float32 on a CPU and
    the type of the files on a GPU. device_map: as in transformers; None puts the model on the GPU where there is one.
    Raises ValueError for a folder that is no model, and when the hub cannot be reached.
    """
    source = resolve(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype or (torch.float32 if device == "cpu" else "auto")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, device_map=device_map, use_safetensors=True)
    if device_map is None:
        model = model.to(device)
    return model.eval(), load_tokenizer(source)


def resolve(name: str | Path | None = None) -> str:
    """What transformers is asked for: the folder of a local or the embedded model, or the hub id; errors as in load."""
    name = str(name or os.environ.get("SPP_MODEL", "tiny"))
    path = embedded("tiny-llama") if name == "tiny" else Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} is not a model: it has no config.json")
        if not list(path.glob("*.safetensors")):
            raise ValueError(f"{path} has no .safetensors file (pickled weights are not loaded: convert them first)")
        return str(path)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ValueError(f"there is no folder {path}: name a model folder, a hub id, or 'tiny'")
    require_network(name)
    return name


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with a padding token (LLaMA's has none: <unk> serves, as the authors do)."""
    tokenizer = AutoTokenizer.from_pretrained(str(source))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def require_network(name: str, *, kind: str = "model", cache: str | None = None) -> None:
    """Raise ValueError at once, not after half a minute of retries, when `name` is not cached and no hub answers."""
    from huggingface_hub import constants

    root = Path(cache or constants.HF_HUB_CACHE)
    if any(root.glob(f"*{name.replace('/', '--')}*")) or any(root.glob(f"{name.replace('/', '___')}*")):
        return
    offline = constants.HF_HUB_OFFLINE
    if not offline:
        try:
            from huggingface_hub.utils import get_session

            get_session().head(constants.ENDPOINT, timeout=3)
            return
        except Exception:  # any failure to connect means the same: there is no way to fetch it
            offline = True
    raise ValueError(
        f"the {kind} '{name}' is neither a local path nor in the cache, and {constants.ENDPOINT} cannot be reached: "
        f"copy it to this machine and name its {'folder' if kind == 'model' else 'file'}, or use 'tiny'"
    )


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path) -> Path:
    """Write a model (and tokenizer) to `folder` whole or not at all: the old one stays until the new is complete."""
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / "config.json").exists())):
        raise ValueError(f"{folder} exists and is not a model folder: choose another, or remove it")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        model.save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    return folder


def environment() -> dict[str, str]:
    """Versions and hardware, for reports and result tables."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    found["threads"] = str(torch.get_num_threads())
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return found


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
