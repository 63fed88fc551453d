"""Checks of notebook 00: the share of zeros, the gap recovered."""

from collections.abc import Callable

from torch import nn

from ...pruning.blocks import block_linears
from .common import answer, compare


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


def ex_00a(function: Callable) -> str:
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
    return "Ex 00a: right."


def ex_00b(function: Callable) -> str:
    """gap_recovered(dense, pruned, recovered): the share of the lost accuracy that came back."""
    for dense, pruned, recovered in [(0.9, 0.5, 0.7), (0.8, 0.4, 0.8), (0.95, 0.6, 0.55)]:
        right = (recovered - pruned) / (dense - pruned)
        reasons = [
            (recovered - pruned, "that is the gain; divide it by what pruning took"),
            (recovered / dense, "that compares with the dense model; compare with what pruning took"),
            (1 - right, "that is the share still missing"),
            (100 * right, "give a share, not a percentage"),
            (max(0.0, right), "do not cut it off at 0: retraining can also hurt"),
        ]
        case = f"dense {dense:.0%}, pruned {pruned:.0%}, recovered {recovered:.0%}"
        compare("Ex 00b", answer("Ex 00b", function, dense, pruned, recovered), right, reasons, case=case)
    return "Ex 00b: right."
