"""Checks of notebook 06: the loss of an answer, the relative size of SPP's first step, the learning rate of every step."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...recover.data import IGNORED
from .common import answer, check, compare


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of −log p over the labels that count; the label of token t is judged by the logits of token t − 1."""
    return F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORED)


@check(library=answer_loss)
def ex_06c(function: Callable) -> None:
    """answer_loss(logits, labels): logits (tokens, vocabulary), labels (tokens,); a number."""
    draw = torch.Generator().manual_seed(6)
    for labels, case in (
        ([IGNORED, IGNORED, IGNORED, 4, 1, 7, 2], "a prompt of three tokens, an answer of four"),
        ([IGNORED, 3, IGNORED, 5, 0, 2], "a label that is skipped in the middle, and a label 0"),
        ([1, 6, 2, 2], "every token counts but the first, which nothing predicts"),
    ):
        labels = torch.tensor(labels)
        logits = 2 * torch.randn(len(labels), 8, generator=draw)
        found = answer("Ex 06c", function, logits.clone(), labels.clone())
        found = found.detach() if isinstance(found, Tensor) else found
        compare("Ex 06c", found, float(answer_loss(logits, labels)), _wrong_losses(logits, labels), case=case)


def _wrong_losses(logits: Tensor, labels: Tensor) -> list[tuple[object, str]]:
    right, counted = float(answer_loss(logits, labels)), int((labels[1:] != IGNORED).sum())
    backwards = F.cross_entropy(logits[1:], labels[:-1], ignore_index=IGNORED)
    named = torch.where(labels[1:] == IGNORED, 0, labels[1:])
    each = -logits[:-1].log_softmax(-1).gather(1, named[:, None])[:, 0]
    mine = labels[1:] != IGNORED
    return [
        (float(F.cross_entropy(logits, labels, ignore_index=IGNORED)),
         "without the shift: the label of a token is predicted one place earlier"),
        (float(backwards), "you shifted the other way: logits[t] predicts the label of token t + 1"),
        (right * counted, "that is the sum; divide by how many labels count"),
        (right * counted / len(labels), "you divided by all tokens; divide by the labels that count"),
        (right * counted / (len(labels) - 1), "you divided by all tokens; divide by the labels that count"),
        (-right, "the sign is wrong: the loss is minus the logarithm"),
        (right / math.log(2), "you took logarithms to base 2; nats want the natural logarithm"),
        (float(each.mean()), "labels of -100 count in your mean: leave them out"),
        (float((-each[mine]).exp().mean()), "that is the mean probability; take −log of each before the mean"),
        (float(-logits[:-1].gather(1, named[:, None])[:, 0][mine].mean()), "logits are no log-probabilities yet: log_softmax"),
        (each[mine], "give their mean, one number"),
    ]  # fmt: skip


def relative_step(alpha: Tensor, lr: float, scaling: float) -> Tensor:
    """|ΔW| / |W| for every entry of alpha when β moves from 0 by ±lr."""
    return lr * scaling * alpha.abs()


@check(library=relative_step)
def ex_06d(function: Callable) -> None:
    """relative_step(alpha, lr, scaling): lr · s · |α|, entry by entry."""
    draw = torch.Generator().manual_seed(6)
    for r, inputs, lr, s in ((2, 5, 0.05, 2.0), (3, 4, 0.3, 0.5)):
        alpha = torch.randn(r, inputs, generator=draw)
        right = lr * s * alpha.abs()
        reasons = [
            (lr * s * alpha, "a size has no sign: take |α|"),
            (lr * alpha.abs(), "the scaling s is missing"),
            (s * alpha.abs(), "the rate is missing: β moves by lr"),
            (torch.full_like(alpha, lr * s), "α is missing: it differs from entry to entry"),
            (lr * s, "α is missing: it differs from entry to entry"),
            (1 + right, "that is a factor; the change is the factor minus 1"),
            (1 + lr * s * alpha, "that is the factor; the change is the factor minus 1, without sign"),
            (right.mean(), "give every entry its own number, not their mean"),
            (right.mean(1), "give every entry its own number, not a mean of each row"),
            (100 * right, "give a share, not a percentage"),
            (lr * lr * s * alpha.abs(), "only β moves in the first step: lr comes in once"),
            (lr * s * (alpha.abs() + lr), "α does not move in the first step: its gradient is 0 while β = 0"),
        ]
        compare("Ex 06d", answer("Ex 06d", function, alpha.clone(), lr, s), right, reasons, case=f"lr = {lr}, s = {s}")


def rate_at(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate of a step, counted from 0: a line from 0 up to peak at step `warmup`, then a line down to 0 at `steps`."""
    if step < warmup:
        return peak * step / warmup
    return peak * (steps - step) / (steps - warmup)


@check(library=rate_at)
def ex_06e(function: Callable) -> None:
    """rate_at(step, steps, peak, warmup): warm-up in a line, then decay in a line, as transformers does it."""
    for steps, peak, warmup in ((10, 0.05, 4), (8, 1.0, 0), (20, 0.3, 1)):
        for step in range(steps):
            right, case = rate_at(step, steps, peak, warmup), f"step {step} of {steps}, peak {peak}, warm-up {warmup}"
            late = peak * (step + 1) / warmup if step < warmup else None
            onward = peak * step / max(1, warmup)
            start = "with a warm-up, step 0 has the rate 0; from there it rises in a line"
            reasons = [
                (peak if step == 0 else None, start),
                (onward, "when the warm-up is over, the rate falls: in a line, to 0"),
                (late, "count from 0: the first step of the warm-up has the rate 0"),
                (peak * (steps - step) / steps, "the fall starts at the peak, at step warmup, not at step 0"),
                (peak, "the rate rises from 0 to the peak, and then falls to 0; it is not constant"),
                (right / peak, "multiply by the peak"),
                (peak * (1 - (step - warmup) / steps) if step > warmup else None, "the fall takes steps − warmup steps"),
                (peak * (steps - 1 - step) / (steps - 1 - warmup), "it reaches 0 at step number `steps`, one after the last"),
                (0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))), "that is a cosine; a line falls"),
            ]  # fmt: skip
            compare("Ex 06e", answer("Ex 06e", function, step, steps, peak, warmup), right, reasons, case=case)
