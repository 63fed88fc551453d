"""Checks of notebook 09: bytes that stay through training, bytes that grow, GPUs that FSDP needs, joined perplexity."""

import math
from collections.abc import Callable

from .common import answer, check, compare


def _library_stays(frozen: int, trained: int, b: int) -> int:
    return b * frozen + 16 * trained


@check(library=_library_stays)
def ex_09a(function: Callable) -> None:
    """stays(frozen, trained, b): frozen weights of b bytes; float32 factors, gradients and two Adam moments."""
    for frozen, trained, b in ((1_000, 10, 4), (7_000_000, 20_000, 2)):
        right = b * frozen + 16 * trained
        reasons = [
            (frozen + 16 * trained, "a frozen weight takes b bytes, not one"),
            ((b + 16) * frozen + 16 * trained, "frozen weights have neither gradients nor moments"),
            (2 * b * frozen + 16 * trained, "frozen weights have no gradients"),
            (16 * (frozen + trained), "frozen weights have neither gradients nor moments, and take b bytes each"),
            (b * frozen + 12 * trained, "one of four is missing: the factor, its gradient, two moments"),
            (b * frozen + 4 * b * trained, "factors, gradients and moments are float32: 4 bytes each, whatever b is"),
            (b * frozen + 4 * trained, "the gradients and Adam's two moments take room too"),
            (b * frozen + 8 * trained, "Adam keeps two moments for every trained number"),
            (b * (frozen + trained), "factors are float32, and have gradients and moments"),
            (right / 2**30, "bytes are asked for, not GiB"),
        ]
        case = f"{frozen:,} frozen, {trained:,} trained, b = {b}"
        compare("Ex 09a", answer("Ex 09a", function, frozen, trained, b), right, reasons, case=case)


def _library_grows(tokens: int, hidden: int, blocks: int, vocabulary: int, b: int) -> int:
    return b * tokens * hidden * blocks + (b + 8) * tokens * vocabulary


@check(library=_library_grows)
def ex_09b(function: Callable) -> None:
    """grows(tokens, hidden, blocks, vocabulary, b): the blocks' inputs; logits in b bytes, and twice in float32."""
    for tokens, hidden, blocks, vocabulary, b in ((100, 8, 3, 50, 1), (2048, 576, 30, 49152, 2)):
        inputs, logits = b * tokens * hidden * blocks, tokens * vocabulary
        right = inputs + (b + 8) * logits
        reasons = [
            (inputs + 3 * b * logits, "the two copies are float32: 4 bytes each, whatever b is"),
            (inputs + b * logits, "the two float32 copies of the logits are missing: 4 bytes each"),
            (inputs + 8 * logits, "the logits themselves are missing: b bytes each"),
            (inputs + (b + 4) * logits, "there are two float32 copies of the logits: log-probabilities and gradient"),
            (b * tokens * hidden + (b + 8) * logits, "every block keeps its input: times the number of blocks"),
            (inputs + (b + 8) * logits * blocks, "the logits are made once, not in every block"),
            (inputs + (b + 8) * vocabulary, "there are logits at every token"),
            ((b + 8) * logits, "the inputs of the blocks are missing"),
            (inputs, "the logits are missing: one number for every token of the vocabulary, at every position"),
            (right / b, "a number takes b bytes"),
            (right / 2**30, "bytes are asked for, not GiB"),
        ]
        case = f"{tokens} tokens, b = {b}"
        found = answer("Ex 09b", function, tokens, hidden, blocks, vocabulary, b)
        compare("Ex 09b", found, right, reasons, case=case)


def _fewest(room: Callable[[int], float], card: float) -> int:
    return next((gpus for gpus in (1, 2, 4, 8, 16, 32, 64) if room(gpus) <= card), 0)


def _library_fewest(stays: float, block: float, grows: float, card: float) -> int:
    return _fewest(lambda gpus: stays / gpus + block * (gpus > 1) + grows / gpus, card)


@check(library=_library_fewest)
def ex_09c(function: Callable) -> None:
    """fewest_gpus(stays, block, grows, card): of 1, 2, 4, … 64 the first with (stays + grows) / n + block ≤ card, else 0."""
    cases = ((54, 6, 2, 16), (10, 0.5, 2, 12), (130, 2, 30, 24), (60, 4, 40, 16), (5000, 1, 0, 10), (300, 6, 60, 20))
    cases += ((600, 1, 40, 12), (1200, 1, 40, 12))  # 64 are enough; 128 would be
    for stays, block, grows, card in cases:
        right = _library_fewest(stays, block, grows, card)
        exact = math.ceil((stays + grows) / (card - block)) if card > block else 0
        reasons = [
            (_fewest(lambda n: (stays + grows) / n, card), "the block at work stands whole on every GPU: add it, undivided"),  # noqa: B023
            (_fewest(lambda n: stays / n + block * (n > 1) + grows, card), "the records are split too: divide what grows"),  # noqa: B023
            (_fewest(lambda n: (stays + grows) / n + block, card), "one GPU has nothing to gather, and what just fits, fits"),  # noqa: B023
            (exact, "try 1, 2, 4, … 64 in turn: only these are asked about, and 0 where none is enough"),
            (None if right else 128, "64 GPUs are the most that is asked about: return 0 where they are not enough"),
            (None if right else 64, "return 0 where not even 64 GPUs are enough"),
        ]  # fmt: skip
        case = f"stays {stays}, block {block}, grows {grows}, card {card}"
        compare("Ex 09c", answer("Ex 09c", function, stays, block, grows, card), right, reasons, case=case)


def _library_joined(losses: list[float], counts: list[int]) -> float:
    total = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    return math.exp(total / sum(counts))


@check(library=_library_joined)
def ex_09d(function: Callable) -> None:
    """joined_perplexity(losses, counts): exp of the mean loss over all tokens, whichever window they stand in."""
    for losses, counts in (([2.0, 3.0, 8.0], [100, 100, 4]), ([1.5, 0.5], [10, 30]), ([4.0], [7])):
        right = _library_joined(losses, counts)
        total, sizes = sum(counts), list(zip(losses, counts, strict=True))
        reasons = [
            (math.exp(sum(losses) / len(losses)), "a short last window counts less: weigh each loss by its tokens"),
            (sum(map(math.exp, losses)) / len(losses), "take the mean of the losses, and exp once, of the mean"),
            (sum(math.exp(a) * n for a, n in sizes) / total, "exp comes last: of the mean loss, not of each window's"),
            (math.log(right), "that is the mean loss; perplexity is exp of it"),
            (math.exp(sum(losses) / total), "a window's loss is a mean: times its tokens it is their sum"),
            (2 ** math.log(right), "the losses are natural logarithms: exp, not a power of 2"),
        ]
        case = f"windows of {', '.join(map(str, counts))} tokens"
        compare("Ex 09d", answer("Ex 09d", function, list(losses), list(counts)), right, reasons, case=case)
