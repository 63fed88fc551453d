"""Checks of notebook 08: learning rates chosen on the validation split, intervals over seeds and over pairs of runs."""

import itertools
import statistics
from collections.abc import Callable

import pandas as pd
from scipy.special import stdtrit

from .common import CheckFailed, answer, check, compare, matches

T95 = {n: round(float(stdtrit(n - 1, 0.975)), 2) for n in range(2, 11)}  # Student's t, by sample size
NAN = float("nan")


def best_rates(table: pd.DataFrame) -> dict[str, float]:
    """Method → the rate with the highest accuracy on average over seeds; a rate with a failed run is out."""
    scores = table.groupby(["method", "lr"])["accuracy"].agg(lambda runs: runs.mean(skipna=False))
    return dict(scores.dropna().groupby("method").idxmax().tolist())


ONE_SEED = [
    ("spp", 1e-2, 0, 0.66), ("spp", 3e-2, 0, 0.75), ("spp", 1e-1, 0, 0.68),
    ("lora*", 3e-2, 0, 0.40), ("lora*", 1e-2, 0, 0.72), ("lora*", 3e-3, 0, 0.66),
]  # fmt: skip
TWO_SEEDS = [
    (method, lr, seed, score)
    for method, lr, scores in (
        ("spp", 3e-3, (0.65, 0.66, 0.67)), ("spp", 1e-2, (0.70, 0.71)), ("spp", 3e-2, (0.78, 0.60)),
        ("spp", 1e-1, (NAN, 0.95, 0.95, 0.95, 0.95)),
        ("lora*", 1e-3, (0.67, 0.68)), ("lora*", 3e-3, (0.66, 0.80)), ("lora*", 1e-2, (0.85, 0.50)),
        ("lora*", 1e-1, (0.30, 0.20)),
    )
    for seed, score in enumerate(scores)
]  # fmt: skip
SMALLEST = "those are the smallest rates; take the rates with the highest accuracy"
LARGEST = "those are the largest rates; take the rates with the highest accuracy"


@check(library=best_rates)
def ex_08a(function: Callable) -> None:
    """best_rates(table): method → the learning rate with the highest mean accuracy; failed runs have accuracy NaN."""
    one, two = (pd.DataFrame(rows, columns=["method", "lr", "seed", "accuracy"]) for rows in (ONE_SEED, TWO_SEEDS))
    single = [
        (_rates(1e-1, 3e-2), LARGEST),
        (_rates(1e-2, 3e-3), SMALLEST),
        (_rates(3e-2, 3e-2), "you chose one rate for all; each method needs its own"),
        (_rates(1e-2, 1e-2), "you chose one rate for all; each method needs its own"),
        (_rates(0.75, 0.72), "you return accuracies; the rates are asked for"),
        (_rates(1e-2, 3e-2), "you chose the lowest accuracy"),
    ]
    double = [
        (_rates(1e-1, 3e-3), "a rate with which a run failed (NaN) is out: the mean must not skip its NaN"),
        (_rates(1e-1, 1e-2), "that is the best single run; average over the seeds, and drop rates with a failed run"),
        (_rates(3e-3, 3e-3), "a sum favours rates with more runs: take the mean of a rate's runs"),
        (_rates(1e-2, 1e-3), "that is the rate with the best worst run: take the mean of a rate's runs"),
        (_rates(3e-2, 1e-2), "you looked at one seed; average a rate's accuracy over its seeds first"),
        (_rates(1e-1, 1e-1), LARGEST),
        (_rates(3e-3, 1e-3), SMALLEST),
    ]
    _judge_rates(function, one, best_rates(one), single, "one seed")
    _judge_rates(function, two, best_rates(two), double, "two seeds or more, one run failed")


def _rates(spp: float, lora: float) -> dict[str, float]:
    return {"spp": spp, "lora*": lora}


def _judge_rates(function: Callable, table: pd.DataFrame, right: dict, reasons: list, case: str) -> None:
    found = answer("Ex 08a", function, table.copy())
    try:
        found = {str(name): float(rate) for name, rate in dict(found).items()}
    except (TypeError, ValueError):
        raise CheckFailed(f"Ex 08a: return a dict, method → learning rate; you return {found!r:.60}.") from None
    compare("Ex 08a", found, right, reasons, case=case)


def half_width(scores) -> float:
    """Half of the 95 % interval of the mean: t · s / √n."""
    return T95[len(scores)] * statistics.stdev(scores) / len(scores) ** 0.5


@check(library=half_width)
def ex_08b(function: Callable) -> None:
    """half_width(scores): half of the 95 % interval of the mean, t · s / √n, t from the table T95 by n."""
    for scores in ([0.80, 0.82, 0.78], [0.5, 0.6, 0.55, 0.65, 0.7], [0.9, 0.92], [-0.02, 0.01, 0.03, 0.0]):
        n, spread = len(scores), statistics.stdev(scores)
        right = half_width(scores)
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
        found, exact = answer("Ex 08b", function, list(scores)), right / T95[n] * float(stdtrit(n - 1, 0.975))
        if not matches(found, exact):  # the table is rounded
            compare("Ex 08b", found, right, reasons, case=f"scores {scores}")


def paired_gain(table: pd.DataFrame, method: str, other: str) -> tuple[float, float]:
    """Mean and half of the 95 % interval of method minus other, seed by seed, over the seeds that both have."""
    scores = table.pivot(index="seed", columns="method", values="accuracy")
    gains = list((scores[method] - scores[other]).dropna())
    return statistics.mean(gains), half_width(gains)


PAIRS = {  # case: method → seed → score
    "every seed has both": {"a": {0: 0.70, 1: 0.74, 2: 0.66, 3: 0.71}, "b": {3: 0.70, 2: 0.63, 1: 0.72, 0: 0.69}},
    "seeds 0 and 3 lack a score": {
        "a": {0: NAN, 1: 0.74, 2: 0.66, 3: 0.90, 4: 0.62},
        "b": {4: 0.65, 0: 0.50, 2: 0.70, 1: 0.75},
        "c": {0: 0.1, 1: 0.2, 2: 0.1},
    },
}


@check(library=paired_gain)
def ex_08c(function: Callable) -> None:
    """paired_gain(table, method, other): mean and half-width of the differences, seed by seed."""
    for case, scores in PAIRS.items():
        rows = [(method, seed, score) for method, by_seed in scores.items() for seed, score in by_seed.items()]
        table = pd.DataFrame(rows, columns=["method", "seed", "accuracy"])
        for one, two in (("a", "b"), ("b", "a")):
            found = answer("Ex 08c", function, table.copy(), one, two)
            try:
                found = [float(part) for part in found]
            except (TypeError, ValueError):
                found = []
            if len(found) != 2:
                raise CheckFailed("Ex 08c: return two numbers, the mean of the differences and half of its interval.")
            wrong = _wrong_pairs(scores[one], scores[two])
            compare("Ex 08c", found, paired_gain(table, one, two), wrong, case=f"{one} minus {two}, {case}")


def _wrong_pairs(a: dict, b: dict) -> list[tuple[tuple[float, float], str]]:
    both = [seed for seed in a if seed in b and a[seed] == a[seed] and b[seed] == b[seed]]
    gains = [a[seed] - b[seed] for seed in both]
    mean, half, n, every = statistics.mean(gains), half_width(gains), len(gains), len({*a, *b})
    ours, theirs = ([score for score in scores.values() if score == score] for scores in (a, b))
    apart, halves = statistics.mean(ours) - statistics.mean(theirs), (half_width(ours), half_width(theirs))
    by_row = [one - two for one, two in zip(a.values(), b.values(), strict=False)]
    by_row = [gain for gain in by_row if gain == gain]
    joined = (sum(halves), (halves[0] ** 2 + halves[1] ** 2) ** 0.5)
    reasons = [
        ((-mean, half), "the sign is wrong: method minus other"),
        ((statistics.mean(by_row), half_width(by_row)), "rows stand in any order: subtract scores of the same seed"),
        *(((value, width), "the intervals of two means say nothing about pairs: take differences, seed by seed, "
           "and the interval of those") for value in (mean, apart) for width in (*joined, *halves, halves[0] - halves[1])),
        ((apart, half), "the mean is of all scores: only seeds that both methods have make a pair"),
        ((mean, statistics.stdev(gains)), "that is the spread of the differences: half_width makes an interval of it"),
        ((mean, statistics.stdev(gains) / n**0.5), "that is the standard error: half_width multiplies it by t"),
        ((mean, 2 * half), "that is the whole width: half of it goes to either side"),
        ((mean, T95[every] * statistics.stdev(gains) / every**0.5), "count the pairs: seeds without both scores are none"),
        ((mean - half, mean + half), "those are the ends of the interval: return the mean and half of the width"),
        ((100 * mean, 100 * half), "leave the scores between 0 and 1: no percentages"),
        ((NAN, NAN), "a run that failed has the score NaN: leave its seed out"),
    ]  # fmt: skip
    return reasons


def flips(differences) -> float:
    """Of all 2ⁿ ways to give the differences a sign, the share whose sum is at least as far from 0 as the real one."""
    ways = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(sign * gain for sign, gain in zip(way, differences, strict=True))) for way in ways]
    return sum(value >= sums[0] - 1e-12 for value in sums) / len(sums)


@check(library=flips)
def ex_08d(function: Callable) -> None:
    """flips(differences): the share of the 2ⁿ signings whose mean is at least as far from 0; fractions of two, so no ties."""
    for gains in ([0.5, -0.25, 0.125, 1.0, 0.75], [0.25, 0.5, 0.125], [-0.5, -0.25, 0.125, -1.0]):
        ways = list(itertools.product((1, -1), repeat=len(gains)))
        signed = [sum(sign * gain for sign, gain in zip(way, gains, strict=True)) for way in ways]
        given = [sum(sign * abs(gain) for sign, gain in zip(way, gains, strict=True)) for way in ways]
        seen, right = abs(sum(gains)), flips(gains)
        reasons = [
            (right * len(ways), "that is how many ways; divide by the number of all ways, 2 to the power of n"),
            (100 * right, "give a share between 0 and 1, not a percentage"),
            (sum(value >= sum(gains) for value in signed) / len(ways), "look at both sides: take absolute values"),
            (sum(value <= sum(gains) for value in signed) / len(ways), "look at both sides: take absolute values"),
            (sum(abs(value) > seen for value in signed) / len(ways), "as far as the real one counts, too: use >="),
            ((right * len(ways) - 1) / len(ways), "the real signs are one of the ways: count them, too"),
            ((right * len(ways) - 1) / (len(ways) - 1), "the real signs are one of the ways: count them, too"),
            (1 - right, "that is the share of the other ways: those that are nearer to 0"),
            (sum(abs(value) <= seen for value in signed) / len(ways), "you counted the ways that are nearer to 0"),
            (sum(abs(value) >= max(given) for value in signed) / len(ways), "compare with the mean of the real differences"),
        ]  # fmt: skip
        compare("Ex 08d", answer("Ex 08d", function, list(gains)), right, reasons, case=f"differences {gains}")
