"""Checks of notebook 05: R(α), Eq. 5 as written, the factors' gradients. Its counting and HiRA are in sizes.py."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adapter.kernels import effective_weight, row_blocks
from .common import CheckFailed, answer, as_tensor, check, compare

CASES = [(12, 8, 3, 2.0, (5,)), (10, 6, 4, 0.5, (2, 3)), (9, 4, 1, 1.5, (4,))]  # out, in, r, s, leading dims of x
TURNS = "row i took α[i % r]; blocks are contiguous: row i belongs to block ⌊i·r/out⌋"
EVEN = "your blocks differ by more than one row: use block(i) = ⌊i·r/out⌋"


def sizes(out: int, inputs: int, r: int) -> str:
    """The case in words."""
    return f"{out} outputs, {inputs} inputs, r = {r}"


def other_blocks(out: int, r: int) -> list[tuple[Tensor, str]]:
    """Plausible, but wrong blocks of every output, and what is wrong with them."""
    last = (torch.arange(out) // max(1, out // r)).clamp(max=r - 1)
    even = torch.arange(out) // -(-out // r)
    return [(torch.arange(out) % r, TURNS), (even, EVEN), (last, EVEN), (row_blocks(out, r).flip(0), "the order of α's rows is reversed")]  # fmt: skip


def _draw(out: int, inputs: int, r: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    weight = torch.randn(out, inputs, generator=draw) * (torch.rand(out, inputs, generator=draw) > 0.5)
    return weight, torch.randn(r, inputs, generator=draw), torch.randn(out, generator=draw)


@check(library=lambda alpha, out: alpha[row_blocks(out, len(alpha), alpha.device)])
def ex_05a(function: Callable) -> None:
    """R(alpha, out): (out, in), row i is α[⌊i·r/out⌋]; differentiable, in α's type."""
    draw = torch.Generator().manual_seed(5)
    for out, inputs, r in ((12, 8, 3), (10, 6, 4), (9, 4, 1), (5, 7, 5), (23, 3, 16)):
        alpha = torch.randn(r, inputs, generator=draw)
        right = alpha[row_blocks(out, r)]
        given = alpha.clone().requires_grad_()
        found, case = answer("Ex 05a", function, given, out), sizes(out, inputs, r)
        if not isinstance(found, Tensor):
            raise CheckFailed(f"Ex 05a ({case}): you return a {type(found).__name__}: return one tensor, (out, in).")
        reasons = [(alpha[blocks], reason) for blocks, reason in other_blocks(out, r)]
        reasons += [
            (row_blocks(out, r), "those are the numbers of the blocks: take these rows of α"),
            (right.T, "it is transposed: R(α) has a row for every output"),
            (alpha, "that is α itself: repeat its rows until there is one for every output"),
            (alpha.mean(0).expand(out, inputs), "every output took the mean row; it takes the row of its block"),
            (alpha[:1].expand(out, inputs), "every output took row 0; it takes the row of its block"),
        ]
        compare("Ex 05a", found, right, reasons, case=case)
        if found.dtype != alpha.dtype:
            raise CheckFailed(f"Ex 05a ({case}): keep the type of α, {alpha.dtype}; you return {found.dtype}.")
        if not found.requires_grad:
            raise CheckFailed(
                f"Ex 05a ({case}): the values are right, but α could not be trained: index α itself, do not copy its "
                "numbers (with .tolist(), .detach(), torch.tensor)."
            )


def _library_output(x, weight, alpha, beta, scaling, dropout):
    update = effective_weight(weight, [(alpha, beta, scaling)], 0.0)
    return F.linear(x, weight) + F.linear(dropout(x), update)


@check(library=_library_output, gives=as_tensor)
def ex_05b(function: Callable) -> None:
    """spp_output(x, weight, alpha, beta, scaling, dropout): x Wᵀ + s · dropout(x) [W ⊙ R(α)β]ᵀ (Eq. 5), any r."""
    draw = torch.Generator().manual_seed(5)
    for out, inputs, r, s, leading in CASES:
        weight, alpha, beta = _draw(out, inputs, r, draw)
        x = torch.randn(*leading, inputs, generator=draw)
        keep = (torch.rand(x.shape, generator=draw) > 0.4) / 0.6
        for dropped, case in ((x, "no dropout"), (x * keep, "with dropout")):
            given = [tensor.clone() for tensor in (x, weight, alpha, beta)]

            def drop(values, kept=dropped is not x, mask=keep):
                return values * mask if kept else values

            found = answer("Ex 05b", function, *given, s, drop)
            right = _library_output(x, weight, alpha, beta, s, drop)
            reasons = _wrong_outputs(x, dropped, weight, alpha, beta, s)
            compare("Ex 05b", found, right, reasons, case=f"{sizes(out, inputs, r)}, {case}")


def _wrong_outputs(x: Tensor, dropped: Tensor, weight: Tensor, alpha: Tensor, beta: Tensor, s: float) -> list:
    out, r = len(weight), len(alpha)
    frozen, rows = x @ weight.T, alpha[row_blocks(out, r)]

    def update(rows, x=dropped):
        return x @ (weight * rows * beta[:, None]).T

    return [
        (frozen, "that is x Wᵀ alone: the update is missing"),
        (s * update(rows), "that is the update alone: add the frozen term x Wᵀ"),
        (frozen + update(rows), "the scaling s is missing"),
        (s * (frozen + update(rows)), "s belongs to the update only, not to x Wᵀ"),
        (frozen + s * update(rows, x), "no input was dropped: the update sees dropout(x), not x"),
        (dropped @ weight.T + s * update(rows), "the frozen term sees x itself; only the update sees dropout(x)"),
        (dropped @ weight.T + s * update(rows, x), "the two terms are swapped: the update sees dropout(x), x Wᵀ does not"),
        (frozen + s * dropped @ (rows * beta[:, None]).T, "your update is not multiplied by W: it would fill the zeros"),
        (frozen - s * update(rows), "the update is added, not taken away"),
        (frozen + s * dropped @ (weight * rows).T, "β is missing: it scales every output"),
        (frozen + s * dropped @ (weight * beta[:, None]).T, "α is missing: it scales every input, block by block"),
        *[(frozen + s * update(alpha[blocks]), reason) for blocks, reason in other_blocks(out, r)],
        (effective_weight(weight, [(alpha, beta, s)]), "that is the weight W′; the outputs are asked for"),
    ]  # fmt: skip


def _library_gradients(G, weight, alpha, beta, scaling):
    product, block = scaling * G * weight, row_blocks(len(weight), len(alpha), weight.device)
    dalpha = torch.zeros_like(alpha).index_add(0, block, product * beta[:, None])
    return dalpha, (product * alpha[block]).sum(1)


@check(library=_library_gradients)
def ex_05c(function: Callable) -> None:
    """factor_gradients(G, weight, alpha, beta, scaling): dα (r, in) and dβ (out,), from G = dL/dW′; as autograd's."""
    draw = torch.Generator().manual_seed(5)
    for out, inputs, r, s, _ in CASES:
        weight, alpha, beta = _draw(out, inputs, r, draw)
        G, case = torch.randn(out, inputs, generator=draw), sizes(out, inputs, r)
        factors = alpha.clone().requires_grad_(), beta.clone().requires_grad_()
        rows = factors[0][row_blocks(out, r)]  # the reference is autograd's
        right = torch.autograd.grad((G * weight * (1 + s * rows * factors[1][:, None])).sum(), factors)
        found = answer("Ex 05c", function, *[tensor.clone() for tensor in (G, weight, alpha, beta)], s)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise CheckFailed(f"Ex 05c ({case}): return two tensors, dα and dβ.")
        if [getattr(each, "shape", 0) for each in found] == [right[1].shape, right[0].shape]:
            raise CheckFailed(f"Ex 05c ({case}): return dα first, then dβ.")
        given = (G, weight, alpha, beta, s)
        reasons_of = _wrong_dalpha(*given), _wrong_dbeta(*given)
        for name, mine, want, reasons in zip("αβ", found, right, reasons_of, strict=True):
            compare("Ex 05c", mine, want, reasons, case=f"d{name}, {case}")


def _wrong_dalpha(G: Tensor, weight: Tensor, alpha: Tensor, beta: Tensor, s: float) -> list:
    out, r = len(weight), len(alpha)
    hot, column = F.one_hot(row_blocks(out, r), r).float(), beta[:, None]
    counts = hot.sum(0)[:, None]

    def dalpha(product, hot=hot):
        return s * hot.T @ product

    return [
        (dalpha(G * weight * column) / s, "the scaling s is missing"),
        (dalpha(G * weight), "β is missing: W′ changes with α as fast as W ⊙ β says"),
        (dalpha(G * column), "W is missing: where W is zero, α changes nothing"),
        (dalpha(weight * column), "G is missing: it says how the loss changes with W′"),
        (s * G * weight * column, "you have one row for every output: add up the outputs that share a row of α"),
        (dalpha(G * weight * column) / counts, "that is the mean over a block; the changes add up"),
        ((s * G * weight * column).sum(0).expand(r, -1), "you added up all outputs: only those of a block share a row of α"),
        (-dalpha(G * weight * column), "the sign is wrong"),
        *[(dalpha(G * weight * column, F.one_hot(b, r).float()), why) for b, why in other_blocks(out, r)],
    ]  # fmt: skip


def _wrong_dbeta(G: Tensor, weight: Tensor, alpha: Tensor, beta: Tensor, s: float) -> list:
    out, r = len(weight), len(alpha)
    rows = alpha[row_blocks(out, r)]
    return [
        ((G * weight * rows).sum(1), "the scaling s is missing"),
        (s * (G * weight).sum(1), "R(α) is missing: W′ changes with β as fast as W ⊙ R(α) says"),
        (s * (G * rows).sum(1), "W is missing: where W is zero, β changes nothing"),
        (s * (weight * rows).sum(1), "G is missing: it says how the loss changes with W′"),
        (s * (G * weight * rows).mean(1), "that is the mean over the inputs; the changes add up"),
        (s * (G * weight * rows).sum(0), "you added up the outputs: β_i belongs to one output, add up its inputs"),
        (s * G * weight * rows, "you have one number for every weight: β_i acts on all inputs of its output, add them up"),
        (-s * (G * weight * rows).sum(1), "the sign is wrong"),
        *[(s * (G * weight * alpha[b]).sum(1), why) for b, why in other_blocks(out, r)],
    ]  # fmt: skip
