"""Checks of notebook 01 on what a mask costs: the output error, and a 2:4 weight taken out of its store."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...pruning.sparsity import Sparsity
from .common import answer, check, compare


def _output_error(weight: Tensor, keep: Tensor, X: Tensor) -> float:
    lost = X @ (weight - weight * keep).T
    return float(lost.square().sum() / (X @ weight.T).square().sum())


@check(library=_output_error)
def ex_01c(function: Callable) -> None:
    """output_error(weight, keep, X): ‖X (W − W ⊙ M)ᵀ‖² / ‖X Wᵀ‖², one number."""
    draw = torch.Generator().manual_seed(4)
    for out, width, tokens, pattern in ((6, 8, 20, "50%"), (5, 5, 5, "row:60%"), (3, 12, 7, "1:4")):
        weight = torch.randn(out, width, generator=draw)
        X = torch.randn(tokens, width, generator=draw) * torch.linspace(0.2, 2, width)
        keep = Sparsity.parse(pattern).mask(weight.abs())
        found = answer("Ex 01c", function, weight.clone(), keep.clone(), X.clone())
        reasons = _wrong_errors(weight, keep, X)
        compare("Ex 01c", found, _output_error(weight, keep, X), reasons, case=f"{tokens} tokens, {pattern}")


def _wrong_errors(weight: Tensor, keep: Tensor, X: Tensor) -> list[tuple[object, str]]:
    lost, left, whole = (X @ part.T for part in (weight * ~keep, weight * keep, weight))
    ratio = lost.norm() / whole.norm()
    apart = "compare sums of squares, not the mean of every entry's ratio"
    return [
        (ratio, "that is a ratio of norms: square both, as the formula does"),
        (ratio**4, "you square twice: ‖·‖² is the sum of squares, once"),
        (left.square().sum() / whole.square().sum(), "you measure what stays; the error is what goes, W − W ⊙ M"),
        (
            1 - left.square().sum() / whole.square().sum(),
            "1 minus what stays is not what goes: outputs add, squares do not",
        ),
        (lost.square().sum() / left.square().sum(), "divide by the outputs of the dense W, not of the pruned one"),
        (whole.square().sum() / lost.square().sum(), "your fraction is upside down"),
        (lost.square().sum(), "divide by ‖X Wᵀ‖²: the error is a share"),
        (lost.square().mean(), "divide by ‖X Wᵀ‖²: the error is a share"),
        ((weight * ~keep).square().sum() / weight.square().sum(), "that is the weight error: X is left out"),
        (lost.abs().sum() / whole.abs().sum(), "you add up sizes; ‖·‖² adds up squares"),
        (lost.sum() ** 2 / whole.sum() ** 2, "square every entry before you add: sums let signs cancel"),
        ((lost / whole).square().mean(), apart),
        (lost.square() / whole.square(), "that is one number an entry; add up the squares first, then divide"),
    ]


def _unpack(values: Tensor, places: Tensor) -> Tensor:
    out, half = values.shape
    groups = values.new_zeros(out, half // 2, 4)
    return groups.scatter(2, places.view(out, -1, 2), values.view(out, -1, 2)).view(out, 2 * half)


@check(library=_unpack)
def ex_01d(function: Callable) -> None:
    """unpack(values, places): (out, in) from two values a group, (out, in/2), and their places 0 to 3 in it."""
    draw = torch.Generator().manual_seed(5)
    for out, width in ((3, 8), (4, 4), (2, 16)):
        right = torch.randn(out, width, generator=draw)
        keep = Sparsity.parse("2:4").mask(torch.rand(out, width, generator=draw))  # by chance, not by size
        right = right * keep
        places = keep.view(out, -1, 4).nonzero()[:, 2].view(out, -1)
        values = right[keep].view(out, -1)
        found = answer("Ex 01d", function, values.clone(), places.clone())
        compare("Ex 01d", found, right, _wrong_weights(right, values, places), case=f"weight {out} × {width}")


def _wrong_weights(right: Tensor, values: Tensor, places: Tensor) -> list[tuple[object, str]]:
    out = len(right)
    groups = right.view(out, -1, 4)
    in_row = torch.zeros_like(right).scatter(1, places, values)
    swapped = values.view(out, -1, 2).flip(2).reshape(out, -1)
    return [
        (in_row, "places count within a group: group g begins at input 4 · g"),
        (groups, "that is right, but still in groups: give it the shape (out, in)"),
        (groups.flatten(0, 1), "that is right, but still in groups: give it the shape (out, in)"),
        (right.flatten(), "that is right, but in one line: give it the shape (out, in)"),
        (right != 0, "that is the mask; put the values in their places"),
        (_unpack(swapped, places), "the two values of a group have changed places"),
        (_unpack(values, 3 - places), "place 0 is the first of the four inputs, not the last"),
        (
            torch.cat([values, torch.zeros_like(values)], 1),
            "the values stand side by side; spread them by their places",
        ),
        (values.repeat_interleave(2, 1), "every value stands twice; the places that are not named stay zero"),
        (
            torch.stack([values, torch.zeros_like(values)], 2).flatten(1),
            "zeros stand at every second input; use places",
        ),
        (right.T, "that is the transpose: outputs are rows"),
    ]
