"""The logged runs that notebook 06 replays:  python -m data.build.replay  (about eight minutes on 2 cores).

One run for every r and learning rate; each is written when it is done, so a stopped grid goes on where it was.
"""

import itertools
import tempfile

import pandas as pd
from peft import get_peft_model
from transformers import TrainerCallback, set_seed

from spp_lite import SppConfig, evaluate, finetune, load, load_alpaca, prune
from spp_lite.experiment.table import write_table
from spp_lite.models import embedded
from spp_lite.recover.data import calibration_batches, default_texts, tokenize_records
from spp_lite.recover.evaluation import average_accuracy
from spp_lite.recover.training import default_arguments

BLOCKS, RATES = (1, 4, 16, 64), (4e-3, 1.2e-2, 5e-2, 1.5e-1)
STEPS, BATCH, EVERY = 160, 16, 4  # the loss is logged as the mean over EVERY steps
SCORED = (20, 40, 80, 120, 160)  # steps after which the validation tasks are scored
ITEMS = 60  # a task


class _Score(TrainerCallback):
    """Accuracy on the validation tasks at some steps."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer, self.found = tokenizer, {}

    def on_step_end(self, args, state, control, model, **_):
        if state.global_step in SCORED:
            self.found[state.global_step] = accuracy(model.eval(), self.tokenizer)


def accuracy(model, tokenizer) -> float:
    """Average over the seven tasks of the validation split."""
    return average_accuracy(evaluate(model, tokenizer, "tiny_val", limit=ITEMS, progress=False))


def pruned():
    """The tiny model with 75 % zeros in every row (Wanda), and its tokenizer."""
    model, tokenizer = load("tiny")
    batches = calibration_batches(default_texts(model="tiny"), tokenizer, samples=64, length=128)
    prune(model, batches, "75%", method="wanda", progress=False)
    return model, tokenizer


def log(r: int, rate: float, rows) -> pd.DataFrame:
    """Train once: a row every few steps with the loss and, where it was scored, the accuracy."""
    model, tokenizer = pruned()
    set_seed(0)
    adapted = get_peft_model(model, SppConfig(r=r))
    score = _Score(tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        args = default_arguments(scratch, max_steps=STEPS, learning_rate=rate, batch_size=BATCH, seed=0, progress=False)
        args.logging_steps = EVERY
        history = finetune(adapted, rows, tokenizer, args=args, callbacks=[score]).metrics["history"]
    losses = {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
    steps = pd.Series(sorted(losses))
    return pd.DataFrame({"r": r, "lr": rate, "step": steps, "loss": steps.map(losses).round(4),
                         "accuracy": steps.map(score.found).round(4)})  # fmt: skip


def main() -> None:
    """Do the runs that the table lacks."""
    path = embedded("results") / "replay.csv"
    model, tokenizer = pruned()
    if path.exists():
        table = pd.read_csv(path)
    else:  # r = 0 stands for the pruned model, not retrained
        start = {"r": 0, "lr": 0.0, "step": 0, "loss": None, "accuracy": round(accuracy(model, tokenizer), 4)}
        table = pd.DataFrame([start])
    rows = tokenize_records(load_alpaca("tiny"), tokenizer)
    done = set(zip(table["r"], table["lr"], strict=True))
    for r, rate in itertools.product(BLOCKS, RATES):
        if (r, rate) not in done:
            table = pd.concat([table, log(r, rate, rows)], ignore_index=True)
            write_table(table, path)


if __name__ == "__main__":
    main()
