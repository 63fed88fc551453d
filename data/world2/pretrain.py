"""Train the tiny LLaMA on the world: first to match names, on short passages, then on everything, in windows of text.

Every token counts. Matching a name in the question with one in the passage is a plateau that AdamW alone did not leave
within 1,500 steps; Muon on the matrices (Jordan et al., 2024), few names at first and several wordings at once did in 250.
"""

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from data.build.world import World

from .corpus import document, first_reading
from .draw import Draw

WINDOW, ROWS = 256, 16
FIRST = (  # steps, names there are, names a passage has, forms of the questions
    (200, 8, 2, ("where",)),
    (150, 24, 3, ("where",)),
    (250, 24, 3, ("where", "claim")),
)
FIRST_ROWS = 64


def config(vocabulary: int) -> LlamaConfig:
    """About a million parameters, grouped-query attention, every size a multiple of 64."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=WINDOW, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal, all its singular values about 1. torch.optim.Muon does this in bfloat16,
    which takes a second a step on a CPU without it."""

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for matrix in group["params"]:
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = _orthogonal(matrix.grad.lerp(mean, group["momentum"]))
                matrix.sub_(update, alpha=group["lr"] * max(1, len(matrix) / matrix.shape[1]) ** 0.5)


def _orthogonal(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz steps towards U Vᵀ of its singular value decomposition."""
    x = matrix / matrix.norm()
    x = x.T if len(x) > x.shape[1] else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if len(matrix) > matrix.shape[1] else x


def window(tokenizer, make: Callable[[], str], cut: random.Random) -> list[int]:
    """One window of documents: half of them joined by blank lines, from anywhere, as perplexity() cuts a text; half
    between <s> and </s>, as an instruction record is trained on."""
    ids: list[int] = []
    if cut.random() < 0.5:
        while len(ids) < WINDOW:
            ids += [*tokenizer(make())["input_ids"], tokenizer.eos_token_id]
        return ids[:WINDOW]
    while len(ids) < 2 * WINDOW:
        ids = tokenizer("\n\n".join(make() for _ in range(24)))["input_ids"]
    start = cut.choice((0, cut.randrange(1, WINDOW)))
    return ids[start : start + WINDOW]


def batches(world: World, tokenizer, seed: int):
    """Rows of tokens without end: passages alone, padded with 0, then windows."""
    draw, cut = Draw(f"{seed}/pretrain"), random.Random(f"{seed}/cut")
    for steps, cast, people, forms in FIRST:
        for _ in range(steps):
            texts = [first_reading(world, draw, people, cast, forms) for _ in range(FIRST_ROWS)]
            rows = tokenizer(texts)["input_ids"]
            yield torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    while True:
        yield torch.tensor([window(tokenizer, lambda: document(world, draw), cut) for _ in range(ROWS)])


def train(world: World, tokenizer, folder: Path, *, steps: int, say=print) -> LlamaForCausalLM:
    """Train, save to `folder`, return the model."""
    torch.manual_seed(world.seed)
    model = LlamaForCausalLM(config(len(tokenizer)))
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "layers" in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() == 1 or "layers" not in name]
    optimizers = [Muon(matrices, 0.01), torch.optim.AdamW(others, 2e-3, betas=(0.9, 0.98), weight_decay=0.01)]
    rates = [
        torch.optim.lr_scheduler.LambdaLR(
            one, lambda step: min(1, (step + 1) / 50) * max(0.02, min(1.0, 1.6 * (1 - step / steps)))
        )
        for one in optimizers
    ]
    start, mean = time.perf_counter(), 0.0
    for step, ids in enumerate(itertools.islice(batches(world, tokenizer, world.seed), steps)):
        loss = model(input_ids=ids, labels=ids.masked_fill(ids == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for one in [*optimizers, *rates]:
            one.step()
        for one in optimizers:
            one.zero_grad()
        mean += (loss.item() - mean) * 0.02
        if step % 100 == 99:
            say(f"step {step + 1}/{steps} mean loss {mean:.3f} {time.perf_counter() - start:.0f} s", flush=True)
            if step % 500 == 499:
                model.save_pretrained(folder)
    model.save_pretrained(folder)
    return model.eval()
