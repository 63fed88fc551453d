"""Notebook 07: bad merges and which check catches each. Knows two models, no adapter."""

from dataclasses import dataclass

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from ...adapter.kernels import effective_weight
from ...adapter.merging import TOLERANCE
from ...experiment.plotting import STYLE
from ...models import load
from ...pruning.blocks import block_linears
from ...pruning.prune import prune
from ...pruning.sparsity import SparsityError, find_pattern
from ..widgets import Lab, choice

PASS, FAIL = "#0072B2", "#D55E00"
KINDS = (  # of an entry: label, colour, marker and its colour
    ("zero", "#E5E5E5", "", ""), ("kept", "#9CCBEA", "", ""), ("kept, other value", "#9CCBEA", "o", "black"),
    ("zero, filled", FAIL, "X", "white"), ("kept, now zero", "#E5E5E5", "o", "none"), ("not finite", "black", "*", "white"),
)  # fmt: skip


def _filled(before: Tensor, after: Tensor, value: float) -> Tensor:
    bad = after.clone()
    row, column = torch.nonzero(before == 0)[0].tolist()
    bad[row, column] = value
    return bad


def _with_update(before: Tensor, after: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    out, inputs = after.shape
    update = torch.randn(out, 4, generator=draw) @ torch.randn(4, inputs, generator=draw)
    return after + (0.05 * after.float().norm() / update.norm() * update).to(after.dtype)


def _swapped(before: Tensor, after: Tensor) -> Tensor:
    order = torch.arange(len(after))
    order[:2] = torch.tensor([1, 0])
    return after[order]


def _emptied(before: Tensor, after: Tensor) -> Tensor:
    bad = after.clone()
    bad[0, :4] = 0
    return bad


def _not_a_number(before: Tensor, after: Tensor) -> Tensor:
    bad = after.clone()
    row, column = torch.nonzero(after)[0].tolist()
    bad[row, column] = float("nan")
    return bad


CORRUPTIONS = {  # name → (pruned weight, rightly merged weight) → what a bad merge leaves
    "nothing": lambda before, after: after.clone(),
    "one zero filled": lambda before, after: _filled(before, after, float(after.abs().mean())),
    "one zero filled, with a tiny number": lambda b, a: _filled(b, a, torch.finfo(a.dtype).tiny),
    "a dense update added (LoRA)": _with_update,
    "two rows swapped": _swapped,
    "one kept weight is NaN": _not_a_number,
    "kept weights 1 % too large": lambda before, after: after * 1.01,
    "the update of this layer lost": lambda before, after: before.clone(),
    "one group of four emptied": _emptied,
    "rounded to float16": lambda before, after: after.half().to(after.dtype),
}


@dataclass(frozen=True)
class Verdict:
    """One check's result on one weight. detail: what was counted, in words."""

    name: str
    passed: bool
    detail: str


def weight_checks(before: Tensor, after: Tensor) -> list[Verdict]:
    """What merge() looks at in one layer: zeros, n:m pattern, finite. before, after: (out, in)."""
    zero, pattern = before == 0, find_pattern(before)
    filled, broken = int(torch.count_nonzero(after[zero])), int((~torch.isfinite(after)).sum())
    found = [Verdict("zeros", filled == 0, f"{filled:,} of {int(zero.sum()):,} filled")]
    if pattern is None:
        found.append(Verdict("pattern", True, "no n:m to keep"))
    else:
        fullest = int((after != 0).view(len(after), -1, pattern.m).sum(-1).max())
        try:
            pattern.check(after)
            keeps = True
        except SparsityError:
            keeps = False
        found.append(Verdict("pattern", keeps, f"{pattern}: fullest group holds {fullest}"))
    return [*found, Verdict("finite", broken == 0, f"{broken:,} of {after.numel():,} are inf or NaN")]


def logits_check(expected: Tensor, found: Tensor, dtype: torch.dtype) -> Verdict:
    """The largest difference of the logits, relative to the largest logit, against merge()'s tolerance."""
    error = float((found - expected).abs().max() / expected.abs().max())
    words = f"off by {error:.2g}, {TOLERANCE[dtype]:g} allowed" if error == error else "are not numbers"
    return Verdict("logits", error <= TOLERANCE[dtype], words)


def _example() -> tuple[nn.Module, nn.Module]:
    """The tiny model pruned to 2:4 by magnitude, and with small random factors merged in."""
    pruned, merged = load("tiny")[0], load("tiny")[0]
    draw = torch.Generator().manual_seed(0)
    for model in (pruned, merged):
        prune(model, None, "2:4", method="magnitude", progress=False)
    for linear in block_linears(merged).values():
        out, inputs = linear.weight.shape
        factors = torch.randn(16, inputs, generator=draw), 0.1 * torch.randn(out, generator=draw)
        linear.weight.data = effective_weight(linear.weight.data.cpu(), [(*factors, 1.0)]).to(linear.weight.device)
    return pruned, merged


class CorruptionLab(Lab):
    """Spoil the merge of one layer, and see which of merge()'s four checks notices."""

    height = 330

    def __init__(self, pruned: nn.Module | None = None, merged: nn.Module | None = None) -> None:
        """pruned, merged: the same model before and after a right merge; None: the tiny model, random factors."""
        if pruned is None or merged is None:
            pruned, merged = _example()
        self.model, self.after = merged.eval(), block_linears(merged)
        self.before = block_linears(pruned)
        draw = torch.Generator().manual_seed(0)
        self.probe = torch.randint(merged.config.vocab_size, (2, 16), generator=draw).to(merged.device)
        self.expected = self._logits()
        super().__init__()

    def controls(self):
        return {
            "corruption": choice("what goes wrong", list(CORRUPTIONS)),
            "layer": choice("in layer", list(self.after)),
        }

    @torch.no_grad()
    def _logits(self) -> Tensor:
        return self.model(input_ids=self.probe).logits.double().cpu()

    def weights(self, corruption: str, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        """Of one layer: the pruned weight, the rightly merged one, the spoilt one; each (out, in), on the CPU."""
        before, after = (linears[layer].weight.detach().cpu() for linears in (self.before, self.after))
        return before, after, CORRUPTIONS[corruption](before, after)

    def checks(self, corruption: str, layer: str) -> list[Verdict]:
        """All four verdicts; the model is as before afterwards."""
        before, _, bad = self.weights(corruption, layer)
        weight = self.after[layer].weight
        right = weight.data
        try:
            weight.data = bad.to(right.device)
            found = self._logits()
        finally:
            weight.data = right
        return [*weight_checks(before, bad), logits_check(self.expected, found, right.dtype)]

    def render(self, corruption, layer):
        verdicts = self.checks(corruption, layer)
        figure = plot_checks(*self.weights(corruption, layer), verdicts)
        caught, silent = (_and([v.name for v in verdicts if v.passed == passed]) for passed in (False, True))
        words = "; ".join(f"{each.name}: {each.detail}" for each in verdicts)
        if not caught:
            return figure, f"{layer}, {corruption}: all four checks pass, merge accepts it. ({words}.)"
        found = f"caught by {caught}, passed by {silent or 'none'}; merge refuses it"
        return figure, f"{layer}, {corruption}: {found}. ({words}.)"


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plot_checks(before: Tensor, after: Tensor, bad: Tensor, verdicts: list[Verdict]) -> Figure:
    """The upper left corner of a spoilt weight beside the verdicts, in words and marks."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(12, 4.8))
        failed = [each.name for each in verdicts if not each.passed]
        found = f"Not a good merge: {_and(failed)} fail{'s' * (len(failed) == 1)}" if failed else "All four checks pass"
        figure.suptitle(found, fontsize=14)
        _draw_corner(figure.add_axes((0.05, 0.25, 0.38, 0.58)), before[:8, :16], after[:8, :16], bad[:8, :16])
        axes = figure.add_axes((0.47, 0.1, 0.52, 0.8))
        axes.set_xlim(0, 1)
        axes.set_ylim(len(verdicts) - 0.5, -0.5)
        axes.axis("off")
        for row, each in enumerate(verdicts):
            colour, marker, word = (PASS, "o", "pass") if each.passed else (FAIL, "X", "FAIL")
            axes.plot(0.03, row, marker=marker, color=colour, markersize=14)
            axes.text(0.08, row, word, color=colour, fontsize=15, fontweight="bold", va="center")
            axes.text(0.21, row, each.name, fontsize=15, va="center")
            axes.text(0.38, row, each.detail, fontsize=14, va="center")
    return figure


def _draw_corner(axes, before: Tensor, after: Tensor, bad: Tensor) -> None:
    kind = (before != 0).int()
    kind[(before != 0) & (bad != after)] = 2
    kind[(before == 0) & (bad != 0)] = 3
    kind[(before != 0) & (bad == 0)] = 4
    kind[~torch.isfinite(bad)] = 5
    colours = mpl.colors.ListedColormap([colour for _, colour, _, _ in KINDS])
    axes.imshow(kind.numpy(), cmap=colours, vmin=0, vmax=len(KINDS) - 1, aspect="auto")
    handles = []
    for number, (label, colour, marker, edge) in enumerate(KINDS):
        looks = {"marker": marker, "linestyle": "", "markerfacecolor": edge or colour, "markeredgecolor": "black"}
        rows, columns = torch.nonzero(kind == number, as_tuple=True)
        if marker:
            axes.plot(columns, rows, markersize=7 if marker == "o" else 10, **looks)
        box = Line2D([], [], marker="s", markersize=15, color=colour, markeredgecolor="#888888", linestyle="")
        handles.append(((box, Line2D([], [], markersize=8, **looks)) if marker else box, label))
    for border in range(4, kind.shape[1], 4):  # the groups of four inputs
        axes.axvline(border - 0.5, color="black", linewidth=1)
    axes.set(xticks=range(0, kind.shape[1], 4), xlabel="input", ylabel="output")
    axes.set_title("corner of the weight", fontsize=13)
    axes.figure.legend(*zip(*handles, strict=True), loc="lower left", bbox_to_anchor=(0.02, 0), ncols=6, frameon=False)
