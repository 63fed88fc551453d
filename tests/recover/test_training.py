import copy

import peft
import pytest
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

from spp_lite import SppConfig, finetune, load, load_alpaca, prune
from spp_lite.experiment.runs import zeros
from spp_lite.recover.data import prompt


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


def test_a_teacher_is_learned_at_every_token_whatever_the_answers_say(pruned, records):
    model, tokenizer = pruned
    dense, _ = load("tiny")
    wrong = records.map(lambda record: {"output": "wrong"})
    ids = tokenizer(prompt(records[0]) + records[0]["output"], return_tensors="pt")["input_ids"]

    def distance(student):
        with torch.no_grad():
            found, target = (one(input_ids=ids).logits.log_softmax(-1) for one in (student, dense))
        return float(F.kl_div(found, target, reduction="batchmean", log_target=True))

    before = distance(model)
    adapted = peft.get_peft_model(model, SppConfig(r=4))
    finetune(adapted, wrong, tokenizer, max_steps=20, learning_rate=3e-2, teacher=dense, progress=False)
    assert distance(adapted) < 0.8 * before


def test_a_teachers_loss_is_the_same_in_micro_batches(pruned, records, tmp_path):
    model, tokenizer = pruned
    losses = []
    for batch, accumulation in ((8, 1), (4, 2)):
        adapted = peft.get_peft_model(copy.deepcopy(model), SppConfig(r=4))
        args = TrainingArguments(
            output_dir=tmp_path, max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            logging_steps=1, report_to="none", disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        same = records.select([0] * 8)  # of one length: a mean of means is then the mean
        output = finetune(adapted, same, tokenizer, args=args, teacher=load("tiny")[0])
        losses.append(output.metrics["history"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
