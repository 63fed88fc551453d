"""Perplexity by the standard protocol, and what every score keeps to: the model as it is given, and finite numbers.

Knows a model's forward and a tokenizer's call. Knows nothing about tasks.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from unittest import mock

import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm

from ..arguments import require_tokenizer, require_weights, whole
from ..pruning.blocks import broken_weight, context, in_eval_mode, require_causal, vocabulary
from .data import IGNORED, encode, plain_rows, require_whole, tokenize_records
from .reading import as_texts

LOGITS = 2**27  # values: half a GiB in float32, of which a loss makes a few copies


@torch.no_grad()
def perplexity(
    model, tokenizer, texts: str | Iterable[str], *, length: int | None = None, stride: int | None = None,
    batch_size: int = 8, tokens: int | None = None, progress: bool = False,
) -> float:  # fmt: skip
    """exp of the mean negative log-likelihood per token over the joined texts.

    texts are joined by blank lines and cut into windows of `length` tokens (None: what the model takes, at most 2048),
    one every `stride` tokens (None: length, the protocol of SparseGPT and Wanda); a token is scored once, with all of
    its window before it. batch_size: windows at a time, fewer where a large vocabulary would fill the memory. tokens: of
    a long text, so many from its start. Raises ValueError when the text is shorter than two tokens, or the loss is not finite.

    >>> from spp_lite import load, perplexity
    >>> model, tokenizer = load("tiny")
    >>> perplexity(model, tokenizer, ["Ada lives in the north.", "Bruno has a drum."], length=16) > 1
    True
    """
    require_weights(model)
    require_tokenizer(tokenizer)
    whole(2, **{"tokens": tokens} if tokens is not None else {})
    ids = text_ids(tokenizer, texts)[:tokens]
    check_ids(model, int(ids.max()))
    most = context(model)
    length = min(most, 2048) if length is None else length
    stride = length if stride is None else stride
    whole(2, length=length)
    if length > most:
        raise ValueError(f"length={length} is more than the {most} tokens that the model takes")
    whole(1, length, stride=stride)  # a longer one would lose tokens
    whole(batch_size=batch_size)
    *full, last = _windows(ids, length, stride)  # only the last may be shorter
    batch_size = fitting(model, batch_size, length)
    groups = [full[i : i + batch_size] for i in range(0, len(full), batch_size)] + [[last]]
    parts, bar = [], tqdm(desc="perplexity", total=len(ids) - 1, unit=" tokens", disable=not progress)
    with as_given(model), bar:
        for group in groups:
            parts.append(_negative_log_likelihood(model, group))
            bar.update(parts[-1][1])
    loss = sum(part for part, _ in parts) / sum(tokens for _, tokens in parts)
    if not loss < 700:  # nan, inf, and what exp() cannot hold
        raise not_finite(model, f"the mean loss over the text is {loss}")
    return math.exp(loss)


@torch.no_grad()
def record_loss(model, tokenizer, records: Dataset, *, cutoff: int = 512, progress: bool = False) -> float:
    """Mean negative log-likelihood (nats) per token of the responses of Alpaca records; exp of it is their perplexity.

    records: as they are, or as tokenize_records() gives them. cutoff: as in finetune(). Raises ValueError when no record
    fits it, or the loss is not finite.
    """
    total, count = 0.0, 0
    records = plain_rows(records)
    rows = records if "labels" in records.column_names else tokenize_records(records, tokenizer, cutoff=cutoff)
    with as_given(model):
        for number, row in enumerate(tqdm(rows, "held-out records", disable=not progress)):
            ids, labels = (torch.tensor([row[name]], device=model.device) for name in ("input_ids", "labels"))
            check_ids(model, int(ids.max()))
            if ids.shape[1] > context(model):
                raise ValueError(
                    f"a record has {ids.shape[1]} tokens, the model takes {context(model)}: set cutoff to that"
                )
            require_whole(row, f"record {number}")
            given = torch.tensor([row["attention_mask"]], device=model.device) if "attention_mask" in row else None
            logits = model(input_ids=ids, attention_mask=given, use_cache=False).logits[0, :-1].double()
            total += float(torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum"))
            count += int((labels[0, 1:] != IGNORED).sum())
    if not count:
        raise ValueError(f"none of the {len(rows)} records has a token that counts in the loss")
    if not total / count < 700:
        raise not_finite(model, f"the mean loss over the records is {total / count}")
    return total / count


def fitting(model, batch_size: int, length: int) -> int:
    """At most batch_size, and so few sequences of `length` that their float32 logits stay within half a GiB."""
    return max(1, min(batch_size, LOGITS // (length * vocabulary(model))))


def text_ids(tokenizer, texts: str | Iterable[str]) -> Tensor:
    """The tokens that perplexity() scores; ValueError for texts of fewer than two."""
    text = "\n\n".join(as_texts(texts))
    ids = torch.tensor(encode(tokenizer, [text])[0], dtype=torch.long)
    if len(ids) < 2:
        raise ValueError(f"perplexity needs a text of at least two tokens: {text[:60]!r} has {len(ids)}")
    return ids


def _windows(ids: Tensor, length: int, stride: int) -> list[tuple[Tensor, int]]:
    """(window, how many of its last tokens are scored here); the first token of the text is never scored."""
    starts = range(0, max(1, len(ids) - length + stride), stride)  # to the first window that reaches the end
    ends = [min(start + length, len(ids)) for start in starts]
    cuts = zip(starts, ends, [0, *ends], strict=False)
    windows = [(ids[start:end], min(end - before, end - start - 1)) for start, end, before in cuts]
    return [(window, new) for window, new in windows if new > 0]


def _negative_log_likelihood(model, group: list[tuple[Tensor, int]]) -> tuple[float, int]:
    windows = torch.stack([window for window, _ in group]).to(model.device)
    new = torch.tensor([new for _, new in group], device=model.device)
    logits = model(input_ids=windows, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")
    position = torch.arange(losses.shape[1], device=model.device)
    chosen = position >= losses.shape[1] - new[:, None]
    return float(losses[chosen].double().sum()), int(chosen.sum())


@contextlib.contextmanager
def as_given(model) -> Iterator[None]:
    """Score in eval mode, leave each module in its own; keep HFLM from tying a head that was trained apart."""
    require_weights(model)
    require_causal(model)
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise ValueError(
            "the adapter puts tokens of its own before a text, which moves its scores: only weights are scored"
        )
    untied = mock.patch.object(model, "tie_weights", lambda *_, **__: None)
    with in_eval_mode(model), untied, model.register_forward_hook(_refuse_nan):
        yield


def _refuse_nan(model, inputs, output) -> None:
    if output.logits[:, -1].isnan().any():  # of generated tokens too, which have no log-likelihood
        raise not_finite(model, "the model's logits are nan")


def not_finite(model, what: str) -> ValueError:
    broken = broken_weight(model.named_parameters())
    why = f"{broken} is not finite" if broken else "activations overflow: try float32, or train slower"
    return ValueError(f"{what}, so there is no score: {why}")


def check_ids(model, highest: int) -> None:
    rows = vocabulary(model)
    if highest >= rows:
        raise ValueError(f"the model has {rows} embeddings, none for token {highest}: use its own tokenizer")
