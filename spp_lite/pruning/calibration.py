"""Input statistics of linears, block by block, with the arguments that the model itself passes to its blocks.

Hooks only. Knows nothing about pruning criteria.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..arguments import require_unpacked
from .blocks import CalibrationError, context, decoder_blocks, in_eval_mode, linears_of, without_autocast

READ = {"input_ids", "attention_mask", "position_ids", "labels", "token_type_ids"}  # or need not be read
RUN = 8  # times one token at an end of a row: what pads, not what is written
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
        with without_autocast():
            self._add(rows.detach().float(), want_gram)

    def _add(self, rows: Tensor, want_gram: bool) -> None:
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
    batches = [_as_inputs(batch, number) for number, batch in enumerate(as_batches(calibration))]
    if not batches:
        raise CalibrationError("calibration is empty: give at least one LongTensor (batch, length)")
    if not hasattr(model, "config"):
        raise CalibrationError(f"{type(model).__name__} has no config: give the transformers model that it wraps")
    longest, most = max(batch["input_ids"].shape[1] for batch in batches), context(model)
    if longest > most or model.config.is_encoder_decoder:
        why = f"takes {most} tokens, not {longest}: cut the calibration into shorter windows"
        why = why if longest > most else "is an encoder-decoder: only magnitude prunes it"
        raise CalibrationError(f"{type(model).__name__} {why}")
    name, blocks = decoder_blocks(model)
    keeps = [batch["attention_mask"].bool() if "attention_mask" in batch else None for batch in batches]
    with in_eval_mode(model):
        hidden, calls = _capture(model, blocks, batches)
        for index, block in enumerate(blocks):
            here = BlockRun(f"{name}.{index}", block, hidden, [call[index] for call in calls], keeps)
            yield here
            for batch in range(len(hidden)):
                hidden[batch] = here.output(batch).detach()


def as_batches(calibration: Iterable) -> list:
    """The batches; one alone, as a tokenizer gives it, is a list of one."""
    one = isinstance(calibration, Mapping) or (isinstance(calibration, Tensor) and calibration.dim() == 2)
    return [calibration] if one else list(calibration)


def _as_inputs(batch, number: int) -> dict[str, Tensor]:
    inputs = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32) or not ids.numel():
        raise CalibrationError(f"calibration batch {number} is no LongTensor (batch, length): tokenize the texts first")
    mask = inputs.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != ids.shape):
        what = f"of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise CalibrationError(f"calibration batch {number}: attention_mask is {what}, give one of {tuple(ids.shape)}")
    positions = inputs.get("position_ids")
    for row, one in enumerate(positions if isinstance(positions, Tensor) and positions.dim() == 2 else ()):
        require_unpacked(one, None if mask is None else mask[row], f"calibration batch {number}, row {row}")
    same = ids[:, 1:] == ids[:, :-1]
    if mask is None and ids.shape[1] > RUN and (same[:, :RUN].all(1) | same[:, -RUN:].all(1)).any():
        warnings.warn(f"calibration batch {number} looks padded: without attention_mask padding is text", stacklevel=6)
    if unread := sorted(inputs.keys() - READ):
        warnings.warn(f"calibration reads input_ids and attention_mask, and not {', '.join(unread)}", stacklevel=6)
    return {"input_ids": ids} | ({} if mask is None else {"attention_mask": mask})


class _Stop(Exception):
    """Raised in the last block: the rest of the model need not run."""


def _capture(model, blocks, batches) -> tuple[list[Tensor], list[list[tuple[tuple, dict]]]]:
    """The first block's input and every block's other arguments, per batch; the blocks themselves are skipped.

    Blocks may get different arguments (sliding-window layers get another mask), so each one's are caught.
    """
    weight = getattr(model.get_input_embeddings(), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:  # an image model's embeddings are of patches
        raise CalibrationError(f"{type(model).__name__} takes no tokens: only magnitude prunes it")
    device = "cpu" if weight.is_meta else weight.device  # offloaded: accelerate's hooks move the inputs
    for token in (int(end) for batch in batches for end in batch["input_ids"].aminmax()):
        if not 0 <= token < len(weight):
            have = f"the model has {len(weight)} embeddings: use the model's own tokenizer"
            raise CalibrationError(f"calibration holds token {token}, {have}")
    hidden, calls = [], []
    with _skipped(blocks, stop=False) as record:  # a few tokens, to the model's end
        model(**{key: value[:1, :8].to(device) for key, value in batches[0].items()}, use_cache=False)
    if [block for block, *_ in record] != [*blocks]:
        raise CalibrationError(
            f"{type(model).__name__} does not hand the hidden states, and no more, from each of its {len(blocks)} blocks "
            "to the next: only magnitude prunes it"
        )
    with _skipped(blocks) as record:
        for batch in batches:
            record.clear()
            with suppress(_Stop):
                model(**{key: value.to(device) for key, value in batch.items()}, use_cache=False)
            hidden.append(record[0][1])
            calls.append([(args, kwargs) for _, _, args, kwargs in record])
    return hidden, calls


@contextmanager
def _skipped(blocks, *, stop: bool = True) -> Iterator[list]:
    """Within: a block notes itself (None where it gets other hidden states than the last one returned, or more of what
    that returned) and its arguments, and hands its input on, in the form that a real block returns it. stop: behind the
    last block; else the model runs on, which shows whether blocks come again."""
    record: list = []
    real = {block: block.__dict__.get("forward") for block in blocks}
    forms: dict[type, tuple | None] = {}  # what blocks of a class return beside the hidden states; None: no tuple

    def skip(block, *args, **kwargs):
        first = kwargs.pop("hidden_states") if "hidden_states" in kwargs else args[0]
        rest = args[1:] if args and args[0] is first else args
        known = stop or not record or _chained(record[-1][1], forms, first, (*rest, *kwargs.values()))
        if not record:  # what stands beside the hidden states may depend on the batch
            for kind in [kind for kind, beside in forms.items() if beside]:
                del forms[kind]
        record.append((block if known else None, first, rest, kwargs))
        if type(block) not in forms:
            whole = getattr(block, "_orig_mod", block)  # of what torch.compile wrapped
            found = type(whole).forward(whole, first, *rest, **kwargs)
            forms[type(block)] = found[1:] if isinstance(found, tuple) else None
        if stop and len(record) == len(blocks):
            raise _Stop
        return first if forms[type(block)] is None else (first, *forms[type(block)])

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


def _chained(last: Tensor, forms: dict, first: Tensor, others: tuple) -> bool:
    """Does a block get the hidden states that the last one returned, and nothing of what that returned beside them?"""
    beside = [value for given in forms.values() for value in given or () if isinstance(value, Tensor)]
    same = first is last or torch.equal(first, last)
    return same and not any(value is other for value in others for other in beside)


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
