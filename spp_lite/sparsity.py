"""Sparsity patterns: which entries of a weight may be non-zero.

Works on plain tensors. Knows nothing about models, pruning criteria or training. A mask is True where a weight is kept.
"""

import hashlib
import re
from dataclasses import dataclass

import torch
from torch import Tensor


class SparsityError(ValueError):
    """A pattern that cannot be, does not fit a weight, or was broken. Names the layer, the value and the way out."""


@dataclass(frozen=True)
class Sparsity:
    """How many entries are zero, and in which pattern.

    ratio: share of zeros, 0 ≤ ratio < 1. n, m: keep n of every m consecutive inputs (then ratio = 1 − n/m).
    per_row: the ratio holds in every row, not only over the whole matrix.
    """

    ratio: float
    n: int | None = None
    m: int | None = None
    per_row: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise SparsityError(f"sparsity {self.ratio:g} is outside [0, 1): give the share of zeros, as 0.5 or '50%'")

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
            if not 0 < n < m:
                raise SparsityError(f"pattern {text!r} keeps {n} of {m}: n:m needs 0 < n < m, as 2:4")
            return cls(1 - n / m, n, m)
        if found := re.fullmatch(r"(?:(row|unstructured):)?(\d+\.?\d*|\.\d+)(%?)", words):
            kind, number, percent = found.groups()
            return cls(float(number) / (100 if percent else 1), per_row=kind == "row")
        raise SparsityError(f"cannot read sparsity {text!r}: use '50%', 0.75, 'row:50%' or '2:4'")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.m else f"{'row:' if self.per_row else ''}{100 * self.ratio:.10g}%"

    def zeros(self, count: int) -> int:
        """How many of `count` entries are zero: ⌊ratio · count⌋ (safe against 0.7 · 10 = 6.999…)."""
        return int(self.ratio * count + 1e-6)

    def mask(self, scores: Tensor, *, per_row: bool = False, name: str = "weight") -> Tensor:
        """Keep-mask for scores (out, in): the lowest go, ties in order (as a stable sort has it).

        per_row: compare within each row, not over the whole matrix. Returns bool (out, in).
        """
        if self.m:
            self.check_fits(scores, name)
            return _keep_n_of_m(scores, self.n, self.m)
        if per_row or self.per_row:
            return _drop_lowest(scores, self.zeros(scores.shape[-1]))
        return _drop_lowest(scores.reshape(1, -1), self.zeros(scores.numel())).view(scores.shape)

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
        found, asked = int(zero.sum()), self.zeros(weight.numel())
        if self.per_row:
            found, asked = int(zero.sum(-1).min()), self.zeros(weight.shape[-1])
        if found < asked:
            where = "its fullest row" if self.per_row else "all"
            raise SparsityError(f"{name} breaks {self}: {found} zeros in {where}, {asked} asked: prune it again")


def measure(weight: Tensor) -> float:
    """Share of exact zeros."""
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


def fingerprint(weights: dict[str, Tensor]) -> str:
    """A hash of where the zeros are: of the zeros per row and per column of every weight (out, in)."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        zero = weights[name] == 0
        for dim in (0, 1):
            digest.update(zero.sum(dim, dtype=torch.int32).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _drop_lowest(scores: Tensor, count: int) -> Tensor:
    """False for the `count` lowest of each row; equal to a stable ascending sort, by selection instead of sorting."""
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(count, dim=-1, keepdim=True).values
    keep = scores > threshold
    spare = keep.logical_not().sum(-1, keepdim=True) - count  # ties at the threshold that stay
    if spare.any():
        tied = scores == threshold
        allowed = tied.sum(-1, keepdim=True) - spare
        keep |= tied & (tied.cumsum(-1) > allowed)
    return keep


def _keep_n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """Rank within each group by m² comparisons of whole planes: no sort, no loop over column groups."""
    planes = scores.reshape(-1, m).T.contiguous()  # (m, groups)
    keep = torch.empty_like(planes, dtype=torch.bool)
    for j in range(m):
        rank = torch.zeros_like(planes[0], dtype=torch.uint8)
        for i in range(m):
            if i != j:
                rank += (planes[i] <= planes[j]) if i < j else (planes[i] < planes[j])
        keep[j] = rank >= m - n
    return keep.T.reshape(scores.shape)
