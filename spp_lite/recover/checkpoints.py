"""Checkpoints of a training run: each carries what made it, and a run goes on from a whole one of its own alone.

Knows the files that transformers.Trainer writes. Knows nothing about losses.
"""

import hashlib
import json
import warnings
import zipfile
from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainingArguments

from ..adapter import check_adapter_weights
from ..models import environment, fingerprint

NOTE = "spp_run.json"  # beside every checkpoint: what made it
SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "max_grad_norm", "label_smoothing_factor",
    "bf16", "fp16",
)  # fmt: skip


class Note(TrainerCallback):
    """Writes beside every checkpoint what made it, and compares when a run is resumed."""

    def __init__(self, model, rows: Dataset, args: TrainingArguments, teacher, norm_rate: float | None) -> None:
        digest = hashlib.sha256(json.dumps([rows["input_ids"][:], rows["labels"][:]]).encode())
        adapters = {name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()}
        self.made_by = {
            "base": fingerprint(model, frozen=True),
            "records": digest.hexdigest()[:16],
            "adapter": json.loads(json.dumps(adapters, default=lambda value: sorted(map(str, value)))),
            "batch": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "seed": args.seed,
            "teacher": None if teacher is None else fingerprint(teacher),
            "norm_learning_rate": norm_rate,
            **{name: str(getattr(args, name)) for name in SETTINGS},  # a resumed run would keep the old ones
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
            if there.get(key) != now and (key in there or key not in SETTINGS):  # older notes lack them
                raise ValueError(
                    f"{checkpoint} was made with another {key} ({there.get(key)}, now {now}): go on with what made it, "
                    "or name another output_dir"
                )


def whole_checkpoint(model, args: TrainingArguments, note: Note) -> str | bool:
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
            named = path / model.active_adapters[0]  # PEFT's place for all but "default"
            check_adapter_weights(model, named if named.is_dir() else path)
        elif not list(path.glob("model*.safetensors")):
            raise ValueError(f"{path} holds an adapter, and the model is no PeftModel: insert it with get_peft_model")
        return str(path)
    return False


def _broken(checkpoint: Path) -> str:
    """Which file of a checkpoint is missing or was cut short; "" for none."""
    if not list(checkpoint.rglob("*.safetensors")):
        return "it has no .safetensors file"
    for path in (checkpoint / "trainer_state.json", *sorted(checkpoint.rglob("*.*"))):
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
