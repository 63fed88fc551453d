"""The checks of notebook 02 accept right variants and say what is wrong with plausible wrong ones."""

import torch

from spp_lite.pruning.calibration import InputStatistics
from spp_lite.pruning.criteria import wanda_scores
from spp_lite.pruning.sparsity import Sparsity
from spp_lite.teaching.checks.layer import ex_02a, ex_02b


def gather(linear, run):
    """All inputs (batch, length, in) that pass while run() runs."""
    found = []
    handle = linear.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    run()
    handle.remove()
    return found


def rows(linear, run):
    return torch.cat([batch.flatten(0, 1) for batch in gather(linear, run)])


def by_running_sum(linear, run):
    total, tokens = torch.zeros(linear.in_features), 0

    def hook(module, args, output):  # a forward hook sees the inputs too
        nonlocal total, tokens
        flat = args[0].reshape(-1, args[0].shape[-1])
        total, tokens = total + (flat**2).sum(0), tokens + len(flat)

    handle = linear.register_forward_hook(hook)
    try:
        run()
    finally:
        handle.remove()
    return (total / tokens) ** 0.5


def by_statistics(linear, run):
    found = InputStatistics()
    for batch in gather(linear, run):
        found.add(batch.flatten(0, 1), want_gram=False)
    return found.squares.sqrt()


def left_behind(linear, run):
    found = []
    linear.register_forward_pre_hook(lambda module, args: found.append(args[0].flatten(0, 1)))
    run()
    return torch.cat(found).square().mean(0).sqrt()


def of_outputs(linear, run):
    found = []
    handle = linear.register_forward_hook(lambda module, args, output: found.append(output.flatten(0, 1)))
    run()
    handle.remove()
    return torch.cat(found).square().mean(0).sqrt()


def norms(linear, run):
    return [batch.flatten(0, 1).square().mean(0).sqrt() for batch in gather(linear, run)]


def squares(linear, run):
    return rows(linear, run).square()


def by_sort(w, n, ratio):
    scores = w.abs() * n
    order = scores.argsort(dim=1)
    return torch.ones_like(w).scatter(1, order[:, : int(ratio * w.shape[1])], 0.0)  # 0/1 instead of bool


def by_loop(w, n, ratio):
    keep = torch.ones_like(w, dtype=torch.bool)
    for i, row in enumerate(w):
        keep[i, torch.topk(row.abs() * n, int(ratio * len(row)), largest=False).indices] = False
    return keep


def by_root_of_sum(w, n, ratio):
    scores = w**2 * n**2 * 512  # squares of both and a number of tokens leave the order as it is
    count = int(ratio * w.shape[1])
    return scores > scores.kthvalue(count, dim=1, keepdim=True).values


def keep_lowest(scores, count):
    return torch.zeros_like(scores).scatter(1, scores.argsort(dim=1)[:, :count], 1.0)


RIGHT = [
    (ex_02a, by_running_sum),
    (ex_02a, by_statistics),
    (ex_02a, lambda linear, run: squares(linear, run).mean(0).sqrt()),
    (ex_02a, lambda linear, run: (r := rows(linear, run)).norm(dim=0) / len(r) ** 0.5),
    (ex_02b, by_sort),
    (ex_02b, by_loop),
    (ex_02b, by_root_of_sum),
    (ex_02b, lambda w, n, ratio: Sparsity.parse(ratio).mask(wanda_scores(w, n), per_row=True)),
]
WRONG = [
    (ex_02a, lambda linear, run: ..., "still blank"),
    (ex_02a, left_behind, "hook is still on the linear"),
    (ex_02a, lambda linear, run: linear.weight.norm(dim=0), "never call run"),
    (ex_02a, lambda linear, run: norms(linear, run)[-1], "overwrites the one before"),
    (ex_02a, lambda linear, run: norms(linear, run)[0], "first batch alone"),
    (ex_02a, lambda linear, run: squares(linear, run).mean(0), "the root is missing"),
    (ex_02a, lambda linear, run: rows(linear, run).norm(dim=0), "root of the sum"),
    (ex_02a, lambda linear, run: squares(linear, run).mean(1).sqrt(), "over the tokens of an input"),
    (ex_02a, lambda linear, run: torch.stack(norms(linear, run)).mean(0), "batches' roots"),
    (ex_02a, lambda linear, run: torch.stack(norms(linear, run)).square().mean(0).sqrt(), "batches' mean squares"),
    (ex_02a, lambda linear, run: squares(linear, run).mean().sqrt(), "one number for all"),
    (ex_02a, lambda linear, run: rows(linear, run).abs().mean(0), r"average \|x\|"),
    (ex_02a, lambda linear, run: rows(linear, run).std(0), "standard deviation"),
    (ex_02a, of_outputs, "sizes of the outputs"),
    (ex_02a, lambda linear, run: gather(linear, run)[-1].square().mean(0).sqrt(), r"shape \(4, 6\)"),
    (ex_02a, lambda linear, run: torch.cat(gather(linear, run)), "stopped with RuntimeError"),
    (ex_02b, lambda w, n, ratio: None, "still blank"),
    (ex_02b, lambda w, n, ratio: Sparsity.parse(ratio).mask(w.abs() * n), "over the whole matrix"),
    (ex_02b, lambda w, n, ratio: Sparsity.parse(ratio).mask((w.abs() * n).T, per_row=True).T, "down the columns"),
    (ex_02b, lambda w, n, ratio: ~by_loop(w, n, ratio), "upside down"),
    (ex_02b, lambda w, n, ratio: by_loop(w, 1 / n, ratio), "divide by the norm"),
    (ex_02b, lambda w, n, ratio: by_loop(w, torch.ones_like(n), ratio), "that is magnitude"),
    (ex_02b, lambda w, n, ratio: by_loop(w, n**2, ratio), "do not square"),
    (ex_02b, lambda w, n, ratio: by_loop(w**2, n, ratio), "square the weight but not the norm"),
    (ex_02b, lambda w, n, ratio: by_loop(w, n, 1 - ratio), "share of zeros, not of what stays"),
    (ex_02b, lambda w, n, ratio: by_loop(w, n, ratio + 1 / w.shape[1]), "one zero too many"),
    (ex_02b, lambda w, n, ratio: keep_lowest(w.abs() * n, round((1 - ratio) * len(n))), "lowest must go"),
    (ex_02b, lambda w, n, ratio: 1 - keep_lowest(w * n, int(ratio * len(n))), "signed"),
    (ex_02b, lambda w, n, ratio: w * by_loop(w, n, ratio), "return the mask"),
    (ex_02b, lambda w, n, ratio: w.abs() * n, "those are the scores"),
    (ex_02b, lambda w, n, ratio: by_loop(w, n, ratio)[0], "shape"),
]
