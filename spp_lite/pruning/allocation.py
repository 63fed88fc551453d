"""How a global ratio is spent: which share of zeros each linear gets, exact to one weight.

Knows sizes, scores and name patterns; nothing about calibration or how a weight is pruned.
"""

from collections.abc import Mapping
from fnmatch import fnmatch

from torch import Tensor

from .sparsity import Sparsity, SparsityError

OUTLIER, SPREAD = 5.0, 0.08  # M and λ of the OWL paper


def outlier_share(scores: list[Tensor], outlier: float = OUTLIER) -> float:
    """Share of a block's scores that exceed `outlier` times their mean (Yin et al. 2023, arXiv 2310.05175, Eq. 1).

    scores: the Wanda scores (out, in) of the block's linears; the mean is over all of them.
    """
    size = sum(score.numel() for score in scores)
    threshold = outlier * sum(float(score.double().sum()) for score in scores) / size
    return sum(int((score > threshold).sum()) for score in scores) / size


def owl(shares: Mapping[str, float], sizes: Mapping[str, int], target: float, spread: float = SPREAD):
    """Name → ratio: linears in blocks with many outliers keep more (Yin et al. 2023, Sec. 3.3; λ = spread).

    shares: each linear's outlier_share. Densities lie 2λ apart between the extremes, around a mean that meets `target`;
    closer where a ratio would leave [0, 1).
    """
    low, high = min(shares.values()), max(shares.values())
    more = {name: 2 * spread * (share - low) / ((high - low) or 1) for name, share in shares.items()}
    mean = sum(more[name] * sizes[name] for name in sizes) / sum(sizes.values())
    more = {name: value - mean for name, value in more.items()}
    room = [target / value for value in more.values() if value > 0]
    room += [(0.999 - target) / -value for value in more.values() if value < 0]
    scale = max(0.0, min([1.0, *room]))
    return {name: target - scale * value for name, value in more.items()}


def budget(given: Mapping[str, float | str], sizes: Mapping[str, int], target: float) -> dict[str, float]:
    """Name → ratio: `given` ratios by name pattern (the first match counts), one common ratio for all others.

    Raises SparsityError when a pattern matches nothing, or when no common ratio meets `target`.
    """
    ratios: dict[str, float] = {}
    for pattern, value in given.items():
        wanted = Sparsity.parse(value)
        if wanted.m or wanted.per_row:
            raise SparsityError(f"allocation {pattern}={wanted}: a budget shares out ratios, give one as 0.6 or '60%'")
        if not (found := [name for name in sizes if fnmatch(name, pattern)]):
            raise SparsityError(f"allocation {pattern!r} matches no linear: names look like {next(iter(sizes))}")
        ratios |= {name: wanted.ratio for name in found if name not in ratios}
    spent = sum(ratios[name] * sizes[name] for name in ratios)
    total, left = sum(sizes.values()), sum(sizes[name] for name in sizes if name not in ratios)
    if not left:
        if abs(spent - target * total) > len(sizes):
            raise SparsityError(
                f"the allocation makes {spent / total:.2%} of zeros, not {target:.2%}: ask for that, or free a layer"
            )
        return {name: ratios[name] for name in sizes}
    rest = (target * total - spent) / left
    if not -1e-9 <= rest < 1:
        raise SparsityError(
            f"the allocation leaves {rest:.2%} of zeros to the other layers to reach {target:.2%}: change it"
        )
    return {name: ratios.get(name, max(rest, 0.0)) for name in sizes}


def exact(ratios: Mapping[str, float], sizes: Mapping[str, int], target: float) -> dict[str, Sparsity]:
    """Name → pattern with whole counts of zeros: each within one weight of its ratio, together ⌊target · all⌋ of them."""
    wanted = {name: ratios[name] * sizes[name] for name in sizes}
    counts = {name: int(value) for name, value in wanted.items()}
    missing = Sparsity(target).zeros(sum(sizes.values())) - sum(counts.values())
    order = sorted(sizes, key=lambda name: counts[name] - wanted[name])  # largest remainder first
    for name in order[: max(missing, 0)]:
        counts[name] += 1
    return {name: Sparsity(counts[name] / sizes[name]) for name in sizes}
