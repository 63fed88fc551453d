"""Train the tiny LLaMA on the world: to match names, to judge claims, then on everything, in windows of text.

Each stage is there since the model did not learn without it (data/README.md). Muon is that of Jordan et al., 2024.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from spp_lite.recover.data import IGNORED

from .corpus import claims, document, first_reading, passage
from .draw import Draw
from .families import arc_challenge, plain, rte
from .world import World

WINDOW = 256
READING = (200, 8, 2), (150, 24, 3)  # steps of 64 passages, names there are, names a passage has
CLAIMS = 800, 256  # steps, rows
WINDOWS = 1300, 32


@dataclass(frozen=True)
class Stage:
    """One of the last stages; its batch is of several parts. In the windows every token counts, in the others answers alone."""

    steps: int
    rate: float  # share of the full one
    windows: int
    rte: int = 0  # claims
    boolq: int = 0  # passages with four claims each
    arc: int = 0  # questions
    threshold: float = 0.0  # soft threshold, as a share of the rate
    noise: float = 0.0  # on every matrix in every step, as a share of its standard deviation; with it, weights decay
    back: float = 0.0  # after it, so far back to the weights before it: their mean is better than both


LAST = (
    Stage(450, 0.4, windows=6, rte=96),  # Muon spreads what is learned over all weights, so that half cannot be spared:
    Stage(180, 0.5, windows=10, rte=32, threshold=0.1),  # the soft threshold gathers it in fewer
    Stage(330, 0.5, windows=12, rte=32, threshold=0.05),
    Stage(140, 0.4, windows=12, rte=32, threshold=0.07),
    Stage(150, 0.4, windows=32, rte=16, threshold=0.02),  # more windows: what it costs in facts comes back
    Stage(160, 0.6, windows=32, rte=16, threshold=0.04),
    Stage(80, 0.2, windows=32, rte=12, threshold=0.03),
    Stage(160, 0.5, windows=16, rte=12, boolq=32, threshold=0.03, back=0.5),  # yes and no, too
    Stage(300, 1.0, windows=16, rte=12, boolq=16, noise=0.2),  # noise makes it bear pruning, and spreads the weights
    Stage(400, 0.8, windows=24, rte=8, boolq=12, noise=0.25),
    Stage(300, 0.8, windows=18, rte=6, boolq=8, arc=64, noise=0.25),
    Stage(450, 1.0, windows=14, rte=6, boolq=8, arc=192, noise=0.25, back=0.3),  # sums take longest
)

FIRST = Stage(0, 1.0, 0)  # of all before these: no threshold, no noise
DECAY = 0.1


def config(vocabulary: int) -> LlamaConfig:
    """1.6 million parameters, grouped-query attention, every size a multiple of 64."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=384, num_hidden_layers=6, num_attention_heads=4,
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


def batches(world: World, tokenizer, seed: int) -> Iterator[tuple[list[tuple[Tensor, Tensor, float]], float, Stage]]:
    """Of every step [(tokens, labels, weight in the loss), …], the share of the full learning rate, the stage."""
    draw, cut = Draw(f"{seed}/pretrain"), random.Random(f"{seed}/cut")

    def rows(make: Callable[[], str], count: int) -> Tensor:
        texts = [torch.tensor(ids) for ids in tokenizer([make() for _ in range(count)])["input_ids"]]
        return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)

    def windows(count: int) -> Tensor:
        return torch.tensor([window(tokenizer, lambda: document(world, draw), cut) for _ in range(count)])

    def every(ids: Tensor) -> tuple[Tensor, Tensor, float]:
        return ids, ids.masked_fill(ids == tokenizer.pad_token_id, IGNORED), 1.0

    def answers(ids: Tensor) -> tuple[Tensor, Tensor, float]:
        last = (ids != tokenizer.pad_token_id).sum(1, keepdim=True) - 1
        return ids, torch.full_like(ids, IGNORED).scatter(1, last, ids.gather(1, last)), 0.5

    def judgements(ids: Tensor) -> tuple[Tensor, Tensor, float]:
        said = torch.isin(ids, torch.tensor([tokenizer(f"? {word}")["input_ids"][-1] for word in ("yes", "no")]))
        return ids, ids.masked_fill(~said, IGNORED), 0.5

    def judged() -> str:
        return "".join(plain("rte", rte(world, "all", draw, draw.weighted({"claim": 8, "who": 2}))))

    for steps, cast, people in READING:
        for _ in range(steps):
            yield [every(rows(lambda c=cast, p=people: first_reading(world, draw, p, c), 64))], 1.0, FIRST
    for _ in range(CLAIMS[0]):
        yield [every(rows(lambda: claims(world, draw), CLAIMS[1]))], 1.0, FIRST
    for step in range(WINDOWS[0]):
        yield [every(windows(WINDOWS[1]))], _falling(step / WINDOWS[0]), FIRST
    for stage in LAST:
        kinds = (
            (answers, judged, stage.rte),
            (answers, lambda: "".join(plain("arc_challenge", arc_challenge(world, "all", draw))), stage.arc),
            (judgements, lambda: passage(world, draw, ("claim",), 4), stage.boolq),
        )
        for step in range(stage.steps):
            parts = [counted(rows(make, count)) for counted, make, count in kinds if count]
            yield [*parts, every(windows(stage.windows))], stage.rate * _falling(step / stage.steps), stage


def _falling(share: float) -> float:
    return max(0.02, min(1.0, 1.6 * (1 - share)))


def train(world: World, tokenizer, folder: Path, *, say=print) -> LlamaForCausalLM:
    """Train, save to `folder`, return the model; on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(world.seed)
    model = LlamaForCausalLM(config(len(tokenizer))).to(device)
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "layers" in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() == 1 or "layers" not in name]
    optimizers = [Muon(matrices, 0.01), torch.optim.AdamW(others, 2e-3, betas=(0.9, 0.98), weight_decay=0.01)]
    full = [one.param_groups[0]["lr"] for one in optimizers]
    start, mean, at = time.perf_counter(), 0.0, FIRST
    before: list[Tensor] = []
    for step, (parts, rate, stage) in enumerate(batches(world, tokenizer, world.seed), 1):
        if stage is not at:
            _end(at, model, before)
            at, before = stage, [weight.detach().clone() for weight in model.parameters()]
        kept = [matrix.data for matrix in matrices]
        for matrix in matrices if stage.noise else ():
            matrix.data = matrix.data + stage.noise * matrix.data.std() * torch.randn_like(matrix)
        for ids, labels, weight in parts:
            loss = model(input_ids=ids.to(device), labels=labels.to(device)).loss
            (weight * loss).backward()
        for matrix, value in zip(matrices, kept, strict=True):
            matrix.data = value
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for one, lr in zip(optimizers, full, strict=True):
            one.param_groups[0]["lr"] = lr * rate * min(1, step / 50)
            one.step()
            one.zero_grad()
        muon = optimizers[0].param_groups[0]["lr"]
        for matrix in matrices if stage.noise else ():
            matrix.data *= 1 - DECAY * muon
        for matrix in matrices if stage.threshold else ():
            matrix.data = F.softshrink(matrix.data, stage.threshold * muon)
        mean += (loss.item() - mean) * 0.02
        if step % 100 == 0:
            say(f"step {step} mean loss {mean:.3f} {time.perf_counter() - start:.0f} s", flush=True)
    _end(at, model, before)
    model.bfloat16().save_pretrained(folder)
    return model.eval()


@torch.no_grad()
def _end(stage: Stage, model, before: list[Tensor]) -> None:
    """After a stage that says so, part of the way back to what the weights were."""
    for weight, was in zip(model.parameters(), before, strict=True) if stage.back else ():
        weight.lerp_(was, stage.back)
