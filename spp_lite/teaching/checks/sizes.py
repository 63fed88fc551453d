"""Checks of notebook 05, continued: the number of parameters, HiRA's one-hot B."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ...adapter.kernels import row_blocks
from ...pruning.blocks import block_linears
from .common import answer, check, compare
from .factors import CASES, EVEN, sizes


class _Toy(nn.Module):
    """Two blocks of four linears of unlike shapes; an embedding and a head that carry no adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
        sizes = {"q": (8, 8), "k": (8, 4), "up": (8, 20), "down": (20, 8)}  # in and out do not balance
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()}) for _ in range(2)
        )


def _library_count(model: nn.Module, r: int) -> int:
    shapes = [linear.weight.shape for linear in block_linears(model).values()]
    return sum(r * inputs + out for out, inputs in shapes)


@check(library=_library_count)
def ex_05d(function: Callable) -> None:
    """spp_parameters(model, r): r · in + out over every linear of the decoder blocks."""
    model = _Toy()
    shapes = [tuple(linear.weight.shape) for linear in block_linears(model).values()]
    for r in (4, 7):
        right = sum(r * inputs + out for out, inputs in shapes)
        survivors = sum(out * inputs for out, inputs in shapes)
        reasons = [
            (right / 2, "half are missing: did you look at every block?"),
            (sum(r * (inputs + out) for out, inputs in shapes), "that is HiRA's or LoRA's count: β has one column, not r"),
            (sum(r * out + inputs for out, inputs in shapes), "in and out are swapped: α is r × in, β has out entries"),
            (sum(r * inputs for out, inputs in shapes), "β is missing: one more per output"),
            (sum(out for out, inputs in shapes), "α is missing: r more per input"),
            (sum(inputs + out for out, inputs in shapes), "α has r rows: count r · in"),
            (survivors + right, "the frozen weights are not trained: leave them out"),
            (survivors, "those are the frozen weights; count α and β"),
            (right + 8 * r + 50, "the output head carries no adapter: only the blocks' linears do"),
            (r * survivors, "α repeats along the rows: it is r × in, not out × in"),
        ]  # fmt: skip
        case = f"{len(shapes)} linears in 2 blocks, r = {r}"
        compare("Ex 05d", answer("Ex 05d", function, model, r), right, reasons, case=case)


def _library_b(beta, r, scaling):
    return scaling * beta[:, None] * F.one_hot(row_blocks(len(beta), r, beta.device), r)


@check(library=_library_b)
def ex_05e(function: Callable) -> None:
    """hira_b(beta, r, scaling): (out, r) with s · β_i in column block(i) of row i and zeros elsewhere."""
    draw = torch.Generator().manual_seed(5)
    for out, inputs, r, s, _ in CASES[:2]:
        beta = torch.randn(out, generator=draw)
        hot = F.one_hot(row_blocks(out, r), r).float()
        turns = F.one_hot(torch.arange(out) % r, r).float()
        even = F.one_hot(torch.arange(out) // -(-out // r), r).float()
        right = s * beta[:, None] * hot
        reasons = [
            (right / s, "fold the scaling s into B: HiRA has none of its own"),
            (s * hot, "β is missing: row i holds s · β_i"),
            (hot, "that is the one-hot pattern; row i holds s · β_i"),
            ((s * beta)[:, None].expand(out, r), "every column is filled: only column block(i) of row i may be"),
            (s * beta[:, None] * turns, "row i took column i % r; blocks are contiguous: column ⌊i·r/out⌋"),
            (s * beta[:, None] * even, EVEN),
            (right.T, "B is transposed: it has a row per output and a column per block"),
            (right + hot, "W itself is added by HiRA: leave the 1 out of B"),
            (s * right, "s is in it twice"),
        ]
        found = answer("Ex 05e", function, beta.clone(), r, s)
        compare("Ex 05e", found, right, reasons, case=sizes(out, inputs, r))
