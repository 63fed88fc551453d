"""Checks of notebook 01's masks: over the whole matrix, n:m, and an order of inputs. On ties every choice is right."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...pruning.sparsity import Sparsity
from .common import CheckFailed, answer, as_mask, as_tensor, check


def _as_mask(where: str, found, weight: Tensor) -> Tensor:
    """What the reader returns, as a bool tensor; CheckFailed unless it is a mask of the weight's shape."""
    try:
        found = as_tensor(found).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise CheckFailed(f"{where}: you return {found!r:.60}; return a tensor of True and False.") from None
    if found.shape != weight.shape:
        raise CheckFailed(f"{where}: your mask has shape {tuple(found.shape)}, the weight {tuple(weight.shape)}.")
    if not ((found == 0) | (found == 1)).all():
        raise CheckFailed(f"{where}: you return numbers; a mask holds True (stays) and False (becomes zero) only.")
    return found.bool()


def _lowest_go(keep: Tensor, scores: Tensor, count: int) -> bool:
    """In every row of (rows, width): `count` entries go, and none that stays is lower than one that goes."""
    if not ((~keep).sum(1) == count).all():
        return False
    top = scores.masked_fill(keep, -torch.inf).amax(1)
    return bool((top <= scores.masked_fill(~keep, torch.inf).amin(1)).all())


@check(library=lambda weight, ratio: Sparsity(ratio).mask(weight.abs()), gives=as_mask)
def ex_01a(function: Callable) -> None:
    """magnitude_mask(weight, ratio): bool (out, in), False for the ⌊ratio · size⌋ smallest |W| of the whole matrix."""
    draw = torch.Generator().manual_seed(1)
    plain = [torch.randn(out, width, generator=draw) for out, width in ((6, 8), (7, 4), (3, 5))]
    plain[0] *= torch.tensor([0.2, 0.5, 1, 1, 2, 3])[:, None]  # rows of unlike size
    tied = torch.tensor([[1.0, -1, 1, 2, -1], [-1, 3, 1, -4, 0.5], [1, -1, 2, 5, 1]])
    for weight, ratio in (*zip(plain, (0.25, 0.75, 0.3), strict=True), (tied, 0.4), (plain[2], 0.0)):
        count = Sparsity(ratio).zeros(weight.numel())
        where = f"Ex 01a (shape {tuple(weight.shape)}, ratio {ratio:g}{', with ties' if weight is tied else ''})"
        keep = _as_mask(where, answer("Ex 01a", function, weight.clone(), ratio), weight)
        if not _lowest_go(keep.view(1, -1), weight.abs().view(1, -1), count):
            raise CheckFailed(f"{where}: {_wrong_magnitude(keep, weight, count)}.")


def _wrong_magnitude(keep: Tensor, weight: Tensor, count: int) -> str:
    flat, signed = keep.view(1, -1), weight.view(1, -1)
    scores, size, zeros = signed.abs(), keep.numel(), int((~keep).sum())
    if _lowest_go(~flat, scores, count):
        return "your mask is upside down: True must mean that a weight stays"
    if _lowest_go(flat, -scores, count):
        return "you keep the smallest weights; the smallest must go"
    if _lowest_go(flat, signed, count):
        return "you compare signed weights: -3 is a large weight, so compare |W|"
    if _lowest_go(flat, scores, size - count):
        return f"{zeros} zeros, {count} are asked for: ratio is the share of zeros, not of those that stay"
    if zeros in (0, size):
        return f"{'all weights become zero' if zeros else 'no weight becomes zero'}, {count} are to"
    if _lowest_go(keep, weight.abs(), int((~keep[0]).sum())):
        return "every row has as many zeros: compare over the whole matrix, not within rows"
    if _lowest_go(keep.T, weight.abs().T, int((~keep[:, 0]).sum())):
        return "every column has as many zeros: compare over the whole matrix, not within columns"
    if zeros != count:
        at = scores.flatten().sort().values[max(0, count - 1)]
        tied = _lowest_go(flat, scores, zeros) and int((scores == at).sum()) > 1
        why = (
            "of those tied at the threshold only some may go"
            if tied
            else "round down, and look at the threshold itself"
        )
        return f"{zeros} zeros, ⌊ratio · size⌋ = {count} are asked for: {why}"
    gone, stays = scores[~flat].max(), scores[flat].min()
    return f"the number of zeros is right, but |W| = {gone:.3f} goes while {stays:.3f} stays"


@check(library=lambda scores, n, m: Sparsity.parse(f"{n}:{m}").mask(scores), gives=as_mask)
def ex_01b(function: Callable) -> None:
    """nm_mask(scores, n, m): bool (out, in), True for the n highest of every m consecutive inputs."""
    draw = torch.Generator().manual_seed(1)
    tied = torch.tensor([[2.0, 2, 2, 1, 0, 0, 0, 0], [3, 1, 1, 1, 5, 5, 4, 5]])
    plain = [torch.rand(out, width, generator=draw) for out, width in ((8, 12), (6, 8), (5, 16))]
    for scores, n, m in ((plain[0], 1, 4), (plain[1], 2, 4), (plain[2], 3, 8), (tied, 2, 4)):
        where = f"Ex 01b (shape {tuple(scores.shape)}, {n}:{m}{', with ties' if scores is tied else ''})"
        keep = _as_mask(where, answer("Ex 01b", function, scores.clone(), n, m), scores)
        if not _lowest_go(keep.reshape(-1, m), scores.reshape(-1, m), m - n):
            raise CheckFailed(f"{where}: {_wrong_groups(keep, scores, n, m)}.")


def _wrong_groups(keep: Tensor, scores: Tensor, n: int, m: int) -> str:
    groups, ranked, (out, width) = keep.reshape(-1, m), scores.reshape(-1, m), keep.shape
    zeros = keep.numel() * (m - n) // m
    if _lowest_go(~groups, ranked, m - n):
        return "your mask is upside down: True must mean that a weight stays"
    if _lowest_go(groups, ranked, n):
        return f"n and m - n are swapped: {n}:{m} keeps {n} of {m}, you let {n} of {m} go"
    if _lowest_go(groups, -ranked, m - n):
        return "you keep the lowest scores of every group; the lowest must go"
    if out % m == 0 and _lowest_go(keep.T.reshape(-1, m), scores.T.reshape(-1, m), m - n):
        return "your groups run down the outputs; a group is m consecutive inputs, within one row"
    strided = [tensor.view(out, m, width // m).transpose(1, 2).reshape(-1, m) for tensor in (keep, scores)]
    if _lowest_go(*strided, m - n):
        return "your groups gather inputs that lie apart; a group is m consecutive inputs"
    stays, all_zeros, in_rows = groups.sum(1), int((~keep).sum()), (~keep).sum(1)
    if all_zeros == zeros and not (in_rows == in_rows[0]).all():
        return f"the zeros are {1 - n / m:.0%} in total, but not in every row, nor in every group of {m}"
    if all_zeros == zeros and not (stays == n).all():
        return f"the zeros are {1 - n / m:.0%} in every row, but not in every group of {m} inputs"
    if not (stays == n).all():
        return f"a group keeps {int(stays[stays != n][0])} of {m}; exactly {n} must stay, also where scores are tied"
    return "every group keeps the right number, but not the highest scores"


def _by_luck(weight: Tensor, tries: int = 200) -> Tensor:
    """The best of some random orders of the inputs."""
    draw = torch.Generator().manual_seed(0)
    orders = [torch.randperm(weight.shape[1], generator=draw) for _ in range(tries)]
    return min(orders, key=lambda order: _lost(weight[:, order]))


def _lost(weight: Tensor) -> float:
    """The share of the sum of squares that 2:4 by magnitude takes."""
    return float(weight[~Sparsity.parse("2:4").mask(weight.abs())].square().sum() / weight.square().sum())


@check(library=_by_luck, gives=lambda found: as_tensor(found).long())
def ex_01e(function: Callable) -> None:
    """better_order(weight): (in,) a permutation of the inputs in which 2:4 loses a tenth less than in the given order."""
    draw = torch.Generator().manual_seed(3)
    for out, width in ((16, 8), (24, 16), (8, 32)):
        weight = torch.randn(out, width, generator=draw) * torch.linspace(3, 0.3, width)  # large beside large
        found = answer("Ex 01e", function, weight.clone())
        where = f"Ex 01e (shape {out} × {width})"
        try:
            order = torch.as_tensor(found).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise CheckFailed(
                f"{where}: you return {found!r:.60}; return the numbers of the inputs, in order."
            ) from None
        if order.shape == weight.shape:
            raise CheckFailed(f"{where}: you return a matrix; return the order of its inputs, {width} numbers.")
        if order.shape != (width,):
            raise CheckFailed(f"{where}: your order has shape {tuple(order.shape)}; {width} inputs are to be ordered.")
        if sorted(order.tolist()) != list(range(width)):
            raise CheckFailed(f"{where}: an order holds each of 0 … {width - 1} exactly once; yours does not.")
        before, after = _lost(weight), _lost(weight[:, order.long()])
        if after > 0.9 * before:
            told = "nothing changes" if after == before else f"{before:.1%} was lost before, {after:.1%} is lost now"
            raise CheckFailed(f"{where}: {told}; try more orders, and keep the best one.")
