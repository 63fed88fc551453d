"""What every check needs: run the reader's function, compare, and say in words what is wrong."""

from collections.abc import Callable, Iterable

import torch


class CheckFailed(AssertionError):
    """The answer of an exercise is not right yet; the message says what to look at."""


def answer(name: str, function: Callable, *arguments):
    """What the reader's function returns; CheckFailed when it is still blank or stops with an error."""
    try:
        found = function(*arguments)
    except NotImplementedError:
        found = None
    except Exception as error:
        raise CheckFailed(f"{name}: your code stopped with {type(error).__name__}: {error}") from None
    if found is None or found is ...:
        raise CheckFailed(f"{name} is still blank: replace the line `...  # your turn`, and return the result.")
    return found


def matches(found, right, tolerance: float = 1e-5) -> bool:
    """Numbers, arrays or tensors: the same shape and, to the tolerance, the same entries; a mask may be bool or 0/1."""
    try:
        found, right = (torch.as_tensor(value).detach().double() for value in (found, right))
    except (TypeError, ValueError, RuntimeError):
        return found is right or (isinstance(found, str | list | tuple | dict) and found == right)
    return found.shape == right.shape and torch.allclose(found, right, rtol=tolerance, atol=tolerance, equal_nan=True)


def compare(name: str, found, right, reasons: Iterable[tuple[object, str]] = (), *, case: str = "") -> None:
    """Raise CheckFailed unless found is right; reasons: (wrong answer, what is wrong with it), the first match is told."""
    if matches(found, right):
        return
    where = f"{name} ({case})" if case else name
    for wrong, reason in reasons:
        if matches(found, wrong):
            raise CheckFailed(f"{where}: {reason}.")
    shape, wanted = getattr(found, "shape", None), getattr(right, "shape", None)
    if wanted is not None and shape != wanted:
        kind = type(found).__name__ if shape is None else f"shape {tuple(shape)}"
        raise CheckFailed(f"{where}: you return {kind}, a tensor of shape {tuple(wanted)} is asked for.")
    if isinstance(right, torch.Tensor) and right.dim():
        off = (torch.as_tensor(found).double() - right.double()).abs() > 1e-5
        raise CheckFailed(f"{where}: {int(off.sum())} of {right.numel()} entries differ from what is asked for.")
    raise CheckFailed(f"{where}: you return {found!r:.60}.")
