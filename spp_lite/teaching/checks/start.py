"""Checks of notebook 00: the share of zeros, the gap recovered, the family that pruning hits hardest."""

from collections.abc import Callable

import pandas as pd
from torch import nn

from ...pruning.blocks import block_linears
from .common import CheckFailed, answer, check, compare


class _Toy(nn.Module):
    """Two blocks of two linears with a known share of zeros, and an embedding that must not count."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 8)
        self.layers = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 24), "down": nn.Linear(24, 8)}) for _ in range(2))
        for block in self.layers:
            block["up"].weight.data.fill_(1.0)
            block["down"].weight.data.fill_(-2.0)
        self.layers[0]["up"].weight.data[:6] = 0.0
        self.layers[1]["down"].weight.data[0] = 0.0
        self.layers[1]["down"].weight.data[1, 0] = 1e-8  # is not zero


def share_of_zeros(model: nn.Module) -> float:
    """Zeros in the linear weights of the decoder blocks, over all their entries."""
    weights = [linear.weight for linear in block_linears(model).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@check(library=share_of_zeros)
def ex_00a(function: Callable) -> None:
    """share_of_zeros(model): zeros in the blocks' linear weights over all their entries, between 0 and 1."""
    model = _Toy()
    weights = [linear.weight for linear in block_linears(model).values()]
    zeros, size = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    everything = sum(p.numel() for p in model.parameters())
    reasons = [
        (1 - zeros / size, "you counted the weights that are not zero"),
        (100 * zeros / size, "give a share between 0 and 1, not a percentage"),
        (zeros, "you counted the zeros; divide by the number of weights"),
        (zeros / everything, "you divided by all parameters; embeddings and biases do not count"),
        (
            sum(float((w == 0).float().mean()) for w in weights) / len(weights),
            "a mean of the layers' shares weighs small and large layers alike; add up zeros and sizes first",
        ),
        (zeros / 2 / size, "half of the zeros are missing: did you look at every block?"),
    ]
    compare("Ex 00a", answer("Ex 00a", function, model), zeros / size, reasons, case=f"{zeros} zeros in {size} weights")


def gap_recovered(dense: float, pruned: float, recovered: float) -> float:
    """The share of the lost accuracy that came back."""
    return (recovered - pruned) / (dense - pruned)


@check(library=gap_recovered)
def ex_00b(function: Callable) -> None:
    """gap_recovered(dense, pruned, recovered): the share of the lost accuracy that came back."""
    for dense, pruned, recovered in [(0.9, 0.5, 0.7), (0.8, 0.4, 0.8), (0.95, 0.6, 0.55)]:
        right = gap_recovered(dense, pruned, recovered)
        reasons = [
            (recovered - pruned, "that is the gain; divide it by what pruning took"),
            (recovered / dense, "that compares with the dense model; compare with what pruning took"),
            (1 - right, "that is the share still missing"),
            (100 * right, "give a share, not a percentage"),
            (max(0.0, right), "do not cut it off at 0: retraining can also hurt"),
        ]
        case = f"dense {dense:.0%}, pruned {pruned:.0%}, recovered {recovered:.0%}"
        compare("Ex 00b", answer("Ex 00b", function, dense, pruned, recovered), right, reasons, case=case)


def hardest_hit(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """The task whose acc fell by the most points; both tables: task, metric, value."""
    was, now = (table[table["metric"] == "acc"].set_index("task")["value"] for table in (before, after))
    return str((was - now).idxmax())


SCORES = [  # task: acc before and after, acc_norm before and after; no two sensible mistakes name the same task
    {"a": (0.9, 0.5, 0.9, 0.9), "b": (0.5, 0.15, 0.5, 0.4), "c": (0.6, 0.3, 0.9, 0.1), "d": (0.3, 0.1, 0.3, 0.3),
     "e": (0.2, 0.8, 0.4, 0.4)},
    {"a": (0.5, 0.55, 0.5, 0.5), "b": (0.3, 0.05, 0.8, 0.7), "c": (0.95, 0.6, 0.9, 0.8), "d": (0.4, 0.3, 0.9, 0.2)},
]  # fmt: skip


@check(library=hardest_hit)
def ex_00c(function: Callable) -> None:
    """hardest_hit(before, after): the name of the task that lost the most accuracy."""
    for scores in SCORES:
        before, after = _table(scores, 0), _table(dict(reversed(scores.items())), 1)
        found = answer("Ex 00c", function, before.copy(), after.copy())
        if not isinstance(found, str):
            raise CheckFailed(f"Ex 00c: the name of one task is asked for; you return {found!r:.60}.")
        right = hardest_hit(before, after)
        reasons = [
            (min(scores, key=lambda task: scores[task][1]), "that task is the lowest afterwards: which one fell most?"),
            (max(scores, key=lambda task: 1 - scores[task][1] / scores[task][0]), "points are asked for, not shares"),
            (max(scores, key=lambda task: scores[task][1] - scores[task][0]), "that task gained: before minus after"),
            (max(scores, key=lambda task: scores[task][2] - scores[task][3]), "look at the metric acc alone"),
        ]
        compare("Ex 00c", found, right, reasons, case=f"task: acc before and after {_pairs(scores)}")


def _table(scores: dict[str, tuple], late: int) -> pd.DataFrame:
    """As evaluate() returns it: late 0, before pruning; 1, after it."""
    rows = [
        (task, name, found[late + 2 * i])
        for task, found in scores.items()
        for i, name in enumerate(("acc", "acc_norm"))
    ]
    return pd.DataFrame(rows, columns=["task", "metric", "value"])


def _pairs(scores: dict[str, tuple]) -> str:
    return ", ".join(f"{task} {found[0]:g} → {found[1]:g}" for task, found in scores.items())
