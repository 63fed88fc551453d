"""Sparsity patterns: which entries of a weight may be non-zero.

Works on plain tensors. Knows nothing about models, pruning criteria or training. A mask is True where a weight is kept.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import total_ordering
from numbers import Real

import numpy as np
import torch
from torch import Tensor


class SparsityError(ValueError):
    """A pattern that cannot be, does not fit a weight, or was broken. Names the layer, the value and the way out."""


@total_ordering
@dataclass(frozen=True)
class Sparsity:
    """How many entries are zero, and in which pattern. Prints as parse() reads it; sorts by the share of zeros.

    ratio: share of zeros, 0 ≤ ratio < 1. n, m: keep n of every m consecutive inputs (then ratio = 1 − n/m).
    per_row: the ratio holds in every row, not only over the whole matrix.

    >>> import torch
    >>> from spp_lite import Sparsity
    >>> Sparsity.parse("2:4").mask(torch.tensor([[0.1, 0.9, 0.5, 0.3]]))  # scores (out, in) → which weights stay
    tensor([[False,  True,  True, False]])
    >>> Sparsity.parse("75%").ratio, Sparsity.parse("2:8").ratio
    (0.75, 0.75)
    """

    ratio: float
    n: int | None = None
    m: int | None = None
    per_row: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, Real):
            raise SparsityError(f"Sparsity({self.ratio!r}): the ratio is a number; Sparsity.parse() reads text")
        if (self.n, self.m) != (None, None) and not 0 < (self.n or 0) < (self.m or 0):
            raise SparsityError(f"pattern {self.n}:{self.m} keeps {self.n} of {self.m}: n:m needs 0 < n < m, as 2:4")
        if not 0 <= self.ratio < 1:
            raise SparsityError(f"sparsity {self.ratio:g} is outside [0, 1): give the share of zeros, as 0.5 or '50%'")
        if self.m and (self.ratio != 1 - self.n / self.m or self.per_row):
            raise SparsityError(f"pattern {self.n}:{self.m} is not ratio {self.ratio:g}: use Sparsity.parse('n:m')")

    def __lt__(self, other: "Sparsity") -> bool:
        key = [(one.ratio, one.m or 0, one.per_row) for one in (self, other)]
        return key[0] < key[1]

    @classmethod
    def parse(cls, text: "str | float | Sparsity") -> "Sparsity":
        """ "50%", 0.5, "unstructured:0.5", "row:50%" or "2:4" (keep 2 of every 4 consecutive inputs)."""
        if isinstance(text, Sparsity):
            return text
        if isinstance(text, int | float) and not isinstance(text, bool):
            return cls(float(text))
        words = str(text).strip().lower()
        if found := re.fullmatch(r"(\d+):(\d+)", words):
            n, m = map(int, found.groups())
            return cls(1 - n / m if m else 0.0, n, m)
        if found := re.fullmatch(r"(?:(row|unstructured):)?((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?) ?(%?)", words):
            kind, number, percent = found.groups()
            return cls(float(number) / (100 if percent else 1), per_row=kind == "row")
        raise SparsityError(f"cannot read sparsity {text!r}: use '50%', 0.75, 'row:50%' or '2:4'")

    def __str__(self) -> str:
        if self.m:
            return f"{self.n}:{self.m}"
        percent = f"{100 * self.ratio:.10g}"
        short = f"{percent}%" if float(percent) / 100 == self.ratio else repr(self.ratio)
        return f"row:{short}" if self.per_row else short

    def zeros(self, count: int) -> int:
        """How many of `count` entries are zero: ⌊ratio · count⌋ (safe against 0.29 · 100 = 28.999…)."""
        return int(self.ratio * count + 1e-6)

    def mask(self, scores: Tensor, *, per_row: bool = False, exact_total: bool = False, name: str = "weight") -> Tensor:
        """Keep-mask for scores (out, in), bool (out, in): the lowest go; ties as in Wanda's code.

        per_row: compare within each row, ⌊ratio · in⌋ zeros in every one; exact_total: rows may then have one more, so
        that the matrix has ⌊ratio · out · in⌋. Ties at the border go in order (a stable sort); within a group of m they
        go as torch.topk takes them. Raises SparsityError for inputs that m does not divide, and for NaN.
        """
        if scores.sum().isnan() and scores.isnan().any():
            raise SparsityError(f"{name} has scores that are not numbers: check the weight and the calibration data")
        scores = scores.detach() if scores.dtype in (torch.float32, torch.float64) else scores.detach().float()
        if self.m:
            self.check_fits(scores, name)
            return _keep_n_of_m(scores.reshape(-1, self.m), self.n).view(scores.shape)
        if not (per_row or self.per_row):
            return drop_lowest(scores.reshape(1, -1), self.zeros(scores.numel())).view(scores.shape)
        rows, width = scores.shape
        keep = drop_lowest(scores, self.zeros(width))
        if exact_total:
            more = [i for i in range(rows) if self.zeros((i + 1) * width) - self.zeros(i * width) > self.zeros(width)]
            keep[more] = drop_lowest(scores[more], self.zeros(width) + 1)
        return keep

    def check_fits(self, weight: Tensor, name: str = "weight") -> None:
        """Raise SparsityError when the inputs of weight (out, in) cannot be cut into groups of m."""
        if self.m and weight.shape[-1] % self.m:
            raise SparsityError(
                f"{name} has {weight.shape[-1]} inputs, not a multiple of {self.m}: "
                f'use a pattern "n:m" whose m divides them, or leave it out with skip=…'
            )

    def check(self, weight: Tensor, name: str = "weight") -> None:
        """Raise SparsityError unless weight (out, in) has the zeros asked for, where the pattern wants them."""
        zero = weight == 0
        if self.m:
            self.check_fits(weight, name)
            fewest = int(zero.view(*weight.shape[:-1], -1, self.m).sum(-1).min())
            if fewest < self.m - self.n:
                raise SparsityError(
                    f"{name} breaks {self}: a group of {self.m} inputs has {self.m - fewest} non-zeros: prune it again"
                )
            return
        asked = self.zeros(weight.shape[-1])
        found = int(zero.sum(-1).min()) if self.per_row else int(zero.sum())
        asked *= 1 if self.per_row else weight.numel() // weight.shape[-1]  # Wanda rounds down in every row
        if found < asked:
            where = "its fullest row" if self.per_row else "all"
            raise SparsityError(f"{name} breaks {self}: {found} zeros in {where}, {asked} asked: prune it again")


def measure(weight: Tensor) -> float:
    """Share of exact zeros.

    >>> import torch
    >>> from spp_lite.pruning import measure
    >>> measure(torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    0.5
    """
    return 1 - int(torch.count_nonzero(weight)) / weight.numel()


def find_pattern(weight: Tensor) -> Sparsity | None:
    """The n:m pattern that a weight (out, in) keeps to, m = 4 or 8, or None.

    A pattern is one when no group has more than n non-zeros and nearly all (99 %) have n: chance makes no such weight.
    """
    for m in (4, 8):
        if weight.shape[-1] % m == 0:
            kept = (weight != 0).view(*weight.shape[:-1], -1, m).sum(-1)
            fullest = int(kept.max())
            if 0 < fullest < m and int(kept.sum()) >= 0.99 * fullest * kept.numel():
                return Sparsity(1 - fullest / m, fullest, m)
    return None


def fingerprint(weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """A hash of where the zeros of every weight (out, in) are. Pairs are taken one at a time: nothing is kept."""
    pairs = weights.items() if isinstance(weights, Mapping) else weights
    digests = {}
    for name, weight in pairs:
        mask = np.packbits((weight == 0).cpu().numpy())
        digests[name] = hashlib.sha256(repr(tuple(weight.shape)).encode() + mask.tobytes()).digest()
    return hashlib.sha256(b"".join(digests[name] for name in sorted(digests))).hexdigest()[:16]


def drop_lowest(scores: Tensor, count: int) -> Tensor:
    """False for the `count` lowest of each row: a stable ascending sort's choice, by selection instead of sorting."""
    if count in (0, scores.shape[1]) or not len(scores):
        return torch.full_like(scores, count == 0, dtype=torch.bool)
    if scores.device.type == "cpu":  # numpy selects with SIMD: ten times faster than kthvalue and than topk
        ordered = torch.from_numpy(np.partition(scores.numpy(), count - 1, axis=-1))
    else:
        ordered = scores.sort(dim=-1).values
    lowest, border = ordered[:, :count], ordered[:, count - 1 : count]
    keep = scores > border
    tied = (ordered[:, count:].amin(-1) == border[:, 0]).nonzero()[:, 0]  # rows where some entries at the border stay
    if len(tied):
        row, column = (scores[tied] == border[tied]).nonzero(as_tuple=True)  # in order
        first = torch.searchsorted(row, torch.arange(len(tied), device=row.device))
        goes = (lowest[tied] == border[tied]).count_nonzero(-1)
        stay = torch.arange(len(row), device=row.device) - first[row] >= goes[row]
        keep[tied[row[stay]], column[stay]] = True
    return keep


def _keep_n_of_m(groups: Tensor, n: int) -> Tensor:
    """True for the n highest of each row of (groups, m), chosen as torch.topk does, without its cost per row."""
    m = groups.shape[1]
    if m > 16:
        drop = groups.topk(m - n, dim=1, largest=False).indices
        return torch.ones_like(groups, dtype=torch.bool).scatter_(1, drop, False)
    keep = torch.empty_like(groups, dtype=torch.bool)
    tied = torch.empty(len(groups), dtype=torch.bool, device=groups.device)
    if groups.device.type == "cpu":
        size = 1 << 15  # groups at a time: what fits the cache
        for source, kept, tie in zip(groups.split(size), keep.split(size), tied.split(size), strict=True):
            planes = np.ascontiguousarray(source.numpy().T)
            rank, equal = _ranks(planes, np.zeros(planes.shape, np.int8))
            kept.numpy()[:] = (rank >= m - n).T
            tie.numpy()[:] = equal
    else:
        planes = groups.T.contiguous()
        rank, tied = _ranks(planes, torch.zeros_like(planes, dtype=torch.int8))
        keep.copy_((rank >= m - n).T)
    if tied.any():  # a whole weight of few values (bfloat16, 0) has many
        some = groups[tied]
        drop = some.topk(m - n, dim=1, largest=False).indices
        keep[tied] = torch.ones_like(some, dtype=torch.bool).scatter_(1, drop, False)
    return keep


def _ranks(planes, rank):
    """Rank of every entry among the entries of its column, (m, columns), and where a column has ties. numpy or torch.

    m² comparisons of whole rows: no sort, no loop over groups.
    """
    tied = rank[0] != 0
    for j in range(len(planes)):
        for i in range(j):
            lower = planes[i] <= planes[j]
            rank[j] += lower
            rank[i] += ~lower
            tied |= planes[i] == planes[j]
    return rank, tied
