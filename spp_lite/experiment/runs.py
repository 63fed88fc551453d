"""Runs from a dense model to a scored sparse one, a row of a tidy table each.

Joins load → prune → adapter → finetune → merge → evaluate. Prints nothing and draws nothing.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import torch
from transformers import TrainerCallback, set_seed

from ..adapter.merging import merge
from ..models import environment, load, peak_memory, reset_peak_memory
from ..pruning.blocks import zeros
from ..pruning.prune import prune
from ..pruning.sparsity import Sparsity
from ..recover.evaluation import average_accuracy, evaluate
from ..recover.perplexity import perplexity, record_loss
from ..recover.training import finetune
from .baselines import attach, recover
from .recipe import Recipe, Run, identify


def dense_and_recovered(
    recipe: Recipe, sparsities: Sequence[str], *, say: Callable[[str], None] = lambda stage: None
) -> Iterator[tuple[dict, object, object]]:
    """Yield (row, model, tokenizer) for the dense model, then for each sparsity pruned alone and pruned + SPP + merged.

    The model is one object from "pruned" to "recovered": save it before going on. say: told the stage that begins.
    """
    sparsities = list({Sparsity.parse(one): str(one) for one in sparsities}.values())  # as it was written
    say(f"dense: load {recipe.model}, evaluate")
    model, tokenizer = load(recipe.model)
    recipe.check(model, tokenizer, sparsities)
    made, recipe = recipe.identity(model), recipe.tokenized(tokenizer)
    yield {"method": "dense", "sparsity": "0%", **score(recipe, model, tokenizer), **made}, model, tokenizer
    for sparsity in sparsities:
        del model  # before the next one is loaded
        model, tokenizer = load(recipe.model)
        say(f"{sparsity}: prune with {recipe.pruner}, evaluate")
        start = time.perf_counter()
        prune(model, recipe.calibration, sparsity, method=recipe.pruner, progress=recipe.progress)
        seconds = time.perf_counter() - start
        yield _row("none", sparsity, seconds, score(recipe, model, tokenizer) | made), model, tokenizer
        set_seed(0)  # the start of α
        say(f"{sparsity}: insert SPP factors, train, merge with proof, evaluate")
        start = time.perf_counter()
        adapted = attach(model, "spp", r=recipe.r)
        more = {"progress": recipe.progress, "callbacks": [Estimate(say)], **recipe.training}
        output = finetune(adapted, recipe.records, tokenizer, **more)
        model, _ = merge(adapted)
        seconds = time.perf_counter() - start
        scores = {**_losses(output), **score(recipe, model, tokenizer), **made}
        yield _row("spp", sparsity, seconds, scores), model, tokenizer


def _losses(output) -> dict[str, float]:
    losses = [entry["loss"] for entry in output.metrics["history"] if "loss" in entry]
    return {"loss_first": losses[0], "loss_last": losses[-1]}


def _row(method: str, sparsity: str, seconds: float, scores: dict) -> dict:
    return {"method": method, "sparsity": sparsity, "seconds": round(seconds, 2), **scores}


def score(recipe: Recipe, model, tokenizer) -> dict:
    """zeros (share, in the blocks' matrices); as far as asked accuracy (mean of acc), perplexity of the text, loss of the
    held-out records and its perplexity, acc of each task."""
    found = {"zeros": zeros(model)}
    if recipe.tasks:
        table = evaluate(
            model, tokenizer, recipe.tasks, limit=recipe.limit, batch_size=recipe.batch_size, progress=recipe.progress
        )
        found["accuracy"] = average_accuracy(table)
    if recipe.text:
        scored = {"tokens": recipe.text_tokens, "progress": recipe.progress}
        found["perplexity"] = perplexity(model, tokenizer, recipe.text, **scored)
    if recipe.held:
        cut = {name: recipe.training[name] for name in ("cutoff",) if name in recipe.training}
        found["alpaca_loss"] = record_loss(model, tokenizer, recipe.held, **cut, progress=recipe.progress)
        found["alpaca_perplexity"] = math.exp(found["alpaca_loss"])
    if recipe.tasks:
        found |= table[table["metric"] == "acc"].set_index("task")["value"].to_dict()
    return found


def do_run(recipe: Recipe, run: Run) -> dict:
    """One row: the run, parameters (what is trained: of masked-full the survivors), seconds, peak memory, zeros before and after, scores, versions, the model's
    fingerprint. A run that fails has its error, no score, and what was known until then."""
    start = time.perf_counter()
    reset_peak_memory()
    row: dict = {**asdict(run), "error": ""}
    try:
        row |= _prune_train_score(recipe, run, row)
    except (ValueError, RuntimeError) as error:
        row["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    versions = " ".join(f"{name} {environment()[name]}" for name in ("torch", "transformers", "peft", "gpu"))
    return row | {"seconds": time.perf_counter() - start, "peak_mib": peak_memory() / 2**20, "versions": versions}


def _prune_train_score(recipe: Recipe, run: Run, found: dict) -> dict:
    """The scores; what is known before them goes into found."""
    model, tokenizer = load(recipe.model)
    method, *extras = run.method.split("+")
    dense = load(recipe.model)[0] if "distill" in extras else None
    set_seed(run.seed)
    order = torch.randperm(len(recipe.calibration))[: recipe.draws]
    calibration = [recipe.calibration[i] for i in order.tolist()]
    found |= {"model": identify(model), "parameters": 0}
    if method == "dense":
        scores = score(recipe, model, tokenizer)
        return {"zeros_before": scores["zeros"], "zeros_after": scores.pop("zeros"), **scores}
    found |= recipe.training  # of a run that fails, too
    prune(model, calibration, run.sparsity, method=run.pruner, progress=False)
    found["zeros_before"] = zeros(model)

    def train(trainable) -> None:
        trained = [weight for weight in trainable.parameters() if weight.requires_grad]
        found["parameters"] = sum(int(w.count_nonzero()) if method == "masked-full" else w.numel() for w in trained)
        training = {**recipe.training, "learning_rate": run.lr, "seed": run.seed, "progress": False}
        if "norms" not in extras:
            training.pop("norm_learning_rate", None)
        output = finetune(trainable, recipe.records, tokenizer, teacher=dense, **training)
        found["loss_last"] = _losses(output)["loss_last"]

    model = recover(model, method, train, r=recipe.r, norms="norms" in extras)
    scores = score(recipe, model, tokenizer)
    return {"zeros_after": scores.pop("zeros"), **scores}


class Estimate(TrainerCallback):
    """Tells `say`, after four steps, how long training will take, where that is more than a minute."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 1:  # the first is slower
            self.start, self.seen = time.perf_counter(), state.num_input_tokens_seen
        if state.global_step == 4:
            seconds, tokens = time.perf_counter() - self.start, state.num_input_tokens_seen - self.seen
            if (left := seconds / 3 * (state.max_steps - 4)) > 60:
                speed = f"{seconds / 3:.1f} s a step, {tokens / seconds:.0f} tokens/s"
                self.say(f"{speed}: about {left / 60:.0f} min of training left")
