"""Scores: lm-eval for tasks, the standard protocol for perplexity.

`acc` is the argmax of the summed log-likelihood of the answers; `acc_norm` divides each by the answer's length in
characters. Both are lm-eval's own numbers: the tiny model and LLaMA-7B are scored by the same code.
"""

import contextlib
import functools
import io
import logging
import math
import os
from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..models import embedded, is_tiny

PAPER = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
TINY = tuple(f"tiny_{name}" for name in PAPER)
TASK_SETS = {"tiny": TINY, "tiny_val": tuple(f"{name}_val" for name in TINY), "paper": PAPER, "mmlu": ("mmlu",)}


def evaluate(
    model, tokenizer, tasks: str | list[str] = "tiny", *, limit: int | None = None, batch_size=64, progress: bool = True
) -> pd.DataFrame:
    """Zero-shot scores by lm-eval.

    tasks: "tiny" (our seven, test split), "tiny_val" (their validation split), "paper" (the paper's seven), "mmlu", or
    lm-eval task names. limit: items per task. batch_size: a number or "auto".
    Returns one row per task and metric: task, metric ("acc" or "acc_norm", …), value, stderr, n.
    Raises ValueError for unknown tasks.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    asked = [tasks] if isinstance(tasks, str) else tasks
    names = [name for task in asked for name in TASK_SETS.get(task, (task,))]
    manager = _task_manager(all(name.startswith("tiny_") for name in names))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ValueError(f"lm-eval has no task {', '.join(unknown)}: use {', '.join(TASK_SETS)} or names of its tasks")
    with contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO()):
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        found = simple_evaluate(
            lm, tasks=names, task_manager=manager, limit=limit, log_samples=False,
            random_seed=None, numpy_random_seed=None, torch_random_seed=None,
        )  # fmt: skip
    return _tidy(found)


@functools.cache
def _task_manager(ours_only: bool):
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=str(embedded("tasks")), include_defaults=not ours_only)


def _tidy(found: dict) -> pd.DataFrame:
    rows = []
    for task, scores in found["results"].items():
        for key, value in scores.items():
            metric, _, kind = key.partition(",")
            if kind and not metric.endswith("_stderr"):
                stderr = scores.get(f"{metric}_stderr,{kind}")
                stderr = float(stderr) if isinstance(stderr, int | float) else float("nan")
                n = found["n-samples"].get(task, {}).get("effective")
                rows.append({"task": task, "metric": metric, "value": float(value), "stderr": stderr, "n": n})
    return pd.DataFrame(rows)


def default_tasks(model: str | None = None) -> str | list[str]:
    """What notebooks and commands score: $SPP_TASKS (names with commas), else "tiny" for the tiny model, else "paper"."""
    if os.environ.get("SPP_TASKS"):
        return os.environ["SPP_TASKS"].split(",")
    return "tiny" if is_tiny(model) else "paper"


def chance_accuracy(tasks: str = "tiny") -> float:
    """The average accuracy of blind guessing: the mean over tasks of the mean of 1 / number of choices."""
    from lm_eval.tasks import get_task_dict

    found = get_task_dict(list(TASK_SETS[tasks]), _task_manager(tasks.startswith("tiny"))).values()
    shares = [[1 / len(task.doc_to_choice(doc)) for doc in task.eval_docs] for task in found]
    return sum(sum(share) / len(share) for share in shares) / len(shares)


def average_accuracy(table: pd.DataFrame) -> float:
    """The plain mean over tasks of `acc`, as the paper averages its seven."""
    return float(table.loc[table["metric"] == "acc", "value"].mean())


@torch.no_grad()
def perplexity(
    model, tokenizer, texts: str | Iterable[str], *, length: int | None = None, stride: int | None = None,
    batch_size: int = 8, progress: bool = False,
) -> float:  # fmt: skip
    """exp of the mean negative log-likelihood per token over the joined texts.

    texts are joined by blank lines and cut into windows of `length` tokens (None: what the model takes, at most 2048),
    one every `stride` tokens (None: length, the protocol of SparseGPT and Wanda); a token is scored once, with all of
    its window before it. Raises ValueError when the text is shorter than two tokens.
    """
    text = texts if isinstance(texts, str) else "\n\n".join(texts)
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    if len(ids) < 2:
        raise ValueError("perplexity needs a text of at least two tokens")
    length = length or min(getattr(model.config, "max_position_embeddings", None) or 2048, 2048)
    stride = stride or length
    if not 1 <= stride <= length:
        raise ValueError(f"stride={stride} must be between 1 and length={length}: tokens between windows would be lost")
    *full, last = _windows(ids, length, stride)  # only the last may be shorter
    groups = [full[i : i + batch_size] for i in range(0, len(full), batch_size)] + [[last]]
    total, count = 0.0, 0
    for group in tqdm(groups, desc="perplexity", disable=not progress):
        loss, tokens = _negative_log_likelihood(model, group)
        total, count = total + loss, count + tokens
    return math.exp(total / count)


def _windows(ids: Tensor, length: int, stride: int) -> list[tuple[Tensor, int]]:
    """(window, how many of its last tokens are scored here); the first token of the text is never scored."""
    windows, scored = [], 0
    for start in range(0, len(ids), stride):
        window = ids[start : start + length]
        end = start + len(window)
        new = min(end - scored, len(window) - 1)
        if new > 0:
            windows.append((window, new))
        scored = end
        if end == len(ids):
            break
    return windows


def _negative_log_likelihood(model, group: list[tuple[Tensor, int]]) -> tuple[float, int]:
    windows = torch.stack([window for window, _ in group]).to(model.device)
    new = torch.tensor([new for _, new in group], device=model.device)
    logits = model(input_ids=windows, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")
    position = torch.arange(losses.shape[1], device=model.device)
    chosen = position >= losses.shape[1] - new[:, None]
    return float(losses[chosen].double().sum()), int(chosen.sum())
