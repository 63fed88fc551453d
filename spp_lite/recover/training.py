"""finetune(): transformers.Trainer on Alpaca records; nothing hand-rolled.

Works for any model whose trainable parameters are marked: an SPP or other PEFT adapter, or a whole model.
"""

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from .data import tokenize_records


@dataclass
class FinetuneArguments:
    """What `spp-lite finetune` takes beside every field of transformers' TrainingArguments."""

    model: str | None = field(
        default=None, metadata={"help": "pruned: folder or hub id (default: $SPP_MODEL, else tiny)"}
    )
    data: str | None = field(default=None, metadata={"help": "Alpaca JSON or hub id (default: $SPP_DATA, else tiny)"})
    r: int = field(default=16, metadata={"help": "row blocks of alpha"})
    scaling: float = field(default=2.0, metadata={"help": "s in W * (1 + s * R(alpha) * beta)"})
    dropout: float = field(default=0.0, metadata={"help": "on the input of the SPP branch; above 0 training is slower"})
    cutoff: int = field(default=512, metadata={"help": "tokens a record"})
    train_on_inputs: bool = field(default=False, metadata={"help": "count the prompt in the loss, as the authors do"})
    teacher: str | None = field(default=None, metadata={"help": "the dense model: learn its predictions, not the text"})


def finetune(
    model,
    dataset: Dataset,
    tokenizer,
    *,
    max_steps: int = 200,
    learning_rate: float = 4e-3,
    batch_size: int = 32,
    cutoff: int = 512,
    train_on_inputs: bool = False,
    seed: int = 42,
    teacher: nn.Module | None = None,
    args: TrainingArguments | None = None,
    callbacks: list | None = None,
    progress: bool = True,
) -> TrainOutput:
    """Train the model's trainable parameters on Alpaca records, or on rows that are tokenized already.

    args: a whole TrainingArguments; then max_steps, learning_rate, batch_size, seed and progress are not used. Its
    output_dir is where checkpoints go; a run that was stopped goes on from the last one there when
    args.resume_from_checkpoint is set. The defaults follow the authors' code: AdamW, weight decay 1e-3, warm-up over
    3 % of the steps, then linear decay. train_on_inputs: count the prompt in the loss too, as the authors do.
    teacher: the dense model; the loss is then KL(teacher ‖ model) at every token, prompt and answer alike.
    Returns transformers' TrainOutput; metrics["history"] holds the logged losses and learning rates.
    Raises ValueError when nothing is trainable or no record fits the cutoff.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter is trainable: insert an adapter first, e.g. get_peft_model(model, SppConfig())")
    rows = (
        dataset
        if "labels" in dataset.column_names
        else tokenize_records(dataset, tokenizer, cutoff=cutoff, train_on_inputs=train_on_inputs)
    )
    with tempfile.TemporaryDirectory(prefix="spp-lite-") as scratch:
        args = args or default_arguments(
            scratch,
            max_steps=max_steps,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
        trainer_class = Trainer if teacher is None else partial(_Distilling, teacher)
        trainer = trainer_class(model, args, data_collator=collator, train_dataset=rows, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)  # without a bar it would print every log; they are in the history
        cache, model.config.use_cache = model.config.use_cache, False
        try:
            output = trainer.train(resume_from_checkpoint=_checkpoint(args))
        finally:
            model.config.use_cache = cache
    model.eval()
    return output._replace(metrics={**output.metrics, "history": trainer.state.log_history})


class _Distilling(Trainer):
    """Self-distillation: the pruned model learns what its dense parent predicts, not what the records say."""

    def __init__(self, teacher: nn.Module, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval()
        self.model_accepts_loss_kwargs = False  # so that Trainer itself divides by the accumulation steps

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        real = inputs["attention_mask"][:, 1:].bool()
        given = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**given)
        with torch.no_grad():
            target = self.teacher(**given).logits[:, :-1][real].float().log_softmax(-1)
        found = outputs.logits[:, :-1][real].float().log_softmax(-1)
        loss = F.kl_div(found, target, reduction="batchmean", log_target=True)
        return (loss, outputs) if return_outputs else loss


def default_arguments(output_dir, *, max_steps, learning_rate, batch_size, seed, progress) -> TrainingArguments:
    """The authors' settings, without checkpoints or reports."""
    return TrainingArguments(
        output_dir=str(output_dir),
        max_steps=max_steps,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        weight_decay=1e-3,
        warmup_steps=0.03,
        lr_scheduler_type="linear",
        logging_steps=max(1, max_steps // 50),
        save_strategy="no",
        report_to="none",
        disable_tqdm=not progress,
        seed=seed,
        dataloader_pin_memory=False,
    )


def _checkpoint(args: TrainingArguments) -> str | bool:
    wanted = args.resume_from_checkpoint
    if wanted in (None, False, "False", "false"):
        return False
    if wanted in (True, "True", "true"):
        return (get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None) or False
    return wanted
