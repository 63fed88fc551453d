"""What every check needs: run the reader's function, compare, and say in words what is wrong."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from torch import Tensor

_TRIED: Counter[str] = Counter()  # calls of answer(), by exercise
_FAILED: list[tuple[dict[str, bool], str, str]] = []  # wrong answers: does a reason explain it, where, else what


class CheckFailed(AssertionError):
    """The answer of an exercise is not right yet; the message says what to look at."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: the sentence."""
        return [str(self)]


def check(library: Callable, gives: Callable | None = None) -> Callable:
    """Decorate a check ex_NNx(function), which raises CheckFailed: it says "right" and how many cases it tried.

    library: the right function, with which a notebook goes on while the reader's is not right yet. gives: what makes of
    any right answer (a list, an array, 0 and 1) what the notebook goes on with, as as_tensor or as_mask.
    """

    def decorate(run: Callable[[Callable], None]) -> Callable[[Callable], str]:
        name = f"Ex {run.__name__.removeprefix('ex_')}"

        @functools.wraps(run)
        def checked(function: Callable) -> str:
            before = _TRIED[name]
            _FAILED.clear()
            try:
                run(function)
            except Exception:
                if not _FAILED:
                    raise
            if _FAILED:
                raise _diagnosis() from None
            tried = _TRIED[name] - before
            return f"{name}: right, {tried} case{'s' * (tried > 1)} tried."

        checked.library, checked.gives = library, gives
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
    if checked.gives is None:
        return function
    return functools.wraps(function)(lambda *arguments: checked.gives(function(*arguments)))


def as_tensor(found) -> Tensor:
    """Numbers in any dress, as a dense tensor; numpy's float64 in torch's own type."""
    if isinstance(found, pd.DataFrame | pd.Series):
        found = found.to_numpy()
    if isinstance(found, np.ndarray):
        found = np.ascontiguousarray(found, np.float32 if found.dtype == np.float64 else None)
    if isinstance(found, list | tuple) and found and all(isinstance(part, Tensor) for part in found):
        found = torch.stack([*found])
    found = torch.as_tensor(float(found) if isinstance(found, Fraction | Decimal) else found)
    return found if found.layout is torch.strided else found.to_dense()


def as_mask(found) -> Tensor:
    """A mask of True and False, of one of 0 and 1."""
    return as_tensor(found).bool()


def as_tensors(found) -> tuple[Tensor, ...]:
    """Several tensors, of a tuple or list of such."""
    return tuple(map(as_tensor, found))


def answer(name: str, function: Callable, *arguments):
    """What the reader's function returns; CheckFailed when it is still blank or stops with an error."""
    _TRIED[name] += 1
    before = [_copy(one) for one in arguments]
    try:
        found = function(*arguments)
    except NotImplementedError:
        found = ...
    except Exception as error:
        raise CheckFailed(f"{name}: your code stopped with {type(error).__name__}: {error}") from None
    if found is ... or (found is None and any(map(_is_blank, (function, *arguments)))):
        raise CheckFailed(f"{name} is still blank: replace the line `...  # your turn`, and return the result.")
    if found is None:
        raise CheckFailed(f"{name} is still blank in this case: end every way through your function in a return.")
    if not all(map(_same, arguments, before)):
        raise CheckFailed(f"{name}: your function changes what it is given: work on a copy, without +=, *= and add_().")
    return found


def _is_blank(function) -> bool:
    """Does a function do nothing? Its line is still `...` then, which compiles to a bare return."""
    return len(getattr(getattr(function, "__code__", None), "co_code", range(99))) < 10


def _copy(value):
    """A copy of data; what is no data (a module, a function) as it is."""
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_copy, value)]
    return value.detach().clone() if isinstance(value, Tensor) else value.copy() if _is_table(value) else value


def _is_table(value) -> bool:
    return isinstance(value, pd.DataFrame | pd.Series)


def _same(now, before) -> bool:
    if isinstance(now, Mapping):
        return now.keys() == before.keys() and all(_same(now[key], before[key]) for key in now)
    if isinstance(now, list | tuple):
        return len(now) == len(before) and all(map(_same, now, before))
    if isinstance(now, Tensor):
        return now.shape == before.shape and torch.equal(now.nan_to_num(), before.nan_to_num())
    return now.equals(before) if _is_table(now) else now is before or now == before


def matches(found, right, tolerance: float = 1e-5) -> bool:
    """Numbers, arrays or tensors: the same shape and, to the tolerance, the same entries; a mask may be bool or 0/1."""
    try:
        found, right = (as_tensor(value).detach().double() for value in (found, right))
    except (TypeError, ValueError, RuntimeError):
        return found is right or (isinstance(found, str | list | tuple | dict) and found == right)
    return found.shape == right.shape and torch.allclose(found, right, rtol=tolerance, atol=tolerance, equal_nan=True)


def compare(name: str, found, right, reasons: Iterable[tuple[object, str]] = (), *, case: str = "") -> None:
    """CheckFailed at the end of the check unless found is right; reasons: (wrong answer, what is wrong with it).

    Told is the first reason for the first wrong answer that explains at least half of those to cases in which its mistake
    would show: one may be explained by chance. A wrong answer of None: the mistake does not show in this case.
    """
    if matches(found, right):
        return
    explains: dict[str, bool] = {}
    for wrong, reason in reasons:
        if wrong is not None:
            explains[reason] = explains.get(reason, False) or matches(found, wrong)
    _FAILED.append((explains, f"{name} ({case})" if case else name, _difference(found, right)))


def _diagnosis() -> CheckFailed:
    said = [(reason, so) for explains, *_ in _FAILED for reason, so in explains.items()]
    (explains, where, what), *_ = _FAILED
    for reason in (reason for reason, so in explains.items() if so):
        if said.count((reason, True)) >= said.count((reason, False)):
            return CheckFailed(f"{where}: {reason}.")
    return CheckFailed(f"{where}: {what}")


def _difference(found, right) -> str:
    if isinstance(right, Tensor):
        try:
            found = as_tensor(found)
            kind = f"shape {tuple(found.shape)}"
        except (TypeError, ValueError, RuntimeError):
            kind = type(found).__name__
        if kind != f"shape {tuple(right.shape)}":
            return f"you return {kind}, a tensor of shape {tuple(right.shape)} is asked for."
    if isinstance(right, Tensor) and right.dim():
        off = (found.double() - right.double()).abs() > 1e-5
        return f"{int(off.sum())} of {right.numel()} entries differ from what is asked for."
    return f"you return {found!r:.60}."
