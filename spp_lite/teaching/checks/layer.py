"""Checks of notebook 02: the sizes of a linear's inputs by a hook, Wanda's mask."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...pruning.calibration import InputStatistics
from ...pruning.criteria import wanda_scores
from ...pruning.sparsity import Sparsity, drop_lowest
from .common import CheckFailed, answer, as_mask, as_tensor, check, compare


def _input_norm(linear: nn.Module, run: Callable) -> Tensor:
    seen = InputStatistics()
    handle = linear.register_forward_pre_hook(lambda _module, args: seen.add(args[0].flatten(0, -2), want_gram=False))
    run()
    handle.remove()
    return seen.squares.sqrt()


@check(library=_input_norm, gives=as_tensor)
def ex_02a(function: Callable) -> None:
    """input_norm(linear, run): (in,), root of the mean of x² over all tokens that pass while run() runs; no hook stays."""
    for width, out, sizes in ((6, 4, ((2, 5), (1, 3), (3, 4))), (5, 5, ((1, 7), (4, 2)))):
        draw = torch.Generator().manual_seed(width)
        linear = nn.Linear(width, out)
        batches = [torch.randn(*size, width, generator=draw) * (2 + number) for number, size in enumerate(sizes)]
        batches = [batch * torch.linspace(0.2, 3, width) + 0.5 for batch in batches]
        runs = []

        def run(linear=linear, batches=batches, runs=runs):
            runs.append([linear(batch) for batch in batches])

        found = answer("Ex 02a", function, linear, run)
        if not runs:
            raise CheckFailed("Ex 02a: you never call run(): without it no input passes.")
        if linear._forward_pre_hooks or linear._forward_hooks:
            raise CheckFailed("Ex 02a: your hook is still on the linear: keep the handle, and call handle.remove().")
        if not all(map(torch.equal, runs[0], map(linear, batches))):
            raise CheckFailed("Ex 02a: your hook returns something, which becomes the linear's input: return nothing.")
        case = f"batches of {' and '.join(str(a * b) for a, b in sizes)} tokens"
        compare("Ex 02a", found, _norm(_rows(batches)), _wrong_norms(linear, batches), case=case)


def _rows(batches: list[Tensor]) -> Tensor:
    return torch.cat([batch.flatten(0, 1) for batch in batches])


def _norm(rows: Tensor) -> Tensor:
    return rows.square().mean(0).sqrt()


def _wrong_norms(linear: nn.Linear, batches: list[Tensor]) -> list[tuple[object, str]]:
    rows, sums = _rows(batches), _rows(batches).square().sum(0)
    each = [batch.flatten(0, 1) for batch in batches]
    alike = "a mean of the batches' {} gives every batch the same say, but some have more tokens: add up first"
    return [
        (_norm(each[-1]), "that is the last batch alone: each batch overwrites the one before"),
        (_norm(each[0]), "that is the first batch alone"),
        (sums / len(rows), "that is the mean of the squares: the root is missing"),
        (sums, "those are sums of squares: divide by the number of tokens, and take the root"),
        (sums.sqrt(), "that is the root of the sum: divide by the number of tokens first"),
        (sums.sqrt() / len(rows), "divide by the number of tokens before you take the root"),
        (torch.stack([_norm(one) for one in each]).mean(0), alike.format("roots")),
        (torch.stack([_norm(one).square() for one in each]).mean(0).sqrt(), alike.format("mean squares")),
        ((sums / len(batches)).sqrt(), "you divide by the number of batches; divide by the number of tokens"),
        ((sums / sum(map(len, batches))).sqrt(), "you divide by the number of texts; divide by the number of tokens"),
        (_norm(rows.T), "your mean goes over the inputs of a token; it must go over the tokens of an input"),
        (_norm(each[-1].T), "your mean goes over the inputs of a token; it must go over the tokens of an input"),
        (_norm(rows.flatten()), "that is one number for all; every input needs its own"),
        (rows.abs().mean(0), "you average |x|: square before the mean, take the root after it"),
        (rows.mean(0), "you average x itself, where signs cancel: square first"),
        (rows.std(0), "you took the standard deviation, which subtracts the mean"),
        (rows.std(0, correction=0), "you took the standard deviation, which subtracts the mean"),
        (_norm(linear(rows)), "those are the sizes of the outputs: a forward *pre*-hook sees the inputs"),
    ]


@check(
    library=lambda weight, norm, ratio: Sparsity(ratio).mask(wanda_scores(weight, norm), per_row=True), gives=as_mask
)
def ex_02b(function: Callable) -> None:
    """wanda_mask(weight, norm, ratio): True where a weight stays; ⌊ratio · in⌋ zeros in every row, lowest |W| · norm."""
    draw = torch.Generator().manual_seed(0)
    for out, width, ratio in ((6, 8, 0.25), (8, 8, 0.75), (5, 10, 0.25), (4, 11, 0.25)):
        weight = torch.randn(out, width, generator=draw) * torch.linspace(0.3, 3, out)[:, None]
        norm = torch.rand(width, generator=draw) * 4 + 0.1
        right = drop_lowest(weight.abs() * norm, int(ratio * width))
        found = answer("Ex 02b", function, weight.clone(), norm.clone(), ratio)
        case = f"weight {out} × {width}, ratio {ratio}: {int(ratio * width)} zeros in every row"
        compare("Ex 02b", found, right, _wrong_masks(weight, norm, ratio), case=case)


def _wrong_masks(weight: Tensor, norm: Tensor, ratio: float) -> list[tuple[object, str]]:
    size, scores = weight.abs(), weight.abs() * norm
    (out, width), count = weight.shape, int(ratio * weight.shape[1])
    right = drop_lowest(scores, count)
    whole = drop_lowest(scores.view(1, -1), int(ratio * scores.numel())).view_as(scores)
    return [
        (whole, "you compare over the whole matrix; every row must lose the same number"),
        (drop_lowest(scores.T.contiguous(), int(ratio * out)).T, "you compare down the columns; compare along a row"),
        (~right, "your mask is upside down: True must mean that a weight stays"),
        (drop_lowest(-scores, count), "you keep the lowest scores; the lowest must go"),
        (drop_lowest(scores, width - count), "ratio is the share of zeros, not of what stays"),
        (drop_lowest(scores, count + 1), "one zero too many in every row: ⌊ratio · in⌋ weights go, rounded down"),
        (
            drop_lowest(size, count),
            "that is magnitude: multiply column j by norm[j] (a factor per row changes nothing)",
        ),
        (drop_lowest(size * norm**2, count), "norm is a root already: do not square it"),
        (drop_lowest(size**2 * norm, count), "you square the weight but not the norm"),
        (drop_lowest(size / norm, count), "you divide by the norm; a larger input makes a weight matter more"),
        (drop_lowest(weight * norm, count), "you compare signed products: a weight of -3 is large, so take |W|"),
        (weight * right, "that is the pruned weight; return the mask"),
        (scores, "those are the scores; return the mask of those that stay"),
    ]
