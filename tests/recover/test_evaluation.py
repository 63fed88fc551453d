"""Scores are lm-eval's own, of the model as it is given; what cannot be scored is an error, never a number."""

import copy
import io
import json
import math
import os
import random
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import peft
import pytest
import torch
import yaml
from huggingface_hub import constants
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM

from spp_lite import evaluate, load, load_alpaca, perplexity
from spp_lite.models import embedded, fingerprint, load_tokenizer, resolve
from spp_lite.recover.data import prompt, tokenize_records
from spp_lite.recover.evaluation import TASK_SETS, average_accuracy, chance_accuracy, load_tasks
from spp_lite.recover.perplexity import fitting, record_loss


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


def test_chance_and_average():
    assert 0.25 <= chance_accuracy("tiny") <= 0.5
    assert len(TASK_SETS["paper"]) == len(TASK_SETS["tiny"]) == 7
    rows = [("a", "acc", 1.0), ("a", "acc_norm", 0.0), ("b", "acc", 0.5)]
    assert average_accuracy(pd.DataFrame(rows, columns=["task", "metric", "value"])) == 0.75


@pytest.mark.parametrize("length, stride, batch_size", [(16, 16, 1), (16, 16, 8), (16, 5, 3), (200, 200, 4), (7, 1, 8)])
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


def test_the_loss_of_records_equals_a_slow_loop():
    model, tokenizer = load("tiny")
    records = load_alpaca("tiny").select(range(5))
    losses = []
    for record in records:
        asked, ids = tokenizer(prompt(record))["input_ids"], tokenizer(prompt(record) + record["output"])["input_ids"]
        ids = torch.tensor([[*ids, tokenizer.eos_token_id]])
        scores = model(input_ids=ids).logits[0].detach().double().log_softmax(-1)
        losses += [-float(scores[place - 1, ids[0, place]]) for place in range(len(asked), ids.shape[1])]
    model.train()
    assert (
        record_loss(model, tokenizer, records) == pytest.approx(sum(losses) / len(losses), rel=1e-5) and model.training
    )
    with pytest.raises(ValueError, match="every prompt is longer than cutoff=3"):
        record_loss(model, tokenizer, records, cutoff=3)
    model.lm_head.weight.data[7] = float("nan")
    with pytest.raises(ValueError, match="logits are nan"):
        record_loss(model, tokenizer, records)


def test_perplexity_refuses_what_it_cannot_score(tiny):
    with pytest.raises(ValueError, match="at least two tokens"):
        perplexity(*tiny, "")
    with pytest.raises(ValueError, match="stride=9: give a whole number, 1 to 8"):
        perplexity(*tiny, "a b c d", length=8, stride=9)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """lm-eval's manager over tasks of our own: a, b, c of unlike sizes; in groups, nested, without a score, as a tag."""
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    sizes = {"a": 3, "b": 40, "c": 9}
    for name, size in sizes.items():
        rows = [{"q": f"{name} word {i}", "a": (i * i) % 3 % 2} for i in range(size)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = {
        "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}",
        "doc_to_choice": ["yes", "certainly not"], "doc_to_target": "a",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
    }  # fmt: skip
    data = {name: {"dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}} for name in sizes}
    tasks = {name: {**plain, **data[name], "task": name} for name in sizes}
    tasks["a"]["tag"] = tasks["c"]["tag"] = "a_and_c"
    tasks["shots"] = {**tasks["b"], "task": "shots", "num_fewshot": 3}
    tasks["words"] = {
        **data["c"], "task": "words", "dataset_path": "json", "test_split": "test", "output_type": "generate_until",
        "doc_to_text": "{{q}}", "doc_to_target": "{{a}}", "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    acc = [{"metric": "acc", "weight_by_size": True}]
    tasks["inner"] = {"group": "inner", "task": ["a", "b"], "aggregate_metric_list": acc}
    tasks["nested"] = {"group": "nested", "task": ["inner", "c"], "aggregate_metric_list": acc}
    tasks["bare"] = {"group": "bare", "task": ["a", "b"]}
    tasks["through"] = {"group": "through", "task": ["bare", "c"], "aggregate_metric_list": acc}
    for name, config in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture
def ours(house, monkeypatch):
    monkeypatch.setattr("spp_lite.recover.evaluation._task_manager", lambda ours_only: house)


@pytest.fixture
def requests(monkeypatch):
    """What lm-eval asks the model, and what it gets: [(texts, context ids, answer ids), (log-likelihood, greedy)]."""
    seen = []
    from lm_eval.models.huggingface import HFLM

    def spy(self, given, **kwargs):
        found = plain(self, given, **kwargs)
        seen.extend(zip(given, found, strict=True))
        return found

    plain = HFLM._loglikelihood_tokens
    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", spy)
    return seen


def small(**config):
    torch.manual_seed(0)
    tokenizer = load_tokenizer(resolve("tiny"))
    given = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.3,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**given | config)).eval(), tokenizer


@pytest.mark.parametrize(
    "asked, parts",
    [
        (["inner"], ["inner"]),  # not inner, a and b
        (["nested"], ["nested"]),
        (["inner", "c"], ["inner", "c"]),
        (["bare"], ["a", "b"]),  # lm-eval gives it no score: a name for its parts
        (["through"], ["through"]),
        (["a_and_c", "b"], ["a", "c", "b"]),
    ],
    ids=" ".join,
)
def test_the_average_is_over_what_was_asked_a_group_once_by_lm_evals_own_score(ours, house, asked, parts):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = small()
    theirs = simple_evaluate(HFLM(pretrained=model, tokenizer=tokenizer), tasks=asked, task_manager=house)["results"]
    table = evaluate(model, tokenizer, asked, progress=False)
    assert average_accuracy(table) == pytest.approx(sum(theirs[name]["acc,none"] for name in parts) / len(parts))
    assert set(table.loc[table["group"] == "", "task"]) == set(parts)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert average_accuracy(again) == average_accuracy(table)


@pytest.mark.parametrize(
    "rows, named",
    [
        ([("a", "acc", float("nan")), ("b", "acc", 0.5)], "a has no acc"),
        ([("a", "exact_match", 1.0), ("b", "acc", 0.5)], "a has no acc"),
        ([("a", "acc", float("inf"))], "a has no acc"),
        ([], "the table is empty"),
    ],
)
def test_no_average_hides_a_missing_part(rows, named):
    with pytest.raises(ValueError, match=named):
        average_accuracy(pd.DataFrame(rows, columns=["task", "metric", "value"]))


def test_evaluation_is_of_the_model_as_given_and_leaves_it_so(ours):
    """lm-eval's HFLM ties the head again, calls eval() and gives the tokenizer a padding token."""
    model, tokenizer = small(tie_word_embeddings=True, attention_dropout=0.5)
    other, _ = small(tie_word_embeddings=False)
    other.load_state_dict(model.state_dict())
    head = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1)))
    model.lm_head.weight, other.lm_head.weight = head, torch.nn.Parameter(head.detach().clone())  # trained apart
    model.train()
    model.model.layers[0].eval()
    tokenizer.pad_token = None
    modes = [module.training for module in model.modules()]
    before, config, state = fingerprint(model), model.config.to_dict(), (torch.get_rng_state(), random.getstate())
    found = evaluate(model, tokenizer, ["b"], progress=False)
    text = "a few words of text to be scored"
    assert perplexity(model, tokenizer, text, length=8) == perplexity(other, tokenizer, text, length=8)
    assert fingerprint(model) == before and model.lm_head.weight is head and model.config.to_dict() == config
    assert [module.training for module in model.modules()] == modes and "tie_weights" not in vars(model)
    assert tokenizer.pad_token is None
    assert torch.equal(state[0], torch.get_rng_state()) and state[1] == random.getstate()
    pd.testing.assert_frame_equal(found, evaluate(other, tokenizer, ["b"], progress=False))


def test_every_question_is_zero_shot_with_one_bos_and_scored_in_float32(ours, requests):
    model, tokenizer = small()
    table = evaluate(model.bfloat16(), tokenizer, ["shots"], progress=False)
    texts = [texts for (texts, _, _), _ in requests]
    assert {question.count("word") for question, _ in texts} == {1}  # not the three examples of the task's file
    right = {"acc": 0, "acc_norm": 0}
    for i in range(0, len(requests), 2):
        values = []
        for (_, context, answer), (value, _) in requests[i : i + 2]:
            assert context.count(tokenizer.bos_token_id) == 1 and context[0] == tokenizer.bos_token_id not in answer
            logits = model(torch.tensor([context + answer])).logits[0, len(context) - 1 : -1]
            expected = logits.detach().float().log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
            assert value == pytest.approx(float(expected), rel=2e-2)  # the logits' own rounding differs by batch
            assert value != float(torch.tensor(value).bfloat16())
            values.append(value)
        gold = (i // 2 * (i // 2)) % 3 % 2
        lengths = [len(answer) for _, answer in texts[i : i + 2]]
        right["acc"] += (values[1] > values[0]) == gold
        right["acc_norm"] += (values[1] / lengths[1] > values[0] / lengths[0]) == gold
    for row in table.itertuples():
        assert row.value == right[row.metric] / 40


def test_neither_batches_nor_an_earlier_limit_change_a_score(ours):
    model, tokenizer = small()
    whole = evaluate(model, tokenizer, ["inner"], progress=False)
    limited = evaluate(model, tokenizer, ["inner"], limit=2, batch_size=3, progress=False)
    assert set(limited["n"]) == {2, 4} and set(whole["n"]) == {3, 40, 43}
    pd.testing.assert_frame_equal(whole, evaluate(model, tokenizer, ["inner"], batch_size=1, progress=False))


def broken(kind):
    model, tokenizer = small()
    with torch.no_grad():
        if kind == "nan weight":
            model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
        elif kind == "one nan row of the head":
            model.lm_head.weight[7] = float("nan")
        elif kind == "overflow":
            model.model.norm.weight.fill_(3e38)
    return model, tokenizer


@pytest.mark.parametrize("task", ["b", "words"])
@pytest.mark.parametrize("kind", ["nan weight", "one nan row of the head", "overflow"])
def test_a_broken_model_has_no_score(ours, kind, task):
    named = {"nan weight": "layers.1.mlp.up_proj.weight", "overflow": "activations overflow"}.get(
        kind, "lm_head.weight"
    )
    model, tokenizer = broken(kind)
    with pytest.raises(ValueError, match=named):
        evaluate(model, tokenizer, [task], progress=False)
    with pytest.raises(ValueError, match=named):
        perplexity(model, tokenizer, "some words", progress=False)


def test_minus_infinity_and_a_loss_that_exp_cannot_hold_are_no_scores(ours):
    model, tokenizer = small()

    def only_the_first_token(module, inputs, output):
        output.logits[..., 1:] = float("-inf")

    with model.register_forward_hook(only_the_first_token):
        with pytest.raises(ValueError, match=r"log-likelihood of ' .*' is -inf"):
            evaluate(model, tokenizer, ["b"], progress=False)
        with pytest.raises(ValueError, match="the mean loss over the text is inf"):
            perplexity(model, tokenizer, "some words")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    with pytest.raises(ValueError, match="the mean loss over the text is"):
        perplexity(model, tokenizer, "some words of a text")


@pytest.mark.parametrize(
    "given, named",
    [
        ({"limit": 0}, "limit=0: give a whole number, 1 or more"),
        ({"limit": -3}, "limit=-3"),
        ({"limit": 0.5}, "limit=0.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"tasks": []}, r"tasks=\[\] names no task"),
        ({"tasks": ["inner", "a"]}, "task a is asked for twice"),
        ({"tasks": ["/no/such/folder"]}, "lm-eval has no task /no/such/folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_model_is_used(ours, given, named):
    with pytest.raises(ValueError, match=named):
        evaluate(None, None, **{"tasks": ["a"], **given})


@pytest.mark.parametrize(
    "given, named",
    [
        ({"length": 0}, "length=0"), ({"length": 1}, "length=1"), ({"length": 129}, "length=129 is more than the 128 tokens"),
        ({"stride": 0}, "stride=0: give"), ({"length": 8, "stride": 9}, "stride=9: give a whole number, 1 to 8"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)  # fmt: skip
def test_zero_is_a_value_and_not_the_default(given, named):
    with pytest.raises(ValueError, match=named):
        perplexity(*small(), "hello world " * 20, **given)


@pytest.mark.parametrize("error", [ConnectionError, FileNotFoundError, KeyError, AssertionError, RuntimeError, OSError])
def test_data_that_cannot_be_read_are_one_sentence_whatever_a_library_raises(house, monkeypatch, error):
    class Manager:
        all_tasks = ("arc_easy",)

        def load(self, names):
            assert constants.HF_HUB_OFFLINE  # nobody tries again for half a minute
            raise error("no\nway")

    monkeypatch.setattr("spp_lite.recover.evaluation._task_manager", lambda ours_only: Manager())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=rf"data of task arc_easy cannot be read.*{error.__name__}: .*no") as found:
        evaluate(None, None, ["arc_easy"])
    assert "\n" not in str(found.value) and constants.HF_HUB_OFFLINE is False


def test_a_task_without_accuracy_is_told_before_a_mean_is_wanted(ours):
    assert set(load_tasks(["words", "a"])["tasks"]) == {"words", "a"}
    with pytest.raises(ValueError, match="task words gives exact_match, no acc to take a mean of"):
        load_tasks(["a", "words"], metric="acc")


def test_tokens_that_the_model_does_not_have_and_questions_that_do_not_fit_are_named(ours):
    model, tokenizer = small(vocab_size=40)
    with pytest.raises(ValueError, match="the model has 40 embeddings, none for token"):
        evaluate(model, tokenizer, ["a"], progress=False)
    with pytest.raises(ValueError, match="the model has 40 embeddings, none for token"):
        perplexity(model, tokenizer, "some words")
    model, tokenizer = small(max_position_embeddings=9)
    with pytest.warns(UserWarning, match="3 questions lost their start: the model takes 9 tokens"):
        evaluate(model, tokenizer, ["a"], progress=False)
    model, tokenizer = small(max_position_embeddings=4)
    with pytest.raises(ValueError, match="an answer of 7 tokens exceeds the 4 of the model"):
        evaluate(model, tokenizer, ["a"], progress=False)


@pytest.mark.parametrize("vocabulary, batch", [(1_000, 8), (50_000, 1), (128_000, 1)])
def test_windows_at_a_time_fit_the_memory_whatever_the_vocabulary(vocabulary, batch):
    model = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(vocabulary, 1))
    assert fitting(model, 8, 2048) == batch and fitting(model, 8, 1) == 8
    assert fitting(model, 64, 128) == max(1, min(64, 2**27 // (128 * vocabulary)))


def test_of_a_long_text_so_many_tokens_are_scored():
    model, tokenizer = load("tiny")
    text = embedded("text", "validation.txt").read_text()
    ids = torch.tensor([tokenizer(text)["input_ids"][:100]])
    with torch.no_grad():
        expected = math.exp(model(input_ids=ids, labels=ids).loss)
    assert perplexity(model, tokenizer, text, tokens=100) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("parts", ["<s> $A </s>", "$A </s>"])
def test_a_tokenizer_that_ends_every_text_scores_as_one_that_does_not(tiny, parts):
    ended, plain = (copy.deepcopy(tiny[1]) for _ in range(2))
    ids = [(token, tiny[1].convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    for words, single in ((ended, parts), (plain, parts.removesuffix(" </s>"))):
        used = [(token, number) for token, number in ids if token in single]
        words.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=used)
    assert ended("a")["input_ids"][-1] == tiny[1].eos_token_id
    tables = [
        evaluate(tiny[0], words, ["tiny_rte", "tiny_arc_easy"], limit=20, progress=False) for words in (ended, plain)
    ]
    pd.testing.assert_frame_equal(*tables)
    assert ended("a")["input_ids"][-1] == tiny[1].eos_token_id, "the caller's own is left alone"


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    "settings", [{"target_modules": ["embed_tokens", "q_proj"]}, {"trainable_token_indices": [5, 6]}]
)
def test_adapters_on_embeddings_are_scored(tiny, settings):
    model = peft.get_peft_model(copy.deepcopy(tiny[0]), peft.LoraConfig(r=2, **settings))
    texts = ["Ada lives in the north.", "Bruno has a drum."]
    assert perplexity(model, tiny[1], texts) == pytest.approx(perplexity(*tiny, texts), rel=1e-4)


def test_virtual_tokens_are_not_scored(tiny):
    config = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    model = peft.get_peft_model(copy.deepcopy(tiny[0]), config)
    for score in (
        lambda: perplexity(model, tiny[1], "Ada has a drum."),
        lambda: evaluate(model, tiny[1], ["tiny_rte"]),
    ):
        with pytest.raises(ValueError, match="puts tokens of its own before a text"):
            score()


def test_padding_on_the_left_is_not_read(tiny):
    rows = tokenize_records(load_alpaca("tiny").select(range(4)), tiny[1])
    padded = [{name: [filler] * 3 + row[name] for name, filler in
               (("input_ids", 0), ("attention_mask", 0), ("labels", -100))} for row in rows]  # fmt: skip
    assert record_loss(*tiny, padded) == pytest.approx(record_loss(*tiny, rows), rel=1e-4)
