"""What every check needs: run the reader's function, compare, and say in words what is wrong."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable

import torch

_TRIED: Counter[str] = Counter()  # calls of answer(), by exercise


class CheckFailed(AssertionError):
    """The answer of an exercise is not right yet; the message says what to look at."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: the sentence."""
        return [str(self)]


def check(library: Callable) -> Callable:
    """Decorate a check ex_NNx(function), which raises CheckFailed: it says "right" and how many cases it tried.

    library: the right function, with which a notebook goes on while the reader's is not right yet.
    """

    def decorate(run: Callable[[Callable], None]) -> Callable[[Callable], str]:
        name = f"Ex {run.__name__.removeprefix('ex_')}"

        @functools.wraps(run)
        def checked(function: Callable) -> str:
            before = _TRIED[name]
            run(function)
            tried = _TRIED[name] - before
            return f"{name}: right, {tried} case{'s' * (tried > 1)} tried."

        checked.library = library
        return checked

    return decorate


def yours(function: Callable, checked: Callable) -> Callable:
    """The reader's function where its check says "right", else the library's; prints which of the two."""
    try:
        checked(function)
    except CheckFailed:
        name = f"Ex {checked.__name__.removeprefix('ex_')}"
        print(f"{name} is not right yet: this notebook goes on with the library's {function.__name__}.")
        return checked.library
    print(f"From here on this notebook runs your {function.__name__}.")
    return function


def answer(name: str, function: Callable, *arguments):
    """What the reader's function returns; CheckFailed when it is still blank or stops with an error."""
    _TRIED[name] += 1
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
