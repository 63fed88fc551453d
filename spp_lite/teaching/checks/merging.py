"""Checks of notebook 07: zeros that a merge filled, and whether a weight keeps to n:m."""

from collections.abc import Callable

import torch
from torch import Tensor

from .common import CheckFailed, answer, compare


def ex_07a(function: Callable) -> str:
    """zeros_filled(before, after): how many entries are zero before and not after."""
    before = torch.cat([torch.zeros(24), torch.linspace(-3, 3, 24)]).view(6, 8)
    refilled, tiny, kept = before.clone(), before.clone(), 1.5 * before
    refilled.view(-1)[:9] = torch.tensor([0.7, 1.0, 0.2, 2.0, 0.1, 3.0, -0.4, -0.1, -1.0])
    refilled[-1] *= 1.5
    refilled[3, :2] = 0  # two new zeros
    tiny[0, :5] = torch.tensor([1e-12, -1e-12, float("nan"), 3.0, 4.0])
    kept[5, 0] = 0
    for case, after in (("a LoRA merge", refilled), ("a tiny number and a NaN", tiny), ("an SPP merge", kept)):
        zero, right = before == 0, int(((before == 0) & (after != 0)).sum())
        reasons = [
            (int((zero & (after > 0)).sum()), "negative numbers, and NaN, fill a zero too: ask for != 0, not for > 0"),
            (int((zero & (after.abs() > 1e-6)).sum()), "a tiny number, or a NaN, in place of a zero is not a zero"),
            (int((zero & (after.abs() > 0)).sum()), "NaN is not zero, and not above zero either: ask for != 0"),
            (right / int(zero.sum()), "that is the share of the zeros; their number is asked for"),
            (right / before.numel(), "that is a share; the number is asked for"),
            (int(zero.sum() - (after == 0).sum()), "new zeros elsewhere must not make up for filled ones: look entry by entry"),
            (int((zero & (after == 0)).sum()), "those are the zeros that stayed; count those that were filled"),
            (int((~zero & (after == 0)).sum()), "before and after are swapped: those entries became zero"),
            (int((after != before).sum()), "that counts every entry that changed; only those that were zero count"),
            (int((after != 0).sum()), "that counts all entries that are not zero now; only those that were zero count"),
        ]  # fmt: skip
        compare("Ex 07a", answer("Ex 07a", function, before.clone(), after.clone()), right, reasons, case=case)
    return "Ex 07a: right."


def _cases() -> list[tuple[Tensor, int, int, bool, str]]:
    """weight, n, m, the right answer, and what is wrong with the other one."""
    draw = torch.Generator().manual_seed(7)
    regular = torch.randn(8, 16, generator=draw) * torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(4)
    fewer, uneven, late = regular.clone(), regular.clone(), regular.clone()
    fewer[3, 4:8] = 0
    uneven[2, :8] = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 4.0])
    late[-1, -4:] = -torch.ones(4)
    straddling = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]]).repeat(4, 1)
    one, three = torch.tensor([[0.0, 5.0, 0.0, 0.0]]).repeat(4, 2), torch.tensor([[1.0, 5.0, 0.0, 2.0]]).repeat(4, 2)
    return [
        (regular, 2, 4, True, "this weight keeps to it: take m consecutive inputs of one row (not of a column), and at most n non-zeros"),
        (fewer, 2, 4, True, "a group with fewer than n non-zeros is fine: at most n, not exactly n"),
        (late, 2, 4, False, "the last group of the last row is full of negative numbers: look at every group, and ask for != 0"),
        (uneven, 2, 4, False, "one group has three non-zeros, its neighbour one: the average is right, but every group counts"),
        (straddling, 2, 4, True, "groups do not overlap: the first is inputs 0 to 3, the next 4 to 7"),
        (one, 1, 4, True, "1:4 keeps one of four and prunes three; you read n as the number pruned"),
        (three, 1, 4, False, "1:4 keeps one of four; this weight keeps three: n counts what is kept, not what is pruned"),
        (regular, 2, 8, False, "use m as it is given: groups of 8 hold four non-zeros here"),
        (regular.T.contiguous(), 2, 4, False, "groups run along the inputs (a row); this weight keeps 2:4 down its columns only"),
    ]  # fmt: skip


def ex_07b(function: Callable) -> str:
    """follows(weight, n, m): True when every m consecutive inputs hold at most n non-zeros."""
    for weight, n, m, right, reason in _cases():
        out, inputs = weight.shape
        where = f"Ex 07b ({n}:{m}, weight {out} × {inputs})"
        found = torch.as_tensor(answer("Ex 07b", function, weight.clone(), n, m))
        if found.numel() != 1:
            raise CheckFailed(
                f"{where}: one True or False for the whole weight is asked for, you return {found.numel()}."
            )
        if found.item() not in (0, 1):
            raise CheckFailed(f"{where}: return True or False, not {found.item():g}.")
        if bool(found) != right:
            raise CheckFailed(f"{where}: you return {bool(found)}; {reason}.")
    return "Ex 07b: right."
