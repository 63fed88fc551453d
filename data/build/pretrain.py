"""Train the tiny LLaMA on the world: a copy warm-up, then prose and questions, loss on answers."""

import random
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .corpus import batch, copy_sequence

IGNORED = -100


def config(vocabulary: int) -> LlamaConfig:
    """About a million parameters, grouped-query attention, every size a multiple of 64."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip


def encode(tokenizer, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(context, answer) pairs → padded ids and labels; only answers and the end count."""
    contexts = tokenizer([context for context, _ in pairs])["input_ids"]
    answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    rows = [(c, [*a, tokenizer.eos_token_id]) for c, a in zip(contexts, answers, strict=True)]
    return _pad([c + a for c, a in rows], [[IGNORED] * len(c) + a for c, a in rows])


def _pad(rows: list[list[int]], labels: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([row + [IGNORED] * (width - len(row)) for row in labels])


def _copies(size: int, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [[1, *copy_sequence(size, draw)] for _ in range(96)]
    labels = [[IGNORED] * (1 + (len(row) - 1) // 3) + row[1 + (len(row) - 1) // 3 :] for row in rows]
    return _pad(rows, labels)


def train(world, tokenizer, folder: Path, *, steps: int, warmup: int = 500, rate: float = 2e-3, say=print):
    """Train, save to `folder`, return the model. A step is one batch; every eighth is sequences to copy."""
    torch.manual_seed(world.seed)
    draw = random.Random(f"{world.seed}/pretrain")
    model = LlamaForCausalLM(config(len(tokenizer)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * max(0.02, min(1.0, 1.6 * (1 - step / steps)))
    )
    start, mean = time.perf_counter(), 0.0
    for step in range(steps):
        if step < warmup or step % 8 == 0:
            ids, labels = _copies(len(tokenizer), draw)
        else:
            ids, labels = encode(tokenizer, batch(world, draw))
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        counted = labels[:, 1:] != IGNORED
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), labels[:, 1:][counted])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean += (loss.item() - mean) * 0.02
        if step % 100 == 99:
            say(f"step {step + 1}/{steps} mean loss {mean:.3f} {time.perf_counter() - start:.0f} s", flush=True)
    model.save_pretrained(folder)
    return model.eval()
