"""Pruning criteria as pure functions of one weight and the statistics of its inputs.

Knows nothing about models. Comparison groups differ: magnitude compares over the whole matrix, Wanda within each row
(output), SparseGPT within blocks of 128 columns. An n:m pattern always compares within its groups of m inputs.
"""

import torch
from torch import Tensor

from .sparsity import Sparsity, SparsityError


def magnitude_scores(weight: Tensor) -> Tensor:
    """|W|. weight: (out, in). Returns (out, in), float32. Compared over the whole matrix."""
    return weight.float().abs()


def wanda_scores(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|W| · ‖x‖₂ per input (Sun et al. 2023, Eq. 1). Compared within each row.

    weight: (out, in); input_norm: (in,), root of the mean (or sum: the order is the same) of the squares over
    calibration tokens. Returns (out, in), float32.
    """
    return weight.float().abs() * input_norm.float()


def inverse_factor(hessian: Tensor, *, damping: float = 0.01, name: str = "weight") -> tuple[Tensor, Tensor]:
    """Upper Cholesky factor of the damped inverse Hessian (Frantar & Alistarh 2023, Sec. 3.3), and the dead inputs.

    hessian: (in, in), 2XᵀX/n. Inputs that never fire get a 1 on the diagonal; `damping` times the mean diagonal is
    added. Linears that share an input share this. Returns (in, in) float32 and bool (in,).
    """
    hessian = hessian.float().clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    lower, info = torch.linalg.cholesky_ex(hessian)
    if not info:
        upper, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if info:
        raise SparsityError(
            f"{name}: the Hessian is not positive definite at damping {damping:g}: give a larger damping"
        )
    return upper, dead


def sparsegpt(
    weight: Tensor, factor: Tensor, dead: Tensor, sparsity: Sparsity, *, block: int = 128, name: str = "weight"
) -> Tensor:
    """Prune column by column and let the columns to the right make up for it (Frantar & Alistarh 2023, Algorithm 1).

    weight: (out, in); factor, dead: from inverse_factor. Unstructured ratios hold in each block of columns, n:m in each
    group. Returns the new weight (out, in), float32, zeros in place.
    """
    sparsity.check_fits(weight, name)
    weight = weight.float().clone()
    weight[:, dead] = 0
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        errors = _sparsegpt_block(weight[:, start:stop], factor[start:stop, start:stop], sparsity)
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


def _sparsegpt_block(columns: Tensor, factor: Tensor, sparsity: Sparsity) -> Tensor:
    """Prune `columns` (out, width) in place; returns the scaled errors (out, width) that the later blocks absorb."""
    diagonal = factor.diagonal()
    drop = torch.zeros_like(columns, dtype=torch.bool)
    if not sparsity.m:
        drop = ~sparsity.mask((columns / diagonal) ** 2)
    errors = torch.zeros_like(columns)
    for i in range(columns.shape[1]):
        if sparsity.m and i % sparsity.m == 0:
            group = slice(i, i + sparsity.m)
            drop[:, group] = ~sparsity.mask((columns[:, group] / diagonal[group]) ** 2)
        column = columns[:, i]
        errors[:, i] = torch.where(drop[:, i], column / diagonal[i], 0)
        columns[:, i:] -= torch.outer(errors[:, i], factor[i, i:])
        column[drop[:, i]] = 0
    return errors
