"""Checks of notebook 03, first part: the damage, and pruning block by block."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from ...pruning.blocks import block_linears
from ...pruning.calibration import BlockRun, walk
from ...pruning.sparsity import Sparsity
from .common import CheckFailed, answer, check, compare


def damage(dense_logits: Tensor, pruned_logits: Tensor, real: Tensor) -> float:
    """Mean over the real tokens of KL(p ‖ q), nats; logits: (batch, length, vocabulary), real: bool (batch, length)."""
    log_p, log_q = (logits.float().log_softmax(-1) for logits in (dense_logits, pruned_logits))
    return float((log_p.exp() * (log_p - log_q)).sum(-1)[real].mean())


@check(library=damage)
def ex_03a(function: Callable) -> None:
    """damage(dense_logits, pruned_logits, real): how far q is from p, in nats per real token."""
    draw = torch.Generator().manual_seed(3)
    for shape, lengths in (((2, 5, 7), (5, 3)), ((3, 4, 6), (1, 4, 2)), ((1, 3, 4), (3,))):
        dense, pruned = (2 * torch.randn(shape, generator=draw) for _ in range(2))
        real = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
        found = answer("Ex 03a", function, dense.clone(), pruned.clone(), real.clone())
        case = f"logits of shape {shape}, {int(real.sum())} of {real.numel()} tokens are real"
        right = damage(dense, pruned, real)
        everywhere = torch.ones_like(real)
        reasons = [
            (damage(dense, pruned, everywhere), "padding counts in your mean: take the real tokens only"),
            (damage(pruned, dense, real), "dense and pruned are swapped: p is the dense model's, and it weighs"),
            (damage(pruned, dense, everywhere), "dense and pruned are swapped, and padding counts"),
            (-right, "the sign is wrong: log p minus log q"),
            (right * int(real.sum()), "that is the sum over the tokens: divide by how many are real"),
            (right * int(real.sum()) / shape[0], "you divided by the number of texts: divide by the real tokens"),
            (
                right * int(real.sum()) / real.numel(),
                "you divided by all places, padding too: divide by the real tokens",
            ),
            (right / shape[2], "over the vocabulary the terms are added up, not averaged"),
            (right / torch.tensor(2.0).log(), "that is in bits: take natural logarithms"),
            (_over_positions(dense, pruned, real), "softmax runs over the vocabulary, the last dimension"),
            (_of_logits(dense, pruned, real), "logits are no log-probabilities yet: take log_softmax first"),
        ]
        compare("Ex 03a", found, right, reasons, case=case)


def _over_positions(dense: Tensor, pruned: Tensor, real: Tensor) -> float:
    log_p, log_q = (logits.log_softmax(1) for logits in (dense, pruned))
    return float((log_p.exp() * (log_p - log_q)).sum(-1)[real].mean())


def _of_logits(dense: Tensor, pruned: Tensor, real: Tensor) -> float:
    return float((dense.softmax(-1) * (dense - pruned)).sum(-1)[real].mean())


def prune_blocks(blocks: Iterable[BlockRun], ratio: float) -> int:
    """Prune every linear of every block by Wanda, row by row, in place, as the walk comes by; returns the zeros made."""
    return _prune(blocks, ratio)


def _wanda(weight: Tensor, squares: Tensor) -> Tensor:
    return weight.abs() * squares.sqrt()


def _prune(blocks, ratio: float, score=_wanda, *, per_row=True, again=False, dense=None, count=None) -> int:
    """What prune_blocks does, and what it does with a mistake in it; dense: statistics taken beforehand."""
    zeros = 0
    for number, here in enumerate(blocks):
        if number == count:
            return zeros
        found = here.statistics() if dense is None else dense
        for name, linear in here.linears.items():
            found = here.statistics() if again else found
            keep = Sparsity(ratio).mask(score(linear.weight.detach(), found[name].squares), per_row=per_row)
            linear.weight.data *= keep
            zeros += int((~keep).sum())
    return zeros


def _toy() -> LlamaForCausalLM:
    """Three blocks whose linears really change what the next block gets."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=1, initializer_range=0.5, max_position_embeddings=32,
        )  # fmt: skip
        model = LlamaForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data.copy_(torch.rand(parameter.shape) * 3)
    return model


def _mistakes(batches, ratio: float) -> Iterable[tuple[LlamaForCausalLM, str]]:
    """Models pruned wrongly, and in words how."""

    def pruned(take=iter, **how):
        model = _toy()
        _prune(take(walk(model, batches)), ratio, **how)
        return model

    seen = {name: found for here in walk(_toy(), batches) for name, found in here.statistics().items()}
    yield _toy(), "no weight became zero: change the weights in place, linear.weight.data *= keep"
    yield pruned(dense=seen), "each block was scored on the dense model's inputs: prune a block before the walk goes on"
    yield pruned(take=list), "take the blocks one by one: in a list of them all, the walk is over before you prune"
    yield pruned(per_row=False), "scores were compared over the whole matrix: Wanda compares within each row"
    yield pruned(score=lambda w, x: w.abs()), "that is magnitude: multiply |W| by the sizes of the inputs"
    yield pruned(score=lambda w, x: w * x.sqrt()), "the score has a sign: take the absolute value of W"
    yield pruned(score=lambda w, x: w.abs() * x), "the size of an input is the root of its mean square: take .sqrt()"
    yield pruned(score=lambda w, x: -_wanda(w, x)), "the largest scores went: zero the lowest"
    yield pruned(again=True), "ask for a block's statistics once, before its first linear is pruned"
    yield pruned(count=1), "only the first block was pruned: go on to the last"


@check(library=prune_blocks)
def ex_03b(function: Callable) -> None:
    """prune_blocks(blocks, ratio): every linear is pruned by Wanda as the walk comes by; returns the zeros made."""
    batches = [torch.randint(0, 40, (4, 16), generator=torch.Generator().manual_seed(1))]
    for ratio in (0.5, 0.75):
        before, model, right = _weights(_toy()), _toy(), _toy()
        zeros = prune_blocks(walk(right, batches), ratio)
        found = answer("Ex 03b", _run(function, model, before), walk(model, batches), ratio)
        masks, case = _masks(model), f"three small blocks, ratio {ratio:g}"
        if not _same(masks, _masks(right)):
            reasons = ((words, wrong) for wrong, words in _mistakes(batches, ratio))
            told = next((words for words, wrong in reasons if _same(masks, _masks(wrong))), None)
            off = sum(int((masks[name] != keep).sum()) for name, keep in _masks(right).items())
            raise CheckFailed(f"Ex 03b ({case}): {told or f'{off} weights differ in being zero from what is asked'}.")
        if any(not torch.equal(weight, before[name] * masks[name]) for name, weight in _weights(model).items()):
            raise CheckFailed(f"Ex 03b ({case}): weights that stay have changed: multiply by 1 or 0, nothing else.")
        if found == "nothing":
            raise CheckFailed(f"Ex 03b ({case}): the weights are right; return the number of zeros, too.")
        size = sum(keep.numel() for keep in masks.values())
        reasons = [
            (size - zeros, "that is how many weights stay; return how many became zero"),
            (zeros / size, "that is the share; return the number of zeros"),
            (size, "that is the number of all weights; return how many became zero"),
        ]
        compare("Ex 03b", found, zeros, reasons, case=case)


def _run(function: Callable, model, before) -> Callable:
    """The function, which returns "nothing" where it pruned and forgot to return, and is blank where it did neither."""

    def run(*arguments):
        found = function(*arguments)
        pruned = any(not torch.equal(weight, before[name]) for name, weight in _weights(model).items())
        return ("nothing" if pruned else ...) if found is None else found

    return run


def _weights(model) -> dict[str, Tensor]:
    return {name: linear.weight.detach().clone() for name, linear in block_linears(model).items()}


def _masks(model) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in _weights(model).items()}


def _same(masks: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(keep, others[name]) for name, keep in masks.items())
