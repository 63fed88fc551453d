"""Checks of notebook 05: Eq. 5 as written, the number of parameters, HiRA's one-hot B."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adapter.kernels import effective_weight, row_blocks
from ...pruning.blocks import block_linears
from .common import answer, compare

CASES = [(12, 8, 3, 2.0, (5,)), (10, 6, 4, 0.5, (2, 3)), (9, 4, 1, 1.5, (4,))]  # out, in, r, s, leading dims of x


def _sizes(out: int, inputs: int, r: int) -> str:
    return f"{out} outputs, {inputs} inputs, r = {r}"


def ex_05a(function: Callable) -> str:
    """spp_output(x, weight, alpha, beta, scaling): x Wᵀ + s · x [W ⊙ R(α) ⊙ β]ᵀ (Eq. 5), for any r."""
    draw = torch.Generator().manual_seed(5)
    for out, inputs, r, s, leading in CASES:
        weight = torch.randn(out, inputs, generator=draw) * (torch.rand(out, inputs, generator=draw) > 0.5)
        alpha, beta = torch.randn(r, inputs, generator=draw), torch.randn(out, generator=draw)
        x = torch.randn(*leading, inputs, generator=draw)
        right = F.linear(x, effective_weight(weight, [(alpha, beta, s)]))
        given = [tensor.clone() for tensor in (x, weight, alpha, beta)]
        found = answer("Ex 05a", function, *given, s)
        compare("Ex 05a", found, right, _wrong_outputs(x, weight, alpha, beta, s), case=_sizes(out, inputs, r))
    return "Ex 05a: right."


def _wrong_outputs(x: Tensor, weight: Tensor, alpha: Tensor, beta: Tensor, s: float) -> list[tuple[Tensor, str]]:
    out, r = len(weight), len(alpha)
    frozen, rows = x @ weight.T, alpha[row_blocks(out, r)]

    def update(rows):
        return x @ (weight * rows * beta[:, None]).T

    turns, even = alpha[torch.arange(out) % r], alpha[torch.arange(out) // -(-out // r)]
    return [
        (frozen, "that is x Wᵀ alone: the update is missing"),
        (s * update(rows), "that is the update alone: add the frozen term x Wᵀ"),
        (frozen + update(rows), "the strength s is missing"),
        (s * (frozen + update(rows)), "s belongs to the update only, not to x Wᵀ"),
        (frozen + s * x @ (rows * beta[:, None]).T, "your update is not multiplied by W: it would fill the zeros"),
        (frozen - s * update(rows), "the update is added, not taken away"),
        (frozen + s * x @ (weight * rows).T, "β is missing: it scales every output"),
        (frozen + s * x @ (weight * beta[:, None]).T, "α is missing: it scales every input, block by block"),
        (frozen + s * update(turns), "row i took α[i % r]; blocks are contiguous: row i belongs to block ⌊i·r/out⌋"),
        (frozen + s * update(even), "your blocks differ by more than one row: use block(i) = ⌊i·r/out⌋"),
        (effective_weight(weight, [(alpha, beta, s)]), "that is the weight W′; the output y = x W′ᵀ is asked for"),
    ]


class _Toy(nn.Module):
    """Two blocks of four linears of unlike shapes; an embedding and a head that carry no adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
        sizes = {"q": (8, 8), "k": (8, 4), "up": (8, 20), "down": (20, 8)}  # in and out do not balance
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()}) for _ in range(2)
        )


def ex_05b(function: Callable) -> str:
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
            (sum(out * inputs for out, inputs in shapes) + right, "the frozen weights are not trained: leave them out"),
            (survivors, "those are the frozen weights; count α and β"),
            (right + 8 * r + 50, "the output head carries no adapter: only the blocks' linears do"),
            (r * sum(out * inputs for out, inputs in shapes), "α repeats along the rows: it is r × in, not out × in"),
        ]  # fmt: skip
        case = f"{len(shapes)} linears in 2 blocks, r = {r}"
        compare("Ex 05b", answer("Ex 05b", function, model, r), right, reasons, case=case)
    return "Ex 05b: right."


def ex_05c(function: Callable) -> str:
    """hira_b(beta, r, scaling): (out, r) with s · β_i in column block(i) of row i and zeros elsewhere."""
    draw = torch.Generator().manual_seed(5)
    for out, inputs, r, s, _ in CASES[:2]:
        beta = torch.randn(out, generator=draw)
        hot = F.one_hot(row_blocks(out, r), r).float()
        turns = F.one_hot(torch.arange(out) % r, r).float()
        even = F.one_hot(torch.arange(out) // -(-out // r), r).float()
        right = s * beta[:, None] * hot
        reasons = [
            (right / s, "fold the strength s into B: HiRA has none of its own"),
            (s * hot, "β is missing: row i holds s · β_i"),
            (hot, "that is the one-hot pattern; row i holds s · β_i"),
            ((s * beta)[:, None].expand(out, r), "every column is filled: only column block(i) of row i may be"),
            (s * beta[:, None] * turns, "row i took column i % r; blocks are contiguous: column ⌊i·r/out⌋"),
            (s * beta[:, None] * even, "your blocks differ by more than one row: use block(i) = ⌊i·r/out⌋"),
            (right.T, "B is transposed: it has a row per output and a column per block"),
            (right + hot, "W itself is added by HiRA: leave the 1 out of B"),
            (s * right, "s is in it twice"),
        ]
        found = answer("Ex 05c", function, beta.clone(), r, s)
        compare("Ex 05c", found, right, reasons, case=_sizes(out, inputs, r))
    return "Ex 05c: right."
