"""Checks of notebook 04: zeros that an update fills, rows that could spare them, LoRA under a mask, whole structures."""

from collections.abc import Callable

import torch
from torch import Tensor

from .common import CheckFailed, answer, as_tensors, check, compare, matches


def _pruned(out: int, inputs: int, draw: torch.Generator) -> Tensor:
    return torch.randn(out, inputs, generator=draw) * (torch.rand(out, inputs, generator=draw) > 0.6)


def refilled(weight: Tensor, update: Tensor) -> float:
    """Of the zeros of weight, the share that are not zero in weight + update."""
    zero = weight == 0
    return float(((weight + update)[zero] != 0).float().mean())


@check(library=refilled)
def ex_04a(function: Callable) -> None:
    """refilled(weight, update): of the zeros of weight, the share that weight + update fills, between 0 and 1."""
    draw = torch.Generator().manual_seed(4)
    for out, inputs, density, case in ((6, 10, 1.0, "a dense update"), (9, 7, 0.7, "an update with zeros of its own")):
        weight = _pruned(out, inputs, draw)
        update = torch.randn(out, inputs, generator=draw) * (torch.rand(out, inputs, generator=draw) < density)
        survivors = torch.nonzero(weight)[:3]
        update[survivors[:, 0], survivors[:, 1]] = -weight[survivors[:, 0], survivors[:, 1]]  # three cancel out
        update[tuple(torch.nonzero((weight == 0) & (update != 0))[0])] = 1e-8  # is not zero
        found = answer("Ex 04a", function, weight.clone(), update.clone())
        zeros = weight == 0
        filled = int((zeros & (update != 0)).sum())
        compare("Ex 04a", found, filled / int(zeros.sum()), _wrong_shares(weight, update, filled), case=case)


def _wrong_shares(weight: Tensor, update: Tensor, filled: int) -> list[tuple[float, str]]:
    merged, size, zeros = weight + update, weight.numel(), int((weight == 0).sum())
    left, both = int((merged == 0).sum()), int(((weight == 0) & (merged == 0)).sum())
    return [
        (filled, "that is how many zeros are filled; divide by the number of zeros of W"),
        (100 * filled / zeros, "give a share between 0 and 1, not a percentage"),
        (filled / size, "you divided by all entries; of the zeros of W, how many are filled?"),
        (filled / (size - zeros), "you divided by the weights that are not zero; divide by the zeros of W"),
        (filled / (size - left), "you divided by the non-zeros of W + update; divide by the zeros of W"),
        (1 - left / zeros, "zeros that appear where W had none hide filled ones: look only where W was zero"),
        (both / zeros, "that is the share of the zeros that stay zero"),
        (left / size, "that is the share of zeros that W + update has; look only where W was zero"),
        (1 - left / size, "you counted all non-zeros of W + update; look only where W was zero"),
        ((zeros - left) / size, "that is by how much the share of zeros falls; divide by the zeros of W instead"),
        (float((update != 0).float().mean()), "you counted the update's non-zeros everywhere; look only where W was zero"),
        (float(((weight != 0) & (merged == 0)).sum()) / zeros, "you counted survivors that become zero"),
        (float(((weight != 0) & (merged != 0)).sum()) / zeros, "you looked where W is not zero"),
    ]  # fmt: skip


def free_rows(weight: Tensor, A: Tensor) -> int:
    """In how many rows of weight some b changes the row by b · A and fills no zero."""
    rank = torch.linalg.matrix_rank(A)
    return sum(int(torch.linalg.matrix_rank(A[:, row == 0]) < rank) for row in weight)


@check(library=free_rows)
def ex_04b(function: Callable) -> None:
    """free_rows(weight, A): the rows whose pruned columns of A (r, in) do not yet span all r dimensions."""
    draw = torch.Generator().manual_seed(4)
    for inputs, r, counts, twins, case in (
        (12, 3, (9, 8, 10, 2, 11), 0, "many zeros in most rows"),
        (10, 4, (0, 1, 2, 3, 4, 6), 0, "rows with few zeros"),
        (9, 2, (2, 2, 5, 3), 2, "two columns of A that point the same way"),
    ):
        a = torch.randn(r, inputs, generator=draw)
        a[:, :twins] = a[:, :1] * torch.arange(1.0, twins + 1)
        weight = torch.randn(len(counts), inputs, generator=draw)
        for row, count in enumerate(counts):  # the first row's zeros begin with the twins
            places = range(count) if row == 0 else torch.randperm(inputs, generator=draw)[:count].tolist()
            weight[row, list(places)] = 0.0
        found = answer("Ex 04b", function, weight.clone(), a.clone())
        if torch.as_tensor(found).dim():
            raise CheckFailed(f"Ex 04b ({case}): return one number, how many rows are free; you return {found!r:.60}.")
        compare("Ex 04b", found, free_rows(weight, a), _wrong_rows(weight, a), case=case)


def _wrong_rows(weight: Tensor, a: Tensor) -> list[tuple[float, str]]:
    zeros, r, out = (weight == 0).sum(1), len(a), len(weight)
    free = free_rows(weight, a)
    kept = sum(int(torch.linalg.matrix_rank(a[:, row != 0]) < r) for row in weight)
    by_count = int((zeros < r).sum())
    return [
        (by_count, "counting zeros is not enough: pruned columns of A may point the same way, so take their rank"),
        (out - free, "those are the rows that may not change; count the others"),
        (kept, "you looked at the columns of A where the weight survived; take those where it is zero"),
        (int((zeros == 0).sum()), "a row with a few zeros can be free too: it has r unknowns, one equation per zero"),
        (int((zeros <= r).sum()), "with r independent equations for r unknowns only b = 0 is left: compare with <"),
        (out, "a row whose pruned columns of A span all r dimensions may not change at all"),
        (free / out, "give a number of rows, not a share"),
    ]


def masked_update(weight: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """M ⊙ s·BA (out, in), M where weight is not zero."""
    return scaling * (B @ A) * (weight != 0)


@check(library=masked_update)
def ex_04c(function: Callable) -> None:
    """masked_update(weight, A, B, scaling): M ⊙ s·BA (out, in), through which gradients reach A and B."""
    draw = torch.Generator().manual_seed(4)
    for out, inputs, r, scaling in ((6, 10, 2, 1.5), (9, 5, 3, 0.5), (4, 4, 1, 3.0)):
        weight = _pruned(out, inputs, draw)
        a, b = torch.randn(r, inputs, generator=draw), torch.randn(out, r, generator=draw)
        given = [weight.clone(), *(part.clone().requires_grad_(True) for part in (a, b))]
        found = answer("Ex 04c", function, *given, scaling)
        case = f"{out} outputs, {inputs} inputs, r = {r}, s = {scaling}"
        compare("Ex 04c", found, masked_update(weight, a, b, scaling), _wrong_updates(weight, a, b, scaling), case=case)
        reached = torch.autograd.grad(found.sum(), given[1:], allow_unused=True) if found.requires_grad else [None]
        if any(gradient is None for gradient in reached):
            way = "compute with torch alone, without detach(), numpy() or no_grad()"
            raise CheckFailed(f"Ex 04c: the numbers are right, but no gradient reaches both A and B: {way}.")


def _wrong_updates(weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> list[tuple[Tensor, str]]:
    product, mask = b @ a, weight != 0
    update = scaling * product
    return [
        (update, "that is LoRA's own update: the mask is missing"),
        (update * ~mask, "your mask is upside down: it keeps the update where W is zero"),
        (product * mask, "the scaling s is missing"),
        (update * mask / len(a), "s is lora_alpha / r already: do not divide by the rank again"),
        (update * weight, "you multiply by W itself; multiply by its mask, which is 1 where W is not zero"),
        (update * (weight > 0), "negative weights survive too: the mask is weight != 0"),
        (weight + update * mask, "that is W′; the update alone is asked for"),
        (weight + update, "that is LoRA's merged weight; the masked update alone is asked for"),
        ((weight + update) * mask, "that is W′; the update alone is asked for"),
        ((update * mask).T, "your update is transposed: it has a row per output and a column per input"),
        (mask.to(update.dtype), "that is the mask; multiply it by s · BA"),
    ]


def spare(weight: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """A and B without what touches the columns and the rows of weight that are zero from end to end."""
    kept = weight != 0
    return A * kept.any(0), B * kept.any(1)[:, None]


@check(library=spare, gives=as_tensors)
def ex_04d(function: Callable) -> None:
    """spare(weight, A, B): A′ and B′, as near as can be, whose product fills no zero of whole columns and whole rows."""
    draw = torch.Generator().manual_seed(4)
    for rows, columns, case in (((), (1, 4), "columns"), ((0, 5), (), "rows"), ((2,), (0, 3), "rows and columns")):
        weight = torch.randn(6, 8, generator=draw)
        weight[list(rows)] = 0.0
        weight[:, list(columns)] = 0.0
        a, b = torch.randn(2, 8, generator=draw), torch.randn(6, 2, generator=draw)
        found = answer("Ex 04d", function, weight.clone(), a.clone(), b.clone())
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise CheckFailed(f"Ex 04d: return two tensors, the new A and the new B; you return {found!r:.60}.")
        _judge_pair(found, spare(weight, a, b), weight, a, b, f"whole {case} are zero")


def _judge_pair(found, right, weight: Tensor, a: Tensor, b: Tensor, case: str) -> None:
    swapped = matches(found[0], right[1]) and matches(found[1], right[0])
    said = "return A first, then B" if swapped else ""
    kept = weight != 0
    gone_a, gone_b = a * ~kept.any(0), b * ~kept.any(1)[:, None]
    for name, one, wanted, old, gone, line in (
        ("A", found[0], right[0], a, gone_a, "column"),
        ("B", found[1], right[1], b, gone_b, "row"),
    ):
        reasons = [
            (old, f"{name} still touches zeros: a {line} of it for every {line} of W that is zero has to go"),
            (gone, f"your mask for {name} is upside down: what touches only zeros has to go, the rest stays"),
            (torch.zeros_like(old), f"{name} = 0 fills nothing, but trains nothing: keep what touches surviving weights"),
            (old[:, kept.any(0)] if name == "A" else old[kept.any(1)], f"keep the shape of {name}: set to zero, do not cut"),
        ]  # fmt: skip
        if swapped:
            raise CheckFailed(f"Ex 04d ({case}): {said}.")
        compare(f"Ex 04d: {name}", one, wanted, reasons, case=case)
