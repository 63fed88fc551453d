import copy
import json
import re
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset, DatasetDict
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments, set_seed

from spp_lite import SppConfig, finetune, load, load_alpaca, merge, perplexity, prune, to_sparse
from spp_lite.adapter import load_adapter
from spp_lite.experiment.baselines import attach
from spp_lite.experiment.runs import Estimate
from spp_lite.pruning.blocks import zeros
from spp_lite.recover.data import prompt, tokenize_records
from spp_lite.recover.perplexity import record_loss
from spp_lite.recover.training import _parts


@pytest.fixture
def pruned():
    model, tokenizer = load("tiny")
    prune(model, None, "75%", method="magnitude", progress=False)
    return model, tokenizer


@pytest.fixture(scope="module")
def records():
    return load_alpaca("tiny").select(range(256))


def test_training_lowers_the_loss_and_keeps_every_zero(pruned, records):
    model, tokenizer = pruned
    before = zeros(model)
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    output = finetune(adapted, records, tokenizer, max_steps=12, learning_rate=1.5e-2, progress=False)
    losses = [entry["loss"] for entry in output.metrics["history"] if "loss" in entry]
    assert output.global_step == 12 and losses[-1] < losses[0]
    assert zeros(adapted.merge_and_unload()) == before >= 0.74
    assert not adapted.training


def test_nothing_to_train_is_said(pruned, records):
    model, tokenizer = pruned
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is trainable: insert an adapter first"):
        finetune(model, records, tokenizer)


def test_a_stopped_run_resumes_to_the_same_weights(records, tmp_path):
    def run(folder, stop_at=None, resume=None):
        model, tokenizer = load("tiny")
        prune(model, None, "75%", method="magnitude", progress=False)
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, SppConfig(r=4))
        args = TrainingArguments(
            output_dir=folder, max_steps=4, save_steps=2, learning_rate=1e-2, per_device_train_batch_size=8,
            report_to="none", disable_tqdm=True, resume_from_checkpoint=resume, dataloader_pin_memory=False, seed=1,
        )  # fmt: skip
        if stop_at:
            from transformers import TrainerCallback

            class Stop(TrainerCallback):
                def on_step_end(self, args, state, control, **_):
                    control.should_training_stop = state.global_step >= stop_at

            finetune(adapted, records, tokenizer, args=args, callbacks=[Stop()])
        else:
            finetune(adapted, records, tokenizer, args=args)
        return peft.get_peft_model_state_dict(adapted)

    whole = run(str(tmp_path / "a"))
    run(str(tmp_path / "b"), stop_at=2)
    assert not list((tmp_path / "b" / "checkpoint-2").glob("model*")), "a checkpoint holds the adapter alone"
    resumed = run(str(tmp_path / "b"), resume="True")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_teacher_is_learned_at_the_answers_whatever_they_say(pruned, records):
    model, tokenizer = pruned
    dense, _ = load("tiny")
    wrong = records.map(lambda record, number: {"output": records[number - 1]["output"]}, with_indices=True)
    ids = tokenizer(prompt(records[0]) + records[0]["output"], return_tensors="pt")["input_ids"]

    def distance(student):
        with torch.no_grad():
            pairs = [one(input_ids=ids, output_hidden_states=True) for one in (student, dense)]
        found, target = (one.logits[0, -4:].log_softmax(-1) for one in pairs)
        hidden = (one.hidden_states[2][0, -4:] for one in pairs)
        return float(F.kl_div(found, target, reduction="batchmean", log_target=True)), float(F.mse_loss(*hidden))

    before = distance(model)
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    finetune(adapted, wrong, tokenizer, max_steps=20, learning_rate=3e-2, teacher=dense, progress=False)
    assert all(after < 0.9 * old for after, old in zip(distance(adapted), before, strict=True))


def test_the_distance_to_a_teacher_is_what_its_docstring_says(pruned):
    """One step of plain gradient descent goes along the gradient of the loss, written out; prompts do not count."""
    (model, tokenizer), dense = pruned, load("tiny")[0]
    row = {"input_ids": [7, 8, 9, 10, 11], "attention_mask": [1] * 5, "labels": [-100, -100, 9, 10, 11]}
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, SppConfig(r=4, init_weights=False))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    ids = torch.tensor([row["input_ids"]])
    ours, theirs = (one(input_ids=ids, output_hidden_states=True) for one in (adapted, dense))
    there = slice(1, 4)  # the positions that predict tokens 2 to 4
    p, q = theirs.logits[0, there].softmax(-1), ours.logits[0, there].softmax(-1)
    loss = (p * (p / q).log()).sum() / 3
    for h, target in zip(ours.hidden_states[1:], theirs.hidden_states[1:], strict=True):
        share = ((h - target)[0, there] ** 2).mean(-1) / target[0, there].var(-1)
        loss = loss + share.mean() / (len(ours.hidden_states) - 1)
    expected = dict(zip(trained, torch.autograd.grad(loss, trained.values()), strict=True))
    sgd = {"optim": "sgd", "max_grad_norm": 0, "weight_decay": 0, "lr_scheduler_type": "constant"}
    args = arguments("unused", **sgd)
    finetune(adapted, Dataset.from_list([row]), tokenizer, args=args, teacher=dense)
    for name, gradient in expected.items():
        torch.testing.assert_close((before[name] - trained[name]) / args.learning_rate, gradient, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", ["spp", "direct", "masked-lora", "hira"])
def test_norms_are_trained_at_a_rate_of_their_own_saved_and_merged(pruned, records, tmp_path, kind):
    model, tokenizer = pruned
    plain = {name: value.clone() for name, value in model.state_dict().items() if "norm" in name}
    adapted = attach(copy.deepcopy(model), kind, norms=True)
    finetune(
        adapted, records, tokenizer, max_steps=2, learning_rate=0, norm_learning_rate=1e-2, batch_size=4, progress=False
    )
    adapted.save_pretrained(tmp_path)
    merged, report = merge(adapted)
    assert len(plain) == 13 and report.densification == 0 and not report.table["change"].any()
    assert all(float((merged.state_dict()[name] - old).abs().max()) > 5e-3 for name, old in plain.items())
    if kind != "masked-lora":
        again, _ = merge(load_adapter(copy.deepcopy(model), tmp_path))
        assert all(torch.equal(again.state_dict()[name], merged.state_dict()[name]) for name in plain)


def arguments(folder, **more):
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "dataloader_pin_memory": False}
    return TrainingArguments(output_dir=str(folder), **{**quiet, "max_steps": 1, "learning_rate": 1e-2, **more})


@pytest.mark.parametrize("taught", [False, True])
def test_the_update_is_the_same_however_a_batch_is_cut(pruned, tmp_path, taught):
    """Rows of 2 and of 30 tokens: a mean of means would weigh the short ones fifteen times as much."""
    model, tokenizer = pruned
    teacher = load("tiny")[0] if taught else None
    draw = torch.Generator().manual_seed(3)
    ids = [torch.randint(5, len(tokenizer), (n,), generator=draw).tolist() for n in (2, 3, 2, 5, 30, 29, 30, 17)]
    rows = Dataset.from_list([{"input_ids": x, "attention_mask": [1] * len(x), "labels": x} for x in ids])
    updates = []
    for pieces in (1, 2, 4, 8):
        torch.manual_seed(1)
        adapted = peft.get_peft_model(copy.deepcopy(model), SppConfig(r=4, init_weights=False))
        before = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
        sgd = {"optim": "sgd", "max_grad_norm": 0, "weight_decay": 0, "lr_scheduler_type": "constant"}
        cut = {"per_device_train_batch_size": 8 // pieces, "gradient_accumulation_steps": pieces}
        finetune(adapted, rows, tokenizer, args=arguments(tmp_path, **cut, **sgd), teacher=teacher)
        updates.append(torch.cat([(p - before[n]).flatten() for n, p in adapted.named_parameters() if n in before]))
    assert all((one - updates[0]).norm() < 1e-3 * updates[0].norm() for one in updates[1:])


OWN = "data_seed", "neftune_noise_alpha", "dataloader_drop_last", "lr_scheduler_kwargs", "train_sampling_strategy"


@pytest.fixture
def stopped(pruned, records, tmp_path):
    """A run with checkpoints after steps 2 and 4, and a function that goes on with it."""

    def go_on(model=None, data=records, resume="true", seed=1, steps=6, learning_rate=1e-2, **config):
        own = {name: config.pop(name) for name in {*OWN} & {*config}}
        adapted = peft.get_peft_model(model or copy.deepcopy(pruned[0]), SppConfig(r=4, **config))
        given = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "resume_from_checkpoint": resume}
        given |= {"learning_rate": learning_rate, "seed": seed}
        args = arguments(tmp_path / "run", **given, **own, per_device_train_batch_size=2)
        return finetune(adapted, data, pruned[1], args=args)

    go_on(resume=None, steps=4)
    return tmp_path / "run", go_on


def test_a_run_goes_on_only_with_what_made_it(stopped, records):
    folder, go_on = stopped
    other = load("tiny")[0]
    prune(other, None, "50%", method="magnitude", progress=False)
    same_mask = load("tiny")[0]
    prune(same_mask, None, "75%", method="magnitude", progress=False)
    same_mask.model.layers[0].mlp.up_proj.weight.data *= 1.01
    changes = [
        ({"model": other}, "another base"), ({"model": same_mask}, "another base"), ({"seed": 2}, "another seed"),
        ({"data": records.select(range(255))}, "another records"), ({"scaling": 1.0}, "another adapter"),
        ({"data_seed": 3}, "another data_seed"), ({"neftune_noise_alpha": 5.0}, "another neftune_noise_alpha"),
        ({"dataloader_drop_last": True}, "another dataloader_drop_last"),
        ({"lr_scheduler_kwargs": {"last_epoch": -1}}, "another lr_scheduler_kwargs"),
        ({"train_sampling_strategy": "group_by_length"}, "another train_sampling_strategy"),
    ]  # fmt: skip
    for change, message in changes:
        with pytest.raises(ValueError, match=rf"checkpoint-4 was made with {message} "):
            go_on(**change)
    assert go_on().global_step == 6 and (folder / "checkpoint-6").is_dir()


@pytest.mark.parametrize(
    "then, now, named",
    [
        ('"base": "', '"base": "another', r"another base \(another\w+, now \w+\)"),
        ('"r": 4', '"r": 8', r"another adapter \(default: r: 8, now 4\)"),
    ],
    ids=["base", "rank"],
)
def test_a_checkpoint_of_another_base_or_rank_is_passed_over_for_the_one_before_it(stopped, then, now, named):
    folder, go_on = stopped
    note = folder / "checkpoint-4" / "spp_run.json"
    own = note.read_text()
    note.write_text(own.replace(then, now))
    sentence = rf"^the checkpoint \S+/checkpoint-4 was made with {named}: the one before it is used$"
    with pytest.warns(UserWarning, match=sentence):
        assert go_on().global_step == 6
    assert note.read_text() == own, "step 4 was done again"


def test_a_base_that_was_moved_and_another_version_of_peft_are_the_same_run(stopped):
    folder, go_on = stopped
    note = folder / "checkpoint-4" / "spp_run.json"
    there = json.loads(note.read_text())
    moved = {"base_model_name_or_path": "/elsewhere", "peft_version": "0.1", "auto_mapping": {"a": "b"}}
    there["adapter"]["default"] |= moved  # as notes told it before
    note.write_text(json.dumps(there))
    assert go_on(resume=str(folder / "checkpoint-4")).global_step == 6


def test_a_run_whose_checkpoints_are_all_torn_starts_anew(stopped):
    folder, go_on = stopped
    lost = [path / "trainer_state.json" for path in folder.glob("checkpoint-*")]
    for path in lost:
        path.unlink()
    with pytest.warns(UserWarning, match=r"checkpoint-[24] is not whole \(trainer_state.json.*: the run starts anew"):
        assert go_on().global_step == 6
    assert all(path.is_file() for path in lost)


def test_a_run_that_cannot_go_on_leaves_no_folder(stopped):
    folder, go_on = stopped
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="there is no such folder"):
        go_on(resume=str(folder / "checkpoint-5"))
    assert not folder.exists()


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
def test_a_checkpoint_that_was_cut_short_is_passed_over(stopped, file):
    folder, go_on = stopped
    damaged = folder / "checkpoint-4" / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"checkpoint-4 is not whole .*name the one before it"):
        go_on(resume=str(folder / "checkpoint-4"))
    with pytest.warns(UserWarning, match=rf"checkpoint-4 is not whole \({file}.*the one before it is used"):
        output = go_on()
    assert output.global_step == 6 and output.metrics["history"][0]["step"] > 2
    with pytest.raises(ValueError, match="there is no such folder"):
        go_on(resume=str(folder / "checkpoint-5"))


@pytest.mark.parametrize("epochs, more", [(1.5, 2.0), (0.3, 0.6)])
def test_a_run_of_part_of_an_epoch_is_finished_once_and_goes_on_when_more_is_asked(
    pruned, records, tmp_path, epochs, more
):
    def run(epochs):
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
        given = {"max_steps": -1, "num_train_epochs": epochs, "save_strategy": "steps", "save_steps": 1}
        args = arguments(tmp_path, **given, per_device_train_batch_size=8, resume_from_checkpoint="true")
        return finetune(adapted, records.select(range(80)), pruned[1], args=args).global_step

    assert [run(epochs), run(epochs), run(more), run(more), run(epochs)] == [
        round(10 * e) for e in (epochs, epochs, *[more] * 3)
    ]


@pytest.mark.parametrize("end", ["stopped", "diverged"])
def test_a_run_that_ends_early_leaves_a_model_that_can_be_used(pruned, records, tmp_path, end):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    model, tokenizer = pruned
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    before = [weight.detach().clone() for weight in adapted.parameters()]
    rate, more = (1e30, []) if end == "diverged" else (1e-3, [Stop()])
    args = arguments(tmp_path, max_steps=8, learning_rate=rate, neftune_noise_alpha=5.0, per_device_train_batch_size=4)
    with pytest.raises(ValueError if end == "diverged" else KeyboardInterrupt):
        finetune(adapted, records, tokenizer, args=args, callbacks=more)
    same = all(map(torch.equal, adapted.parameters(), before))
    assert same == (end == "diverged") and not adapted.training and adapted.config.use_cache
    ids = torch.arange(5, 25)[None]
    hooks = adapted.get_input_embeddings()._forward_hooks
    assert not hooks and torch.equal(adapted.train()(ids).logits, adapted.eval()(ids).logits)


def test_an_error_of_a_callback_does_not_throw_the_training_away(pruned, records, tmp_path):
    class Full(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise ValueError("the disk of the log is full")

    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    args = arguments(tmp_path, max_steps=8, per_device_train_batch_size=4)
    with pytest.raises(ValueError, match="of the log is full"):
        finetune(adapted, records, pruned[1], args=args, callbacks=[Full()])
    assert any(weight.any() for name, weight in adapted.named_parameters() if "spp_beta" in name)


def test_checkpoints_of_an_earlier_run_are_not_what_a_limit_keeps(stopped, records, pruned):
    folder, _ = stopped
    adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
    given = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    with pytest.raises(
        ValueError, match=r"output_dir holds checkpoint-\d of an earlier run, which save_total_limit=1 would delete"
    ):
        finetune(adapted, records, pruned[1], args=arguments(folder, **given))
    assert len(list(folder.glob("checkpoint-*"))) == 2


def test_training_that_diverges_is_an_error(pruned, records):
    model, tokenizer = pruned
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    with pytest.raises(
        ValueError, match=r"training diverged: the loss of step \d+ is (nan|inf): use a smaller learning"
    ):
        finetune(adapted, records, tokenizer, max_steps=8, learning_rate=1e30, batch_size=4, progress=False)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"max_steps": 0}, "max_steps=0: give a whole number, 1 or more"),
        ({"batch_size": 0}, "batch_size=0: give a whole number, 1 or more"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: give"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: give"),
    ],
)
def test_settings_that_make_no_sense_are_named(pruned, records, given, message):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    with pytest.raises(ValueError, match=message):
        finetune(adapted, records, pruned[1], progress=False, **given)


def test_a_rate_of_nought_is_a_rate(pruned, records):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    finetune(adapted, records, pruned[1], max_steps=2, learning_rate=0, batch_size=4, progress=False)
    assert not any(p.any() for name, p in adapted.named_parameters() if "spp_beta" in name)


def test_what_cannot_be_trained_on_is_named(pruned, records, tmp_path):
    model, tokenizer = pruned
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    rows = Dataset.from_list([{"input_ids": [1, 9999], "attention_mask": [1, 1], "labels": [1, 9999]}])
    with pytest.raises(ValueError, match=r"row 0 holds token 9999, the model has \d+ embeddings"):
        finetune(adapted, rows, tokenizer, progress=False)
    padded = copy.deepcopy(tokenizer)
    padded.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ValueError, match=r"the padding token's number \d+ has none of the model's"):
        finetune(adapted, records, padded, progress=False)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a model's folder, which would take the adapter for its own"):
        finetune(adapted, records, tokenizer, args=arguments(tmp_path))
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(adapted.unload(), tmp_path / "adapter")
    with pytest.raises(ValueError, match="is_trainable=True"):
        finetune(loaded, records, tokenizer, progress=False)


def test_a_long_training_says_after_four_steps_how_long_it_will_be(monkeypatch):
    said, now = [], iter([10.0, 31.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Estimate(said.append)
    for step in range(1, 7):
        state = SimpleNamespace(global_step=step, max_steps=64, num_input_tokens_seen=700 * step)
        clock.on_step_end(None, state, None)
    assert said == ["7.0 s a step, 100 tokens/s: about 7 min of training left"]


def test_in_bfloat16_a_run_goes_nearly_as_in_float32_and_its_factors_stay_wide(pruned, records):
    losses = []
    for bf16 in (False, True):
        set_seed(0)
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
        output = finetune(
            adapted, records, pruned[1], max_steps=3, learning_rate=1e-2, batch_size=4, bf16=bf16, progress=False
        )
        losses.append([entry["loss"] for entry in output.metrics["history"] if "loss" in entry])
        assert merge(adapted)[1].logits_error < 1e-5  # in float32 again
        kinds = {parameter.dtype for parameter in adapted.parameters()}
        assert kinds == {torch.float32} and output.metrics["num_input_tokens_seen"] > 0
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=2e-2)


@pytest.mark.parametrize(
    "batch, logits, parts", [(8, 256 * 49152, 2), (32, 512 * 1500, 1), (7, 2**25, 7), (1, 2**30, 1)]
)
def test_a_batch_goes_through_in_parts_that_fit(batch, logits, parts):
    assert _parts(batch, logits) == parts


def wide():
    torch.manual_seed(0)
    sizes = {"vocab_size": 3200, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).eval()


@pytest.mark.parametrize(
    "teacher, more, message",
    [
        (lambda model: model, {}, "shares its weights with the model"),
        (lambda model: copy.deepcopy(model), {}, "has 7[45]% zeros, as many as the model"),
        (lambda model: wide(), {}, "teacher's num_hidden_layers is 2, the model's 6"),
        (lambda model: "tiny", {}, "a str is no model"),
        (lambda model: load("tiny")[0], {"label_smoothing_factor": 0.1}, "label_smoothing_factor has no place"),
    ],
)
def test_a_teacher_that_has_nothing_to_teach_is_refused(pruned, records, tmp_path, teacher, more, message):
    model, tokenizer = pruned
    teacher = teacher(model)
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    with pytest.raises(ValueError, match=message):
        finetune(adapted, records, tokenizer, args=arguments(tmp_path, **more), teacher=teacher)


def test_what_would_train_something_else_than_is_meant_is_said(pruned, records):
    model, tokenizer = pruned
    adapted = peft.get_peft_model(copy.deepcopy(model), SppConfig(r=4))
    given = {"max_steps": 1, "batch_size": 2, "progress": False}
    for rate, message in ((1e-2, "no norm is trainable"), (-1.0, "0 or more"), (float("nan"), "0 or more")):
        with pytest.raises(ValueError, match=message):
            finetune(adapted, records, tokenizer, norm_learning_rate=rate, **given)
    adapted.merge_adapter()
    with pytest.raises(ValueError, match=r"is merged: call unmerge_adapter\(\) first"):
        finetune(adapted, records, tokenizer, **given)
    adapted.unmerge_adapter()
    adapted.base_model.disable_adapter_layers()
    with pytest.raises(ValueError, match=r"is disabled: call enable_adapter_layers\(\) first"):
        finetune(adapted, records, tokenizer, **given)
    with pytest.warns(UserWarning, match="training fills the zeros of 42 trainable linears, model.layers.0"):
        finetune(copy.deepcopy(model), records, tokenizer, learning_rate=1e-5, **given)
    half = attach(copy.deepcopy(model).to(torch.bfloat16), "spp", norms=True)
    with pytest.warns(UserWarning, match=r"trained tensors are bfloat16, .*norm.* which rounds small steps away"):
        finetune(half, records, tokenizer, **given)


def test_rows_that_teach_nothing_and_rows_that_do_not_fit(pruned):
    model, tokenizer = pruned
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    empty = {"input_ids": [5, 6, 7], "attention_mask": [1] * 3, "labels": [9, -100, -100]}
    rows = Dataset.from_list([empty, empty | {"labels": [-100, 6, 7]}])
    with pytest.warns(UserWarning, match="1 of 2 rows have no token that counts in the loss: left out"):
        assert finetune(adapted, rows, tokenizer, max_steps=1, batch_size=1, progress=False).training_loss > 0
    with pytest.raises(ValueError, match="none of the 1 rows has a token that counts"):
        finetune(adapted, rows.select([0]), tokenizer, progress=False)
    long = Dataset.from_list([{name: [5] * 300 for name in ("input_ids", "attention_mask", "labels")}])
    with pytest.raises(ValueError, match="a record has 300 tokens, the model takes 256: set cutoff to at most 256"):
        finetune(adapted, long, tokenizer, progress=False)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda row: Dataset.from_list([row, {**row, "labels": [5, 6]}]),
            "row 1 has 3 input_ids and 2 labels and 3 att",
        ),
        (lambda row: Dataset.from_list([{**row, "labels": 1}]), "row 0 has 3 input_ids and no list of labels and"),
        (lambda row: Dataset.from_list([{"labels": [5, 6]}]), "the rows have labels and no input_ids"),
        (
            lambda row: DatasetDict(train=Dataset.from_list([row])),
            "DatasetDict is no table of rows: choose one .* train",
        ),
        (
            lambda row: Dataset.from_list([row]).to_iterable_dataset(),
            "IterableDataset is no table of rows: make it a Da",
        ),
    ],
)
def test_what_is_no_table_of_rows_is_named(pruned, make, message):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    row = {"input_ids": [5, 6, 7], "attention_mask": [1] * 3, "labels": [5, 6, 7]}
    with pytest.raises(ValueError, match=message):
        finetune(adapted, make(row), pruned[1], progress=False)


def test_rows_in_torchs_format_train_as_lists_do(pruned, records):
    rows = tokenize_records(records.select(range(8)), pruned[1])
    losses = []
    for each in (rows, rows.with_format("torch"), rows.with_format("numpy")):
        set_seed(0)
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
        losses.append(finetune(adapted, each, pruned[1], max_steps=2, batch_size=4, progress=False).training_loss)
    assert losses[0] == losses[1] == losses[2]


def test_a_last_batch_that_is_dropped_is_not_all(pruned, records, tmp_path):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    args = arguments(tmp_path, per_device_train_batch_size=8, dataloader_drop_last=True)
    with pytest.raises(ValueError, match="dataloader_drop_last drops all: 5 rows are fewer than a batch of 8"):
        finetune(adapted, records.select(range(5)), pruned[1], args=args)


def test_a_model_keeps_its_cache_switch(pruned, records, tmp_path):
    model, tokenizer = pruned
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    finetune(adapted, records, tokenizer, max_steps=1, batch_size=2, progress=False)
    merged, _ = merge(adapted)
    merged.save_pretrained(tmp_path)
    assert merged.config.use_cache and '"use_cache": true' in (tmp_path / "config.json").read_text()


def test_a_resumed_run_keeps_its_settings_and_a_finished_one_stays_finished(stopped):
    folder, go_on = stopped
    with pytest.raises(ValueError, match="checkpoint-4 was made with another learning_rate"):
        go_on(learning_rate=1e-3)
    first = go_on()
    again = go_on()
    assert first.global_step == again.global_step == 6
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_a_named_adapter_goes_on_where_it_was(pruned, records, tmp_path):
    def run(resume, steps):
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4), adapter_name="mine")
        given = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "resume_from_checkpoint": resume}
        args = arguments(tmp_path, **given, per_device_train_batch_size=2, logging_steps=1)
        return finetune(adapted, records, pruned[1], args=args)

    run(None, 2)
    output = run("true", 4)
    assert output.global_step == 4
    assert [entry["step"] for entry in output.metrics["history"] if "loss" in entry] == [1, 2, 3, 4]
    assert not (tmp_path / "checkpoint-2" / "adapter_model.safetensors").exists()


def test_the_side_of_the_padding_changes_no_loss(pruned, records, tmp_path):
    losses = []
    for side in ("right", "left"):
        words = copy.deepcopy(pruned[1])
        words.padding_side, words.model_input_names = side, ["input_ids"]
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
        given = {"max_steps": 1, "batch_size": 16, "progress": False, "train_on_inputs": True}
        losses.append(finetune(adapted, records.select(range(0, 256, 16)), words, **given).training_loss)
        assert words.padding_side == side
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    rows = tokenize_records(records.select(range(0, 256, 16)), pruned[1], train_on_inputs=True)
    assert losses[0] == pytest.approx(record_loss(*pruned, rows), rel=1e-4)


ROW = {"input_ids": [5, 6, 7], "attention_mask": [1] * 3, "labels": [5, 6, 7]}


@pytest.mark.parametrize(
    "rows, message",
    [
        ([ROW, ROW | {"input_ids": [5, -1, 7]}], "row 1 holds token -1, the model has"),
        ([ROW | {"input_ids": [5, -100, 7]}], "row 0 holds token -100, the model has"),
        ([ROW | {"labels": [-1, 6, 7]}], "row 0 holds token -1, the model has"),
        ([ROW | {"labels": [5, 6, 10**6]}], "row 0 holds token 1000000, the model has"),
        ([ROW | {"attention_mask": [1]}], "row 0 has 3 input_ids and 3 labels and 1 attention_mask"),
        ([ROW | {"attention_mask": [0, 1, 1]}], "row 0 has labels that count at padding, where attention_mask is 0"),
        ([ROW | {"attention_mask": None}], "row 0 has 3 input_ids and 3 labels and no list of attention_mask"),
        (
            [ROW | {"position_ids": [0, 1, 2]}, {key: [1, 1] for key in ROW} | {"position_ids": [0, 1]}],
            "the rows have position_ids and are of several lengths",
        ),
    ],
)
def test_rows_that_hold_no_tokens_are_named(pruned, rows, message):
    with pytest.raises(ValueError, match=message):
        finetune(peft.get_peft_model(pruned[0], SppConfig(r=4)), rows, pruned[1], progress=False)


@pytest.mark.parametrize(
    "positions, mask, at", [([0, 1, 0], 1, 2), ([3, 0, 1], 1, 1), ([0, 0, 1], 1, 1), ([1, 0, 1], 0, None)]
)
def test_packed_rows_whose_records_would_see_each_other_are_refused(pruned, positions, mask, at):
    """A mask of ones, which padding makes, is all that the model looks at; padding before a text is no record."""
    labels = ROW["labels"] if mask else [-100, *ROW["labels"][1:]]
    rows = [ROW | {"position_ids": positions, "attention_mask": [mask, 1, 1], "labels": labels}] * 4
    batch = {name: torch.tensor([values]) for name, values in rows[0].items()}
    adapted, given = (
        peft.get_peft_model(pruned[0], SppConfig(r=4)),
        {"max_steps": 1, "batch_size": 2, "progress": False},
    )
    calls = [
        ("row 0", lambda: finetune(adapted, rows, pruned[1], **given).training_loss),
        ("record 0", lambda: record_loss(*pruned, rows)),
        (
            "calibration batch 0, row 0",
            lambda: prune(load("tiny")[0], [batch], "50%", progress=False).table["reached"].max(),
        ),
    ]
    for where, call in calls:
        if at is None:
            assert call() > 0
        else:
            with pytest.raises(
                ValueError, match=f"^{where}: position_ids start anew at token {at}: .* a row of its own"
            ):
                call()


@pytest.mark.parametrize(
    "name, options, why",
    [
        ("warmup_stable_decay", {}, "num_decay_steps"),
        ("cosine_with_min_lr", {"min_lr": "tiny"}, "unsupported operand"),
        ("cosine", {"foo": 1}, "unexpected keyword argument 'foo'"),
        ("cosine_with_restarts", {"num_cycles": "two"}, ""),
        ("polynomial", {"power": "2"}, ""),
    ],
)
def test_a_schedule_that_cannot_be_is_named_before_the_first_step(pruned, records, tmp_path, name, options, why):
    schedule = {"lr_scheduler_type": name, "lr_scheduler_kwargs": options, "warmup_steps": 2}  # it shows after them
    args = TrainingArguments(tmp_path, max_steps=4, **schedule, report_to="none", disable_tqdm=True)
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    message = f"lr_scheduler_type={name!r} with lr_scheduler_kwargs={options}: "
    with pytest.raises(ValueError, match=re.escape(message) + f".*{why}"):
        finetune(adapted, records, pruned[1], args=args)


def test_what_was_made_in_inference_mode_is_named(pruned, records):
    model = copy.deepcopy(pruned[0])
    with torch.inference_mode():
        adapted = peft.get_peft_model(model, SppConfig(r=4))
    with pytest.raises(ValueError, match=r"spp_alpha.default was made in inference mode, .* outside it"):
        finetune(adapted, records, pruned[1], max_steps=1, progress=False)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}


@pytest.mark.parametrize(
    "kind, settings, causal",
    [
        ("BertForMaskedLM", SMALL, False),
        ("BertLMHeadModel", SMALL, False),
        ("BertLMHeadModel", SMALL | {"is_decoder": True}, True),
        ("T5ForConditionalGeneration", T5, False),
        ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2}, True),
    ],
)
def test_a_model_that_sees_what_it_shall_predict_is_neither_trained_nor_scored(pruned, records, kind, settings, causal):
    made = getattr(transformers, kind)
    model = made(made.config_class(vocab_size=len(pruned[1]), **settings))
    works = nullcontext() if causal else pytest.raises(ValueError, match=f"{kind} is no causal language model, it sees")
    with works:
        perplexity(model, pruned[1], "Ada has a drum.")
    with works if causal else pytest.raises(ValueError, match="is no causal language model"):
        finetune(model, records.select(range(4)), pruned[1], max_steps=1, batch_size=2, progress=False)


def test_what_keeps_gradients_from_the_factors_is_named(pruned, records):
    adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
    with torch.no_grad(), pytest.raises(ValueError, match="gradients are switched off"):
        finetune(adapted, records, pruned[1], progress=False)
    with pytest.raises(ValueError, match="the model is compiled, its names are no plain model's: insert first"):
        peft.get_peft_model(torch.compile(pruned[0], backend="eager"), SppConfig(r=4))
    compiled = peft.get_peft_model(
        torch.compile(pruned[0], backend="eager"), peft.LoraConfig(target_modules=["q_proj"])
    )
    with pytest.raises(ValueError, match="the model was compiled before its adapter came: insert"):
        finetune(compiled, records, pruned[1], progress=False)


def test_a_base_that_is_not_finite_is_named_not_the_rate(pruned, records):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    adapted.base_model.model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(
        ValueError, match=r"the loss of step 1 is nan: .*model.norm.weight is not finite, and is not trained"
    ):
        finetune(adapted, records, pruned[1], max_steps=1, batch_size=2, progress=False)


def test_one_callback_needs_no_list(pruned, records):
    seen = []

    class Count(TrainerCallback):
        def on_step_end(self, *_, **__):
            seen.append(1)

    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    finetune(adapted, records, pruned[1], max_steps=2, batch_size=2, progress=False, callbacks=Count())
    assert len(seen) == 2


def test_a_model_for_inference_is_neither_adapted_nor_a_teacher(pruned, records):
    config = LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2)
    sparse = LlamaForCausalLM(config)
    prune(sparse, None, "90%", method="magnitude", progress=False)
    to_sparse(sparse)
    with pytest.raises(ValueError, match=r"the model is in a form for inference \(to_sparse\): load it again"):
        peft.get_peft_model(sparse, SppConfig(r=4))
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    with pytest.raises(ValueError, match="the teacher is in a form for inference"):
        finetune(adapted, records, pruned[1], teacher=sparse, max_steps=1, progress=False)


def test_what_no_checkpoint_would_hold_is_said_and_not_gone_on_with(pruned, records, tmp_path):
    def run(**more):
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
        adapted.base_model.model.model.norm.weight.requires_grad_(True)
        finetune(adapted, records, pruned[1], args=arguments(tmp_path, save_strategy="steps", save_steps=2, **more))

    with pytest.warns(UserWarning, match=r"no adapter folder will hold .*model.norm.weight, .*modules_to_save"):
        run(max_steps=2)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"checkpoint-2 lacks .*model.norm.weight"):
        run(max_steps=4, resume_from_checkpoint="true")


def test_two_active_adapters_are_not_gone_on_with(pruned, records, tmp_path):
    def run(**more):
        adapted = peft.get_peft_model(copy.deepcopy(pruned[0]), SppConfig(r=4))
        adapted.add_adapter("other", SppConfig(r=2))
        adapted.base_model.set_adapter(["default", "other"])
        finetune(adapted, records, pruned[1], args=arguments(tmp_path, save_strategy="steps", save_steps=2, **more))

    run(max_steps=2)
    with pytest.raises(ValueError, match="is of 2 active adapters, of which Trainer loads one: train one at a time"):
        run(max_steps=4, resume_from_checkpoint="true")


def test_a_run_of_warm_up_alone_is_said_and_one_step_by_default_has_none(pruned, records, tmp_path):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    with pytest.warns(UserWarning, match="all 2 steps are warm-up, whose first has a rate of 0"):
        finetune(adapted, records, pruned[1], args=arguments(tmp_path, max_steps=2, warmup_steps=5))
    before = {name: weight.clone() for name, weight in adapted.named_parameters() if "beta" in name}
    finetune(adapted, records, pruned[1], max_steps=1, batch_size=2, progress=False)
    assert any(not torch.equal(before[name], w) for name, w in adapted.named_parameters() if name in before)


def test_factors_that_nothing_uses_are_said(pruned, records):
    model = pruned[0]
    model.model.layers[0].mlp.spare = torch.nn.Linear(8, 8)  # as Mamba's dt_proj, whose weight alone is read
    with pytest.warns(UserWarning, match="have no zeros"):
        adapted = peft.get_peft_model(model, SppConfig(r=4))
    with pytest.warns(UserWarning, match=r"2 of \d+ trained tensors got no gradient, .*mlp.spare.spp_"):
        finetune(adapted, records, pruned[1], max_steps=2, batch_size=2, progress=False)


def test_what_trainer_would_refuse_in_its_own_words_is_named(pruned, records, tmp_path):
    adapted = peft.get_peft_model(pruned[0], SppConfig(r=4))
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=1)
    with pytest.raises(ValueError, match="eval_strategy='steps': nothing is held out here"):
        finetune(adapted, records, pruned[1], args=args)
    for wrong in (Estimate, [Estimate], [print]):
        with pytest.raises(ValueError, match="is no TrainerCallback: give an instance of one, in a list"):
            finetune(adapted, records, pruned[1], max_steps=2, callbacks=wrong, progress=False)
