"""Notebook 06: tokens and their labels, loss curves, a replay of logged runs, and a button that trains live."""

import copy
import html
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import pandas as pd
from datasets import Dataset
from IPython.display import display
from matplotlib import colormaps, rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from peft import get_peft_model
from transformers import TrainerCallback, set_seed

from ...adapter.tuner import SppConfig
from ...experiment.plotting import LOOKS, STYLE
from ...models import embedded
from ...recover.data import IGNORED
from ...recover.training import default_arguments, finetune
from ..widgets import Lab, slider

RATES = (1e-3, 4e-3, 1.2e-2, 5e-2, 1.5e-1, 5e-1)  # one look for each in all figures of the notebook
CURVES = {  # rates are no methods: from dark to light, the larger the lighter
    rate: (to_hex(colormaps["viridis"](0.17 * place)), *LOOKS[name][2:])
    for place, (rate, name) in enumerate(
        zip(RATES, ("hira", "lora*", "masked-lora", "spp", "none", "direct"), strict=True)
    )
}
HIDDEN, LEARNED = {"facecolor": "#E6E6E6", "edgecolor": "none"}, {"facecolor": "#A6D3F0", "edgecolor": "#0072B2"}
WIDTH = 92  # characters in a row of tokens


def plot_labels(tokens: Sequence[str], labels: Sequence[int], *, limit: int = 120) -> Figure:
    """Tokens in reading order: grey where the loss skips them (label −100), bold in a blue frame where it counts.

    More than `limit` tokens: the middle is left out.
    """
    pairs = [(token.replace("▁", " ").replace("<0x0A>", "↵").replace("\n", "↵"), label != IGNORED)
             for token, label in zip(tokens, labels, strict=True)]  # fmt: skip
    if len(pairs) > limit:
        pairs = [*pairs[: limit // 2], (" … ", False), *pairs[-limit // 2 :]]
    rows, column = [[]], 0
    for text, learned in pairs:
        if column + len(text) > WIDTH:
            rows.append([])
            column = 0
        rows[-1].append((column, text, learned))
        column += len(text) + 1
    height = 0.36 * len(rows) + 0.3
    figure = Figure(figsize=(10, height + 0.4))
    axes = figure.add_axes((0, 0, 1, height / (height + 0.4)))
    axes.set_title(f"{sum(label != IGNORED for label in labels)} of {len(labels)} tokens are learned", fontsize=13)
    for number, row in enumerate(rows):
        for start, text, learned in row:
            looks, weight = (LEARNED, "bold") if learned else (HIDDEN, "normal")
            axes.text(start, -number, text, family="monospace", fontsize=12, weight=weight, va="center",
                      bbox={"boxstyle": "round,pad=0.12", **looks})  # fmt: skip
    axes.set(xlim=(-1, WIDTH + 2), ylim=(-len(rows) + 0.2, 0.8))
    axes.axis("off")
    return figure


def look(rate: float) -> dict:
    """Colour, marker, dash and label of the curves of one learning rate."""
    colour, marker, dash = CURVES.get(rate, ("#000000", "o", "-"))
    return {"color": colour, "marker": marker, "linestyle": dash, "label": f"{rate:g}"}


def plot_losses(curves: Mapping[float, Sequence[float]], *, window: int = 1, note: str = "") -> Figure:
    """One line per learning rate: rate → the loss of every step, smoothed over the last `window` steps; note: a title."""
    ends = {rate: sum(losses[-window:]) / len(losses[-window:]) for rate, losses in curves.items() if len(losses)}
    best = f"Learning rate {min(ends, key=ends.get):g} is lowest at the end" if ends else ""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for rate, losses in sorted(curves.items()):
            smooth = pd.Series(losses, range(1, len(losses) + 1), dtype=float).rolling(window, min_periods=1).mean()
            axes.plot(smooth, markevery=max(1, len(smooth) // 8), **look(rate))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss (nats per learned token)" + (f",\nmean of {window} steps" if window > 1 else ""))
        axes.set_title(note or best, fontsize=13)
        if curves:
            axes.legend(title="learning rate", fontsize=12, title_fontsize=12, frameon=False)
    return figure


class ReplayLab(Lab):
    """Logged runs: r, learning rate and a step; the loss up to there, and the accuracy on the validation tasks."""

    height = 400

    def __init__(self, table: pd.DataFrame | None = None) -> None:
        table = pd.read_csv(embedded("results", "replay.csv")) if table is None else table
        self.pruned = float(table.loc[table["r"] == 0, "accuracy"].iloc[0])
        self.table = table[table["r"] > 0]
        self.scored = sorted(self.table.dropna(subset=["accuracy"])["step"].unique())
        super().__init__()

    def controls(self):
        rates = sorted(self.table["lr"].unique())
        blocks = sorted(self.table["r"].unique())
        return {
            "lr": slider("learning rate", [(f"{rate:g}", float(rate)) for rate in rates], float(rates[-2])),
            "step": slider("step", [int(step) for step in self.scored], int(self.scored[-1])),
            "r": slider("r (rows of α)", [int(r) for r in blocks], 16 if 16 in blocks else int(blocks[0])),
        }

    def render(self, lr, step, r):
        runs = self.table[(self.table["r"] == r) & (self.table["step"] <= step)]
        with rc_context(STYLE):
            figure = Figure(figsize=(10.5, 4.4))  # a constrained layout would take half of the time that a move has
            figure.subplots_adjust(left=0.06, right=0.98, bottom=0.13, top=0.92, wspace=0.18)
            left, right = figure.subplots(1, 2)
            for rate, run in runs.groupby("lr"):
                bold = {"linewidth": 3.0, "zorder": 3} if rate == lr else {"linewidth": 1.2, "alpha": 0.6}
                looks = {**look(rate), **bold}
                left.plot(run["step"], run["loss"], markevery=5, **looks)
                scored = run.dropna(subset=["accuracy"])
                steps, scores = [0, *scored["step"]], [self.pruned, *scored["accuracy"]]
                right.plot(steps, [100 * score for score in scores], **looks)
            self._dress(left, right)
            here = runs[runs["step"] == step].set_index("lr")
            left.set_title(f"Step {step}, r = {r}: {here['loss'].idxmin():g} has the lowest loss", fontsize=13)
            right.set_title(f"{here['accuracy'].idxmax():g} has the highest accuracy", fontsize=13)
        return figure, self.read(runs, lr, step, r)

    def _dress(self, left, right) -> None:
        steps = [0, self.table["step"].max() + 4]
        scores = 100 * self.table["accuracy"]
        left.set(xlim=steps, ylim=(0, 1.05 * self.table["loss"].max()))
        right.set(xlim=steps, ylim=(min(100 * self.pruned, scores.min()) - 3, scores.max() + 3))
        left.set_ylabel("training loss (nats per learned token)")
        right.set_ylabel("validation accuracy (%)")
        for axes in (left, right):
            axes.set_xlabel("step")
        right.axhline(100 * self.pruned, color="#666666", linestyle=":", linewidth=1)
        right.annotate("pruned", (0.99, 100 * self.pruned), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        left.legend(title="learning rate", fontsize=12, title_fontsize=12, frameon=False)

    def read(self, runs, lr, step, r) -> str:
        """Loss and accuracy of the chosen run at the step, and which rate scores best there, as text."""
        here = runs[runs["step"] == step].set_index("lr")
        loss, score = here.loc[lr, "loss"], here.loc[lr, "accuracy"]
        return (
            f"r = {r}, learning rate {lr:g}, step {step} of {self.table['step'].max()}: training loss {loss:.2f}, "
            f"validation accuracy {score:.1%} (pruned, not trained: {self.pruned:.1%}). At this step and r, "
            f"{here['loss'].idxmin():g} has the lowest loss and {here['accuracy'].idxmax():g} the highest accuracy."
        )


class _Watch(TrainerCallback):
    """Notes every loss, calls `tell` once a second, and stops the training when its time is over."""

    def __init__(self, seconds: float, losses: list[float], tell: Callable[[], None]) -> None:
        self.end, self.told, self.losses, self.tell = time.monotonic() + seconds, 0.0, losses, tell

    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
        if time.monotonic() - self.told > 1:
            self.told = time.monotonic()
            self.tell()

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= time.monotonic() > self.end  # the last step stops it, too


class LiveLab(Lab):
    """A button trains SPP factors for some seconds at the chosen rate; the last run of every rate stays in the picture."""

    height = 350

    def __init__(self, model, tokenizer, rows: Dataset, *, seconds: float = 20.0, batch_size: int = 16) -> None:
        """model: pruned, is not changed. rows: tokenized records."""
        self.model, self.tokenizer, self.rows, self.batch_size = model, tokenizer, rows, batch_size
        self.runs: dict[float, list[float]] = {}
        self.button = widgets.Button(description=f"Train for {seconds:g} s", button_style="primary")
        self.button.on_click(lambda _: self.train_live(seconds))
        super().__init__()

    def controls(self):
        return {"lr": slider("learning rate", [(f"{rate:g}", rate) for rate in RATES], 5e-2)}

    def render(self, lr):
        curves = {rate: losses for rate, losses in self.runs.items() if losses}
        figure = plot_losses(curves, window=8, note="" if curves else "no run yet: press the button")
        losses = self.runs.get(lr, [])
        if not losses:
            return figure, f"learning rate {lr:g}: not trained yet."
        last = losses[-8:]
        return figure, (
            f"learning rate {lr:g}: {len(losses)} steps, first loss {losses[0]:.2f}, "
            f"mean of the last {len(last)} steps {sum(last) / len(last):.2f}."
        )

    def train_live(self, seconds: float, steps: int = 10_000) -> None:
        """Train fresh factors at the chosen, constant rate; what goes wrong is kept in `errors` and shown."""
        lr = self.state["lr"]
        losses = self.runs[lr] = []
        self.button.disabled = True
        try:
            set_seed(0)  # every run starts from the same α and sees the same records
            adapted = get_peft_model(copy.deepcopy(self.model), SppConfig(r=16))
            with tempfile.TemporaryDirectory() as scratch:
                args = default_arguments(
                    scratch, max_steps=steps, learning_rate=lr, batch_size=self.batch_size, seed=0, progress=False
                )
                args.logging_steps, args.lr_scheduler_type = 1, "constant"
                watch = _Watch(seconds, losses, self._update)
                finetune(adapted, self.rows, self.tokenizer, args=args, callbacks=[watch])
            self._update()
        except Exception as error:  # as in Lab: it would vanish in the kernel's log
            self.errors.append(error)
            self.text.value = f"<p style='color:#b00'>{html.escape(f'{type(error).__name__}: {error}')}</p>"
        finally:
            self.button.disabled = False

    def show(self) -> None:
        """Display controls, button and picture."""
        display(widgets.VBox([*self.inputs.values(), self.button, self.picture, self.text]))

    def selftest(self, steps: int = 12) -> None:
        """Drive the slider; train for a few steps at the smallest and at a middle rate; raise what went wrong."""
        before = self.state["lr"]
        for rate in (RATES[0], RATES[3]):
            self.inputs["lr"].value = rate
            self.train_live(math.inf, steps)
        self.inputs["lr"].value = before
        super().selftest()
