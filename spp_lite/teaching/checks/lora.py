"""Checks of notebook 04: the share of zeros that an update fills, LoRA's update under the mask."""

from collections.abc import Callable

import torch
from torch import Tensor

from .common import CheckFailed, answer, compare


def _pruned(out: int, inputs: int, draw: torch.Generator) -> Tensor:
    return torch.randn(out, inputs, generator=draw) * (torch.rand(out, inputs, generator=draw) > 0.6)


def _unchanged(name: str, given: list[Tensor], before: list[Tensor]) -> None:
    if not all(torch.equal(one, two) for one, two in zip(given, before, strict=True)):
        raise CheckFailed(f"{name}: your function changes the tensors that it is given: avoid +=, *= and add_().")


def ex_04a(function: Callable) -> str:
    """refilled(weight, update): of the zeros of weight, the share that weight + update fills, between 0 and 1."""
    draw = torch.Generator().manual_seed(4)
    for out, inputs, density, case in ((6, 10, 1.0, "a dense update"), (9, 7, 0.7, "an update with zeros of its own")):
        weight = _pruned(out, inputs, draw)
        update = torch.randn(out, inputs, generator=draw) * (torch.rand(out, inputs, generator=draw) < density)
        survivors = torch.nonzero(weight)[:3]
        update[survivors[:, 0], survivors[:, 1]] = -weight[survivors[:, 0], survivors[:, 1]]  # three cancel out
        given = [weight.clone(), update.clone()]
        found = answer("Ex 04a", function, *given)
        _unchanged("Ex 04a", given, [weight, update])
        zeros = weight == 0
        filled = int((zeros & (update != 0)).sum())
        compare("Ex 04a", found, filled / int(zeros.sum()), _wrong_shares(weight, update, filled), case=case)
    return "Ex 04a: right."


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


def ex_04b(function: Callable) -> str:
    """masked_update(weight, A, B, scaling): M ⊙ s·BA (out, in), M true where weight (out, in) is not zero."""
    draw = torch.Generator().manual_seed(4)
    for out, inputs, r, scaling in ((6, 10, 2, 1.5), (9, 5, 3, 0.5), (4, 4, 1, 3.0)):
        weight = _pruned(out, inputs, draw)
        a, b = torch.randn(r, inputs, generator=draw), torch.randn(out, r, generator=draw)
        given = [weight.clone(), a.clone(), b.clone()]
        found = answer("Ex 04b", function, *given, scaling)
        _unchanged("Ex 04b", given, [weight, a, b])
        case = f"{out} outputs, {inputs} inputs, r = {r}, s = {scaling}"
        right = scaling * (b @ a) * (weight != 0)
        compare("Ex 04b", found, right, _wrong_updates(weight, a, b, scaling), case=case)
    return "Ex 04b: right."


def _wrong_updates(weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> list[tuple[Tensor, str]]:
    product, mask = b @ a, weight != 0
    update = scaling * product
    return [
        (update, "that is LoRA's own update: the mask is missing"),
        (update * ~mask, "your mask is upside down: it keeps the update where W is zero"),
        (product * mask, "the strength s is missing"),
        (update * mask / len(a), "s is lora_alpha / r already: do not divide by the rank again"),
        (update * weight, "you multiply by W itself; multiply by its mask, which is 1 where W is not zero"),
        (update * (weight > 0), "negative weights survive too: the mask is weight != 0"),
        (weight + update * mask, "that is W′; the update alone is asked for"),
        (weight + update, "that is LoRA's merged weight; the masked update alone is asked for"),
        ((weight + update) * mask, "that is W′; the update alone is asked for"),
        ((update * mask).T, "your update is transposed: it has a row per output and a column per input"),
        (mask.to(update.dtype), "that is the mask; multiply it by s · BA"),
    ]
