"""Runs from a dense model to a scored sparse one, a row of a tidy table each.

Joins load → prune → adapter → finetune → merge → evaluate. Prints nothing and draws nothing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import peft
import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed

from ..adapter.merging import merge
from ..adapter.tuner import SppConfig
from ..models import environment, load, peak_memory, reset_peak_memory
from ..pruning.calibration import block_linears
from ..pruning.prune import prune
from ..recover.evaluation import average_accuracy, evaluate, perplexity
from ..recover.training import finetune
from .baselines import reconstruct, recover

EXTRAS = {  # method+extra, as "spp+distill": what may be done beside a method
    "distill": "the dense parent's predictions at every token are learned, not the records' answers",
    "reconstruct": "local reconstruction first",
}
CALIBRATION = 16  # batches that a run of the grid draws from its recipe's


@dataclass(frozen=True)
class Recipe:
    """What every run of one comparison shares.

    model: as in load(). records: Alpaca records. calibration: LongTensors (batch, length). tasks: as in evaluate(), or
    None. text: scored by perplexity(), or None. training: keywords of finetune().
    """

    model: str
    records: Dataset
    calibration: Sequence[Tensor]
    tasks: str | list[str] | None = "tiny"
    text: str | None = None
    pruner: str = "wanda"
    r: int = 16
    training: dict = field(default_factory=dict)
    batch_size: int = 64
    limit: int | None = None
    progress: bool = True


def dense_and_recovered(
    recipe: Recipe, sparsities: Sequence[str], *, say: Callable[[str], None] = lambda stage: None
) -> Iterator[tuple[dict, object, object]]:
    """Yield (row, model, tokenizer) for the dense model, then for each sparsity pruned alone and pruned + SPP + merged.

    The model is one and the same object from "pruned" to "recovered": save it before going on if it is wanted.
    say: told the stage that begins.
    """
    say(f"dense: load {recipe.model}, evaluate")
    model, tokenizer = load(recipe.model)
    yield {"method": "dense", "sparsity": "0%", **score(recipe, model, tokenizer)}, model, tokenizer
    for sparsity in sparsities:
        model, tokenizer = load(recipe.model)
        say(f"{sparsity}: prune with {recipe.pruner}, evaluate")
        start = time.perf_counter()
        prune(model, recipe.calibration, sparsity, method=recipe.pruner, progress=recipe.progress)
        seconds = time.perf_counter() - start
        yield _row("none", sparsity, seconds, score(recipe, model, tokenizer)), model, tokenizer
        set_seed(0)  # the start of α
        say(f"{sparsity}: insert SPP factors, train, merge with proof, evaluate")
        start = time.perf_counter()
        adapted = peft.get_peft_model(model, SppConfig(r=recipe.r))
        output = finetune(adapted, recipe.records, tokenizer, progress=recipe.progress, **recipe.training)
        model, _ = merge(adapted)
        seconds = time.perf_counter() - start
        losses = _losses(output)
        scores = {"loss_first": losses[0], "loss_last": losses[-1], **score(recipe, model, tokenizer)}
        yield _row("spp", sparsity, seconds, scores), model, tokenizer


def _losses(output) -> list[float]:
    return [entry["loss"] for entry in output.metrics["history"] if "loss" in entry]


def _row(method: str, sparsity: str, seconds: float, scores: dict) -> dict:
    return {"method": method, "sparsity": sparsity, "seconds": round(seconds, 2), **scores}


def score(recipe: Recipe, model, tokenizer) -> dict:
    """zeros (share, in the blocks' linears); as far as asked accuracy (mean of acc), acc of each task, perplexity."""
    found = {"zeros": zeros(model)}
    if recipe.tasks:
        table = evaluate(
            model, tokenizer, recipe.tasks, limit=recipe.limit, batch_size=recipe.batch_size, progress=recipe.progress
        )
        found["accuracy"] = average_accuracy(table)
    if recipe.text:
        found["perplexity"] = perplexity(model, tokenizer, recipe.text, progress=recipe.progress)
    if recipe.tasks:
        found |= table[table["metric"] == "acc"].set_index("task")["value"].to_dict()
    return found


def zeros(model) -> float:
    """Share of exact zeros over all linears of the decoder blocks."""
    weights = [linear.weight for linear in block_linears(model).values()]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@dataclass(frozen=True)
class Run:
    """One cell of the grid and one seed, which draws the calibration windows, the start of the factors and the order of
    the records. method: one of baselines.METHODS, with "+" and names of EXTRAS. lr: 0 for methods that do not train."""

    method: str
    pruner: str
    sparsity: str
    seed: int
    lr: float


def do_run(recipe: Recipe, run: Run) -> dict:
    """One row: the run, parameters, seconds, peak memory, zeros before and after, scores, versions."""
    start = time.perf_counter()
    reset_peak_memory()
    row: dict = {**asdict(run), "error": ""}
    try:
        row |= _prune_train_score(recipe, run)
    except (ValueError, RuntimeError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    versions = " ".join(
        f"{name} {value}" for name, value in environment().items() if name in ("torch", "transformers", "peft")
    )
    return row | {"seconds": time.perf_counter() - start, "peak_mib": peak_memory() / 2**20, "versions": versions}


def _prune_train_score(recipe: Recipe, run: Run) -> dict:
    model, tokenizer = load(recipe.model)
    method, *extras = run.method.split("+")
    if unknown := [name for name in extras if name not in EXTRAS]:
        raise ValueError(f"{run.method}: no extra {', '.join(unknown)}: after a + goes one of {', '.join(EXTRAS)}")
    dense = load(recipe.model)[0] if extras or method == "reconstruct" else None
    set_seed(run.seed)
    order = torch.randperm(len(recipe.calibration))[:CALIBRATION]
    calibration = [recipe.calibration[i] for i in order.tolist()]
    if method == "dense":
        return {"parameters": 0, "zeros_before": 0.0, "zeros_after": 0.0, **score(recipe, model, tokenizer)}
    prune(model, calibration, run.sparsity, method=run.pruner, progress=False)
    if "reconstruct" in extras:
        reconstruct(model, dense, calibration)
    found = {"zeros_before": zeros(model), "parameters": 0}

    def train(trainable) -> None:
        found["parameters"] = sum(p.numel() for p in trainable.parameters() if p.requires_grad)
        training = {**recipe.training, "learning_rate": run.lr, "seed": run.seed, "progress": False}
        teacher = dense if "distill" in extras else None
        found["loss_last"] = _losses(finetune(trainable, recipe.records, tokenizer, teacher=teacher, **training))[-1]

    model = recover(model, method, train, dense=dense, calibration=calibration)
    scores = score(recipe, model, tokenizer)
    return {**found, "zeros_after": scores.pop("zeros"), **recipe.training, **scores}
