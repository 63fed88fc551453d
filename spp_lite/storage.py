"""The disk and the machine: embedded files, model folders, fingerprints, versions, memory.

Knows how a model is saved. Knows nothing about how one is found or loaded.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import platformdirs
import torch
from accelerate.utils import align_module_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .arguments import require_weights
from .writing import SCRATCH, fixed, written_whole

PACKAGES = ("spp_lite", "torch", "transformers", "peft", "datasets", "accelerate", "lm_eval", "numpy", "pandas")
CARD = "<!-- what follows is spp_lite's -->\n"
TOKENIZER = re.compile(
    r"tokenizer(_config)?\.(json|model)|(special_tokens_map|added_tokens|vocab)\.json|merges\.txt|chat_template\.\w+"
    "|additional_chat_templates"
)
OURS = re.compile(  # what a model folder holds, and so what writing another model there may replace
    r"(generation_)?config\.json|model[-.\w]*\.safetensors(\.index\.json)?|pruning_report\.csv|README\.md|\.gitattributes"
    rf"|{TOKENIZER.pattern}|{re.escape(SCRATCH)}"
)


def embedded(*parts: str) -> Path:
    """A file or folder of the embedded data: inside the installed package, else in the repository's `data/`."""
    package = Path(__file__).parent
    for root in (package / "_data", package.parent / "data"):
        if root.joinpath(*parts).exists():
            return root.joinpath(*parts)
    raise FileNotFoundError(f"the embedded data {'/'.join(parts)} is missing: reinstall spp_lite")


def cache_folder() -> Path:
    """Where what was converted or fetched is kept: $SPP_CACHE, else the user's cache folder."""
    return Path(os.environ.get("SPP_CACHE") or platformdirs.user_cache_dir("spp_lite")).expanduser()


def fingerprint(model: torch.nn.Module, *, frozen: bool = False) -> str:
    """What a model is: 16 hex digits over every (frozen: untrained) parameter's name, shape, type and bytes."""
    digest = hashlib.sha256()
    for prefix, module in model.named_modules():
        with align_module_device(module):  # loads what accelerate offloaded
            for name, value in module.named_parameters(recurse=False):
                if frozen and value.requires_grad:
                    continue
                if not is_dense(value):
                    raise ValueError(f"{prefix}.{name} is in a form for inference: take it before to_sparse()")
                digest.update(f"{prefix}.{name} {tuple(value.shape)} {value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def require_writable(folder: str | Path, *, model: bool = False, keep: Sequence = (), size: int = 0) -> Path:
    """The folder, absolute; raises ValueError now, not after an hour's work, when it cannot take what will be written.

    model: the whole folder is to become a model, so that nothing else may lie there. keep: folders that are read, and
    would be lost. size: bytes that must be free.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and any(name and Path(name).expanduser().resolve() == folder for name in keep):
        raise ValueError(f"{folder} is read by this command and would be overwritten: name another folder to write to")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file: name a folder to write to")
    if model and folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if not OURS.fullmatch(path.name))
        if foreign:
            raise ValueError(f"{folder} exists and is not a model folder alone ({foreign[0]} is there): choose another")
    if model and there == folder and not fixed(folder):
        there = folder.parent  # where the new one is written beside it
    try:
        with tempfile.TemporaryFile(dir=there):  # without a name, where the system can: a killed process leaves none
            free = shutil.disk_usage(there).free
    except OSError as error:
        raise ValueError(f"nothing can be written to {folder}: {error.strerror} at {there}") from None
    if free < size:
        raise ValueError(f"{folder} needs {size / 1e9:.2f} GB and has {free / 1e9:.2f} GB free: choose another disk")
    return folder


def is_dense(weight: torch.Tensor) -> bool:
    """Does it hold every entry, zeros too? What to_sparse() made does not."""
    return weight.layout is torch.strided and not isinstance(weight, torch.sparse.SparseSemiStructuredTensor)


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: str | Path,
    *,
    card: str = "",
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Write a model and tokenizer to `folder` whole or not at all: the old one stays until the new is complete.

    tokenizer: None keeps the one that is there. card: text of a README.md beside them, below what somebody wrote there
    (an older card goes). finish: called with the new folder before it takes the old one's place.
    """
    _check_plain(model)
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    folder = require_writable(folder, model=True, size=size)
    with written_whole(folder, last="config.json") as new:
        offloaded = any(weight.is_meta for weight in model.parameters())
        with warnings.catch_warnings():  # it asks for memory for 50 GB at a time
            warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
            model.save_pretrained(new, max_shard_size="5GB" if offloaded else "50GB")
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        for path in folder.iterdir() if tokenizer is None and folder.is_dir() else ():
            if TOKENIZER.fullmatch(path.name):
                shutil.copytree(path, new / path.name) if path.is_dir() else shutil.copy(path, new)
        old = folder / "README.md"
        theirs = old.read_text(encoding="utf-8", errors="replace").partition(CARD)[0] if old.is_file() else ""
        if theirs or card:
            (new / "README.md").write_text(theirs + (CARD + card if card else ""), encoding="utf-8")
        if finish is not None:
            finish(new)
    return folder


def _check_plain(model: PreTrainedModel) -> None:
    require_weights(model)
    if getattr(model, "peft_config", None) is not None:
        raise ValueError("the model carries an adapter: merge() it first, or save the adapter with save_pretrained()")
    if sparse := next((name for name, value in model.named_parameters() if not is_dense(value)), None):
        raise ValueError(f"{sparse} is in a form for inference: save the model before to_sparse(), or load it again")


def version(package: str) -> str:
    """Of an installed package; "source" of what is imported from a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source"


def environment() -> dict[str, str]:
    """Versions and hardware, for reports and result tables."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: version(package) for package in PACKAGES}
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
