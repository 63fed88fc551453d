import peft
import pytest
import torch
from transformers import TrainingArguments

from spp_lite import SppConfig, finetune, load, load_alpaca, prune
from spp_lite.experiment import zeros


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
