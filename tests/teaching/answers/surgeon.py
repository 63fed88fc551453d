"""The checks of notebook 02's second half accept right variants and say what is wrong with plausible wrong ones."""

import torch

from spp_lite.teaching.checks import ex_02c, ex_02d, ex_02e


def step(row, H, q):
    inverse = torch.linalg.inv(H)
    return row - row[q] / inverse[q, q] * inverse[:, q]


def by_solving(row, H, q):
    """Least squares for the weights that stay, by the normal equations."""
    stays = [i for i in range(len(row)) if i != q]
    new = torch.zeros_like(row)
    new[stays] = torch.linalg.solve(H[stays][:, stays], H[stays] @ row)
    return new


def zeroed(row, q):
    new = row.clone()
    new[q] = 0
    return new


def column(weight, U, j, drop):
    new = weight.clone()
    for i in drop.nonzero().flatten().tolist():
        new[i, j:] -= weight[i, j] / U[j, j] * U[j, j:]
    return new


def column_at_once(weight, U, j, drop):
    return weight - torch.outer(weight[:, j] * drop, U[j]) / U[j, j]


def without(weight, j, drop):
    new = weight.clone()
    new[drop, j] = 0
    return new


def surgeon(weight, U, j, drop):
    inverse = U.T @ U
    return weight - torch.outer(weight[:, j] * drop, inverse[j]) / inverse[j, j]


def greedy(row, H, count):
    gone = []
    new = row.clone()
    for _ in range(count):
        stays = [i for i in range(len(row)) if i not in gone]
        costs = {q: _cost(row, H, [*gone, q]) - _cost(row, H, gone) for q in stays}
        gone.append(min(costs, key=costs.get))
        new = _best(row, H, gone)
    return new


def _best(row, H, gone):
    stays = [i for i in range(len(row)) if i not in gone]
    new = torch.zeros_like(row)
    new[stays] = torch.linalg.solve(H[stays][:, stays], H[stays] @ row)
    return new


def _cost(row, H, gone):
    change = _best(row, H, gone) - row
    return float(change @ H @ change)


def by_elimination(row, H, count):
    """The inverse is updated instead of computed anew."""
    new, inverse, alive = row.clone(), H.inverse(), torch.ones(len(row), dtype=torch.bool)
    for _ in range(count):
        cost = torch.where(alive, new**2 / inverse.diagonal(), torch.inf)
        q = int(cost.argmin())
        new = new - new[q] / inverse[q, q] * inverse[:, q]
        inverse = inverse - torch.outer(inverse[:, q], inverse[q]) / inverse[q, q]
        inverse[q, q], alive[q] = 1, False
    return new * alive


def dense_costs(row, H):
    return (row**2 / H.inverse().diagonal()).argsort()


def one_inverse(row, H, count):
    new = row.clone()
    for q in dense_costs(row, H)[:count].tolist():
        new = step(new, H, q)
    return new


def smallest(row, H, count):
    new = row.clone()
    new[row.abs().argsort()[:count]] = 0
    return new


RIGHT = [
    (ex_02c, step),
    (ex_02c, by_solving),
    (ex_02c, lambda row, H, q: step(row.float(), H.float(), q).tolist()),
    (ex_02d, column),
    (ex_02d, column_at_once),
    (ex_02d, lambda w, U, j, drop: column_at_once(w.float(), U.float(), j, drop.float())),
    (ex_02e, greedy),
    (ex_02e, by_elimination),
]
WRONG = [
    (ex_02c, lambda row, H, q: ..., "still blank"),
    (ex_02c, lambda row, H, q: zeroed(row, q), "do not make up"),
    (ex_02c, lambda row, H, q: step(row, H, q) - row, "that is the change"),
    (ex_02c, lambda row, H, q: 2 * row - step(row, H, q), "the sign"),
    (ex_02c, lambda row, H, q: step(row, H.inverse(), q), "H itself"),
    (ex_02c, lambda row, H, q: row - row[q] * H.inverse()[:, q], "divide by the entry q, q"),
    (ex_02c, lambda row, H, q: row - H.inverse()[:, q] / H.inverse()[q, q], "w_q times as large"),
    (ex_02c, lambda row, H, q: zeroed(row, q) + step(row, H, q) - row, "subtracted twice"),
    (ex_02c, lambda row, H, q: row @ H, "entries differ"),
    (ex_02d, lambda w, U, j, drop: None, "still blank"),
    (ex_02d, lambda w, U, j, drop: w, "nothing has changed"),
    (ex_02d, lambda w, U, j, drop: without(w, j, drop), "no column makes up"),
    (ex_02d, surgeon, "changes columns to the left"),
    (ex_02d, lambda w, U, j, drop: column(w, U, j, ~drop), "upside down"),
    (ex_02d, lambda w, U, j, drop: column(w, U, j, drop | True), "in every row"),
    (ex_02d, lambda w, U, j, drop: w - torch.outer(w[:, j] * drop, U[j]), r"divide the error by U\[j, j\]"),
    (ex_02d, lambda w, U, j, drop: w - torch.outer(w[:, j] * drop, U[j]) / U[j, j] ** 2, "once"),
    (ex_02d, lambda w, U, j, drop: 2 * w - column(w, U, j, drop), "the sign is wrong"),
    (ex_02d, lambda w, U, j, drop: w - torch.outer(w[:, j] * drop, U[:, j]) / U[j, j], "use column j of U"),
    (ex_02d, lambda w, U, j, drop: column(w, U, j, drop) - w, "that is the change"),
    (ex_02e, lambda row, H, count: ..., "still blank"),
    (ex_02e, lambda row, H, count: row, "nothing has changed"),
    (ex_02e, smallest, "smallest weights"),
    (ex_02e, one_inverse, "come back"),
    (ex_02e, lambda row, H, count: greedy(row, H, 1), "only one weight"),
    (ex_02e, lambda row, H, count: greedy(row, H, len(row) - count), "how many go"),
    (ex_02e, lambda row, H, count: _best(row, H, dense_costs(row, H)[:count].tolist()), "choose anew"),
    (ex_02e, lambda row, H, count: _best(row, H, row.abs().argsort()[:count].tolist()), "choose by size"),
]
