"""Checkpoints of a training run: each carries what made it, and a run goes on from a whole one of its own alone.

Knows the files that transformers.Trainer writes. Knows nothing about losses.
"""

import hashlib
import json
import shutil
import warnings
import zipfile
from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments

from ..adapter import check_adapter_weights, unsaved
from ..models import environment, fingerprint

NOTE, STATE = "spp_run.json", "trainer_state.json"  # a checkpoint's first file, what made it, and its last
SHARDS = "pytorch_model_fsdp*/.metadata"  # of FSDP, where it keeps a checkpoint in shards: its only weights
SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "max_grad_norm", "label_smoothing_factor",
    "bf16", "fp16", "adam_beta1", "adam_beta2", "adam_epsilon", "data_seed", "neftune_noise_alpha", "lr_scheduler_kwargs",
    "train_sampling_strategy", "optim_args", "dataloader_drop_last",
)  # fmt: skip
UNTOLD = ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision")  # of an adapter


class Note:
    """What makes a run's checkpoints: stands in every one, and is compared when a run is resumed."""

    def __init__(self, model, rows: Dataset, args: TrainingArguments, teacher, norm_rate: float | None) -> None:
        digest = hashlib.sha256(json.dumps([rows["input_ids"][:], rows["labels"][:]]).encode())
        adapters = _told({name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()})
        self.made_by = {
            "base": fingerprint(model, frozen=True),
            "records": digest.hexdigest()[:16],
            "adapter": json.loads(json.dumps(adapters, default=lambda value: sorted(map(str, value)))),
            "batch": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "seed": args.seed,
            "teacher": None if teacher is None else fingerprint(teacher),
            "norm_learning_rate": norm_rate,
            **{name: str(getattr(args, name, None)) for name in SETTINGS},  # a resumed run would keep the old ones
        }

    def begin(self, checkpoint: Path) -> None:
        """Before anything else of it is written. Another's of the same step is no longer whole from here on."""
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / STATE).unlink(missing_ok=True)
        (checkpoint / NOTE).write_text(json.dumps(self.made_by | {"versions": environment()}, indent=2))

    def differs(self, checkpoint: Path) -> str:
        """What this run has otherwise than what made the checkpoint; "" for nothing."""
        if not (checkpoint / NOTE).is_file():
            warnings.warn(f"{checkpoint} has no {NOTE}: nobody can tell what base and records made it", stacklevel=2)
            return ""
        there = json.loads((checkpoint / NOTE).read_text())
        there["adapter"] = _told(there.get("adapter", {}))
        for key, now in self.made_by.items():
            if there.get(key) != now and (key in there or key not in SETTINGS):  # older notes lack them
                return f"was made with another {key} ({_change(there.get(key), now)})"
        return ""


def _told(adapters: dict[str, dict]) -> dict[str, dict]:
    """Without what changes nothing: a folder that was moved, another version of PEFT."""
    return {name: {key: one for key, one in each.items() if key not in UNTOLD} for name, each in adapters.items()}


def _change(then, now) -> str:
    """What is otherwise, of two settings or of the first that differs in two groups of them."""
    if isinstance(then, dict) and isinstance(now, dict):
        key = next(key for key in now | then if then.get(key) != now.get(key))
        return f"{key}: {_change(then.get(key), now.get(key))}"
    return f"{then}, now {now}"


def whole_checkpoint(model, args: TrainingArguments, note: Note) -> str | bool:
    """The last checkpoint, where one is wanted, that is whole and this run's own; what is passed over is named.

    Raises ValueError for one that was asked for by name, and where all, or the finished adapter, are another run's, which
    would be written over.
    """
    _require_own(args, note)
    wanted, others, torn = args.resume_from_checkpoint, {}, {}
    found = [path for path in Path(args.output_dir).glob("checkpoint-*") if path.name[11:].isdigit()]
    if wanted in (None, False, "False", "false"):
        _require_room(args, found)
        return False
    automatic = wanted in (True, "True", "true")
    if not automatic and not (found := [Path(wanted)])[0].is_dir():
        raise ValueError(f"resume_from_checkpoint={wanted}: there is no such folder; 'true' takes the last one")
    found.sort(key=lambda path: int("0" + path.name[11:]), reverse=True)
    for path in found:
        if problem := _broken(path):
            torn[path] = f"is not whole ({problem})"
        elif problem := note.differs(path) or _unfit(model, path):
            others[path] = problem
        else:
            break
    used = next((path for path in found if path not in torn and path not in others), None)
    for path, problem in others.items() if used is None else ():
        raise ValueError(f"{path} {problem}: go on with what made it, or name another output_dir")
    for path, problem in (torn | others).items():
        if not automatic:
            raise ValueError(f"the checkpoint {path} {problem}: name the one before it")
        instead = "the run starts anew" if used is None else "the one before it is used"
        warnings.warn(f"the checkpoint {path} {problem}: {instead}", stacklevel=2)
    if used is None:
        return False
    if args.save_total_limit and automatic:
        _thin(found[found.index(used) + args.save_total_limit :], used)
    return str(used)


def _require_own(args: TrainingArguments, note: Note) -> None:
    """Raise ValueError where the adapter of another run lies, which this one's would replace."""
    folder = Path(args.output_dir)
    if (folder / "adapter_config.json").is_file():
        known = (folder / NOTE).is_file()
        if problem := note.differs(folder) if known else f"nobody can tell the origin of (no {NOTE})":
            raise ValueError(f"{folder} holds an adapter that {problem}: name another output_dir")


def _require_room(args: TrainingArguments, found: list[Path]) -> None:
    """Raise ValueError where a new run would delete the checkpoints that an older one left."""
    if found and args.save_total_limit and args.save_strategy != "no":
        raise ValueError(
            f"output_dir holds {found[0].name} of an earlier run, which save_total_limit={args.save_total_limit} would "
            "delete: resume it, with resume_from_checkpoint, or name another output_dir"
        )


def _thin(older: list[Path], used: Path) -> None:
    """Delete what Trainer was about to when it was killed."""
    best = json.loads((used / STATE).read_text()).get("best_model_checkpoint") or ""
    for path in older:
        if path.name != Path(best).name:
            shutil.rmtree(path, ignore_errors=True)


def _unfit(model, checkpoint: Path) -> str:
    """Why the model cannot take the checkpoint's weights; "" where it can. Of shards the note alone tells."""
    if list(checkpoint.glob(SHARDS)):
        return ""
    if not isinstance(model, PeftModel):
        missing = not list(checkpoint.glob("model*.safetensors"))
        return "holds an adapter, and the model is no PeftModel" if missing else ""
    if lost := unsaved(model):
        return f"lacks {lost[0]}, which is trained beside the adapter: train it as one of modules_to_save"
    if len(model.active_adapters) > 1:
        return f"is of {len(model.active_adapters)} active adapters, of which Trainer loads one: train one at a time"
    named = checkpoint / model.active_adapters[0]  # PEFT's place for all but "default"
    try:
        check_adapter_weights(model, named if named.is_dir() else checkpoint)
    except ValueError as error:
        return f"does not fit: {error}"
    return ""


def _broken(checkpoint: Path) -> str:
    """Which file of a checkpoint is missing or was cut short; "" for none."""
    if not list(checkpoint.rglob("*.safetensors")) and not list(checkpoint.glob(SHARDS)):
        return "it has no .safetensors file"
    for path in (checkpoint / STATE, *sorted(checkpoint.rglob("*.*"))):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                safe_open(path, "pt")
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                return f"{path.name} was cut short"
        except (OSError, ValueError, SafetensorError) as error:
            return f"{path.name}: {error}"
    kept = [*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]  # DeepSpeed's lies in a folder of its own
    return "" if kept else "it has no optimizer state"
