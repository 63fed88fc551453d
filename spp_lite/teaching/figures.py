"""What only notebooks show: a loss curve, trainable parameters side by side; and the look of each kind of linear."""

import copy
import warnings
from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from ..experiment.baselines import METHODS, attach
from ..experiment.plotting import STYLE

MODULES = {  # kind of linear in a decoder block: colour, marker
    "q_proj": ("#0072B2", "o"),
    "k_proj": ("#56B4E9", "s"),
    "v_proj": ("#009E73", "D"),
    "o_proj": ("#CC79A7", "P"),
    "gate_proj": ("#E69F00", "^"),
    "up_proj": ("#D55E00", "v"),
    "down_proj": ("#8C6D1F", "X"),
}


def plot_training(history: list[dict]) -> Figure:
    """Training loss against steps, from TrainOutput.metrics["history"]."""
    rows = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*rows, strict=True), color="#0072B2", marker="o", markersize=4)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss (nats per token)")
    return figure


def parameter_table(model: nn.Module, methods: Sequence[str] = tuple(METHODS)) -> pd.DataFrame:
    """Trainable parameters side by side: method, parameters, share of the model. The model may be on the meta device."""
    total = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for method in methods:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*not loaded \(meta\)")  # to count takes no weights
            trainable = attach(copy.deepcopy(model), method)
        count = sum(parameter.numel() for parameter in trainable.parameters() if parameter.requires_grad)
        rows.append({"method": method, "what": METHODS[method], "parameters": count, "share": count / total})
    return pd.DataFrame(rows)
