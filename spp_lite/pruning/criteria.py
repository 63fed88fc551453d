"""Pruning criteria as pure functions of one weight and the statistics of its inputs.

Knows nothing about models. Comparison groups differ: magnitude compares over the whole matrix, Wanda within each row
(output), SparseGPT within blocks of 128 columns. An n:m pattern always compares within its groups of m inputs.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .sparsity import Sparsity, SparsityError, drop_lowest


def magnitude_scores(weight: Tensor) -> Tensor:
    """|W|, compared over the whole matrix: exactly ⌊ratio · out · in⌋ zeros (the threshold in Wanda's code takes one more).

    weight: (out, in). Returns (out, in), float32.
    """
    return weight.float().abs()


def wanda_scores(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|W| · ‖x‖₂ per input (Sun et al. 2023, Eq. 1), compared within each row: exactly ⌊ratio · in⌋ zeros in every one.

    weight: (out, in); input_norm: (in,), root of the mean (or sum: the order is the same) of the squares over
    calibration tokens. Returns (out, in), float32.
    """
    return weight.float().abs() * input_norm.float()


def inverse_factor(hessian: Tensor, *, damping: float = 0.01, name: str = "weight") -> tuple[Tensor, Tensor]:
    """Upper Cholesky factor of the damped inverse Hessian (Frantar & Alistarh 2023, Sec. 3.3), and the dead inputs.

    hessian: (in, in), 2XᵀX/n. Inputs that never fire get a 1 on the diagonal; `damping` times the mean diagonal is
    added, and ten times as much, with a warning, up to the mean itself where float32 finds no factor. Linears that
    share an input share this. Returns (in, in) float32 and bool (in,). Raises SparsityError.
    """
    hessian = hessian.float().clone()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    mean, added = diagonal.mean(), 0.0
    for share in (damping, *(value for value in (0.01, 0.1, 1.0) if value > damping)):
        diagonal.add_((share - added) * mean)
        added = share
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and bool(upper.isfinite().all()):
            if share != damping:
                warnings.warn(f"{name}: damping {damping:g} was too small, {share:g} was used", stacklevel=2)
            return upper, dead
    raise SparsityError(f"{name}: the Hessian is not positive definite at damping {added:g}: check the calibration")


def sparsegpt(
    weight: Tensor, factor: Tensor, dead: Tensor, sparsity: Sparsity, *, block: int = 128, name: str = "weight"
) -> Tensor:
    """Prune column by column and let the columns to the right make up for it (Frantar & Alistarh 2023, Algorithm 1).

    weight: (out, in); factor, dead: from inverse_factor. A ratio holds within each block of `block` columns, counted so
    that the matrix (with "row:", every row) has exactly ⌊ratio · size⌋ zeros; the authors' threshold takes one more a
    block. n:m holds in each group, chosen when the loop reaches it. A weight that is 0 already stays 0: it is no place
    to make up for others, and a block that has more of them than its share keeps them. Returns the new weight (out, in),
    float32.
    """
    return sparsegpt_together([weight], factor, dead, [sparsity], block=block, names=[name])[0]


def sparsegpt_together(
    weights: Sequence[Tensor],
    factor: Tensor,
    dead: Tensor,
    sparsities: Sequence[Sparsity],
    *,
    block: int = 128,
    names: Sequence[str] = (),
) -> list[Tensor]:
    """sparsegpt() of several weights (out_i, in) that share an input, in one walk over the columns.

    The arithmetic is the authors', the layout is not: weights lie transposed, so that a column is contiguous, and
    updates are gathered twice (16 columns, then the block) instead of once. Sums round differently in the last bit.
    """
    for number, (weight, sparsity) in enumerate(zip(weights, sparsities, strict=True)):
        sparsity.check_fits(weight, names[number] if names else "weight")
    columns = torch.cat([weight.float().T for weight in weights], dim=1)  # (in, Σ out_i), a fresh copy
    columns[dead] = 0
    kept = columns != 0  # before the updates, which would fill what is pruned already
    outs = [len(weight) for weight in weights]
    m = max(sparsity.m or 1 for sparsity in sparsities)
    block = max(m, block - block % m)  # no group is cut
    for start in range(0, len(columns), block):
        part = columns[start : start + block]
        rows = factor[start : start + block]
        pieces = _pieces(part, outs, sparsities)
        inner = rows[:, start : start + block].contiguous()
        errors = _prune_block(part, kept[start : start + block], inner, pieces, start, max(m, 16 - 16 % m))
        columns[start + block :].addmm_(rows[:, start + block :].T, errors, alpha=-1)
    return [piece.T.contiguous() for piece in columns.split(outs, dim=1)]


def _pieces(part: Tensor, outs: list[int], sparsities: Sequence[Sparsity]) -> list[tuple[slice, Sparsity]]:
    """Which columns of `part` (width, Σ out_i) follow which pattern; n:m looks at one output only, so equals are joined."""
    pieces: list[tuple[slice, Sparsity]] = []
    stop = 0
    for out, sparsity in zip(outs, sparsities, strict=True):
        start, stop = stop, stop + out
        if pieces and sparsity.m and pieces[-1][1] == sparsity:
            start = pieces.pop()[0].start
        pieces.append((slice(start, stop), sparsity))
    return pieces


def _prune_block(
    part: Tensor, kept: Tensor, factor: Tensor, pieces: list[tuple[slice, Sparsity]], start: int, step: int
) -> Tensor:
    """Prune columns `part` (width, Σ out_i) in place, and what is not `kept` in any case; returns the scaled errors that
    the later blocks absorb."""
    scale = factor.diagonal()[:, None] ** 2 / kept  # infinite, and so a score of 0, where nothing is left to prune
    drop = torch.zeros_like(part)  # 1 where a weight goes: products are faster than selections
    for here, sparsity in pieces:
        if not sparsity.m:
            keep = _keep_in_block((part[:, here] ** 2 / scale[:, here]).T, sparsity, start).T
            drop[:, here] = ~(keep & kept[:, here])
    errors = torch.empty_like(part)
    for first in range(0, len(part), step):
        last = min(first + step, len(part))
        for i in range(first, last):
            for here, sparsity in pieces:
                if sparsity.m and i % sparsity.m == 0:
                    group = slice(i, i + sparsity.m)
                    keep = sparsity.mask((part[group, here] ** 2 / scale[group, here]).T).T
                    drop[group, here] = ~(keep & kept[group, here])
            torch.mul(part[i], drop[i], out=errors[i])
            part[i] -= errors[i]  # exactly 0 where it goes
            errors[i] /= factor[i, i]
            part[i + 1 : last].addr_(factor[i, i + 1 : last], errors[i], alpha=-1)
        part[last:].addmm_(factor[first:last, last:].T, errors[first:last], alpha=-1)
    return errors


def _keep_in_block(scores: Tensor, sparsity: Sparsity, start: int) -> Tensor:
    """Keep-mask of a block (out, width) whose first column is `start`: what is due by its end, less what went before."""
    scores = scores.contiguous()
    rows = scores if sparsity.per_row else scores.view(1, -1)
    each = rows.shape[1] // scores.shape[1]
    due = sparsity.zeros(each * (start + scores.shape[1])) - sparsity.zeros(each * start)
    return drop_lowest(rows, due).view(scores.shape)
