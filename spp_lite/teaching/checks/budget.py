"""Checks of notebook 03, second part: the price of the next zero, the ratio that is left, a greedy spender."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from .common import CheckFailed, answer, check, compare


def marginal_prices(scan: pd.DataFrame) -> pd.Series:
    """Per row of scan: the damage added since the kind's ratio before (first: since 0), per zero added."""
    ordered = scan.sort_values(["kind", "ratio"])
    kinds = ordered.groupby("kind")
    more = {name: ordered[name] - kinds[name].shift(fill_value=0) for name in ("zeros", "damage")}
    return (more["damage"] / more["zeros"]).reindex(scan.index)


COLUMNS = ["kind", "ratio", "zeros", "damage"]
SCANS = [
    [("up", 0.5, 50, 0.1), ("k", 0.5, 10, 0.2), ("up", 0.7, 70, 0.3), ("k", 0.7, 14, 0.22), ("up", 0.9, 90, 1.1),
     ("k", 0.9, 18, 0.36)],
    [("q", 0.4, 40, 0.08), ("q", 0.8, 80, 0.3), ("down", 0.4, 200, 0.1), ("down", 0.8, 400, 0.9)],
]  # fmt: skip


@check(library=marginal_prices)
def ex_03c(function: Callable) -> None:
    """marginal_prices(scan): one price a row, the damage added per zero added since the kind's ratio before."""
    for number, rows in enumerate(SCANS):
        scan = pd.DataFrame(rows, columns=COLUMNS, index=[5 * i + number for i in range(len(rows))])
        found = _in_order(answer("Ex 03c", function, scan.copy()), scan)
        right = marginal_prices(scan)
        told = [(wrong.tolist(), words) for wrong, words in _wrong_prices(scan, right)]
        compare("Ex 03c", found, right.tolist(), told, case=f"kind, ratio, zeros, damage: {rows}")


def _wrong_prices(scan: pd.DataFrame, right: pd.Series) -> list[tuple[pd.Series, str]]:
    add = {name: scan[name].groupby(scan["kind"]).diff() for name in COLUMNS[1:]}
    plain, average = scan["damage"].diff() / scan["zeros"].diff(), scan["damage"] / scan["zeros"]
    damage, zeros, ratio = (add[name].fillna(scan[name]) for name in ("damage", "zeros", "ratio"))
    border = "the difference runs over the border between kinds: take it within each kind"
    return [
        (average, "that is the average price of all zeros so far: take the differences to the ratio before"),
        (add["damage"] / add["zeros"], "a kind's first ratio has one before it, too: no zeros and no damage"),
        ((add["damage"] / add["zeros"]).fillna(0), "a kind's first ratio has one before it, too: 0 zeros, 0 damage"),
        (plain, border),
        (plain.fillna(average), border),
        (1 / right, "the price is damage per zero, not zeros per damage"),
        (right * zeros, "divide by the zeros added"),
        (damage / scan["zeros"], "divide by the zeros added, not by all of the kind"),
        (scan["damage"] / zeros, "take the damage added, not all of the kind's"),
        (damage / ratio, "divide by zeros, not by the ratio: kinds differ in size"),
        (right.sort_values(), "keep the order of the rows: the price of each row belongs beside it"),
        (right.groupby(scan["kind"]).shift(-1), "that is the price of the step after the row, not of the one to it"),
    ]


def _in_order(found, scan: pd.DataFrame) -> list[float]:
    """The prices in the order of the table, whatever list of numbers they came as."""
    if isinstance(found, pd.DataFrame):
        raise CheckFailed("Ex 03c: you return a table; one price a row is asked for: return the column alone.")
    if isinstance(found, Mapping):
        raise CheckFailed("Ex 03c: you return a dictionary; one price a row is asked for, as a list or a column.")
    if isinstance(found, pd.Series) and set(found.index) == set(scan.index) and found.index.is_unique:
        found = found.reindex(scan.index)
    try:
        prices = np.array(found, dtype=float).reshape(-1).tolist()
    except (TypeError, ValueError):
        raise CheckFailed(f"Ex 03c: return a column of numbers; you return {found!r:.60}.") from None
    if len(prices) != len(scan):
        raise CheckFailed(f"Ex 03c: the table has {len(scan)} rows, you return {len(prices)} prices: one a row.")
    return prices


def rest_ratio(sizes: Mapping[str, int], given: Mapping[str, float], target: float) -> float:
    """The ratio that all layers without a given one take, so that `target` holds over all weights."""
    missing = target * sum(sizes.values()) - sum(given[name] * sizes[name] for name in given)
    return missing / sum(size for name, size in sizes.items() if name not in given)


BUDGETS = [  # sizes, given, target
    ({"q": 16, "k": 8, "gate": 48, "up": 48, "down": 48}, {"q": 0.5, "k": 0.25}, 0.7),
    ({"a": 1000, "b": 3000}, {"b": 0.4}, 0.5),
    ({"a": 10, "b": 20, "c": 70}, {}, 0.6),
]


@check(library=rest_ratio)
def ex_03d(function: Callable) -> None:
    """rest_ratio(sizes, given, target): the ratio that all layers without a given one must share."""
    for sizes, given, target in BUDGETS:
        total, fixed = sum(sizes.values()), sum(sizes[name] for name in given)
        spent = sum(given[name] * sizes[name] for name in given)
        left, wanted, right = total - fixed, target * total, rest_ratio(sizes, given, target)
        flat = (target * len(sizes) - sum(given.values())) / (len(sizes) - len(given))
        size = "a given layer brings ratio · size zeros: multiply by the size"
        reasons = [
            (flat, "layers differ in size: count weights, not layers"),
            (target, "the given layers have fewer zeros than the target: the others must make up for that"),
            (wanted - spent, "that is the number of zeros still to find; divide by the weights that are left"),
            ((wanted - spent) / total, "divide by the weights of the other layers, not by all"),
            (wanted / left, "the given layers bring zeros too: take them off first"),
            ((wanted - fixed) / left, "a given layer brings ratio · size zeros, not all its weights"),
            ((wanted - sum(given.values())) / left, size),
            ((target * left - spent) / left, "the target holds for all weights, the given layers' included"),
            (1 - right, "that is the share of weights that stay; the share of zeros is asked for"),
            (100 * right, "give a ratio between 0 and 1, not a percentage"),
        ]
        found = answer("Ex 03d", function, dict(sizes), dict(given), target)
        compare("Ex 03d", found, right, reasons, case=f"sizes {sizes}, given {given}, target {target:g}")


def spend(scan: pd.DataFrame, target: float) -> dict[str, float]:
    """Kind → ratio: the cheapest open step first, until the zeros are `target` of all weights."""
    return _spend(scan, target, marginal_prices(scan))


def _spend(scan: pd.DataFrame, target: float, prices: pd.Series, whole: bool = False) -> dict[str, float]:
    """spend() by any price; whole: the last step is taken whole."""
    steps = scan.assign(price=prices).sort_values(["kind", "ratio"])
    sizes = (steps["zeros"] / steps["ratio"]).groupby(steps["kind"]).first()
    taken, missing = dict.fromkeys(sizes.index, 0.0), target * sizes.sum()
    while missing > 1e-6:
        ahead = steps[steps["zeros"] > steps["kind"].map(taken) + 1e-6].groupby("kind").first()
        kind = ahead["price"].idxmin()
        step = ahead.loc[kind, "zeros"] - taken[kind]
        more = step if whole else min(step, missing)
        taken[kind] += more
        missing -= more
    return {kind: taken[kind] / sizes[kind] for kind in taken}


@check(library=spend)
def ex_03e(function: Callable) -> None:
    """spend(scan, target): kind → ratio, the cheapest next step first."""
    for number, (rows, target) in enumerate(zip(SCANS * 2, (0.6, 0.5, 0.75, 0.3), strict=True)):
        scan = pd.DataFrame(rows, columns=COLUMNS, index=[5 * i + number for i in range(len(rows))])
        found = answer("Ex 03e", function, scan.copy(), target)
        right, case = spend(scan, target), f"target {target:g}; kind, ratio, zeros, damage: {rows}"
        if not isinstance(found, Mapping | pd.Series) or set(dict(found)) != set(right):
            raise CheckFailed(
                f"Ex 03e: return a dictionary with a ratio for each of {', '.join(right)}; {found!r:.60}."
            )
        sizes = (scan["zeros"] / scan["ratio"]).groupby(scan["kind"]).mean()
        reasons = [
            (dict.fromkeys(right, target), "every kind has the same ratio: spend where the next zero is cheapest"),
            (
                _spend(scan, target, scan["damage"] / scan["zeros"]),
                "you went by the average price: go by the next zero's",
            ),
            (
                _spend(scan, target, marginal_prices(scan), whole=True),
                "the last step overshoots: take what is missing of it",
            ),
            (_spend(scan, target, -marginal_prices(scan)), "the dearest step went first: the cheapest is asked for"),
            (_spend(scan, target, scan["damage"]), "you went by the damage: divide by the zeros that it buys"),
            ({kind: 1 - ratio for kind, ratio in right.items()}, "that is the share that stays; zeros are asked for"),
            (
                {kind: ratio * sizes[kind] for kind, ratio in right.items()},
                "those are zeros: divide by the kind's weights",
            ),
        ]
        told = [([wrong[kind] for kind in right], words) for wrong, words in reasons]
        compare("Ex 03e", [float(found[kind]) for kind in right], [*right.values()], told, case=case)
