"""What is run: the recipe that all runs of a comparison share, with its identity, and one run of the grid.

Knows what exists and can be run. Runs nothing.
"""

import hashlib
import inspect
import itertools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from datasets import Dataset
from torch import Tensor

from ..arguments import number, whole
from ..models import fingerprint
from ..pruning.blocks import block_linears, context
from ..pruning.prune import METHODS as PRUNERS
from ..pruning.sparsity import Sparsity
from ..recover.data import tokenize_records
from ..recover.evaluation import load_tasks, named
from ..recover.perplexity import text_ids
from ..recover.training import finetune
from ..storage import version
from .baselines import METHODS

EXTRAS = {  # method+extra, as "spp+distill": what may be done beside a method
    "distill": "the dense parent's predictions and hidden states at the answers are learned, not the records' words",
    "norms": "the norms' weights are trained too",
}
RATES = (3e-4, 5.5e-4, 1e-3, 1.8e-3, 3e-3, 5.5e-3, 1e-2, 1.8e-2, 3e-2, 5.5e-2, 1e-1)  # learning rates to choose from
UNTRAINED = ("dense", "none")  # methods without a learning rate
UNTOLD = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
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
        whole(draws=self.draws)
        known = set(inspect.signature(finetune).parameters) - {"args", "seed", "teacher", "callbacks"}  # each run's own
        unknown = sorted(set(self.training) - known)
        if unknown:
            raise ValueError(f"training={', '.join(unknown)} is no setting of finetune() that runs share")
        _require(self.pruner, PRUNERS, "pruner")

    def check(self, model, tokenizer, sparsities: Iterable[str], seeds: int = 1) -> None:
        """Raise ValueError now, not after an hour, for tasks, texts and patterns that this model cannot be given."""
        if seeds > 1 and len(self.calibration) <= self.draws:
            warnings.warn(f"draws={self.draws} takes every batch, all seeds prune alike: give more", stacklevel=4)
        if (longest := max((batch.shape[1] for batch in self.calibration), default=0)) > context(model):
            most = f"the model takes {context(model)}: give shorter ones (--calibration-length)"
            raise ValueError(f"the calibration windows have {longest} tokens, {most}")
        if self.tasks:
            load_tasks(self.tasks, metric="acc")
        if self.text:
            text_ids(tokenizer, self.text)
        for sparsity in map(Sparsity.parse, sparsities):
            for name, linear in block_linears(model).items():
                sparsity.check_fits(linear.weight, name)

    def tokenized(self, tokenizer) -> "Recipe":
        """The same with its records as tokens, once for all runs; what is left out is said, and refused if it is all."""
        cut = {name: self.training[name] for name in ("cutoff", "train_on_inputs") if name in self.training}
        held = self.held and tokenize_records(self.held, tokenizer, cutoff=cut.get("cutoff", 512))
        return replace(self, records=tokenize_records(self.records, tokenizer, **cut), held=held)

    def identity(self, model) -> dict[str, str]:
        """What makes the rows of this recipe, a word for each column of IDENTITY: what differs may not share a table."""
        tasks = ",".join(map(named, [self.tasks] if isinstance(self.tasks, str) else self.tasks or ["-"]))
        tokens = "" if self.text_tokens is None else f" tokens={self.text_tokens}"
        settings = {name: value for name, value in (("r", self.r), *sorted(self.training.items())) if value is not None}
        found = (
            identify(model),
            " held=".join(_hash_records(records) for records in (self.records, self.held) if records is not None),
            _hash(str(batch.tolist()).encode() for batch in self.calibration)
            + (f" draws={self.draws}" if self.draws != Recipe.draws else ""),
            (_hash([self.text.encode(errors="surrogatepass")]) if self.text else "-") + tokens,
            tasks if self.limit is None else f"{tasks} limit={self.limit}",
            " ".join(f"{name}={value}" for name, value in settings.items()) or "-",
            version("spp_lite"),
        )
        return dict(zip(IDENTITY, found, strict=True))


def identify(model) -> str:
    """What a model computes: its weights, and where they say something else than their class's defaults, its settings."""
    told = {k: v for k, v in model.config.to_diff_dict().items() if k not in UNTOLD}
    return f"{fingerprint(model)}-{_hash([json.dumps(told, sort_keys=True, default=str).encode()])[:8]}"


def _require(name: str, known: Iterable[str], kind: str) -> None:
    if name not in known:
        raise ValueError(f"{kind} {name!r} is none of {', '.join(known)}")


def _hash_records(records: Dataset) -> str:
    return _hash(json.dumps(row, sort_keys=True).encode() for row in records)


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part + b"\n")
    return digest.hexdigest()[:16]


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
        if extras and (method == "dense" or ({"distill", "norms"} & {*extras} and method in UNTRAINED)):
            raise ValueError(f"method {self.method!r}: {method} is not trained, so that there is nothing to add to it")
        _require(self.pruner, ("dense",) if method == "dense" else PRUNERS, "pruner")
        number(**{f"{self.method}: lr": self.lr, f"{self.method}: seed": self.seed})
        object.__setattr__(self, "sparsity", str(Sparsity.parse(self.sparsity)))


def trains(method: str) -> bool:
    """Does this method (of Run) have a learning rate?"""
    return method.partition("+")[0] not in UNTRAINED


def grid(
    methods: Sequence[str], pruners: Sequence[str], sparsities: Sequence[str], seeds: int, rates: Mapping[str, float]
) -> list[Run]:
    """The dense model and all runs, one seed after the other, so that a sweep that is stopped has whole grids.

    Raises ValueError for a method that trains and has no rate, and for no seeds.
    """
    whole(seeds=seeds)
    if lacking := [method for method in methods if trains(method) and method not in rates]:
        found = ", ".join(rates) or "none"
        raise ValueError(f"there is no learning rate for {', '.join(lacking)}: those that were chosen are of {found}")
    cells = itertools.product(range(seeds), pruners, sparsities, filter("dense".__ne__, methods))
    runs = [Run(method, pruner, sparsity, seed, rates.get(method, 0.0)) for seed, pruner, sparsity, method in cells]
    return [Run("dense", "dense", "0%", 0, 0.0), *runs]


def rate_grid(
    methods: Sequence[str], sparsities: Sequence[str], rates: Sequence[float] | None = None, seeds: int = 1
) -> list[Run]:
    """What choose_rates() compares: every method that trains at every rate (None: RATES), pruned by Wanda."""
    whole(seeds=seeds)
    if wrong := [rate for rate in rates or () if not rate > 0]:
        raise ValueError(f"a learning rate of {wrong[0]} teaches nothing: try positive ones")
    cells = itertools.product(range(seeds), sparsities, rates or RATES, filter(trains, methods))
    return [Run(method, "wanda", sparsity, seed, rate) for seed, sparsity, rate, method in cells]
