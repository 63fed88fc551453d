import json
import math
import os
import subprocess
import sys

import pytest
import torch

from spp_lite import evaluate, load, perplexity
from spp_lite.models import embedded, resolve
from spp_lite.recover.evaluation import TASK_SETS, average_accuracy, chance_accuracy


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


def test_scores_equal_lm_evals_own_command(tiny, tmp_path):
    names = ["tiny_boolq", "tiny_arc_easy"]
    table = evaluate(*tiny, names, limit=25, progress=False)
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--include_path", str(embedded("tasks")), "--device", "cpu",
        "--model_args", f"pretrained={resolve('tiny')},dtype=float32", "--tasks", ",".join(names), "--limit", "25",
        "--batch_size", "64", "--output_path", str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    (found,) = tmp_path.rglob("results*.json")
    theirs = json.loads(found.read_text())["results"]
    assert set(table["metric"]) == {"acc", "acc_norm"} and set(table["task"]) == set(names)
    for row in table.itertuples():
        assert row.value == theirs[row.task][f"{row.metric},none"]
        assert row.stderr == pytest.approx(theirs[row.task][f"{row.metric}_stderr,none"])
        assert row.n == 25


def test_unknown_tasks_are_named(tiny):
    with pytest.raises(ValueError, match="lm-eval has no task tiny_trivia: use tiny"):
        evaluate(*tiny, ["tiny_trivia"])


def test_evaluation_leaves_the_random_state_alone(tiny):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    evaluate(*tiny, ["tiny_boolq"], limit=2, progress=False)
    assert torch.equal(before, torch.random.get_rng_state())


def test_chance_and_average():
    assert 0.25 <= chance_accuracy("tiny") <= 0.5
    assert len(TASK_SETS["paper"]) == len(TASK_SETS["tiny"]) == 7
    import pandas as pd

    rows = [("a", "acc", 1.0), ("a", "acc_norm", 0.0), ("b", "acc", 0.5)]
    assert average_accuracy(pd.DataFrame(rows, columns=["task", "metric", "value"])) == 0.75


@pytest.mark.parametrize("length, stride, batch_size", [(16, 16, 1), (16, 16, 8), (16, 5, 3), (400, 400, 4), (7, 1, 8)])
def test_perplexity_equals_a_slow_loop(tiny, length, stride, batch_size):
    model, tokenizer = tiny
    text = "\n\n".join(embedded("text", "validation.txt").read_text().split("\n\n")[:6])[:600]
    ids = tokenizer(text)["input_ids"]
    total, scored, end = 0.0, 0, 0
    for start in range(0, len(ids), stride):
        window = torch.tensor([ids[start : start + length]])
        logp = model(window).logits[0].double().log_softmax(-1)
        for place in range(1, window.shape[1]):
            if start + place >= end:
                total -= float(logp[place - 1, window[0, place]].detach())
                scored += 1
        end = start + window.shape[1]
        if end == len(ids):
            break
    value = perplexity(model, tokenizer, text, length=length, stride=stride, batch_size=batch_size)
    assert value == pytest.approx(math.exp(total / scored), rel=1e-4)


def test_perplexity_refuses_what_it_cannot_score(tiny):
    with pytest.raises(ValueError, match="at least two tokens"):
        perplexity(*tiny, "")
    with pytest.raises(ValueError, match="stride=9 must be between 1 and length=8"):
        perplexity(*tiny, "a b c d", length=8, stride=9)
