"""Checks of notebook 08: a 95 % interval over seeds, learning rates chosen on the validation split."""

import statistics
from collections.abc import Callable

import pandas as pd
from scipy.special import stdtrit

from .common import CheckFailed, answer, compare

T95 = {n: round(float(stdtrit(n - 1, 0.975)), 2) for n in range(2, 11)}  # Student's t, by sample size


def ex_08a(function: Callable) -> str:
    """half_width(scores): half of the 95 % interval of the mean, t · s / √n, t from the table T95 by n."""
    for scores in ([0.80, 0.82, 0.78], [0.5, 0.6, 0.55, 0.65, 0.7], [0.9, 0.92]):
        n, spread = len(scores), statistics.stdev(scores)
        right = T95[n] * spread / n**0.5
        population = statistics.pstdev(scores)
        reasons = [
            (spread, "that is the spread of single runs; the mean of n runs is steadier, and t makes it 95 %"),
            (spread / n**0.5, "that is the standard error; multiply it by t for 95 %"),
            (1.96 * spread / n**0.5, "1.96 is for many runs; with so few, t is larger: T95[n]"),
            (T95[n] * spread, "divide by the square root of the number of runs"),
            (T95[n] * spread / n, "divide by the square root of n, not by n"),
            (T95[n] * population / n**0.5, "the spread must divide by n - 1 (torch and pandas do, numpy needs ddof=1)"),
            (2 * right, "that is the whole width; half of it goes to either side"),
            (right**2, "take the standard deviation, not the variance"),
        ]
        compare("Ex 08a", answer("Ex 08a", function, scores), right, reasons, case=f"scores {scores}")
    return "Ex 08a: right."


def ex_08b(function: Callable) -> str:
    """best_rates(table): method → the learning rate with the highest accuracy; diverged runs have accuracy NaN."""
    rows = [
        ("spp", 1e-2, 0.70), ("spp", 3e-2, 0.75), ("spp", 1e-1, float("nan")),
        ("lora*", 1e-2, 0.72), ("lora*", 3e-2, 0.40), ("lora*", 1e-1, 0.35),
    ]  # fmt: skip
    right = {"spp": 3e-2, "lora*": 1e-2}
    found = answer("Ex 08b", function, pd.DataFrame(rows, columns=["method", "lr", "accuracy"]))
    try:
        found = {str(name): float(rate) for name, rate in dict(found).items()}
    except (TypeError, ValueError):
        raise CheckFailed(f"Ex 08b: return a dict, method → learning rate; you return {found!r:.60}.") from None
    reasons = [
        ({"spp": 1e-1, "lora*": 1e-1}, "those are the largest rates; take the rates with the highest accuracy"),
        ({"spp": 1e-1, "lora*": 1e-2}, "a run that diverged has accuracy NaN, and NaN is not the best: drop it first"),
        ({"spp": 3e-2, "lora*": 3e-2}, "you chose one rate for all; each method needs its own"),
        ({"spp": 0.75, "lora*": 0.72}, "you return accuracies; the rates are asked for"),
        ({"spp": 1e-2, "lora*": 1e-1}, "you chose the lowest accuracy"),
        ({"spp": 1e-2, "lora*": 1e-2}, "those are the smallest rates; take the rates with the highest accuracy"),
    ]
    compare("Ex 08b", found, right, reasons)
    return "Ex 08b: right."
