"""Input statistics of linears, block by block, with the arguments that the model itself passes to its blocks.

Hooks only. Knows nothing about pruning criteria.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import CalibrationError, context, decoder_blocks, linears_of

SAMPLE = 256  # input rows kept per linear, to measure the output error on


@dataclass
class InputStatistics:
    """What is known of one input that one or more linears share, in float32.

    tokens: how many were seen; squares: (in,), mean of x²; gram: (in, in), 2XᵀX/n, or None; sample: some rows (·, in).
    """

    tokens: int = 0
    squares: Tensor | None = None
    gram: Tensor | None = None
    sample: Tensor | None = None

    def add(self, rows: Tensor, want_gram: bool) -> None:
        """Take in rows (tokens, in); running means, as in the papers' code."""
        if not len(rows):
            return
        rows = rows.detach().float()
        old, self.tokens = self.tokens, self.tokens + len(rows)
        share = old / self.tokens
        squares = rows.square().sum(0) / self.tokens
        self.squares = squares if self.squares is None else self.squares * share + squares
        if want_gram:
            gram = (rows.T @ rows).mul_(2 / self.tokens)
            self.gram = gram if self.gram is None else gram.add_(self.gram, alpha=share)
        if self.sample is None or len(self.sample) < SAMPLE:
            few = rows[: max(1, SAMPLE // 8)]
            self.sample = few if self.sample is None else torch.cat([self.sample, few])[:SAMPLE]


@dataclass
class BlockRun:
    """One decoder block within a walk, with its inputs: hidden states, and the other arguments, of every batch."""

    name: str
    block: nn.Module
    hidden: list[Tensor]
    calls: list[tuple[tuple, dict]]
    keeps: list[Tensor | None]

    @property
    def linears(self) -> dict[str, nn.Module]:
        """The block's linears by full name."""
        return {f"{self.name}.{name}": linear for name, linear in linears_of(self.block).items()}

    def output(self, batch: int) -> Tensor:
        """The block's output (batch, length, hidden) for one batch."""
        args, kwargs = self.calls[batch]
        found = self.block(self.hidden[batch], *args, **kwargs)
        return found[0] if isinstance(found, tuple) else found

    def statistics(self, *, gram: bool = False) -> dict[str, InputStatistics]:
        """Full linear name → statistics; linears that get the same tensor share one object. Runs the block once."""
        leaders: dict[str, InputStatistics] = {}
        seen: list[tuple[Tensor, InputStatistics]] = []  # of the present batch; keeps the tensors alive, ids unique
        keep: Tensor | None = None

        def gather(name: str, tensor: Tensor) -> None:
            for known, leader in seen:
                if known is tensor:
                    leaders[name] = leader
                    return
            leader = leaders.setdefault(name, InputStatistics())
            seen.append((tensor, leader))
            leader.add(_real_rows(tensor, keep), gram)

        handles = [
            linear.register_forward_pre_hook(lambda _module, args, name=name: gather(name, args[0]))
            for name, linear in self.linears.items()
        ]
        try:
            for batch, keep in enumerate(self.keeps):  # noqa: B007  (gather reads it)
                seen.clear()
                self.output(batch)
        finally:
            for handle in handles:
                handle.remove()
        for name in self.linears:
            _check(name, leaders.get(name))
        return leaders


@torch.no_grad()
def walk(model: nn.Module, calibration: Iterable) -> Iterator[BlockRun]:
    """Yield the decoder blocks in order; what the caller does to a block shapes the inputs of the next.

    calibration: LongTensors (batch, length), or dicts with input_ids and attention_mask (padding does not count).
    Peak memory: the model, one block's statistics, and the hidden states of all batches. Raises CalibrationError.

    >>> import torch
    >>> from spp_lite import load
    >>> from spp_lite.pruning import walk
    >>> model, _ = load("tiny")
    >>> first = next(walk(model, [torch.arange(32).view(1, 32)]))
    >>> sorted(first.linears)[-1]
    'model.layers.0.self_attn.v_proj'
    """
    batches = [_as_inputs(batch, number) for number, batch in enumerate(calibration)]
    if not batches:
        raise CalibrationError("calibration is empty: give at least one LongTensor (batch, length)")
    longest, most = max(batch["input_ids"].shape[1] for batch in batches), context(model)
    if longest > most or model.config.is_encoder_decoder:
        why = f"takes {most} tokens, not {longest}: cut the calibration into shorter windows"
        why = why if longest > most else "is an encoder-decoder: only magnitude prunes it"
        raise CalibrationError(f"{type(model).__name__} {why}")
    name, blocks = decoder_blocks(model)
    keeps = [batch["attention_mask"].bool() if "attention_mask" in batch else None for batch in batches]
    training = model.training
    model.eval()
    try:
        hidden, calls = _capture(model, blocks, batches)
        for index, block in enumerate(blocks):
            here = BlockRun(f"{name}.{index}", block, hidden, [call[index] for call in calls], keeps)
            yield here
            for batch in range(len(hidden)):
                hidden[batch] = here.output(batch).detach()
    finally:
        model.train(training)


def _as_inputs(batch, number: int) -> dict[str, Tensor]:
    inputs = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point() or not ids.numel():
        raise CalibrationError(f"calibration batch {number} is no LongTensor (batch, length): tokenize the texts first")
    return {key: value for key, value in inputs.items() if key in ("input_ids", "attention_mask")}


class _Stop(Exception):
    """Raised in the last block: the rest of the model need not run."""


def _capture(model, blocks, batches) -> tuple[list[Tensor], list[list[tuple[tuple, dict]]]]:
    """The first block's input and every block's other arguments, per batch; the blocks themselves are skipped.

    Blocks may get different arguments (sliding-window layers get another mask), so each one's are caught.
    """
    weight = model.get_input_embeddings().weight
    device = "cpu" if weight.is_meta else weight.device  # offloaded: accelerate's hooks move the inputs
    hidden, calls = [], []
    with _skipped(blocks) as record:
        for batch in batches:
            record.clear()
            ends = int(batch["input_ids"].min()), int(batch["input_ids"].max())
            if wrong := [token for token in ends if not 0 <= token < len(weight)]:
                have = f"the model has {len(weight)} embeddings: use the model's own tokenizer"
                raise CalibrationError(f"calibration holds token {wrong[0]}, {have}")
            with suppress(_Stop):
                model(**{key: value.to(device) for key, value in batch.items()}, use_cache=False)
            if len(record) != len(blocks):
                raise CalibrationError(f"{type(model).__name__} runs {len(record)} of its {len(blocks)} blocks in turn")
            hidden.append(record[0][0])
            calls.append([(args, kwargs) for _, args, kwargs in record])
    return hidden, calls


@contextmanager
def _skipped(blocks) -> Iterator[list]:
    """Within: a block notes its arguments and hands its input on, in the form that a real block returns it."""
    record: list = []
    real = {block: block.__dict__.get("forward") for block in blocks}
    tuples: dict[type, bool] = {}  # does a block of this class return a tuple? asked once of each

    def skip(block, *args, **kwargs):
        first = kwargs.pop("hidden_states") if "hidden_states" in kwargs else args[0]
        rest = args[1:] if args and args[0] is first else args
        record.append((first, rest, kwargs))
        if type(block) not in tuples:
            tuples[type(block)] = isinstance(type(block).forward(block, first, *rest, **kwargs), tuple)
        if len(record) == len(blocks):
            raise _Stop
        return (first,) if tuples[type(block)] else first

    try:
        for block in blocks:
            block.forward = lambda *args, block=block, **kwargs: skip(block, *args, **kwargs)
        yield record
    finally:
        for block, forward in real.items():
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _real_rows(tensor: Tensor, keep: Tensor | None) -> Tensor:
    """(…, in) → (tokens, in) without the padding."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows if keep is None or keep.numel() != len(rows) else rows[keep.reshape(-1).to(rows.device)]


def _check(name: str, found: InputStatistics | None) -> None:
    if found is None or not found.tokens:
        raise CalibrationError(f"{name}: no calibration token reached it: give more calibration data, or skip={name!r}")
    if not torch.isfinite(found.squares).all():
        bad = int((~torch.isfinite(found.squares)).sum())
        raise CalibrationError(f"{name}: {bad} of its inputs are not finite: load the model in float32 or bfloat16")
