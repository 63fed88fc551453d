"""A pruned model in the form that pays when it runs: 2:4 on NVIDIA GPUs, compressed sparse rows (CSR) on a CPU.

Knows linears and their weights. Knows nothing about how the zeros came, nor about files (packed.py).
"""

import warnings
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import number
from .pruning.blocks import block_linears, computed, without_autocast
from .pruning.sparsity import Sparsity, SparsityError, measure
from .storage import is_dense

DENSEST = 0.3  # share of non-zeros up to which CSR won at 2048² and 4096² (python -m benchmarks.inference linears)
SMALLEST = 2**16  # entries: below, a call costs more than the product, at any sparsity
UNPRUNED = 0.25  # on a GPU: a weight with fewer zeros than this was left dense on purpose
MULTIPLE = 32, 64  # rows and columns that both of PyTorch's 2:4 kernels take


@dataclass(frozen=True)
class SparseReport:
    """table: one row a linear: layer, form ("2:4", "CSR" or "dense"), why (it stays dense, else ""), zeros (share of
    the weight), bytes before and after."""

    table: pd.DataFrame

    @property
    def dense(self) -> dict[str, str]:
        """The linears that stay dense, by name, with the reason."""
        left = self.table[self.table["form"] == "dense"]
        return dict(zip(left["layer"], left["why"], strict=True))

    def __str__(self) -> str:
        before, after = self.table["before"].sum(), self.table["after"].sum()
        forms = ", ".join(f"{count} {form}" for form, count in self.table["form"].value_counts().items())
        left = "".join(f"\nstays dense: {layer}: {why}" for layer, why in self.dense.items())
        return f"{len(self.table)} linears: {forms}; {after / before:.2f} of their bytes{left}"


class CsrLinear(nn.Linear):
    """y = x Wᵀ + b with W (out, in) in compressed sparse rows; x (…, in) → (…, out). For inference on a CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(to_csr(linear.weight.detach()), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).to(self.weight.dtype)
        one = len(rows) == 1  # as one vector it takes half the time
        with without_autocast():  # which has no CSR in bfloat16
            y = self.weight @ rows[0] if one else (self.weight @ rows.T).T.contiguous()
            y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)


def to_sparse(model: nn.Module, *, densest: float = DENSEST) -> SparseReport:
    """Put the linears of a pruned model's blocks, in place and one by one, into the form that pays; for inference only.

    On CUDA (float16 or bfloat16, Ampere or newer) weights that keep to 2:4 go through to_sparse_semi_structured; on a
    CPU (float32, float64) weights with a share of non-zeros of at most `densest` become CSR with int32 indices. Each
    dense weight is freed before the next is converted. What stays dense is in the report, with the reason. Raises
    SparsityError, and changes nothing, for another device or type, and on CUDA for zeros in another pattern.

    >>> from spp_lite import load, prune, to_sparse
    >>> model, _ = load("tiny")
    >>> _ = prune(model, sparsity="90%", method="magnitude", progress=False)
    >>> report = to_sparse(model)  # on a CPU: CSR
    """
    if getattr(model, "peft_config", None) is not None:
        raise SparsityError("the model carries an adapter: merge() it first")
    number(0, 1, densest=densest)
    plan = {name: choose(name, linear, densest=densest) for name, linear in block_linears(model).items()}
    rows = []
    for name, (form, why) in plan.items():
        linear = model.get_submodule(name)
        row = {"layer": name, "form": form, "why": why, "zeros": measure(linear.weight)}
        row["before"] = stored(linear.weight)
        if form == "CSR":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, linear := CsrLinear(linear))
        elif form == "2:4":
            linear.weight = nn.Parameter(_semi_structured(linear.weight.detach()), requires_grad=False)
        rows.append(row | {"after": stored(linear.weight)})
    model.requires_grad_(False).eval()
    return SparseReport(pd.DataFrame(rows))


def choose(name: str, linear: nn.Linear, *, device: str | None = None, densest: float = DENSEST) -> tuple[str, str]:
    """The form of one linear on a device (its own): ("2:4" | "CSR" | "dense", why dense). Raises as to_sparse does."""
    if why := computed(linear):
        raise SparsityError(f"{name} {why}")
    weight, device = linear.weight, device or linear.weight.device.type
    if not is_dense(weight):
        raise SparsityError(f"{name} is sparse already: load the model again to choose another form")
    types = {"cuda": (torch.float16, torch.bfloat16), "cpu": (torch.float32, torch.float64)}.get(device)
    if types is None:
        raise SparsityError(
            f"{name} is on {device}: the sparse forms run on a CPU or on CUDA, load the whole model there"
        )
    if weight.dtype not in types:
        names = " or ".join(str(one)[6:] for one in types)
        where = "a CPU" if device == "cpu" else "CUDA"
        raise SparsityError(
            f"{name} is {str(weight.dtype)[6:]}: the sparse form on {where} takes {names}, load with dtype=…"
        )
    if type(linear).forward is not nn.Linear.forward:
        return "dense", f"a {type(linear).__name__} computes more than a product"
    if device == "cuda":
        return _on_gpu(name, weight)
    if linear._forward_hooks or linear._forward_pre_hooks:
        return "dense", "it has hooks, which a new module would not call"
    return _on_cpu(name, weight, densest)


def _on_gpu(name: str, weight: Tensor) -> tuple[str, str]:
    zeros = measure(weight)
    if zeros < UNPRUNED:
        return "dense", f"{zeros:.0%} zeros: it is not pruned"
    try:
        Sparsity.parse("2:4").check(weight, name)
    except SparsityError:
        raise SparsityError(
            f'{name} has {zeros:.0%} zeros and breaks 2:4, the only pattern that a GPU runs faster: prune with "2:4"'
        ) from None
    if any(size % multiple for size, multiple in zip(weight.shape, MULTIPLE, strict=True)):
        return "dense", f"{weight.shape[0]} × {weight.shape[1]} is no multiple of {MULTIPLE[0]} × {MULTIPLE[1]}"
    if weight.is_cuda and torch.cuda.get_device_capability(weight.device) < (8, 0):
        card = torch.cuda.get_device_name(weight.device)
        raise SparsityError(f"{name} is on a {card}, which has no units for 2:4: that takes Ampere or newer")
    return "2:4", ""


def _on_cpu(name: str, weight: Tensor, densest: float) -> tuple[str, str]:
    density = 1 - measure(weight)
    if density > densest:
        return "dense", f"{density:.0%} non-zeros: CSR is slower above {densest:.0%}"
    if weight.numel() < SMALLEST and densest <= DENSEST:
        return "dense", f"{weight.numel():,} entries: CSR is slower below {SMALLEST:,}"
    if not torch.backends.mkl.is_available():
        raise SparsityError(f"{name} cannot become CSR: this PyTorch has no MKL, take an x86 build of PyTorch")
    return "CSR", ""


def to_csr(weight: Tensor) -> Tensor:
    """weight (out, in) → torch's compressed sparse rows: kept values, their columns, where each row starts (int32)."""
    keep = weight != 0
    starts = F.pad(keep.sum(1).cumsum(0), (1, 0)).int()
    columns = keep.nonzero()[:, 1].int()
    with warnings.catch_warnings():  # torch says once a process that CSR is beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(starts, columns, weight[keep], weight.shape, check_invariants=True)


def _semi_structured(weight: Tensor) -> Tensor:
    with warnings.catch_warnings():  # torch says once a process that it is a prototype
        warnings.filterwarnings("ignore", message="The PyTorch API of SparseSemiStructuredTensor")
        return torch.sparse.to_sparse_semi_structured(weight.contiguous())


def stored(weight: Tensor) -> int:
    """Bytes that a weight takes in its form, indices included."""
    if weight.layout is torch.sparse_csr:
        parts = [weight.values(), weight.col_indices(), weight.crow_indices()]
    elif is_dense(weight):
        parts = [weight]
    else:
        parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    return sum(part.numel() * part.element_size() for part in parts)
