"""Checks of notebook 02's second half: one step of the optimal brain surgeon, one column of SparseGPT, a whole row."""

from collections.abc import Callable

import torch
from torch import Tensor

from .common import answer, as_tensor, check, compare


def _draw(width: int, seed: int, out: int = 1) -> tuple[Tensor, Tensor]:
    """A weight (out, width) and the Hessian of inputs that vary together, float64."""
    draw = torch.Generator().manual_seed(seed)
    X = torch.randn(50, width, generator=draw) + torch.randn(50, 1, generator=draw)
    X = X * torch.linspace(0.5, 2, width)
    weight = torch.randn(out, width, generator=draw)
    return (weight + weight.sign()).double(), (2 * X.T @ X).double()  # no weight is near zero


def _obs_step(row: Tensor, H: Tensor, q: int) -> Tensor:
    inverse = H.inverse()
    new = row - row[q] / inverse[q, q] * inverse[:, q]
    new[q] = 0
    return new


@check(library=_obs_step, gives=as_tensor)
def ex_02c(function: Callable) -> None:
    """obs_step(row, H, q): (in,), the row in which weight q is zero and the others make up for it as well as they can."""
    for width, q in ((4, 1), (4, 3), (6, 0)):
        weight, H = _draw(width, width + q)
        row = weight[0]
        found = answer("Ex 02c", function, row.clone(), H.clone(), q)
        compare("Ex 02c", found, _obs_step(row, H, q), _wrong_steps(row, H, q), case=f"{width} inputs, q = {q}")


def _wrong_steps(row: Tensor, H: Tensor, q: int) -> list[tuple[object, str]]:
    inverse, zeroed = H.inverse(), row.clone()
    zeroed[q] = 0
    step = inverse[:, q] / inverse[q, q]
    kept = row - row[q] * step
    kept[q] = row[q]
    both = zeroed - row[q] * step
    return [
        (zeroed, "weight q is zero, but the others do not make up for it"),
        (-row[q] * step, "that is the change δ; return the row after it, w + δ"),
        (kept, "the others make up for weight q, but it is still there"),
        (both, "weight q is subtracted twice: δ alone makes it zero"),
        (row + row[q] * step, "the sign of δ is wrong: weight q has doubled"),
        (row - row[q] * H[:, q] / H[q, q], "you use H itself; the step needs its inverse"),
        (row - row[q] * H[:, q], "you use H itself; the step needs its inverse, and divides by its entry q, q"),
        (row - row[q] * inverse[:, q], "divide by the entry q, q of the inverse: only then weight q becomes zero"),
        (row - inverse[:, q] / inverse[q, q], "the step is w_q times as large: a large weight leaves a large error"),
        (row - row[q] * inverse[:, q] / inverse.diagonal(), "divide by one number, the entry q, q of the inverse"),
        (row - row[q] * step * (torch.arange(len(row)) >= q), "weights to the left of q must change as well"),
    ]


def _prune_column(weight: Tensor, U: Tensor, j: int, drop: Tensor) -> Tensor:
    new = weight.clone()
    error = weight[:, j] * drop / U[j, j]
    new[:, j:] -= error[:, None] * U[j, j:]
    new[drop, j] = 0
    return new


@check(library=_prune_column, gives=as_tensor)
def ex_02d(function: Callable) -> None:
    """prune_column(weight, U, j, drop): (out, in) after column j; in rows where drop is True its weight goes."""
    for width, j in ((6, 2), (5, 0), (4, 3)):
        weight, H = _draw(width, 10 + width, out=5)
        U = torch.linalg.cholesky(H.inverse(), upper=True)
        drop = torch.tensor([True, False, True, False, True])
        found = answer("Ex 02d", function, weight.clone(), U.clone(), j, drop.clone())
        reasons = _wrong_columns(weight, H, U, j, drop)
        compare("Ex 02d", found, _prune_column(weight, U, j, drop), reasons, case=f"column {j} of {width}")


def _wrong_columns(weight: Tensor, H: Tensor, U: Tensor, j: int, drop: Tensor) -> list[tuple[object, str]]:
    gone, right, inverse = weight[:, j] * drop, _prune_column(weight, U, j, drop), H.inverse()
    still = right.clone()
    still[:, j] = weight[:, j]
    error = gone / U[j, j]
    reasons = [
        (weight, "nothing has changed"),
        (_prune_column(weight, U, j, ~drop), "upside down: drop is True where the weight goes"),
        (_prune_column(weight, U, j, drop | True), "you prune column j in every row; drop says in which"),
        (still, "the columns to the right are right, but the weights of column j are still there"),
        (weight - torch.outer(gone, inverse[j]) / inverse[j, j], "the surgeon's step also changes columns to the left"),
        (weight - torch.outer(gone, U[j]), "divide the error by U[j, j]"),
        (weight - torch.outer(error, U[j]) / U[j, j], "divide by U[j, j] once"),
        (weight + torch.outer(error, U[j]), "the sign is wrong: the weights of column j have doubled"),
        (weight - torch.outer(error, U[:, j]), "you use column j of U; the columns to the right need its row j"),
        (weight - torch.outer(gone, H[j]) / H[j, j], "you use the Hessian; the walk needs U"),
        (right - weight, "that is the change; return the weight after it"),
    ]
    if j == len(H) - 1:  # nothing is to the right of the last column
        return reasons
    zeroed = weight.masked_fill(drop[:, None] & (torch.arange(len(H)) == j), 0)
    next_only = torch.cat([zeroed[:, : j + 1], right[:, j + 1 : j + 2], weight[:, j + 2 :]], 1)
    return [
        (zeroed, "the weights are zero, but no column makes up for them"),
        (next_only, "all columns to the right change, not only the next"),
        *reasons,
    ]


def _prune_row(row: Tensor, H: Tensor, count: int) -> Tensor:
    new, stays = row.clone(), torch.arange(len(row))
    for _ in range(count):
        part = H[stays][:, stays]
        q = int((new[stays] ** 2 / part.inverse().diagonal()).argmin())
        new[stays] = _obs_step(new[stays], part, q)
        stays = stays[torch.arange(len(stays)) != q]
    return new


@check(library=_prune_row, gives=as_tensor)
def ex_02e(function: Callable) -> None:
    """prune_row(row, H, count): the row after `count` steps of the surgeon, each at the cheapest weight that is left."""
    for width, count, seed in ((5, 2, 31), (7, 4, 32), (8, 5, 36)):
        weight, H = _draw(width, seed)
        row = weight[0]
        found = answer("Ex 02e", function, row.clone(), H.clone(), count)
        reasons = _wrong_rows(row, H, count)
        compare("Ex 02e", found, _prune_row(row, H, count), reasons, case=f"{count} of {width} weights go")


def _wrong_rows(row: Tensor, H: Tensor, count: int) -> list[tuple[object, str]]:
    inverse = H.inverse()
    cost = row**2 / inverse.diagonal()
    same, mixed, by_size = row.clone(), row.clone(), row.clone()
    for q in cost.argsort()[:count].tolist():  # costs of the dense row, its inverse in every step
        same = _obs_step(same, H, q)
    gone = torch.zeros(len(row), dtype=torch.bool)
    for _ in range(count):
        q = int((mixed**2 / inverse.diagonal()).masked_fill(gone, torch.inf).argmin())
        mixed = _obs_step(mixed, H, q)
        gone[q] = True
    for q in row.abs().argsort()[:count].tolist():
        by_size[q] = 0
    bare = row.clone()
    bare[cost.argsort()[:count]] = 0
    revived = "weights that went come back: leave their rows and columns out of H before you invert it again"
    return [
        (row, "nothing has changed"),
        (by_size, "those are the smallest weights, set to zero; the cost decides, and the others make up"),
        (bare, "no weight makes up for those that went"),
        (same, revived),
        (mixed, revived),
        (_prune_row(row, H, 1), "only one weight has gone"),
        (_prune_row(row, H, len(row) - count), "count is how many go, not how many stay"),
        (_refit(row, H, cost.argsort()[:count]), "choose anew after every step: the costs change when the others do"),
        (
            _refit(row, H, row.abs().argsort()[:count]),
            "you choose by size; the cheapest goes, w² over the inverse's diagonal",
        ),
    ]


def _refit(row: Tensor, H: Tensor, gone: Tensor) -> Tensor:
    """The best row with zeros at `gone`, for the old outputs: what any way to compensate fully ends at."""
    stays = torch.tensor([i for i in range(len(row)) if i not in gone.tolist()])
    new = torch.zeros_like(row)
    new[stays] = torch.linalg.solve(H[stays][:, stays], H[stays] @ row)
    return new
