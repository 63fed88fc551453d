"""Scores of tasks, by lm-eval.

`acc` is the argmax of the summed log-likelihood of the answers; `acc_norm` divides each by the answer's length in
characters. Both are lm-eval's own numbers: the tiny model and LLaMA-7B are scored by the same code. A model is scored
as it is given and left as it was; what is not finite is an error, never a score.
"""

import contextlib
import copy
import functools
import io
import logging
import math
import os
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from unittest import mock

import pandas as pd
from tokenizers.processors import TemplateProcessing

from ..arguments import require_tokenizer, whole
from ..models import embedded, is_tiny, require_network
from ..storage import cache_folder
from .perplexity import as_given, check_ids, fitting, not_finite
from .texttasks import tasks_from_text

PAPER = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
TINY = tuple(f"tiny_{name}" for name in PAPER)
TASK_SETS = {"tiny": TINY, "tiny_val": tuple(f"{name}_val" for name in TINY), "paper": PAPER, "mmlu": ("mmlu",)}


def evaluate(
    model, tokenizer, tasks: str | list[str] = "tiny", *, limit: int | None = None, batch_size=64, progress: bool = True
) -> pd.DataFrame:
    """Zero-shot scores by lm-eval, however many examples a task's own file asks for.

    tasks: "tiny" (our seven, test split), "tiny_val" (their validation split), "paper" (the paper's seven), "mmlu",
    "text:FILE" (which continuation is real?, by tasks_from_text) or lm-eval task names. limit: items per task. batch_size: a number (fewer where a large vocabulary would fill the
    memory) or "auto". Returns one row per task and metric:
    task, metric ("acc" or "acc_norm", …), value, stderr, n, group (which has its own score and this task as a part; ""
    for what was asked). Raises ValueError for tasks that cannot be read, and for scores that are not finite.

    >>> from spp_lite import evaluate, load
    >>> model, tokenizer = load("tiny")
    >>> table = evaluate(model, tokenizer, ["tiny_rte", "tiny_boolq"], limit=4, progress=False)
    >>> table.columns.tolist()
    ['task', 'metric', 'value', 'stderr', 'n', 'group']
    >>> table.loc[table["metric"] == "acc", "task"].tolist()
    ['tiny_rte', 'tiny_boolq']
    """
    from lm_eval.evaluator import evaluate as score

    whole(**{"limit": limit} if limit is not None else {})
    if not str(batch_size).startswith("auto"):
        whole(batch_size=batch_size)
    with contextlib.ExitStack() as stack:
        if not progress:
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        loaded = load_tasks(tasks)
        require_tokenizer(tokenizer)
        stack.enter_context(as_given(model))
        batch_size = batch_size if isinstance(batch_size, str) else fitting(model, batch_size, 128)
        settings = {"batch_size": batch_size, "softmax_dtype": "float32"}  # sums in bfloat16 would tie: the first wins
        lm = _scorer()(pretrained=model, tokenizer=_open_ended(tokenizer), **settings)
        found = score(lm, task_dict=loaded, limit=limit, log_samples=False)
    if lm.cut:
        warnings.warn(f"{lm.cut} questions lost their start: the model takes {lm.max_length} tokens", stacklevel=2)
    return _tidy(found)


def _open_ended(tokenizer):
    """A copy, which lm-eval may change, that puts no EOS behind a question: the answers come there."""
    own, end = copy.deepcopy(tokenizer), tokenizer.eos_token_id
    if end is not None and own("a")["input_ids"][-1:] == [end] and hasattr(own, "backend_tokenizer"):
        start = [(own.convert_ids_to_tokens(token), token) for token in own("")["input_ids"][:-1]]
        single = " ".join([*(token for token, _ in start), "$A"])
        own.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=start)
    if end is not None and own("a")["input_ids"][-1:] == [end]:
        raise ValueError(
            f"the tokenizer ends every text with {own.eos_token}, questions too: set its add_eos_token to false"
        )
    return own


@functools.cache
def _scorer():
    from lm_eval.models.huggingface import HFLM

    class Scorer(HFLM):
        cut = 0  # questions that do not fit the model whole

        def _loglikelihood_tokens(self, requests, **kwargs):
            for _, context, answer in requests:
                check_ids(self.model, max(context + answer))
                if len(answer) > self.max_length:
                    raise ValueError(f"an answer of {len(answer)} tokens exceeds the {self.max_length} of the model")
                self.cut += len(context + answer) > self.max_length + 1
            found = super()._loglikelihood_tokens(requests, **kwargs)
            for (texts, *_), (value, _) in zip(requests, found, strict=True):
                if not math.isfinite(value):
                    what = repr(texts[1][:60]) if texts else "a text"
                    raise not_finite(self.model, f"the log-likelihood of {what} is {value}")
            return found

    return Scorer


def load_tasks(tasks: str | list[str], *, metric: str | None = None) -> dict:
    """lm-eval's tasks and groups, zero-shot, their data read; tasks as in evaluate(). metric: what each must give.

    Raises ValueError for what is unknown, asked twice, or cannot be read here: before the first minute is spent.
    """
    from huggingface_hub import constants

    names = _names(tasks)
    made = {name: cache_folder() / "tasks" / name.removesuffix("_val") for name in names if name.startswith("text_")}
    ours = all(name.startswith(("tiny_", "text_")) for name in names)
    managers = {name: _own_manager(made[name]) if name in made else _task_manager(ours) for name in names}
    unknown = [name for name in names if name not in managers[name].all_tasks]
    if not names:
        raise ValueError(f"tasks={tasks!r} names no task: use {', '.join(TASK_SETS)} or names of lm-eval's tasks")
    if unknown:
        raise ValueError(f"lm-eval has no task {', '.join(unknown)}: use {', '.join(TASK_SETS)} or names of its tasks")
    found: dict = {"tasks": {}, "groups": {}}
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())  # lm-eval draws names from it
        try:
            ours or require_network("data of lm-eval tasks")
        except ValueError:  # said to the libraries, or each would try again for half a minute
            stack.enter_context(mock.patch.object(constants, "HF_HUB_OFFLINE", True))
        for name in names:
            new = _read_task(managers[name], name)
            if twice := sorted(new["tasks"].keys() & found["tasks"]):
                raise ValueError(f"task {twice[0]} is asked for twice, by its name and in a group: leave one out")
            found = {kind: known | new.get(kind, {}) for kind, known in found.items()}
    for name, task in found["tasks"].items():
        task.set_config(key="num_fewshot", value=0)
        if metric and metric not in task.aggregation():
            raise ValueError(f"task {name} gives {', '.join(task.aggregation())}, no {metric} to take a mean of")
    return found


def _names(tasks: str | list[str]) -> list[str]:
    asked = [tasks] if isinstance(tasks, str) else tasks or []
    if not (isinstance(asked, Sequence) and all(isinstance(name, str) for name in asked)):
        raise ValueError(f"tasks={tasks!r}: give the name of a set of tasks, or a list of tasks' names")
    return list(dict.fromkeys(name for task in map(named, asked) for name in TASK_SETS.get(task, (task,))))


def _read_task(manager, name: str) -> dict:
    try:
        return manager.load([name])
    except Exception as error:  # of every type: of the hub, of datasets, of a task's own code
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"the data of task {name} cannot be read: use tiny, or fetch them first ({why})") from None


def named(task: str) -> str:
    """The task's own name: "text:FILE" is made into a task first (tasks_from_text)."""
    return tasks_from_text(file) if (file := text_file(task)) else task


def text_file(task: str) -> Path | None:
    """The file of a task "text:FILE"."""
    return Path(task.removeprefix("text:")).expanduser() if task.startswith("text:") else None


@functools.cache
def _own_manager(folder):
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


@functools.cache
def _task_manager(ours_only: bool):
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=str(embedded("tasks")), include_defaults=not ours_only)


def _tidy(found: dict) -> pd.DataFrame:
    scored = {task: [key for key in scores if "," in key] for task, scores in found["results"].items()}
    above = {part: group for group, parts in found.get("group_subtasks", {}).items() for part in parts}
    rows = []
    for task, scores in found["results"].items():
        group = above.get(task, "")
        while group and not scored.get(group):  # a group without a score is only a name for its parts
            group = above.get(group, "")
        n = found["n-samples"].get(task, {}).get("effective", scores.get("sample_len"))
        for metric, _, kind in (key.partition(",") for key in scored[task]):
            if metric.endswith("_stderr"):
                continue
            value, stderr = scores[f"{metric},{kind}"], scores.get(f"{metric}_stderr,{kind}")
            if not math.isfinite(value):
                raise ValueError(f"lm-eval's {metric} of {task} is {value}: no mean can be taken over it")
            stderr = float(stderr) if isinstance(stderr, int | float) else float("nan")
            name = metric if kind == "none" else f"{metric},{kind}"
            rows.append((task, name, float(value), stderr, n, group))
    return pd.DataFrame(rows, columns=["task", "metric", "value", "stderr", "n", "group"])


def default_tasks(model: str | None = None) -> str | list[str]:
    """What notebooks and commands score: $SPP_TASKS (names with commas), else "tiny" for the tiny model, else "paper"."""
    if asked := os.environ.get("SPP_TASKS"):
        return [name.strip() for name in asked.split(",")]
    return "tiny" if is_tiny(model) else "paper"


def chance_accuracy(tasks: str = "tiny") -> float:
    """The average accuracy of blind guessing: the mean over tasks of the mean of 1 / number of choices."""
    found = load_tasks(tasks)["tasks"].values()
    return mean(mean(1 / len(task.doc_to_choice(doc)) for doc in task.eval_docs) for task in found)


def average_accuracy(table: pd.DataFrame) -> float:
    """The plain mean of `acc` over what evaluate() was asked for, as the paper averages its seven; a group counts once,
    with its own score. Raises ValueError where one has no finite `acc`: no mean hides a missing part."""
    asked = table[table["group"].fillna("") == ""] if "group" in table else table
    found = asked[asked["metric"] == "acc"].set_index("task")["value"].reindex(asked["task"].unique())
    lacking = found.index[~found.between(0, 1)]
    if len(lacking) or not len(found):
        raise ValueError(f"there is no mean accuracy: {', '.join(lacking) or 'the table is empty'} has no acc")
    return float(found.mean())
