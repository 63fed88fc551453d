"""Checks of notebook 03: the ratio that is left to the other layers, kinds by damage per pruned weight."""

from collections.abc import Callable

import pandas as pd

from .common import CheckFailed, answer, compare

BUDGETS = [  # sizes, given, target
    ({"q": 16, "k": 8, "gate": 48, "up": 48, "down": 48}, {"q": 0.5, "k": 0.25}, 0.7),
    ({"a": 1000, "b": 3000}, {"b": 0.4}, 0.5),
    ({"a": 10, "b": 20, "c": 70}, {}, 0.6),
]


def ex_03a(function: Callable) -> str:
    """rest_ratio(sizes, given, target): the ratio that all layers without a given one must share."""
    for sizes, given, target in BUDGETS:
        total, fixed = sum(sizes.values()), sum(sizes[name] for name in given)
        spent = sum(given[name] * sizes[name] for name in given)
        left, others = total - fixed, len(sizes) - len(given)
        right = (target * total - spent) / left
        flat = (target * len(sizes) - sum(given.values())) / others
        reasons = [
            (flat, "layers differ in size: count weights, not layers"),
            (
                target,
                "the layers with a given ratio have fewer zeros than the target: the others must make up for that",
            ),
            (target * total - spent, "that is the number of zeros still to find; divide by the weights that are left"),
            ((target * total - spent) / total, "divide by the weights of the other layers, not by all"),
            (target * total / left, "the given layers bring zeros too: take them off first"),
            ((target * total - fixed) / left, "a given layer brings ratio · size zeros, not all its weights"),
            (
                (target * total - sum(given.values())) / left,
                "a given layer brings ratio · size zeros: multiply by the size",
            ),
            ((target * left - spent) / left, "the target holds for all weights, the given layers' included"),
            (1 - right, "that is the share of weights that stay; the share of zeros is asked for"),
            (100 * right, "give a ratio between 0 and 1, not a percentage"),
        ]
        found = answer("Ex 03a", function, dict(sizes), dict(given), target)
        compare("Ex 03a", found, right, reasons, case=f"sizes {sizes}, given {given}, target {target:g}")
    return "Ex 03a: right."


SCANS = [  # kind, zeros, damage; no two sensible orders are the same
    [("k", 20_000, 0.20), ("up", 150_000, 0.28), ("q", 40_000, 0.60), ("down", 140_000, 0.42)],
    [("v", 5_000, 0.02), ("gate", 60_000, 0.30), ("o", 9_000, 0.09)],
]


def ex_03b(function: Callable) -> str:
    """most_sensitive(scan): the kinds, the one with the most damage per pruned weight first."""
    for number, rows in enumerate(SCANS):
        scan = pd.DataFrame(rows, columns=["kind", "zeros", "damage"], index=[7 * i + number for i in range(len(rows))])
        found = _names(answer("Ex 03b", function, scan.copy()))
        right = _order(rows, lambda kind, zeros, damage: -damage / zeros)
        reasons = [
            (_order(rows, lambda kind, zeros, damage: -damage), "a large layer costs more because it is large: divide"),
            (right[::-1], "the order is upside down: most damage per zero first"),
            (_order(rows, lambda kind, zeros, damage: zeros), "that sorts by size alone"),
            (_order(rows, lambda kind, zeros, damage: -zeros), "that sorts by size alone"),
            (_order(rows, lambda kind, zeros, damage: damage), "least damage first, and not per zero"),
            (_order(rows, lambda kind, zeros, damage: -damage * zeros), "divide by the zeros, do not multiply"),
            ([row[0] for row in rows], "that is the table's own order: sort it"),
            (sorted(right), "that is alphabetical order"),
            (right[:1], "return every kind, not only the first"),
        ]
        compare("Ex 03b", found, right, reasons, case=f"kind, zeros, damage: {rows}")
    return "Ex 03b: right."


def _order(rows: list[tuple], key: Callable) -> list[str]:
    return [row[0] for row in sorted(rows, key=lambda row: key(*row))]


def _names(found) -> list[str]:
    if isinstance(found, pd.DataFrame):
        raise CheckFailed("Ex 03b: you return a table; a list of kinds is asked for: its column 'kind', as a list.")
    if isinstance(found, str):
        return [found]
    try:
        found = list(found)
    except TypeError:
        raise CheckFailed(f"Ex 03b: return a list of kinds; you return {found!r:.60}.") from None
    if not all(isinstance(name, str) for name in found):
        raise CheckFailed("Ex 03b: you return numbers or rows; the names of the kinds are asked for, as a list.")
    return [str(name) for name in found]
