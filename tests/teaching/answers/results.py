"""The checks of notebook 08 accept right variants and say what is wrong with plausible wrong ones."""

import math
import statistics

import numpy as np
import pandas as pd
import torch

from spp_lite.teaching.checks.results import T95, ex_08a, ex_08b


def se(scores):
    return np.std(scores, ddof=1) / math.sqrt(len(scores))


RIGHT = [
    (ex_08a, lambda s: T95[len(s)] * statistics.stdev(s) / len(s) ** 0.5),
    (ex_08a, lambda s: torch.tensor(s, dtype=torch.float64).std() * T95[len(s)] / math.sqrt(len(s))),
    (ex_08a, lambda s: T95[len(s)] * pd.Series(s).sem()),
    (ex_08b, lambda t: {m: g.loc[g["accuracy"].idxmax(), "lr"] for m, g in t.dropna().groupby("method")}),
    (ex_08b, lambda t: t.dropna().sort_values("accuracy").groupby("method")["lr"].last()),
]
WRONG = [
    (ex_08a, lambda s: ..., "still blank"),
    (ex_08a, lambda s: np.std(s, ddof=1), "spread of single runs"),
    (ex_08a, se, "standard error"),
    (ex_08a, lambda s: 1.96 * se(s), "1.96 is for many runs"),
    (ex_08a, lambda s: T95[len(s)] * np.std(s, ddof=1), "square root of the number of runs"),
    (ex_08a, lambda s: T95[len(s)] * np.std(s, ddof=1) / len(s), "not by n"),
    (ex_08a, lambda s: T95[len(s)] * np.std(s) / math.sqrt(len(s)), "ddof=1"),
    (ex_08a, lambda s: 2 * T95[len(s)] * se(s), "whole width"),
    (ex_08a, lambda s: T95[70] * se(s), "stopped with KeyError"),
    (ex_08b, lambda t: None, "still blank"),
    (ex_08b, lambda t: t.groupby("method")["lr"].max(), "largest rates"),
    (ex_08b, lambda t: t.groupby("method")["lr"].min(), "smallest rates"),
    (ex_08b, lambda t: t.groupby("method")["accuracy"].max(), "return accuracies"),
    (ex_08b, lambda t: {m: t.loc[t["accuracy"].idxmax(), "lr"] for m in t["method"].unique()}, "one rate for all"),
    (ex_08b, lambda t: t.sort_values("accuracy").groupby("method")["lr"].last(), "NaN"),
    (ex_08b, lambda t: 0.03, "return a dict"),
]
