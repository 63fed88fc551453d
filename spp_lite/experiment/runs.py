"""Runs from a dense model to a scored sparse one, a row of a tidy table each.

Joins load → prune → adapter → finetune → merge → evaluate. Prints nothing and draws nothing.
"""

import hashlib
import importlib.metadata
import inspect
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed

from ..adapter.merging import merge
from ..models import environment, fingerprint, load, peak_memory, reset_peak_memory
from ..pruning.calibration import block_linears, block_matrices
from ..pruning.prune import METHODS as PRUNERS
from ..pruning.prune import prune
from ..pruning.sparsity import Sparsity
from ..recover.evaluation import average_accuracy, evaluate, load_tasks
from ..recover.perplexity import perplexity, record_loss, text_ids
from ..recover.training import Estimate, finetune
from .baselines import METHODS, attach, reconstruct, recover

EXTRAS = {  # method+extra, as "spp+distill": what may be done beside a method
    "distill": "the dense parent's predictions at every token are learned, not the records' answers",
    "reconstruct": "local reconstruction first",
}
UNTRAINED = ("dense", "none", "reconstruct")  # methods without a learning rate
IDENTITY = ("model", "data", "calibration", "text", "tasks", "recipe", "spp_lite")  # columns: what made a row


@dataclass(frozen=True)
class Recipe:
    """What every run of one comparison shares.

    model: as in load(). records: Alpaca records. calibration: LongTensors (batch, length). tasks: as in evaluate(), or
    None. text: scored by perplexity(), its first text_tokens, or None. held: records scored by record_loss(), or None.
    draws: batches of calibration that a run of the grid draws. r: as in baselines.attach(). training: keywords of finetune().
    Raises ValueError where nothing is scored, and for settings that do not exist.
    """

    model: str
    records: Dataset
    calibration: Sequence[Tensor]
    tasks: str | list[str] | None = "tiny"
    text: str | None = None
    text_tokens: int | None = None
    held: Dataset | None = None
    draws: int = 16
    pruner: str = "wanda"
    r: int | None = None
    training: dict = field(default_factory=dict)
    batch_size: int = 64
    limit: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if not (self.tasks or self.text or self.held):
            raise ValueError("nothing would be scored: name tasks, a text for perplexity, or held-out records")
        unknown = sorted(set(self.training) - set(inspect.signature(finetune).parameters))
        if unknown:
            raise ValueError(f"finetune() has no setting {', '.join(unknown)}: training takes its keywords")
        _require(self.pruner, PRUNERS, "pruner")

    def check(self, model, tokenizer, sparsities: Iterable[str]) -> None:
        """Raise ValueError now, not after an hour, for tasks, texts and patterns that this model cannot be given."""
        if self.tasks:
            load_tasks(self.tasks, metric="acc")
        if self.text:
            text_ids(tokenizer, self.text)
        for sparsity in map(Sparsity.parse, sparsities):
            for name, linear in block_linears(model).items():
                sparsity.check_fits(linear.weight, name)

    def identity(self, model) -> dict[str, str]:
        """What makes the rows of this recipe, a word for each column of IDENTITY: what differs may not share a table."""
        tasks = self.tasks if isinstance(self.tasks, str) else ",".join(self.tasks or ["-"])
        tokens = "" if self.text_tokens is None else f" tokens={self.text_tokens}"
        settings = {name: value for name, value in (("r", self.r), *sorted(self.training.items())) if value is not None}
        found = (
            fingerprint(model),
            " held=".join(_hash_records(records) for records in (self.records, self.held) if records is not None),
            _hash(str(batch.tolist()).encode() for batch in self.calibration),
            (_hash([self.text.encode(errors="surrogatepass")]) if self.text else "-") + tokens,
            tasks if self.limit is None else f"{tasks} limit={self.limit}",
            " ".join(f"{name}={value}" for name, value in settings.items()) or "-",
            _version(),
        )
        return dict(zip(IDENTITY, found, strict=True))


def _require(name: str, known: Iterable[str], kind: str) -> None:
    if name not in known:
        raise ValueError(f"{kind} {name!r} is none of {', '.join(known)}")


def _version() -> str:
    try:
        return importlib.metadata.version("spp_lite")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "source"


def _hash_records(records: Dataset) -> str:
    return _hash(json.dumps(row, sort_keys=True).encode() for row in records)


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\n")
    return digest.hexdigest()[:16]


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
    made = recipe.identity(model)
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


def zeros(model) -> float:
    """Share of exact zeros over all matrices of the decoder blocks, what pruning cannot reach among them."""
    weights = block_matrices(model).values()
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@dataclass(frozen=True)
class Run:
    """One cell of the grid and one seed, which draws the calibration windows, the start of the factors and the order of
    the records. method: one of baselines.METHODS or "dense", with "+" and names of EXTRAS. sparsity: as parse() reads
    it, kept as it prints. lr: 0 for methods that do not train. Raises ValueError for what does not exist."""

    method: str
    pruner: str
    sparsity: str
    seed: int
    lr: float

    def __post_init__(self) -> None:
        method, *extras = self.method.split("+")
        _require(method, (*METHODS, "dense"), "method")
        for extra in extras:
            _require(extra, EXTRAS, f"{self.method}: extra")
        if extras and (method == "dense" or ("distill" in extras and method in UNTRAINED)):
            raise ValueError(f"method {self.method!r}: {method} is not trained, so that there is nothing to add to it")
        _require(self.pruner, ("dense",) if method == "dense" else PRUNERS, "pruner")
        if not (math.isfinite(self.lr) and self.lr >= 0):
            raise ValueError(f"{self.method}: the learning rate is {self.lr}: give a finite number, 0 or more")
        object.__setattr__(self, "sparsity", str(Sparsity.parse(self.sparsity)))


def trains(method: str) -> bool:
    """Does this method (of Run) have a learning rate?"""
    return method.partition("+")[0] not in UNTRAINED


def do_run(recipe: Recipe, run: Run) -> dict:
    """One row: the run, parameters, seconds, peak memory, zeros before and after, scores, versions, the model's
    fingerprint. A run that fails has its error, no score, and what was known until then."""
    start = time.perf_counter()
    reset_peak_memory()
    row: dict = {**asdict(run), "error": ""}
    try:
        row |= _prune_train_score(recipe, run, row)
    except (ValueError, RuntimeError) as error:
        row["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    versions = " ".join(f"{name} {environment()[name]}" for name in ("torch", "transformers", "peft"))
    return row | {"seconds": time.perf_counter() - start, "peak_mib": peak_memory() / 2**20, "versions": versions}


def _prune_train_score(recipe: Recipe, run: Run, found: dict) -> dict:
    """The scores; what is known before them goes into found."""
    model, tokenizer = load(recipe.model)
    method, *extras = run.method.split("+")
    dense = load(recipe.model)[0] if extras or method == "reconstruct" else None
    set_seed(run.seed)
    order = torch.randperm(len(recipe.calibration))[: recipe.draws]
    calibration = [recipe.calibration[i] for i in order.tolist()]
    found |= {"model": fingerprint(model), "parameters": 0}
    if method == "dense":
        scores = score(recipe, model, tokenizer)
        return {"zeros_before": scores["zeros"], "zeros_after": scores.pop("zeros"), **scores}
    prune(model, calibration, run.sparsity, method=run.pruner, progress=False)
    if "reconstruct" in extras:
        reconstruct(model, dense, calibration)
    found["zeros_before"] = zeros(model)

    def train(trainable) -> None:
        found["parameters"] = sum(p.numel() for p in trainable.parameters() if p.requires_grad)
        training = {**recipe.training, "learning_rate": run.lr, "seed": run.seed, "progress": False}
        teacher = dense if "distill" in extras else None
        found["loss_last"] = _losses(finetune(trainable, recipe.records, tokenizer, teacher=teacher, **training))[
            "loss_last"
        ]

    model = recover(model, method, train, r=recipe.r, dense=dense, calibration=calibration)
    scores = score(recipe, model, tokenizer)
    return {"zeros_after": scores.pop("zeros"), **recipe.training, **scores}
