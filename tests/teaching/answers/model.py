"""The checks of notebook 03, first part, accept right variants and say what is wrong with plausible wrong answers."""

import torch
from torch import nn
from torch.nn import functional as F

from spp_lite import Sparsity
from spp_lite.teaching.checks import ex_03a, ex_03b
from spp_lite.teaching.checks.model import damage


def token_by_token(dense, pruned, real):
    total = 0.0
    for text, other, keep in zip(dense, pruned, real, strict=True):
        for logits, found, is_real in zip(text, other, keep, strict=True):
            if is_real:
                p, q = logits.double().softmax(0), found.double().softmax(0)
                total += (p * (p / q).log()).sum()
    return total / real.sum()


def by_library(dense, pruned, real):
    return F.kl_div(
        pruned[real].log_softmax(-1), dense[real].log_softmax(-1), log_target=True, reduction="batchmean"
    ).item()


def terms(dense, pruned, real):
    log_p, log_q = dense.log_softmax(-1), pruned.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q))[real]


def wanda(
    blocks, ratio, score=lambda w, found: w.abs() * found.squares.sqrt(), give=lambda zeros, size: zeros, again=False
):
    zeros = size = 0
    for here in blocks:
        statistics = here.statistics()
        for name, linear in here.linears.items():
            statistics = here.statistics() if again else statistics
            keep = Sparsity(ratio).mask(score(linear.weight, statistics[name]), per_row=True)
            linear.weight.data *= keep
            zeros, size = zeros + int((~keep).sum()), size + keep.numel()
    return give(zeros, size)


@torch.no_grad()
def sorted_rows(blocks, ratio):
    """Root of the sum, a threshold, a new parameter, a float mask, the count as a tensor."""
    zeros = torch.tensor(0)
    for here in blocks:
        found = here.statistics()
        for name, linear in here.linears.items():
            scores = linear.weight.double().abs() * (found[name].squares * found[name].tokens).sqrt()
            border = scores.sort(dim=1).values[:, int(ratio * scores.shape[1])]
            keep = (scores >= border[:, None]).float()
            linear.weight = nn.Parameter(linear.weight * keep)
            zeros += (keep == 0).sum()
    return zeros


@torch.no_grad()
def whole_matrix(blocks, ratio):
    for here in blocks:
        found = here.statistics()
        for name, linear in here.linears.items():
            linear.weight *= Sparsity(ratio).mask(linear.weight.abs() * found[name].squares.sqrt())
    return 1


def at_once(blocks, ratio):
    seen = [(linear, here.statistics()[name]) for here in blocks for name, linear in here.linears.items()]
    for linear, found in seen:
        linear.weight.data *= Sparsity(ratio).mask(linear.weight.abs() * found.squares.sqrt(), per_row=True)
    return 1


def first_only(blocks, ratio):
    return wanda([next(iter(blocks))], ratio)


def doubled(blocks, ratio):
    return wanda(_twice(blocks), ratio)


def _twice(blocks):
    """Survivors are scaled when the walk is over."""
    seen = []
    for here in blocks:
        seen += here.linears.values()
        yield here
    for linear in seen:
        linear.weight.data *= 2


RIGHT = [
    (ex_03a, damage),
    (ex_03a, by_library),
    (ex_03a, token_by_token),
    (ex_03a, lambda d, p, real: terms(d, p, real).sum() / real.sum()),
    (ex_03b, wanda),
    (ex_03b, sorted_rows),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, lambda w, found: w**2 * found.squares)),
]
WRONG = [
    (ex_03a, lambda d, p, real: ..., "still blank"),
    (ex_03a, lambda d, p, real: damage(d, p, torch.ones_like(real)), "padding counts"),
    (ex_03a, lambda d, p, real: damage(p, d, real), "swapped: p is the dense"),
    (ex_03a, lambda d, p, real: by_library(p, d, torch.ones_like(real)), "swapped"),
    (ex_03a, lambda d, p, real: -damage(d, p, real), "sign is wrong"),
    (ex_03a, lambda d, p, real: terms(d, p, real).sum(), "that is the sum over the tokens"),
    (ex_03a, lambda d, p, real: terms(d, p, real).sum() / len(d), "divided by the number of texts"),
    (ex_03a, lambda d, p, real: terms(d, p, real).sum() / real.numel(), "divided by all places"),
    (ex_03a, lambda d, p, real: terms(d, p, real).mean(), "not averaged"),
    (ex_03a, lambda d, p, real: terms(d, p, real).sum() / real.sum() / torch.log(torch.tensor(2.0)), "in bits"),
    (ex_03a, lambda d, p, real: (d.softmax(-1) * (d - p)).sum(-1)[real].mean(), "no log-probabilities yet"),
    (ex_03a, lambda d, p, real: 0.5, "you return"),
    (ex_03a, lambda d, p, real: d.nothing, "stopped with AttributeError"),
    (ex_03b, lambda blocks, ratio: ..., "still blank"),
    (ex_03b, lambda blocks, ratio: None, "still blank"),
    (ex_03b, lambda blocks, ratio: 100, "no weight became zero"),
    (ex_03b, at_once, "dense model's inputs"),
    (ex_03b, lambda blocks, ratio: wanda(list(blocks), ratio), "one by one"),
    (ex_03b, whole_matrix, "within each row"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, lambda w, _: w.abs()), "that is magnitude"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, lambda w, x: w * x.squares.sqrt()), "absolute value"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, lambda w, x: w.abs() * x.squares), "root of its mean square"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, lambda w, x: -w.abs() * x.squares.sqrt()), "largest scores"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, again=True), "statistics once"),
    (ex_03b, first_only, "only the first block"),
    (ex_03b, doubled, "weights that stay have changed"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, 1 - ratio) if ratio > 0.5 else wanda(blocks, 0.25), "weights differ"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, give=lambda zeros, size: None), "return the number"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, give=lambda zeros, size: zeros / size), "that is the share"),
    (ex_03b, lambda blocks, ratio: wanda(blocks, ratio, give=lambda zeros, size: size), "number of all weights"),
    (ex_03b, lambda blocks, ratio: [here.weights for here in blocks], "stopped with AttributeError"),
]
