"""prune(): calibrate, score and zero a model's linears, block by block, in place.

Joins sparsity, calibration and criteria. Knows nothing about adapters or training.
"""

import math
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import filter as fnmatch_filter

import pandas as pd
import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..arguments import number, require_weights
from ..storage import is_dense
from . import allocation as allocations
from .blocks import block_linears, block_matrices, computed, place_of, weight_of, without_autocast, write_weight
from .calibration import BlockRun, InputStatistics, as_batches, walk
from .criteria import inverse_factor, magnitude_scores, sparsegpt_together, wanda_scores
from .sparsity import Sparsity, SparsityError, measure

METHODS = ("magnitude", "wanda", "sparsegpt")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class PruningReport:
    """table: one row a linear: layer, shape, asked, reached (share of zeros), error (‖ΔW x‖² / ‖W x‖² on calibration
    inputs, NaN without), seconds. left_dense: the blocks' other matrices (skipped, fused, …), name → weights. zeros, total:
    exact zeros of the blocks' matrices; weights of the model. before: zeros that the pruned linears had already."""

    table: pd.DataFrame
    left_dense: dict[str, int]
    zeros: int
    total: int
    before: int = 0

    @property
    def pruned(self) -> int:
        """Weights of the pruned linears."""
        return int(self.table["shape"].map(math.prod).sum())

    @property
    def sparsity(self) -> float:
        """Share of zeros over the pruned linears alone; of_blocks tells the share of all that they stand among."""
        return float((self.table["reached"] * self.table["shape"].map(math.prod)).sum()) / self.pruned

    @property
    def of_blocks(self) -> float:
        """Share of zeros over all matrices of the decoder blocks."""
        return self.zeros / (self.pruned + sum(self.left_dense.values()))

    def __str__(self) -> str:
        left = f" ({len(self.left_dense)} left dense, {min(self.left_dense)} among them)" if self.left_dense else ""
        shares = f"{self.of_blocks:.1%} of the blocks' matrices{left}, {self.zeros / self.total:.1%} of all weights"
        own = f" ({self.before / self.pruned:.2%} before)" if self.before else ""
        return f"zeros: {self.sparsity:.1%} of the {len(self.table)} pruned linears{own}, {shares}"


def prune(
    model: nn.Module, calibration: Iterable[Tensor] | None = None, sparsity: str | float | Sparsity = "50%",
    method: str = "wanda", *, skip: str | Iterable[str] = (), only: str | Iterable[str] = (),
    allocation: str | Mapping[str, float] = "uniform", damping: float = 0.01, progress: bool = True,
) -> PruningReport:  # fmt: skip
    """Zero the least important weights of every linear of the decoder blocks, in place.

    calibration: LongTensors (batch, length), or dicts with input_ids and attention_mask; not needed for magnitude.
    method: "magnitude", "wanda" (arXiv 2306.11695) or "sparsegpt" (arXiv 2301.00774, `damping` of its Hessian).
    skip, only: name patterns ("*.down_proj", "model.layers.0.*"). allocation: "uniform", "owl" (arXiv 2310.05175), or
    name pattern → ratio, the other linears sharing the rest; both meet the ratio over all linears to the weight.
    When it is stopped midway, finished layers are whole and the exception's note names them.
    Raises SparsityError and CalibrationError, each naming the layer, the value and the way out.

    >>> from spp_lite import load, prune
    >>> from spp_lite.models import embedded
    >>> from spp_lite.recover.data import calibration_batches, read_texts
    >>> model, tokenizer = load("tiny")
    >>> texts = read_texts(embedded("text", "calibration.jsonl"))
    >>> report = prune(model, calibration_batches(texts, tokenizer, samples=8, length=64), "2:4", progress=False)
    >>> type(report).__name__, report.sparsity
    ('PruningReport', 0.5)
    >>> prune(model, [], "2:4")
    Traceback (most recent call last):
    spp_lite.pruning.blocks.CalibrationError: ...
    """
    skip, only = ((names,) if isinstance(names, str) else tuple(names or ()) for names in (skip, only))
    require_weights(model)
    number(damping=damping)
    sparsity, linears = Sparsity.parse(sparsity), _chosen(model, skip, only)
    _check_input(model, linears, sparsity, method, calibration)
    others = _left_dense(model, linears)
    calibration = as_batches(calibration) if calibration is not None else None
    asked = _allocate(linears, sparsity, allocation, calibration, model)
    with tqdm(total=len(linears), desc=f"prune {sparsity} {method}", disable=not progress) as bar:
        run = _Run(linears, asked, method, damping, allocation != "uniform", bar)
        try:
            for name in linears if calibration is None else ():
                run.prune_together([name], None)
            for here in walk(model, calibration) if calibration is not None else ():
                run.prune_block(here)
        except BaseException as error:
            error.add_note(f"stopped midway; pruned whole: {', '.join(run.rows) or 'none'}; all else is as it was")
            raise
    table = pd.DataFrame([run.rows[name] for name in linears])
    zeros = sum(round(row.reached * math.prod(row.shape)) for row in table.itertuples())
    zeros += sum(int((weight == 0).sum()) for weight in others.values() if not weight.is_meta)
    sizes, total = ({n: w.numel() for n, w in some} for some in (others.items(), model.named_parameters()))
    return PruningReport(table, sizes, zeros, sum(total.values()), run.before)


@dataclass
class _Run:
    """One call of prune(): what was asked, and the report's rows so far."""

    linears: dict[str, nn.Module]
    asked: dict[str, Sparsity]
    method: str
    damping: float
    exact_total: bool  # rows may differ by one zero, so that a layer has the count that the allocation gave it
    bar: tqdm
    rows: dict[str, dict] = field(default_factory=dict)
    before: int = 0  # zeros that were there already

    def prune_block(self, here: BlockRun) -> None:
        """All chosen linears of one block; those that share an input share its statistics and its factor."""
        if not (wanted := [name for name in here.linears if name in self.linears]):
            return
        statistics = here.statistics(gram=self.method == "sparsegpt")
        for found in {id(statistics[name]): statistics[name] for name in wanted}.values():
            self.prune_together([name for name in wanted if statistics[name] is found], found)

    @without_autocast()
    def prune_together(self, names: list[str], found: InputStatistics | None) -> None:
        self.bar.set_postfix_str(names[0])
        start, weights = time.perf_counter(), [weight_of(self.linears[name]) for name in names]
        for name, old, new in zip(names, weights, self.pruned(names, weights, found), strict=True):
            new = new.to(old.dtype) + 0  # -0.0, which a product leaves, becomes 0.0: only those need no room on disk
            self.before += old.numel() - int(old.count_nonzero())
            error = _output_error(old, new, found)
            write_weight(name, self.linears[name], new)
            seconds, start = time.perf_counter() - start, time.perf_counter()
            self.rows[name] = {
                "layer": name, "shape": tuple(old.shape), "asked": str(self.asked[name]), "reached": measure(new),
                "error": error, "seconds": seconds,
            }  # fmt: skip
            self.bar.update()

    def pruned(self, names: list[str], weights: list[Tensor], found: InputStatistics | None) -> Iterable[Tensor]:
        asked = [self.asked[name] for name in names]
        if self.method == "sparsegpt":
            factor = inverse_factor(found.gram, damping=self.damping, name=names[0])
            yield from sparsegpt_together(weights, *factor, asked, names=names)
            return
        for name, weight, sparsity in zip(names, weights, asked, strict=True):
            wanda = self.method == "wanda"
            scores = wanda_scores(weight, found.squares.sqrt()) if wanda else magnitude_scores(weight)
            yield weight * sparsity.mask(scores, per_row=wanda, exact_total=self.exact_total, name=name)


def _output_error(old: Tensor, new: Tensor, found: InputStatistics | None) -> float:
    if found is None:
        return math.nan
    before = found.sample @ old.float().T
    return float((found.sample @ new.float().T - before).square().sum() / before.square().sum().clamp_min(1e-30))


def _chosen(model, skip: tuple[str, ...], only: tuple[str, ...]) -> dict[str, nn.Module]:
    linears = block_linears(model)
    found = {pattern: set(fnmatch_filter(linears, pattern)) for pattern in skip + only}
    if lost := [pattern for pattern, names in found.items() if not names]:
        raise SparsityError(f"pattern {lost[0]!r} matches no linear: names look like {next(iter(linears))}")
    skipped, wanted = (set().union(*(found[one] for one in patterns)) for patterns in (skip, only))
    if not (kept := (wanted if only else linears.keys()) - skipped):
        raise SparsityError(f"skip={list(skip)} and only={list(only)} leave no linear to prune")
    return {name: linear for name, linear in linears.items() if name in kept}


def _check_input(model, linears, sparsity, method, calibration) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    if hasattr(model, "peft_config"):
        raise SparsityError("the model carries an adapter: merge or unload it, prune, then insert a new one")
    if calibration is None and method != "magnitude":
        raise ValueError(f"{method} needs calibration batches: LongTensors (batch, length), or use method='magnitude'")
    owners: dict[int, str] = {}
    for name, linear in linears.items():
        if why := computed(linear):
            raise SparsityError(f"{name} {why}")
        if not is_dense(linear.weight):
            raise SparsityError(f"{name} is in a form for inference: prune before to_sparse()")
        if linear.weight.dtype not in FLOATS:
            kind = f"{type(linear).__name__} of {linear.weight.dtype}"
            raise SparsityError(f"{name} is a quantised {kind}: prune the unquantised model, or skip={name!r}")
        if linear.weight.is_inference():
            raise SparsityError(f"{name} was made in inference mode, where weights are final: load it outside")
        if (other := owners.setdefault(id(linear.weight), name)) != name:
            raise SparsityError(f"{name} and {other} share one weight, which would be pruned twice: skip one of them")
        sparsity.check_fits(linear.weight, name)
        place_of(name, linear)
        with align_module_device(linear):
            if not torch.isfinite(linear.weight).all():
                raise SparsityError(f"{name} has weights that are not finite: load the model again, or skip={name!r}")


def _left_dense(model, linears) -> dict[str, nn.Parameter]:
    """The matrices of the blocks that are not pruned; a warning names those that no option can reach."""
    every, chosen = ({f"{name}.weight" for name in names} for names in (block_linears(model), linears))
    sizes = {name: weight.numel() for name, weight in block_matrices(model).items()}
    if fused := [name for name in sizes if name not in every]:
        largest, share = max(fused, key=sizes.get), sum(sizes[name] for name in fused) / sum(sizes.values())
        warnings.warn(
            f"{len(fused)} matrices of the blocks, {share:.1%} of their weights, are no linears and stay dense, or no "
            f"decoder's, {largest} among them",
            stacklevel=3,
        )
    return {name: weight for name, weight in block_matrices(model).items() if name not in chosen}


def _allocate(linears, sparsity, allocation, calibration, model) -> dict[str, Sparsity]:
    if allocation == "uniform":
        return dict.fromkeys(linears, sparsity)
    if sparsity.m or sparsity.per_row:
        raise SparsityError(f"{sparsity} gives every row the same share: use allocation='uniform', or a ratio as '50%'")
    sizes = {name: linear.weight.numel() for name, linear in linears.items()}
    if isinstance(allocation, Mapping):
        ratios = allocations.budget(allocation, sizes, sparsity.ratio)
    elif allocation == "owl" and calibration is not None:
        ratios = allocations.owl(_outlier_shares(model, linears, calibration), sizes, sparsity.ratio)
    else:
        raise ValueError(
            f"allocation {allocation!r} is not one of 'uniform', 'owl' (with calibration), name pattern → ratio"
        )
    return allocations.exact(ratios, sizes, sparsity.ratio)


def _outlier_shares(model, linears, calibration) -> dict[str, float]:
    shares: dict[str, float] = {}
    for here in walk(model, calibration):  # the dense model, before anything is pruned
        wanted = [name for name in here.linears if name in linears]
        found = here.statistics() if wanted else {}
        scores = [wanda_scores(weight_of(linears[name]), found[name].squares.sqrt()) for name in wanted]
        shares |= dict.fromkeys(wanted, allocations.outlier_share(scores) if wanted else 0.0)
    return shares
