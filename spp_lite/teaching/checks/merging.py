"""Checks of notebook 07: zeros that a merge filled, whether a weight keeps to n:m, a merge with its checks, 2:4 storage."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .common import CheckFailed, answer, as_tensor, as_tensors, check, compare


def _library_filled(before: Tensor, after: Tensor) -> int:
    return int(((before == 0) & (after != 0)).sum())


@check(library=_library_filled)
def ex_07a(function: Callable) -> None:
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


def _cases() -> list[tuple[Tensor, int, int, bool, str]]:
    """weight, n, m, the right answer, and what is wrong with the other one."""
    draw = torch.Generator().manual_seed(7)
    regular = torch.randn(8, 16, generator=draw) * torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(4)
    fewer, uneven, late = regular.clone(), regular.clone(), regular.clone()
    fewer[3, 4:8] = 0
    uneven[2, :8] = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 4.0])
    late[-1, -4:] = -1e-8
    straddling = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]]).repeat(4, 1)
    two = torch.tensor([[0.0, 5.0, 1.0, 0.0]]).repeat(4, 2)
    one, three = torch.tensor([[0.0, 5.0, 0.0, 0.0]]).repeat(4, 2), torch.tensor([[1.0, 5.0, 0.0, 2.0]]).repeat(4, 2)
    return [
        (regular, 2, 4, True, "this weight keeps to it: take m consecutive inputs of one row (not of a column), and at most n non-zeros"),
        (fewer, 2, 4, True, "a group with fewer than n non-zeros is fine: at most n, not exactly n"),
        (late, 2, 4, False, "the last group of the last row is full of small negative numbers: look at every group, and ask for != 0"),
        (uneven, 2, 4, False, "one group has three non-zeros, its neighbour one: the average is right, but every group counts"),
        (straddling, 2, 4, True, "groups do not overlap: the first is inputs 0 to 3, the next 4 to 7"),
        (one, 1, 4, True, "1:4 keeps one of four and prunes three; you read n as the number pruned"),
        (three, 1, 4, False, "1:4 keeps one of four; this weight keeps three: n counts what is kept, not what is pruned"),
        (two, 1, 4, False, "use n as it is given: 1:4 keeps one of four, and this weight keeps two"),
        (regular, 2, 8, False, "use m as it is given: groups of 8 hold four non-zeros here"),
        (regular.T.contiguous(), 2, 4, False, "groups run along the inputs (a row); this weight keeps 2:4 down its columns only"),
    ]  # fmt: skip


def _library_follows(weight: Tensor, n: int, m: int) -> bool:
    return bool(((weight != 0).reshape(-1, m).sum(1) <= n).all())


@check(library=_library_follows)
def ex_07b(function: Callable) -> None:
    """follows(weight, n, m): True when every m consecutive inputs hold at most n non-zeros."""
    for weight, n, m, right, reason in _cases():
        out, inputs = weight.shape
        where = f"Ex 07b ({n}:{m}, weight {out} × {inputs})"
        found = answer("Ex 07b", function, weight.clone(), n, m)
        try:
            found = as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            raise CheckFailed(f"{where}: return True or False, not {found!r:.60}.") from None
        if found.numel() != 1:
            raise CheckFailed(
                f"{where}: one True or False for the whole weight is asked for, you return {found.numel()}."
            )
        if found.item() not in (0, 1):
            raise CheckFailed(f"{where}: return True or False, not {found.item():g}.")
        if bool(found) != right:
            raise CheckFailed(f"{where}: you return {bool(found)}; {reason}.")


def _library_merge(linears: dict[str, nn.Linear], merged: dict[str, Tensor], n: int, m: int) -> int:
    for name, new in merged.items():
        if filled := _library_filled(linears[name].weight, new):
            raise ValueError(f"{name}: {filled} zeros would be filled")
        if not _library_follows(new, n, m):
            raise ValueError(f"{name} does not keep to {n}:{m}")
        if not torch.isfinite(new).all():
            raise ValueError(f"{name}: a merged weight is not finite")
    changed = sum(int((linears[name].weight != new).sum()) for name, new in merged.items())
    for name, new in merged.items():
        linears[name].weight.data.copy_(new)
    return changed


def _pruned() -> tuple[dict[str, nn.Linear], dict[str, Tensor]]:
    """Three linears at 2:4, and their rightly merged weights; the last one makes a zero, and one entry is as before."""
    draw, linears, merged = torch.Generator().manual_seed(7), {}, {}
    for name, (out, inputs) in {"q_proj": (6, 8), "up_proj": (8, 12), "down_proj": (4, 16)}.items():
        linears[name] = nn.Linear(inputs, out, bias=False)
        dense = torch.rand(out, inputs, generator=draw) + 0.5
        linears[name].weight.data = dense * torch.tensor([1.0, 0.0, -1.0, 0.0]).repeat(inputs // 4)
        merged[name] = linears[name].weight.detach() * (1.5 + torch.rand(out, inputs, generator=draw))
    merged["down_proj"][0, 0], merged["down_proj"][0, 2] = 0.0, linears["down_proj"].weight.data[0, 2]
    return linears, merged


def _bad_merges() -> list[tuple[str, str, dict, dict]]:
    """Layer, what is wrong in words, linears, merged weights: every one has to be refused."""

    def spoil(layer, words, entries, before=()):
        linears, merged = _pruned()
        for row, column, value in before:
            linears[layer].weight.data[row, column] = value
            merged[layer][row, column] = value
        for row, column, value in entries:
            merged[layer][row, column] = value
        return layer, words, linears, merged

    return [
        spoil("down_proj", "one zero is filled", [(3, 1, 0.3)]),
        spoil("up_proj", "a zero moved: one is filled, its neighbour is new, 2:4 still holds", [(1, 1, -0.3), (1, 0, 0.0)]),
        spoil("down_proj", "the pruned layer itself has a group of three, so 2:4 is broken", [], [(2, 1, 0.7)]),
        spoil("q_proj", "a kept weight is NaN", [(0, 0, float("nan"))]),
        spoil("down_proj", "a kept weight is infinite", [(1, 2, float("-inf"))]),
    ]  # fmt: skip


@check(library=_library_merge)
def ex_07c(function: Callable) -> None:
    """checked_merge(linears, merged, n, m): write all weights, or raise ValueError with the layer and write none."""
    linears, merged = _pruned()
    before = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    right = sum(int((before[name] != new).sum()) for name, new in merged.items())
    found = answer("Ex 07c", _told, function, linears, merged)
    if isinstance(found, _Refused):
        raise CheckFailed(f"Ex 07c: you refuse a right merge, in which kept weights became others or zero: “{found}”.")
    if all(torch.equal(linear.weight, before[name]) for name, linear in linears.items()):
        raise CheckFailed("Ex 07c: after a right merge the linears still hold their old weights: write the new ones.")
    if not all(torch.equal(linear.weight, merged[name]) for name, linear in linears.items()):
        raise CheckFailed("Ex 07c: after a right merge some linears do not hold their new weight: write all of them.")
    reasons = [
        (0, "you counted after writing, when old and new are the same: count first"),
        (sum(new.numel() for new in merged.values()), "that is the number of all weights; count those that changed"),
        (sum(int((new != 0).sum()) for new in merged.values()), "those are the weights kept; count those that changed"),
        (len(merged), "that is the number of layers; count the weights that changed"),
    ]
    compare("Ex 07c", found, right, reasons, case="the number of changed weights")
    for layer, words, linears, merged in _bad_merges():
        _must_refuse(function, layer, words, linears, merged)
    if not isinstance(answer("Ex 07c", _told, function, *_pruned(), 1), _Refused):
        raise CheckFailed("Ex 07c: you accept weights of 2:4 where 1:4 is asked for: use n and m as they are given.")


class _Refused(str):
    """The message of a ValueError."""


def _told(function: Callable, linears: dict, merged: dict, n: int = 2):
    try:
        return function(linears, {name: new.clone() for name, new in merged.items()}, n, 4)
    except ValueError as error:
        return _Refused(error)


def _must_refuse(function: Callable, layer: str, words: str, linears: dict, merged: dict) -> None:
    before = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    found = answer("Ex 07c", _told, function, linears, merged)
    if not isinstance(found, _Refused):
        raise CheckFailed(f"Ex 07c: you accept a bad merge ({words}).")
    if not all(torch.equal(linear.weight, before[name]) for name, linear in linears.items()):
        raise CheckFailed(
            f"Ex 07c: you refuse a bad merge ({words}), but some weights are overwritten: check all layers first, then write."
        )
    if layer not in found:
        raise CheckFailed(f"Ex 07c: you refuse {layer} ({words}); your message does not name it: “{found}”.")


def _library_pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    groups = weight.reshape(-1, 4)
    places = (groups != 0).int().topk(2).indices
    return groups.gather(1, places), places


@check(library=_library_pack)
def ex_07d(function: Callable) -> None:
    """pack(weight): values and places, both (groups, 2), from which scatter rebuilds a 2:4 weight."""
    draw = torch.Generator().manual_seed(7)
    for out, inputs, emptied in ((4, 8, False), (6, 12, True)):
        weight = torch.randn(out, inputs, generator=draw) * torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(inputs // 4)
        weight[:, :4] = weight[:, [1, 0, 3, 2]]
        if emptied:
            weight[2, 4:8], weight[3, 3] = 0.0, 0.0
        found = answer("Ex 07d", function, weight.clone())
        case = f"weight {out} × {inputs}" + ", a group with fewer than two non-zeros" * emptied
        _unpack(found, weight, case)


def _unpack(found, weight: Tensor, case: str) -> None:
    where, groups = f"Ex 07d ({case})", weight.numel() // 4
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise CheckFailed(f"{where}: return two tensors, values and places.")
    try:
        values, places = as_tensors(found)
    except (TypeError, ValueError, RuntimeError):
        raise CheckFailed(f"{where}: two tensors are asked for, with two entries for every group.") from None
    if values.shape != (groups, 2) or places.shape != (groups, 2):
        shapes = f"{tuple(values.shape)} and {tuple(places.shape)}"
        raise CheckFailed(f"{where}: values and places have to be ({groups}, 2) each, yours are {shapes}.")
    if places.is_floating_point() or places.dtype == torch.bool:
        raise CheckFailed(f"{where}: places are whole numbers, 0 to 3; yours are {places.dtype}. Values come first.")
    if places.min() < 0 or places.max() > 3:
        raise CheckFailed(f"{where}: a place is 0 to 3, counted within its group; yours go to {int(places.max())}.")
    if (places[:, 0] == places[:, 1]).any():
        raise CheckFailed(f"{where}: a group names one place twice, so two values would share it.")
    rebuilt = torch.zeros(groups, 4).scatter(1, places.long(), values.to(weight.dtype)).view_as(weight)
    if not torch.equal(rebuilt, weight):
        off = int((rebuilt != weight).sum())
        raise CheckFailed(f"{where}: rebuilt from your values and places, {off} of {weight.numel()} weights differ.")
