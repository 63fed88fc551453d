"""spp-lite prune | finetune | merge | evaluate | sweep | demo: the library's functions as commands.

The only file that prints, with cli_runs.py. Wrong input ends in one sentence and exit status 2.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from .cli_runs import add_calibration, add_demo, add_model, add_sweep, calibration


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="spp-lite", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (_add_prune, _add_finetune, _add_merge, _add_evaluate, add_demo, add_sweep):
        add(commands)
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "finetune":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        options.run(options, rest) if options.command == "finetune" else options.run(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"spp-lite {options.command}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _add_prune(commands) -> None:
    parser = commands.add_parser("prune", help="zero the least important weights of a model, save it")
    add_model(parser)
    parser.add_argument("--sparsity", required=True, help="50%%, 0.75, 2:4, …")
    parser.add_argument("--method", default="wanda", help="magnitude, wanda or sparsegpt")
    parser.add_argument("--skip", nargs="*", default=(), help="name patterns of linears to leave dense")
    parser.add_argument("--only", nargs="*", default=(), help="name patterns of the only linears to prune")
    parser.add_argument("--allocation", nargs="+", default=["uniform"], help="uniform, owl, or '*.down_proj=40%%' …")
    add_calibration(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.set_defaults(run=_prune)


def _prune(options) -> None:
    from .. import load, prune
    from ..models import save

    model, tokenizer = load(options.model)
    batches = None if options.method == "magnitude" else calibration(options, tokenizer)
    given = dict(pair.rsplit("=", 1) for pair in options.allocation if "=" in pair)
    chosen = {"skip": options.skip, "only": options.only, "allocation": given or options.allocation[0]}
    report = prune(model, batches, options.sparsity, method=options.method, **chosen)
    folder = save(model, tokenizer, options.out)
    report.table.to_csv(folder / "pruning_report.csv", index=False)
    print(report.table.to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote the pruned model and pruning_report.csv to {folder}")


def _add_finetune(commands) -> None:
    about = "train an SPP adapter; takes every field of TrainingArguments, or a YAML file"
    parser = commands.add_parser("finetune", add_help=False, help=about)
    parser.set_defaults(run=_finetune)


def _finetune(options, rest: list[str]) -> None:
    import peft
    from transformers import HfArgumentParser, TrainingArguments

    from .. import SppConfig, finetune, load, load_alpaca
    from ..recover.training import FinetuneArguments

    parser = HfArgumentParser((FinetuneArguments, TrainingArguments), prog="spp-lite finetune")
    if len(rest) == 1 and rest[0].endswith((".yaml", ".yml")):
        ours, args = parser.parse_yaml_file(rest[0])
    else:
        ours, args = parser.parse_args_into_dataclasses(rest)
    args.dataloader_pin_memory &= args.device.type != "cpu"  # torch warns where there is nothing to pin for
    records = load_alpaca(ours.data)
    model, tokenizer = load(ours.model)
    adapted = peft.get_peft_model(model, SppConfig(r=ours.r, scaling=ours.scaling, dropout=ours.dropout))
    kept = {"cutoff": ours.cutoff, "train_on_inputs": ours.train_on_inputs}
    teacher = load(ours.teacher)[0] if ours.teacher else None
    output = finetune(adapted, records, tokenizer, args=args, teacher=teacher, **kept)
    if args.process_index == 0:
        adapted.save_pretrained(args.output_dir)
        print(f"{output.global_step} steps, training loss {output.training_loss:.4f}; adapter in {args.output_dir}")


def _add_merge(commands) -> None:
    parser = commands.add_parser("merge", help="fold an adapter into its pruned model, prove every zero, save it")
    add_model(parser, required=True)
    parser.add_argument("--adapter", required=True, help="folder that finetune wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.set_defaults(run=_merge)


def _merge(options) -> None:
    import peft

    from .. import load, merge
    from ..models import save

    model, tokenizer = load(options.model)
    merged, report = merge(peft.PeftModel.from_pretrained(model, options.adapter))
    print(report.table.to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote the merged model to {save(merged, tokenizer, options.out)}")


def _add_evaluate(commands) -> None:
    parser = commands.add_parser("evaluate", help="lm-eval tasks and perplexity")
    add_model(parser)
    parser.add_argument("--adapter", help="adapter folder")
    parser.add_argument("--tasks", nargs="+", help="tiny, tiny_val, paper, mmlu or lm-eval task names")
    parser.add_argument("--text", type=Path, help="text file for perplexity")
    parser.add_argument("--limit", type=int, help="items a task")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.set_defaults(run=_evaluate)


def _evaluate(options) -> None:
    import peft

    from .. import evaluate, load, perplexity
    from ..experiment.table import write_table
    from ..recover.evaluation import default_tasks

    model, tokenizer = load(options.model)
    if options.adapter:
        model = peft.PeftModel.from_pretrained(model, options.adapter).eval()
    tasks = options.tasks or ([] if options.text else default_tasks(options.model))
    tables = []
    if tasks:
        tables.append(evaluate(model, tokenizer, tasks, limit=options.limit))
    if options.text:
        from ..recover.data import read_texts

        value = perplexity(model, tokenizer, read_texts(options.text), progress=True)
        tables.append(pd.DataFrame([{"task": options.text.name, "metric": "perplexity", "value": value}]))
    table = pd.concat(tables, ignore_index=True)
    print(table.to_string(index=False, float_format="{:.4f}".format))
    if options.out:
        print(f"wrote {write_table(table, options.out)}")
