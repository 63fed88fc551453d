"""finetune(): transformers.Trainer on Alpaca records; nothing hand-rolled.

Works for any model whose trainable parameters are marked: an SPP or other PEFT adapter, or a whole model.
"""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import TrainOutput

from ..adapter import norm_weights
from ..arguments import number, require_tokenizer, require_weights, whole
from ..pruning.blocks import vocabulary
from .checkpoints import Note, whole_checkpoint
from .checks import (
    Diverged,
    check_arguments,
    check_gradients,
    check_rows,
    check_teacher,
    check_trainable,
    diverged,
)  # fmt: skip
from .data import collator, plain_rows, tokenize_records

AUTHORS = {"learning_rate": 4e-3, "weight_decay": 1e-3, "warmup_steps": 0.03, "lr_scheduler_type": "linear"}
LOGITS = 2**26  # values: a quarter GiB in float32, of which loss and backward make a few copies


def finetune(
    model, dataset: Dataset, tokenizer, *, max_steps: int = 200, learning_rate: float = 4e-3, batch_size: int = 32,
    cutoff: int = 512, train_on_inputs: bool = False, seed: int = 42, teacher: nn.Module | None = None, bf16: bool = False,
    norm_learning_rate: float | None = None, args: TrainingArguments | None = None, callbacks: list | None = None, progress: bool = True,
) -> TrainOutput:  # fmt: skip
    """Train the model's trainable parameters on Alpaca records, or on rows that are tokenized already.

    bf16: compute in bfloat16 (autocast: weights and factors keep their type), on a CPU that has it in half the time.
    args: a whole TrainingArguments; then max_steps, learning_rate, batch_size, seed, bf16 and progress are not used. Its
    output_dir is where checkpoints go; a run that was stopped goes on from the last whole one there when
    args.resume_from_checkpoint is set, if base, records and settings are still those that made it. The defaults follow
    the authors' code: AdamW, weight decay 1e-3, warm-up over 3 % of the steps, then linear decay. train_on_inputs:
    count the prompt in the loss too, as the authors do. teacher: the dense model; what it predicts and thinks is then
    learned, not what the records say: KL(teacher ‖ model) plus the distance of the hidden states, at the tokens that
    count in the loss. norm_learning_rate: of the norms' weights, where they are trained, as with
    SppConfig(modules_to_save=norm_names(model)); None: learning_rate. Returns transformers' TrainOutput;
    metrics["history"] holds the logged losses and learning rates. Raises ValueError for what would teach nothing or the
    wrong thing (checks.py), no record that fits the cutoff, and a loss that is not finite.

    >>> from peft import get_peft_model
    >>> from spp_lite import SppConfig, finetune, load, load_alpaca, prune
    >>> model, tokenizer = load("tiny")
    >>> _ = prune(model, sparsity="75%", method="magnitude", progress=False)
    >>> adapted = get_peft_model(model, SppConfig())
    >>> records = load_alpaca("tiny").select(range(32))
    >>> output = finetune(adapted, records, tokenizer, max_steps=2, batch_size=4, progress=False)
    >>> output.global_step, len(output.metrics["history"]) > 0
    (2, True)
    """
    _check_numbers(args, max_steps, batch_size, learning_rate, seed, cutoff)
    require_weights(model)
    require_tokenizer(tokenizer)
    check_trainable(model, norm_learning_rate)
    rows = plain_rows(dataset)
    if "labels" not in rows.column_names:
        rows = tokenize_records(rows, tokenizer, cutoff=cutoff, train_on_inputs=train_on_inputs)
    rows = check_rows(model, rows, tokenizer)
    given = {"max_steps": max_steps, "learning_rate": learning_rate, "batch_size": batch_size}
    given |= {"seed": seed, "progress": progress, "bf16": bf16}
    parts = _parts(batch_size, cutoff * vocabulary(model))
    with tempfile.TemporaryDirectory(prefix="spp-lite-") as scratch:
        args = args or default_arguments(scratch, **given, parts=parts)
        if (Path(args.output_dir) / "config.json").exists():
            raise ValueError(
                f"output_dir={args.output_dir} is a model's folder, which would take the adapter for its own"
            )
        if teacher is not None:
            check_teacher(teacher, model, args)
        check_arguments(args, _steps(args, len(rows)))
        note = Note(model, rows, args, teacher, norm_learning_rate)
        made = {"train_dataset": rows, "data_collator": collator(tokenizer)}
        made |= {"teacher": teacher, "norm_rate": norm_learning_rate, "note": note, "callbacks": callbacks}
        checkpoint = whole_checkpoint(model, args, note)  # Trainer would make the folder first
        with _as_it_was(model, args):
            trainer = _Trainer(model, args, **made)
            trainer.remove_callback(PrinterCallback)  # without a bar it would print every log; they are in the history
            output = _train(trainer, checkpoint)
            check_gradients(trainer)
    return output._replace(metrics={**output.metrics, "history": trainer.state.log_history, "made_by": note.made_by})


def _check_numbers(args: TrainingArguments | None, steps: int, batch: int, rate: float, seed: int, cutoff: int) -> None:
    if args is not None:
        if not isinstance(args, TrainingArguments):
            raise ValueError(f"args={args!r} is no TrainingArguments: make one, or leave it out and give max_steps")
        steps, rate, seed = args.max_steps, args.learning_rate, args.seed
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
        if args.eval_strategy != "no":
            raise ValueError(f"eval_strategy={args.eval_strategy.value!r}: nothing is held out here: evaluate() later")
        if steps == -1:  # as many as the epochs have
            whole(num_train_epochs=(steps := math.ceil(args.num_train_epochs)))
    whole(max_steps=steps, batch_size=batch, cutoff=cutoff)
    whole(0, seed=seed)
    number(learning_rate=rate)


def _steps(args: TrainingArguments, rows: int) -> int:
    """How many optimizer steps are asked for; ValueError where there is not one batch."""
    share = args.train_batch_size * args.world_size
    batches = rows // share if args.dataloader_drop_last else math.ceil(rows / share)
    if not batches:
        raise ValueError(f"dataloader_drop_last drops all: {rows} rows are fewer than a batch of {share}: leave it out")
    each = math.ceil(batches / args.gradient_accumulation_steps)
    return args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * each)


@contextmanager
def _as_it_was(model: nn.Module, args: TrainingArguments) -> Iterator[None]:
    """Trainer turns a model's cache off, and leaves it computing in bfloat16, in training mode and, when it is stopped,
    with noise in its embeddings; afterwards none is so. What diverged is put back, of an adapter."""
    cache, model.config.use_cache = getattr(model.config, "use_cache", None), False
    hooks = model.get_input_embeddings()._forward_hooks
    own, kept = list(hooks), args.world_size == 1 and isinstance(model, PeftModel)
    start = [(weight, weight.detach().clone()) for weight in model.parameters() if kept and weight.requires_grad]
    try:
        yield
    except Diverged:
        for weight, value in start:
            weight.data = value.to(weight.device)
        raise
    finally:
        model.eval()
        for key in hooks.keys() - own:
            del hooks[key]
        if cache is None:  # composite configs have none of their own
            del model.config.use_cache
        else:
            model.config.use_cache = cache
        extract_model_from_parallel(model, keep_fp32_wrapper=False)


def _train(trainer: Trainer, checkpoint: str | bool) -> TrainOutput:
    """Trainer.train(), but for a run that is finished already: Trainer would add a step to it each time it is started."""
    args = trainer.args
    if checkpoint:
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if _steps(args, len(trainer.train_dataset)) <= state.global_step:
            trainer._load_from_checkpoint(checkpoint)
            trainer.state = state
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            return TrainOutput(state.global_step, sum(losses) / len(losses) if losses else math.nan, {})
    return trainer.train(resume_from_checkpoint=checkpoint)


def default_arguments(
    output_dir, *, max_steps, learning_rate, batch_size, seed, progress, bf16: bool = False, parts: int = 1
) -> TrainingArguments:
    """The authors' settings, without checkpoints or reports. parts: a batch goes through the model in so many."""
    given = AUTHORS | {"learning_rate": learning_rate} | ({"warmup_steps": 0} if max_steps == 1 else {})
    return TrainingArguments(
        **given, output_dir=str(output_dir), max_steps=max_steps, seed=seed,
        per_device_train_batch_size=batch_size // parts, gradient_accumulation_steps=parts, report_to="none",
        logging_steps=max(1, max_steps // 50), save_strategy="no", disable_tqdm=not progress, dataloader_pin_memory=False,
        bf16=bf16, use_cpu=bf16 and not torch.accelerator.is_available(), include_num_input_tokens_seen="non_padding",
    )  # fmt: skip


def _parts(batch_size: int, logits: int) -> int:
    """In how many parts a batch is cut, so that the logits of one, `logits` a record, stay within a quarter GiB."""
    sizes = [size for size in range(batch_size, 1, -1) if batch_size % size == 0 and size * logits <= LOGITS]
    return batch_size // (sizes or [1])[0]


class _Trainer(Trainer):
    """Trainer that stops at a loss that is no number (Trainer itself logs the last good one) and that can distil: the
    pruned model then learns what its dense parent predicts, not what the records say."""

    def __init__(self, *args, teacher: nn.Module | None, norm_rate: float | None, note: Note, **kwargs) -> None:
        kwargs["callbacks"] = [one] if isinstance(one := kwargs["callbacks"], TrainerCallback | type) else one
        if wrong := [one for one in kwargs["callbacks"] or () if not isinstance(one, TrainerCallback)]:
            raise ValueError(f"callbacks: {wrong[0]!r} is no TrainerCallback: give an instance of one, in a list")
        super().__init__(*args, compute_loss_func=self._distance if teacher is not None else None, **kwargs)
        self.teacher = teacher if teacher is None else teacher.eval()
        if teacher is not None and not (hasattr(teacher, "hf_device_map") or getattr(teacher, "is_quantized", False)):
            teacher.to(self.args.device)
        self.norm_rate, self.note = norm_rate, note
        if self.is_deepspeed_enabled:  # ZeRO-3 sees a module's backward pass by its input's gradient
            self.model.enable_input_require_grads()

    def _save_checkpoint(self, model, trial) -> None:
        """Trainer's own, between a note of what made it and trainer_state.json: without the one it is not whole."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self.is_world_process_zero():
                self.note.begin(folder)
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own
            why = " ".join(str(error).split())[:200]
            raise OSError(f"{folder} cannot be written ({why}): the checkpoint before it is whole") from None

    def create_optimizer(self, *args, **kwargs):
        """Trainer's own, in which the norms have a learning rate of theirs."""
        optimizer = super().create_optimizer(*args, **kwargs)
        norms = {id(weight) for weight in norm_weights(self.model) if self.norm_rate is not None}
        for group in list(optimizer.param_groups):
            if own := [weight for weight in group["params"] if id(weight) in norms]:
                group["params"] = [weight for weight in group["params"] if id(weight) not in norms]
                optimizer.add_param_group({**group, "params": own, "lr": self.norm_rate})
        return optimizer

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise diverged(self.model, self.state.global_step + 1, loss, self.args.learning_rate)
        return loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.teacher is not None:
            inputs = {**inputs, "output_hidden_states": True}
            with torch.no_grad():
                self._target = self.teacher(**{k: v for k, v in inputs.items() if k != "labels"})
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _distance(self, outputs, labels, num_items_in_batch=None):
        """KL(teacher ‖ model) + mean over blocks of ‖h − h_teacher‖² / its variance, summed over the tokens of this batch
        that count (labels), divided by those of the whole accumulated batch."""
        real = labels[:, 1:] != -100
        pairs = [
            (outputs.logits, self._target.logits),
            *zip(outputs.hidden_states, self._target.hidden_states, strict=True),
        ]
        (found, target), _, *hidden = ([one[:, :-1][real].float() for one in pair] for pair in pairs)
        total = F.kl_div(found.log_softmax(-1), target.log_softmax(-1), reduction="sum", log_target=True)
        for ours, theirs in hidden:  # after every block
            total = total + ((ours - theirs).square().mean(-1) / theirs.var(-1)).sum() / len(hidden)
        return total / (real.sum() if num_items_in_batch is None else num_items_in_batch)
