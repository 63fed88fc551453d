"""Model folders whose pruned weights take the room of what they keep: mask bits and kept values, bit for bit.

The layout, number 1: each file X.safetensors that transformers would write becomes X.sparse.safetensors. A tensor T that
gets smaller becomes two tensors there, or three; bits are packed into uint8, the first in the highest bit of the first
byte, unused ones 0:

- `T.mask`: a bit for each entry of T, row by row, 1 where it is kept. What is not kept is a zero.
- `T.values`: the kept entries in that order, in T's type. Zeros, too, may be among them.
- `T.signs`, only where many zeros are -0.0: a bit for each entry that is not kept, in that order, 1 where it is -0.0.

T's shape stands in the file's metadata: layout = "spp_lite sparse 1", shapes = JSON {"T": [out, in], ...}. Every other
tensor is stored as it was. Knows tensors and files, no pruning. models.load reads such a folder.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .storage import save

LAYOUT = "spp_lite sparse 1"
PARTS = "mask", "values", "signs"
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes an entry → a type to look at its bits


def save_sparse(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path, *, card: str = ""
) -> Path:
    """storage.save in the layout above: whole or not at all. load_sparse, and load, give the same bits back.

    card: text of a README.md beside them. Meanwhile the disk needs room for the dense model, too.

    >>> import torch
    >>> from spp_lite import load, load_sparse, prune, save_sparse
    >>> model, tokenizer = load("tiny")
    >>> _ = prune(model, sparsity="2:4", method="magnitude", progress=False)
    >>> again, _ = load_sparse(save_sparse(model, tokenizer, "packed"))
    >>> all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    True
    """
    return save(model, tokenizer, folder, card=card, finish=pack_files)


def pack(weight: Tensor) -> dict[str, Tensor]:
    """Any weight on a CPU → mask, values and, where it is smaller than keeping every -0.0, signs, as laid out above."""
    bits = weight.detach().contiguous().reshape(-1).view(BITS[weight.element_size()])
    keep, signs = bits != 0, None
    nonzero = bits + bits != 0  # without the sign
    if 8 * weight.element_size() * int((keep & ~nonzero).sum()) > int((~nonzero).sum()):
        keep, signs = nonzero, _packed(bits[~nonzero] != 0)
    parts = {"mask": _packed(keep), "values": bits[keep].view(weight.dtype)}
    return parts if signs is None else parts | {"signs": signs}


def unpack(parts: dict[str, Tensor], shape: tuple[int, ...], name: str = "weight") -> Tensor:
    """The weight that pack() took apart. Raises ValueError where its parts and its shape do not belong together."""
    values, count = parts["values"], math.prod(shape)
    keep = _unpacked(parts["mask"], count, name)
    if int(keep.sum()) != len(values):
        raise ValueError(f"{name} has {len(values)} values, its mask keeps {int(keep.sum())}: copy the folder again")
    bits = torch.zeros(count, dtype=BITS[values.element_size()])
    bits[keep] = values.view(bits.dtype)
    if "signs" in parts:
        zeros = _unpacked(parts["signs"], count - len(values), name)
        bits[~keep] = zeros.to(bits.dtype) << (8 * values.element_size() - 1)
    return bits.view(values.dtype).reshape(shape)


def _packed(bits: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(bits.numpy()))


def _unpacked(packed: Tensor, count: int, name: str) -> Tensor:
    if len(packed) != math.ceil(count / 8):
        raise ValueError(f"{name} has {len(packed)} bytes of bits for {count} entries: copy the folder again")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count)).bool()


def pack_files(folder: Path) -> None:
    """Replace every safetensors file of a folder by its form in the layout above, one after the other."""
    for path in sorted(folder.glob("*.safetensors")):
        tensors, shapes = {}, {}
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                weight = file.get_tensor(name)
                parts = pack(weight)
                if sum(part.nbytes for part in parts.values()) < weight.nbytes:
                    tensors |= {f"{name}.{part}": value for part, value in parts.items()}
                    shapes[name] = list(weight.shape)
                else:
                    tensors[name] = weight
        metadata = {"layout": LAYOUT, "shapes": json.dumps(shapes)}
        save_file(tensors, path.with_suffix(".sparse.safetensors"), metadata=metadata)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)  # it names files that are gone


def packed_files(folder: str | Path) -> list[Path]:
    """The files of the layout above in a folder, in order; none where it is another's."""
    return sorted(Path(folder).glob("*.sparse.safetensors"))


def read_packed(folder: str | Path) -> dict[str, Tensor]:
    """Every tensor of such a folder, dense, by name. Raises ValueError for another layout, and what does not fit."""
    found = {}
    for path in packed_files(folder):
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("layout") != LAYOUT:
                raise ValueError(f"{path} has the layout {about.get('layout')!r}, not {LAYOUT!r}: update spp_lite")
            shapes = json.loads(about["shapes"])
            names = set(file.keys())
            for name, shape in shapes.items():
                mine = {part: f"{name}.{part}" for part in PARTS if f"{name}.{part}" in names}
                parts = {part: file.get_tensor(key) for part, key in mine.items()}
                found[name] = unpack(parts, tuple(shape), f"{path.name}: {name}")
                names -= set(mine.values())
            found |= {name: file.get_tensor(name) for name in names}
    return found
