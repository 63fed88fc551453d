"""Files and folders that are written whole or not at all, by one process at a time.

What is new is written beside its place under a name that is always the same, so that whoever writes there next clears
what a killed process left. Knows nothing about models.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

SCRATCH = ".spp-lite-new"


@contextmanager
def alone(path: Path, *, seconds: float = 0) -> Iterator[None]:
    """Keep this user's other processes from writing `path` meanwhile; ValueError where one still does after `seconds`.

    The lock goes with the process that holds it, however that ends.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else ""  # another's lock could not be opened
    try:
        lock = FileLock(Path(tempfile.gettempdir()) / f"spp-lite-{name}-{user}.lock").acquire(timeout=seconds)
    except Timeout:
        raise ValueError(f"another process is writing {path}: wait for it, or name another --out") from None
    with lock:
        yield


def fixed(folder: Path) -> bool:
    """Can no other folder take its place? A mount, and what somebody, a shell, works in."""
    with suppress(FileNotFoundError):  # a working directory that is gone is nowhere
        if Path.cwd().is_relative_to(folder.resolve()):
            return True
    return folder.is_mount()


@contextmanager
def written_whole(folder: Path, *, last: str) -> Iterator[Path]:
    """The name of a folder to make, which then takes the place of `folder` in one step: the old one stays until then.

    last: the file that makes a folder what it is; comes last where a folder cannot be renamed, see added().
    """
    if fixed(folder):  # a mount may be another disk than its parent
        with alone(folder, seconds=60), added(folder, last=last, only=True) as new:
            yield new
        return
    scratch = folder.with_name(f".{folder.name}{SCRATCH}")
    new, old = scratch / "new", scratch / "old"
    with alone(folder, seconds=60), _said(folder):
        if new.exists() and old.exists() and not folder.exists():  # killed between the two steps below
            old.rename(folder)
        with _cleared(scratch):
            yield new
            _shared(new)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise


@contextmanager
def added(folder: Path, *, last: str, only: bool = False) -> Iterator[Path]:
    """The name of a folder to make, whose files then take their places in `folder`; only: no other file stays there.

    `last` goes first and comes last: a folder half written is without it, and so passes for nothing.
    """
    with _said(folder), _cleared(folder / SCRATCH) as scratch:
        yield scratch / "new"
        _shared(scratch / "new")
        (folder / last).unlink(missing_ok=True)
        files = {path.name: path for path in (scratch / "new").iterdir()}
        for path in folder.iterdir() if only else ():
            if path.is_file() and path.name not in files:
                path.unlink()
        for name in sorted(files, key=last.__eq__):
            files[name].replace(folder / name)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """The name of a file to write, which then takes the place of `path`: a full disk leaves the old one as it was."""
    path = path.resolve()  # of a link, the file that it names
    new = path.with_name(f"{SCRATCH}-{path.name}")
    with _said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield new
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _shared(folder: Path) -> None:
    """safetensors writes for the owner alone: let every file be read by whom its folder lets in."""
    mode = folder.stat().st_mode & 0o666
    for path in filter(Path.is_file, folder.rglob("*")):
        path.chmod(mode)


@contextmanager
def _cleared(scratch: Path) -> Iterator[Path]:
    """A new, empty folder, which is gone afterwards, as is what a killed process left in it."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What the disk refuses, in one sentence: safetensors and the system each have words of their own."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(f"{path} cannot be written ({why}): what was there is still there") from None
