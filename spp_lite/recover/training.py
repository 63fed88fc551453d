"""finetune(): transformers.Trainer on Alpaca records; nothing hand-rolled.

Works for any model whose trainable parameters are marked: an SPP or other PEFT adapter, or a whole model.
"""

import hashlib
import json
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import TrainOutput

from ..adapter import check_adapter_weights
from ..models import environment, fingerprint
from .data import tokenize_records

LOGITS = 2**26  # values: a quarter GiB in float32, of which loss and backward make a few copies
NOTE = "spp_run.json"  # beside every checkpoint: what made it


def finetune(
    model, dataset: Dataset, tokenizer, *, max_steps: int = 200, learning_rate: float = 4e-3, batch_size: int = 32,
    cutoff: int = 512, train_on_inputs: bool = False, seed: int = 42, teacher: nn.Module | None = None, bf16: bool = False,
    args: TrainingArguments | None = None, callbacks: list | None = None, progress: bool = True,
) -> TrainOutput:  # fmt: skip
    """Train the model's trainable parameters on Alpaca records, or on rows that are tokenized already.

    bf16: compute in bfloat16 (autocast: weights and factors keep their type), on a CPU that has it in half the time.
    args: a whole TrainingArguments; then max_steps, learning_rate, batch_size, seed, bf16 and progress are not used. Its
    output_dir is where checkpoints go; a run that was stopped goes on from the last whole one there when
    args.resume_from_checkpoint is set, if base, records and settings are still those that made it. The defaults follow
    the authors' code: AdamW, weight decay 1e-3, warm-up over 3 % of the steps, then linear decay. train_on_inputs:
    count the prompt in the loss too, as the authors do. teacher: the dense model; the loss is then KL(teacher ‖ model)
    per token, prompt and answer alike. Returns transformers' TrainOutput; metrics["history"] holds the logged losses
    and learning rates. Raises ValueError when nothing is trainable, no record fits the cutoff, a token has no
    embedding, or the loss is not finite.
    """
    if args is None and (max_steps < 1 or batch_size < 1 or not learning_rate >= 0):
        raise ValueError(
            f"max_steps={max_steps} and batch_size={batch_size} must be at least 1, learning_rate={learning_rate} at least 0"
        )
    _require_trainable(model)
    rows = _rows(model, dataset, tokenizer, cutoff, train_on_inputs, teacher)
    given = {"max_steps": max_steps, "learning_rate": learning_rate}
    given |= {"batch_size": batch_size, "seed": seed, "progress": progress, "bf16": bf16}
    parts = _parts(batch_size, cutoff * model.get_input_embeddings().num_embeddings)
    with tempfile.TemporaryDirectory(prefix="spp-lite-") as scratch:
        args = args or default_arguments(scratch, **given, parts=parts)
        if (Path(args.output_dir) / "config.json").exists():
            raise ValueError(
                f"output_dir={args.output_dir} is a model's folder, which would take the adapter for its own"
            )
        note = _Note(model, rows, args, teacher)
        trainer = _Trainer(
            model, args, teacher=teacher, train_dataset=rows, callbacks=[*(callbacks or []), note],
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)  # without a bar it would print every log; they are in the history
        cache, model.config.use_cache = model.config.use_cache, False
        try:
            output = trainer.train(resume_from_checkpoint=_checkpoint(model, args, note))
        finally:
            model.config.use_cache = cache
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # it would go on in bfloat16 for good
    model.eval()
    return output._replace(metrics={**output.metrics, "history": trainer.state.log_history, "made_by": note.made_by})


def default_arguments(
    output_dir, *, max_steps, learning_rate, batch_size, seed, progress, bf16: bool = False, parts: int = 1
) -> TrainingArguments:
    """The authors' settings, without checkpoints or reports. parts: a batch goes through the model in so many."""
    return TrainingArguments(
        output_dir=str(output_dir), max_steps=max_steps, learning_rate=learning_rate, seed=seed, weight_decay=1e-3,
        per_device_train_batch_size=batch_size // parts, gradient_accumulation_steps=parts, warmup_steps=0.03, lr_scheduler_type="linear", report_to="none",
        logging_steps=max(1, max_steps // 50), save_strategy="no", disable_tqdm=not progress, dataloader_pin_memory=False,
        bf16=bf16, use_cpu=bf16 and not torch.accelerator.is_available(), include_num_input_tokens_seen="non_padding",
    )  # fmt: skip


def _parts(batch_size: int, logits: int) -> int:
    """In how many parts a batch is cut, so that the logits of one, `logits` a record, stay within a quarter GiB."""
    sizes = [size for size in range(batch_size, 1, -1) if batch_size % size == 0 and size * logits <= LOGITS]
    return batch_size // (sizes or [1])[0]


def _require_trainable(model) -> None:
    if any(parameter.requires_grad for parameter in model.parameters()):
        return
    way = "insert an adapter first, e.g. get_peft_model(model, SppConfig())"
    if isinstance(model, PeftModel):
        way = "load the adapter with PeftModel.from_pretrained(…, is_trainable=True)"
    raise ValueError(f"no parameter is trainable: {way}")


def _rows(model, dataset: Dataset, tokenizer, cutoff: int, train_on_inputs: bool, teacher) -> Dataset:
    """Tokens and labels, every token of which has an embedding."""
    rows = dataset
    if "labels" not in dataset.column_names:
        every = train_on_inputs or teacher is not None
        rows = tokenize_records(dataset, tokenizer, cutoff=cutoff, train_on_inputs=every)
    elif teacher is not None:  # it has something to say about every token
        rows = rows.map(lambda row: {"labels": row["input_ids"]}, load_from_cache_file=False)
    size = model.get_input_embeddings().num_embeddings
    highest = max(max(ids) for ids in rows["input_ids"])
    if highest >= size:
        raise ValueError(f"the records hold token {highest}, the model has {size} embeddings: load its own tokenizer")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= size:
        raise ValueError(
            f"the padding token's number {tokenizer.pad_token_id} has none of the model's {size} embeddings: "
            "set tokenizer.pad_token to one that has, e.g. tokenizer.eos_token"
        )
    if teacher is not None and teacher.config.get_text_config().vocab_size != model.config.get_text_config().vocab_size:
        raise ValueError("teacher and model have vocabularies of other sizes: name the dense model that was pruned")
    return rows


class _Trainer(Trainer):
    """Trainer that stops at a loss that is no number (Trainer itself logs the last good one) and that can distil: the
    pruned model then learns what its dense parent predicts, not what the records say."""

    def __init__(self, *args, teacher: nn.Module | None = None, **kwargs) -> None:
        super().__init__(*args, compute_loss_func=self._distance if teacher is not None else None, **kwargs)
        self.teacher = teacher if teacher is None else teacher.eval().to(self.args.device)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise ValueError(
                f"training diverged: the loss of step {self.state.global_step + 1} is {float(loss)}: use a smaller "
                f"learning rate than {self.args.learning_rate:g}"
            )
        return loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.teacher is not None:
            with torch.no_grad():
                self._target = self.teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _distance(self, outputs, labels, num_items_in_batch=None):
        """KL(teacher ‖ model), summed over this batch's tokens, divided by those of the whole accumulated batch."""
        real = labels[:, 1:] != -100
        found, target = (logits[:, :-1][real].float().log_softmax(-1) for logits in (outputs.logits, self._target))
        count = real.sum() if num_items_in_batch is None else num_items_in_batch
        return F.kl_div(found, target, reduction="sum", log_target=True) / count


class Estimate(TrainerCallback):
    """Tells `say`, after four steps, how long training will take, where that is more than a minute."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 1:  # the first is slower
            self.start, self.seen = time.perf_counter(), state.num_input_tokens_seen
        if state.global_step == 4:
            seconds, tokens = time.perf_counter() - self.start, state.num_input_tokens_seen - self.seen
            if (left := seconds / 3 * (state.max_steps - 4)) > 60:
                speed = f"{seconds / 3:.1f} s a step, {tokens / seconds:.0f} tokens/s"
                self.say(f"{speed}: about {left / 60:.0f} min of training left")


class _Note(TrainerCallback):
    """Writes beside every checkpoint what made it, and compares when a run is resumed."""

    def __init__(self, model, rows: Dataset, args: TrainingArguments, teacher) -> None:
        digest = hashlib.sha256(json.dumps([rows["input_ids"][:], rows["labels"][:]]).encode())
        adapters = {name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()}
        self.made_by = {
            "base": fingerprint(model, frozen=True),
            "records": digest.hexdigest()[:16],
            "adapter": json.loads(json.dumps(adapters, default=lambda value: sorted(map(str, value)))),
            "batch": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "seed": args.seed,
            "teacher": None if teacher is None else fingerprint(teacher),
        }

    def on_save(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / NOTE).write_text(json.dumps(self.made_by | {"versions": environment()}, indent=2))

    def compare(self, checkpoint: Path) -> None:
        """Raise ValueError when this run would go on with something else than what made the checkpoint."""
        if not (checkpoint / NOTE).is_file():
            warnings.warn(f"{checkpoint} has no {NOTE}: nobody can tell what base and records made it", stacklevel=2)
            return
        there = json.loads((checkpoint / NOTE).read_text())
        for key, now in self.made_by.items():
            if there.get(key) != now:
                raise ValueError(
                    f"{checkpoint} was made with another {key} ({there.get(key)}, now {now}): go on with what made it, "
                    "or name another output_dir"
                )


def _checkpoint(model, args: TrainingArguments, note: _Note) -> str | bool:
    """The last whole checkpoint, where one is wanted; one that was cut short is named and passed over."""
    wanted = args.resume_from_checkpoint
    if wanted in (None, False, "False", "false"):
        return False
    if automatic := wanted in (True, "True", "true"):
        found = [path for path in Path(args.output_dir).glob("checkpoint-*") if path.name[11:].isdigit()]
    elif not (found := [Path(wanted)])[0].is_dir():
        raise ValueError(f"resume_from_checkpoint={wanted}: there is no such folder; 'true' takes the last one")
    for path in sorted(found, key=lambda path: int("0" + path.name[11:]), reverse=True):
        if problem := _broken(path):
            if not automatic:
                raise ValueError(f"the checkpoint {path} is not whole ({problem}): name the one before it")
            warnings.warn(f"the checkpoint {path} is not whole ({problem}): the one before it is used", stacklevel=2)
            continue
        note.compare(path)
        if isinstance(model, PeftModel):
            check_adapter_weights(model, path)
        return str(path)
    return False


def _broken(checkpoint: Path) -> str:
    """Which file of a checkpoint is missing or was cut short; "" for none."""
    if not list(checkpoint.glob("*.safetensors")):
        return "it has no .safetensors file"
    for path in (checkpoint / "trainer_state.json", *sorted(checkpoint.iterdir())):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                safe_open(path, "pt")
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                return f"{path.name} was cut short"
        except (OSError, ValueError, SafetensorError) as error:
            return f"{path.name}: {error}"
    return "" if list(checkpoint.glob("optimizer*")) else "it has no optimizer state"
