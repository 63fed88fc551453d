"""prune(): calibrate, score and zero a model's linears, block by block, in place.

Joins sparsity, calibration and criteria. Knows nothing about adapters or training.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

import pandas as pd
import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from tqdm.auto import tqdm

from .calibration import InputStatistics, block_linears, walk
from .criteria import inverse_factor, magnitude_scores, sparsegpt, wanda_scores
from .sparsity import Sparsity, SparsityError, measure

METHODS = ("magnitude", "wanda", "sparsegpt")


@dataclass(frozen=True)
class PruningReport:
    """table: one row a linear: layer, shape, asked, reached (share of zeros), error (‖ΔW x‖² / ‖W x‖² on calibration
    inputs, NaN without), seconds."""

    table: pd.DataFrame

    @property
    def sparsity(self) -> float:
        """Share of zeros over all pruned linears."""
        size = self.table["shape"].map(lambda shape: shape[0] * shape[1])
        return float((self.table["reached"] * size).sum() / size.sum())

    def plot(self):
        """Error and reached sparsity per layer, as a matplotlib Figure."""
        from .plotting import plot_pruning_report

        return plot_pruning_report(self.table)


def prune(
    model: nn.Module,
    calibration: Iterable[Tensor] | None = None,
    sparsity: str | float | Sparsity = "50%",
    method: str = "wanda",
    *,
    skip: Iterable[str] = (),
    only: Iterable[str] = (),
    allocation: str | Mapping[str, float] = "uniform",
    damping: float = 0.01,
    progress: bool = True,
) -> PruningReport:
    """Zero the least important weights of every linear of the decoder blocks, in place.

    calibration: LongTensors (batch, length), or dicts with input_ids and attention_mask; not needed for magnitude.
    method: "magnitude", "wanda" (arXiv 2306.11695) or "sparsegpt" (arXiv 2301.00774, `damping` of its Hessian).
    skip, only: name patterns ("*.down_proj", "model.layers.0.*"). allocation: "uniform", "owl" (arXiv 2310.05175), or
    name pattern → ratio. When it is stopped midway, finished layers are whole and the exception's note names them.
    Raises SparsityError and CalibrationError, each naming the layer, the value and the way out.
    """
    sparsity, linears = Sparsity.parse(sparsity), _chosen(model, tuple(skip), tuple(only))
    _check_input(model, linears, sparsity, method, calibration)
    calibration = list(calibration) if calibration is not None else None
    asked = _allocate(model, linears, sparsity, allocation, calibration)
    rows: list[dict] = []
    bar = tqdm(total=len(linears), desc=f"prune {sparsity} {method}", disable=not progress)
    try:
        if calibration is None:
            for name, linear in linears.items():
                _prune_linear(name, linear, asked[name], method, None, None, rows, bar)
        else:
            for here in walk(model, calibration):
                wanted = {name: linear for name, linear in here.linears.items() if name in linears}
                _prune_block(here, wanted, asked, method, damping, rows, bar)
    except BaseException as error:
        done = ", ".join(row["layer"] for row in rows) or "none"
        error.add_note(f"pruning stopped midway; pruned whole: {done}; every other layer is as it was")
        raise
    finally:
        bar.close()
    return PruningReport(pd.DataFrame(rows))


def _prune_block(here, wanted, asked, method, damping, rows, bar) -> None:
    if not wanted:
        return
    statistics = here.statistics(gram=method == "sparsegpt")
    factors: dict[int, tuple] = {}  # linears that share an input share its factor
    for name, linear in wanted.items():
        found = statistics[name]
        if method == "sparsegpt" and id(found) not in factors:
            factors[id(found)] = inverse_factor(found.gram, damping=damping, name=name)
        _prune_linear(name, linear, asked[name], method, found, factors.get(id(found)), rows, bar)


def _prune_linear(name, linear, sparsity, method, found: InputStatistics | None, factor, rows, bar) -> None:
    bar.set_postfix_str(name)
    start = time.perf_counter()
    with align_module_device(linear):  # loads an offloaded weight
        old = linear.weight.detach().clone()
    if method == "sparsegpt":
        new = sparsegpt(old, *factor, sparsity, name=name).to(old.dtype)
    elif method == "wanda":
        new = old * sparsity.mask(wanda_scores(old, found.squares.sqrt()), per_row=True, name=name)
    else:
        new = old * sparsity.mask(magnitude_scores(old), name=name)
    error = _output_error(old, new, found)
    _write(name, linear, new)
    rows.append(
        {
            "layer": name, "shape": tuple(old.shape), "asked": str(sparsity), "reached": measure(new), "error": error,
            "seconds": time.perf_counter() - start,
        }
    )  # fmt: skip
    bar.update()


def _write(name: str, linear: nn.Module, weight: Tensor) -> None:
    """Replace a weight at once, where it lives: in the module, or where accelerate offloaded it to."""
    hook = getattr(linear, "_hf_hook", None)
    if not getattr(hook, "offload", False):
        linear.weight.data.copy_(weight)
        return
    stored = hook.weights_map["weight"]
    if not isinstance(stored, Tensor) or stored is not hook.weights_map["weight"]:
        raise SparsityError(f"{name} is offloaded to disk, where it cannot be changed: offload to the CPU instead")
    stored.copy_(weight)


def _output_error(old: Tensor, new: Tensor, found: InputStatistics | None) -> float:
    if found is None:
        return float("nan")
    before = found.sample @ old.float().T
    return float((found.sample @ new.float().T - before).square().sum() / before.square().sum().clamp_min(1e-30))


def _chosen(model, skip: tuple[str, ...], only: tuple[str, ...]) -> dict[str, nn.Module]:
    linears = block_linears(model)
    for pattern in skip + only:
        if not any(fnmatch(name, pattern) for name in linears):
            raise SparsityError(f"pattern {pattern!r} matches no linear: names look like {next(iter(linears))}")
    kept = {name: linear for name, linear in linears.items() if not any(fnmatch(name, pattern) for pattern in skip)}
    if only:
        kept = {name: linear for name, linear in kept.items() if any(fnmatch(name, pattern) for pattern in only)}
    if not kept:
        raise SparsityError(f"skip={list(skip)} and only={list(only)} leave no linear to prune")
    return kept


def _check_input(model, linears, sparsity, method, calibration) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    if hasattr(model, "peft_config"):
        raise SparsityError("the model carries an adapter: merge or unload it, prune, then insert a new one")
    if calibration is None and method != "magnitude":
        raise ValueError(f"{method} needs calibration batches: LongTensors (batch, length), or use method='magnitude'")
    for name, linear in linears.items():
        sparsity.check_fits(linear.weight, name)
        with align_module_device(linear):
            if not torch.isfinite(linear.weight).all():
                raise SparsityError(f"{name} has weights that are not finite: load the model again, or skip={name!r}")


def _allocate(model, linears, sparsity, allocation, calibration) -> dict[str, Sparsity]:
    if allocation == "uniform":
        return dict.fromkeys(linears, sparsity)
    raise ValueError(f"allocation {allocation!r} is not known: use 'uniform'")
