"""What would teach nothing, teach the wrong thing or fill the zeros: said before the first step, in one sentence.

Knows models, adapters and rows of tokens. Trains nothing.
"""

import functools
import time
import warnings

import torch
from datasets import Dataset
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import TrainingArguments, get_scheduler

from ..adapter import norm_weights, unsaved
from ..adapter.base import is_compiled, require_outermost
from ..arguments import number, require_weights
from ..pruning.blocks import broken_weight, context, require_causal, vocabulary, zeros
from ..pruning.sparsity import measure
from ..storage import is_dense
from .data import IGNORED, require_whole

SLOW = 3.0  # bfloat16_slowdown() from which on a CPU emulates bfloat16
MANY = 0.05  # share of zeros from which on a weight was pruned


class Diverged(ValueError):
    """A loss that is no number."""


def check_trainable(model: nn.Module, norm_rate: float | None) -> None:
    """Raise ValueError where nothing, or not what is meant, would be trained; warn where zeros or steps would be lost."""
    require_causal(model)
    _check_state(model)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        way = "insert an adapter first, e.g. get_peft_model(model, SppConfig())"
        if isinstance(model, PeftModel):
            way = "load the adapter with PeftModel.from_pretrained(…, is_trainable=True)"
        raise ValueError(f"no parameter is trainable: {way}")
    if norm_rate is not None:
        number(norm_learning_rate=norm_rate)
        if not any(weight.requires_grad for weight in norm_weights(model)):
            way = "insert the adapter with modules_to_save=norm_names(model)"
            raise ValueError(f"norm_learning_rate={norm_rate}, but no norm is trainable: {way}")
    bare = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not module.weight._backward_hooks
        if not module.weight.is_meta and MANY < measure(module.weight.detach()) < 1  # 1: LoRA's B at its start
    ]
    if bare:
        way = "freeze them and insert an adapter, get_peft_model(model, SppConfig())"
        _warn(f"training fills the zeros of {len(bare)} trainable linears, {bare[0]} among them: {way}")
    if isinstance(model, PeftModel) and (lost := unsaved(model)):
        way = "name it in the adapter's modules_to_save"
        _warn(f"no checkpoint and no adapter folder will hold {lost[0]}, which is trained beside the adapter: {way}")
    coarse = [n for n, w in trained.items() if w.dtype in (torch.bfloat16, torch.float16) and "spp_" not in n]
    if coarse:
        kind = str(trained[coarse[0]].dtype).removeprefix("torch.")
        way = "load(dtype=torch.float32), and finetune(bf16=True) for speed"
        _warn(f"{len(coarse)} trained tensors are {kind}, {coarse[0]} among them, which rounds small steps away: {way}")


def _check_state(model: nn.Module) -> None:
    if not torch.is_grad_enabled():
        raise ValueError("gradients are switched off, by torch.no_grad() or set_grad_enabled(False): switch them on")
    if made := next((name for name, weight in model.named_parameters() if weight.is_inference()), None):
        raise ValueError(f"{made} was made in inference mode, where nothing is trained: load, and insert, outside it")
    require_outermost(model)
    if is_compiled(model):
        way = "insert the adapter into the plain one, and give TrainingArguments(torch_compile=True)"
        raise ValueError(f"the model was compiled before its adapter came: {way}")
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and (layer.merged or layer.disable_adapters):
            way = "is merged: call unmerge_adapter()" if layer.merged else "is disabled: call enable_adapter_layers()"
            raise ValueError(f"the adapter of {name} {way} first, or nothing of it would be trained")


def diverged(model: nn.Module, step: int, loss: float, rate: float) -> Diverged:
    """What a loss that is no number comes from: the step, or a weight of the base."""
    broken = broken_weight((name, weight) for name, weight in model.named_parameters() if not weight.requires_grad)
    way = f"{broken} is not finite, and is not trained: load the base model again"
    way = way if broken else f"use a smaller learning rate than {rate:g}"
    return Diverged(f"training diverged: the loss of step {step} is {float(loss)}: {way}")


def check_arguments(args: TrainingArguments, steps: int) -> None:
    """Raise ValueError for a schedule that cannot be; warn where all steps are warm-up, and of bfloat16 on a CPU that
    emulates it: a step then takes longer by far."""
    some = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    given = {"num_warmup_steps": args.get_warmup_steps(steps), "num_training_steps": steps}
    given["scheduler_specific_kwargs"] = args.lr_scheduler_kwargs
    try:
        schedule = get_scheduler(args.lr_scheduler_type, some, **given)
        for rate in getattr(schedule, "lr_lambdas", ()):  # what is wrong may show in the decay alone
            number(**{f"the schedule's factor at step {at}": rate(at) for at in (0, steps // 2, steps)})
    except (TypeError, ValueError, ArithmeticError) as error:
        name, options = args.lr_scheduler_type.value, args.lr_scheduler_kwargs or {}
        raise ValueError(f"lr_scheduler_type={name!r} with lr_scheduler_kwargs={options}: {error}") from None
    if args.get_warmup_steps(steps) >= steps:
        _warn(f"all {steps} steps are warm-up, whose first has a rate of 0: ask for more steps, or less warm-up")
    if args.bf16 and args.device.type == "cpu" and (times := bfloat16_slowdown()) > SLOW:
        slow = f"a matrix product takes {times:.0f} times as long as in float32"
        _warn(f"this CPU emulates bfloat16 ({slow}): train without bf16")


def check_gradients(trainer) -> None:
    """Warn of weights that no backward pass reached: AdamW keeps its moments from the first gradient on."""
    state = getattr(trainer.optimizer, "state", None)
    if not state or trainer.args.world_size > 1:
        return
    trained = [(name, weight) for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    idle = [name for name, weight in trained if weight not in state]
    if idle and len(idle) < len(trained):  # of all: the optimizer keeps its state by other names
        _warn(f"{len(idle)} of {len(trained)} trained tensors got no gradient, {idle[0]} among them: nothing uses them")


@functools.cache
def bfloat16_slowdown() -> float:
    """How many times as long this CPU takes for a product of two 256 × 256 matrices in bfloat16 as in float32.

    About 1 or less where it computes bfloat16 (AVX512-BF16, AMX); many where that is emulated. Measured once, in 0.1 s.
    """
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix, best[dtype] = torch.ones(256, 256, dtype=dtype), float("inf")
        for _ in range(4):
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.bfloat16] / best[torch.float32]


def check_teacher(teacher: nn.Module, model: nn.Module, args: TrainingArguments) -> None:
    """Raise ValueError for a teacher that is none, that does not fit, or that knows no more than the model."""
    require_weights(teacher)
    if args.label_smoothing_factor:
        raise ValueError(
            "label_smoothing_factor has no place beside a teacher, whose predictions are learned: set it to 0"
        )
    if not all(map(is_dense, teacher.parameters())):
        raise ValueError("the teacher is in a form for inference (to_sparse): load the dense model again")
    theirs, ours = teacher.config.get_text_config(), model.config.get_text_config()
    for setting in ("vocab_size", "num_hidden_layers", "hidden_size"):
        if (there := getattr(theirs, setting, None)) != (here := getattr(ours, setting, None)):
            raise ValueError(
                f"the teacher's {setting} is {there}, the model's {here}: name the dense model that was pruned"
            )
    shared = {id(weight) for weight in model.parameters()} & {id(weight) for weight in teacher.parameters()}
    dense, pruned = (zeros(one) for one in (teacher, model.get_base_model() if isinstance(model, PeftModel) else model))
    if shared or (dense > MANY and dense > 0.99 * pruned):
        what = "shares its weights with the model" if shared else f"has {dense:.0%} zeros, as many as the model"
        raise ValueError(f"the teacher {what}, and has nothing to teach it: load the dense model anew")


def check_rows(model: nn.Module, rows: Dataset, tokenizer) -> Dataset:
    """The rows that teach something; raises ValueError for tokens and lengths that the model does not take."""
    size = vocabulary(model)
    if "input_ids" not in rows.column_names:
        raise ValueError(
            f"the rows have {', '.join(rows.column_names)} and no input_ids: tokenize_records() makes them"
        )
    _check_tokens(rows, size)
    useful = [i for i, labels in enumerate(rows["labels"]) if any(label != IGNORED for label in labels[1:])]
    if not useful:
        raise ValueError(f"none of the {len(rows)} rows has a token that counts in the loss: all labels are {IGNORED}")
    if lost := len(rows) - len(useful):
        _warn(f"{lost} of {len(rows)} rows have no token that counts in the loss: left out")
    kept = rows.select(useful) if lost else rows
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= size:
        raise ValueError(
            f"the padding token's number {tokenizer.pad_token_id} has none of the model's {size} embeddings: "
            "set tokenizer.pad_token to one that has, e.g. tokenizer.eos_token"
        )
    longest, most = max(map(len, kept["input_ids"])), context(model)
    if longest > most:
        raise ValueError(f"a record has {longest} tokens, the model takes {most}: set cutoff to at most {most}")
    return kept


def _check_tokens(rows: Dataset, size: int) -> None:
    """Raise ValueError for a row whose lists differ in length, or that holds what is no token."""
    names = [name for name in ("input_ids", "labels", "attention_mask", "position_ids") if name in rows.column_names]
    for place, parts in enumerate(zip(*(rows[name] for name in names), strict=True)):
        lengths = [len(part) if isinstance(part, list) else "no list of" for part in parts]
        if len({*lengths}) > 1 or isinstance(lengths[0], str):
            have = " and ".join(f"{length} {name}" for length, name in zip(lengths, names, strict=True))
            raise ValueError(f"row {place} has {have}: one for every token, as a label {IGNORED} for none")
        for token in {*parts[0]} | ({*parts[1]} - {IGNORED}):
            if not 0 <= token < size:
                raise ValueError(
                    f"row {place} holds token {token}, the model has {size} embeddings: load its own tokenizer"
                )
        require_whole(dict(zip(names, parts, strict=True)), f"row {place}")
    if "position_ids" in names and len({len(ids) for ids in rows["input_ids"]}) > 1:
        raise ValueError(
            "the rows have position_ids and are of several lengths, which padding cannot mend: leave them out"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
