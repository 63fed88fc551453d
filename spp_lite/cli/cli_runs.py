"""What commands share: options, the recipe of an experiment, and what its learning rates are chosen by."""

import argparse
import math
from dataclasses import replace
from pathlib import Path

from . import watched


def at_least(low: float, kind: type = int):
    """An argparse type: a finite number, `low` or more."""

    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is no {'whole ' if kind is int else ''}number of {low} or more")
        return value

    return read


class Several(argparse.Action):
    """One value or more, together with those of the same flag further left: --skip a --skip b is --skip a b."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, nargs="+", **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(() if before is self.default else before), *values])


def path(text: str) -> Path:
    """An argparse type: a path, in which the shell may have left a ~ (as in --out=~/new)."""
    return Path(text).expanduser()


def add_model(parser, **kwargs) -> None:
    parser.add_argument("--model", help="'tiny', a folder or a hub id (default: $SPP_MODEL, else tiny)", **kwargs)


def add_device_map(parser) -> None:
    parser.add_argument("--device-map", help="auto: over GPUs, main memory and disk (default: all on one GPU)")


def add_calibration(parser) -> None:
    parser.add_argument("--data", help="'tiny', an Alpaca JSON or a hub id (default: $SPP_DATA, else tiny)")
    about = "texts: .jsonl with 'text', or plain (default: those of --data; of tiny alone its own)"
    parser.add_argument("--calibration", type=path, help=about)
    parser.add_argument("--calibration-samples", type=at_least(1), default=128)
    about = "tokens a sample (default: 128 for tiny, else 512)"
    parser.add_argument("--calibration-length", type=at_least(2), help=about)


def add_scores(parser) -> None:
    parser.add_argument("--tasks", action=Several, help="lm-eval tasks, text:FILE, or none (default: tiny, else paper)")
    parser.add_argument("--text", type=path, help="text file for perplexity (demo and sweep of tiny: the embedded one)")
    parser.add_argument("--text-tokens", type=at_least(2), help="of the text, score so many tokens (default: all)")
    parser.add_argument("--limit", type=at_least(1), help="items a task")
    parser.set_defaults(progress=watched())  # elsewhere one line a stage


def add_training(parser, batch_size: int) -> None:
    parser.add_argument("--batch-size", type=at_least(1), default=batch_size)
    parser.add_argument("--cutoff", type=at_least(1), help="tokens a record (default: 512)")
    about = "of the norms, with methods that end in +norms (default: the method's own)"
    parser.add_argument("--norm-learning-rate", type=at_least(0, float), help=about)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 (autocast): half the time where fast")


def _recipe(options):
    """The experiment's recipe; what would leave it without a score is refused before anything is read."""
    from .. import load_alpaca
    from ..experiment.recipe import Recipe
    from ..models import embedded, is_tiny, load_tokenizer, model_name, resolve
    from ..recover.data import held_out, read_texts
    from ..recover.evaluation import default_tasks, named

    name = model_name(options.model)
    tasks = [named(task) for task in options.tasks] if options.tasks else default_tasks(name)
    tasks = tasks[0] if len(tasks) == 1 else tasks  # "tiny" is told from ["tiny_rte", …]: it has a chance line
    if tasks == "none" and not options.text:
        raise ValueError("nothing would be scored: name --tasks, or a --text for perplexity")
    text = options.text or (embedded("text", "validation.txt") if is_tiny(name) else None)
    records, held = load_alpaca(options.data), None
    if tasks != "tiny":
        records, _, held = held_out(records, parts=2)
    training = {"max_steps": options.steps, "batch_size": options.batch_size}
    training |= {name: getattr(options, name, None) for name in ("cutoff", "norm_learning_rate", "bf16")}
    return Recipe(
        model=name,
        tasks=None if tasks == "none" else tasks,
        text="\n\n".join(read_texts(text)) if text else None,
        text_tokens=getattr(options, "text_tokens", None),
        limit=options.limit,
        records=records,
        held=held,
        calibration=calibration(options, load_tokenizer(resolve(name))),
        training={name: value for name, value in training.items() if value is not None and value is not False},
    )


def _held_out(recipe, options):
    """What learning rates are chosen by, of which no run trains on anything and which no run reports: our tasks'
    validation split, or records that are held out: the loss of their responses, and the perplexity of their texts."""
    from .. import load_alpaca
    from ..recover.data import held_out, prompt

    if recipe.tasks == "tiny":
        return replace(recipe, tasks="tiny_val")
    _, chosen, _ = held_out(load_alpaca(options.data), parts=2)
    texts = [prompt(record) + record["output"] for record in chosen]
    return replace(recipe, tasks=None, text="\n\n".join(texts), text_tokens=None, held=chosen)


def calibration(options, tokenizer):
    """Windows of the texts that the user names; else of the embedded ones for tiny; else of the Alpaca records."""
    import os

    from ..models import is_tiny
    from ..recover.data import calibration_batches, default_texts, read_texts

    tiny, data = is_tiny(options.model), options.data or os.environ.get("SPP_DATA")
    if options.calibration:
        texts = read_texts(options.calibration)
    elif tiny or data:
        texts = default_texts(model=options.model, data=data)
    else:
        raise ValueError("pruning needs calibration texts: name a file with --calibration, or records with --data")
    length = options.calibration_length or (128 if tiny else 512)
    shape = {"length": length, "batch_size": getattr(options, "calibration_batch", 8)}
    return calibration_batches(texts, tokenizer, samples=options.calibration_samples, **shape)
