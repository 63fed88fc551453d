"""spp-lite finetune: our options, and every field of transformers' TrainingArguments, on the command line or in YAML."""

import argparse
import json
import os
import re
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from . import watched


@dataclass
class FinetuneArguments:
    """What `spp-lite finetune` takes beside TrainingArguments."""

    model: str | None = field(default=None, metadata={"help": "pruned: folder or hub id ($SPP_MODEL, else tiny)"})
    data: str | None = field(default=None, metadata={"help": "Alpaca records or hub id ($SPP_DATA, else tiny)"})
    form: str = field(default="spp", metadata={"help": "spp, or direct: W * (1 + R(alpha)) * (1 + beta), our variant"})
    r: int = field(default=16, metadata={"help": "row blocks of alpha"})
    scaling: float = field(default=2.0, metadata={"help": "s in W * (1 + s * R(alpha) * beta)"})
    dropout: float = field(default=0.0, metadata={"help": "on the input of the SPP branch; above 0 training is slower"})
    cutoff: int = field(default=512, metadata={"help": "tokens a record"})
    train_on_inputs: bool = field(default=False, metadata={"help": "count the prompt in the loss, as the authors do"})
    norm_learning_rate: float | None = field(default=None, metadata={"help": "train the norms too, at this rate"})
    teacher: str | None = field(
        default=None, metadata={"help": "the dense model: learn its predictions and hidden states, not the text"}
    )


def add(parser) -> None:
    """The options of `spp-lite finetune`; those of TrainingArguments are only named: listing them takes seconds."""
    parser.usage = "spp-lite finetune [FILE.yaml] [options] [--any-field-of-TrainingArguments VALUE …]"
    parser.epilog = (
        "Every field of transformers.TrainingArguments is an option too, as --max-steps or --max_steps: --output-dir, "
        "--learning-rate, --num-train-epochs, --per-device-train-batch-size, --save-steps, --bf16, --seed, "
        "--resume-from-checkpoint, … Its defaults hold, but for the authors' learning rate of 4e-3, weight decay of 1e-3 and "
        "warm-up over 3 % of the steps. A YAML file holds the same names; what the command line says counts more."
    )
    for one in fields(FinetuneArguments):
        flag = {"nargs": "?", "const": "True"} if one.type is bool else {}
        about = f"{one.metadata['help']} (default: {one.default})"
        for name in dict.fromkeys((one.name.replace("_", "-"), one.name)):  # both spellings, the first is shown
            parser.add_argument(f"--{name}", dest=one.name, default=argparse.SUPPRESS, help=about, **flag)
            about = argparse.SUPPRESS


def run(options) -> None:
    """Insert the factors, train them, save the adapter."""
    import peft
    from transformers import set_seed
    from transformers.integrations import unset_hf_deepspeed_config

    from .. import SppConfig, finetune, load, load_alpaca
    from ..adapter import norm_names
    from ..models import environment, model_name, require_writable
    from ..writing import alone

    ours, args = _settings(options)
    folder = require_writable(args.output_dir, keep=(model_name(ours.model), ours.teacher))
    args.dataloader_pin_memory &= args.device.type != "cpu"  # torch warns where there is nothing to pin for
    records = load_alpaca(ours.data)
    unset_hf_deepspeed_config()  # ZeRO-3 would cut the model as it is loaded, before its mask is known
    model, tokenizer = load(ours.model)
    set_seed(args.seed)  # the start of alpha, on every rank alike
    norms = None if ours.norm_learning_rate is None else norm_names(model)
    kept = {name: getattr(ours, name) for name in ("form", "r", "scaling", "dropout")}
    adapted = peft.get_peft_model(model, SppConfig(**kept, modules_to_save=norms))
    kept = {name: getattr(ours, name) for name in ("cutoff", "train_on_inputs", "norm_learning_rate")}
    teacher = load(ours.teacher)[0] if ours.teacher else None
    with alone(folder) if args.process_index == 0 else nullcontext():
        output = finetune(adapted, records, tokenizer, args=args, teacher=teacher, **kept)
        trained = _trained(adapted)
        if args.process_index == 0:
            ours.model, ours.data = model_name(ours.model), str(ours.data or os.environ.get("SPP_DATA") or "tiny")
            made_by = {"versions": environment(), "steps": output.global_step}
            _save(adapted, trained, asdict(ours) | output.metrics["made_by"] | made_by, folder)
            print(f"{output.global_step} steps, training loss {output.training_loss:.4f}; adapter in {args.output_dir}")


def _trained(adapted) -> dict:
    """What was trained, whole: of FSDP and ZeRO-3 every process gives its shards."""
    from peft.utils.integrations import gather_params_ctx
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    with gather_params_ctx([weight for weight in adapted.parameters() if weight.requires_grad]):
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return get_model_state_dict(adapted, options=whole)


def _save(adapted, trained: dict, made_by: dict, folder: Path) -> None:
    """The adapter and what made it, beside checkpoints and whatever else is there; its settings come last."""
    from ..recover.checkpoints import NOTE
    from ..writing import added

    with added(folder, last="adapter_config.json") as new:
        new.mkdir()
        if (folder / "README.md").is_file():
            shutil.copy(folder / "README.md", new)  # PEFT writes into what is there
        adapted.save_pretrained(new, state_dict=trained)
        (new / NOTE).write_text(json.dumps(made_by, indent=2))


def _settings(options):
    """(FinetuneArguments, TrainingArguments): of the YAML file, then of the command line."""
    from transformers import HfArgumentParser, TrainingArguments

    from ..recover.training import AUTHORS

    rest = list(options.rest)
    words = [word for name, value in AUTHORS.items() for word in (f"--{name}", str(value))]
    words += [] if watched() else ["--disable_tqdm", "True"]
    words += _read_yaml(rest.pop(0)) if rest and not rest[0].startswith("-") else []
    words += rest
    for one in fields(FinetuneArguments):
        if hasattr(options, one.name):
            words += [f"--{one.name}", getattr(options, one.name)]
    settings = {"prog": "spp-lite finetune", "allow_abbrev": False, "conflict_handler": "resolve"}
    parser = HfArgumentParser((FinetuneArguments, TrainingArguments), **settings)
    parser.add_argument("--report_to", "--report-to", nargs="+", default="none")  # transformers' own takes one word
    parser.error = _refuse  # argparse would print every field first
    ours, args, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if unknown:
        raise ValueError(f"{' '.join(unknown)}: no option of finetune and no field of TrainingArguments: see --help")
    if args.eval_strategy != "no":
        raise ValueError("--eval-strategy: nothing is held out here: leave it out, and use `spp-lite evaluate` later")
    return ours, args


def _refuse(message: str):
    raise ValueError(f"{message}: see `spp-lite finetune --help`")


def _json(settings: dict) -> str:
    """Settings within a setting; YAML takes 1e-5, without a point, for a word."""
    numeral = re.compile(r"[-+]?\d+e[-+]?\d+", re.IGNORECASE)
    words = {key for key, value in settings.items() if isinstance(value, str) and numeral.fullmatch(value)}
    return json.dumps({key: float(value) if key in words else value for key, value in settings.items()})


def _read_yaml(name: str) -> list[str]:
    """A YAML file's settings as words of a command line; a later word counts more."""
    import yaml

    if not Path(name).is_file():
        raise ValueError(f"there is no file {name}: name a YAML file with settings, or give --options")
    try:
        given = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not YAML: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{name} holds no settings: write one 'name: value' a line")
    words = []
    for key, value in given.items():
        key = str(key)  # YAML reads "off" as false
        if value is not None:
            value = "no" if value is False and key.endswith("strategy") else value  # YAML's word for false
            value = "none" if value == [] else value
            values = value if isinstance(value, list) else [_json(value) if isinstance(value, dict) else value]
            words += [f"--{key}={values[0]}"] if len(values) == 1 else [f"--{key}", *map(str, values)]
    return words
