"""spp-lite prune | finetune | merge | evaluate | sweep | demo: the library's functions as commands.

The only file that prints. Wrong input ends in one sentence and exit status 2.
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd

SUMMARY = ("method", "sparsity", "zeros", "accuracy", "perplexity", "loss_first", "loss_last", "seconds")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="spp-lite", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (_add_prune, _add_finetune, _add_merge, _add_evaluate, _add_demo):
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


def _add_model(parser, **kwargs) -> None:
    parser.add_argument("--model", help="'tiny', a folder or a hub id (default: $SPP_MODEL, else tiny)", **kwargs)


def _add_calibration(parser) -> None:
    parser.add_argument("--data", help="'tiny', an Alpaca JSON or a hub id (default: $SPP_DATA, else tiny)")
    parser.add_argument("--calibration", type=Path, help="texts: .jsonl with 'text', or plain (default: the records)")
    parser.add_argument("--calibration-samples", type=int, default=128)
    parser.add_argument("--calibration-length", type=int, help="tokens a sample (default: 128 for tiny, else 512)")


def _add_prune(commands) -> None:
    parser = commands.add_parser("prune", help="zero the least important weights of a model, save it")
    _add_model(parser)
    parser.add_argument("--sparsity", required=True, help="50%%, 0.75, 2:4, …")
    parser.add_argument("--method", default="wanda", help="magnitude, wanda or sparsegpt")
    parser.add_argument("--skip", nargs="*", default=(), help="name patterns of linears to leave dense")
    parser.add_argument("--only", nargs="*", default=(), help="name patterns of the only linears to prune")
    parser.add_argument("--allocation", nargs="+", default=["uniform"], help="uniform, owl, or '*.down_proj=40%%' …")
    _add_calibration(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.set_defaults(run=_prune)


def _prune(options) -> None:
    from . import load, prune
    from .models import save

    model, tokenizer = load(options.model)
    batches = None if options.method == "magnitude" else _calibration(options, tokenizer)
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

    from . import SppConfig, finetune, load, load_alpaca
    from .training import FinetuneArguments

    parser = HfArgumentParser((FinetuneArguments, TrainingArguments), prog="spp-lite finetune")
    if len(rest) == 1 and rest[0].endswith((".yaml", ".yml")):
        ours, args = parser.parse_yaml_file(rest[0])
    else:
        ours, args = parser.parse_args_into_dataclasses(rest)
    args.dataloader_pin_memory &= args.device.type != "cpu"  # torch warns where there is nothing to pin for
    model, tokenizer = load(ours.model)
    adapted = peft.get_peft_model(model, SppConfig(r=ours.r, scaling=ours.scaling, dropout=ours.dropout))
    records = load_alpaca(ours.data)
    output = finetune(adapted, records, tokenizer, args=args, cutoff=ours.cutoff, train_on_inputs=ours.train_on_inputs)
    if args.process_index == 0:
        adapted.save_pretrained(args.output_dir)
        print(f"{output.global_step} steps, training loss {output.training_loss:.4f}; adapter in {args.output_dir}")


def _add_merge(commands) -> None:
    parser = commands.add_parser("merge", help="fold an adapter into its pruned model, prove every zero, save it")
    _add_model(parser, required=True)
    parser.add_argument("--adapter", required=True, help="folder that finetune wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.set_defaults(run=_merge)


def _merge(options) -> None:
    import peft

    from . import load, merge
    from .models import save

    model, tokenizer = load(options.model)
    merged, report = merge(peft.PeftModel.from_pretrained(model, options.adapter))
    print(report.table.to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote the merged model to {save(merged, tokenizer, options.out)}")


def _add_evaluate(commands) -> None:
    parser = commands.add_parser("evaluate", help="lm-eval tasks and perplexity")
    _add_model(parser)
    parser.add_argument("--adapter", help="adapter folder")
    parser.add_argument("--tasks", nargs="+", help="tiny, tiny_val, paper, mmlu or lm-eval task names")
    parser.add_argument("--text", type=Path, help="text file for perplexity")
    parser.add_argument("--limit", type=int, help="items a task")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.set_defaults(run=_evaluate)


def _evaluate(options) -> None:
    import peft

    from . import evaluate, load, perplexity
    from .experiment import write_table

    model, tokenizer = load(options.model)
    if options.adapter:
        model = peft.PeftModel.from_pretrained(model, options.adapter).eval()
    tasks = options.tasks or ([] if options.text else [_default_tasks(options.model)])
    tables = []
    if tasks:
        names = tasks[0] if len(tasks) == 1 else tasks
        tables.append(evaluate(model, tokenizer, names, limit=options.limit))
    if options.text:
        from .data import read_texts

        value = perplexity(model, tokenizer, read_texts(options.text), progress=True)
        tables.append(pd.DataFrame([{"task": options.text.name, "metric": "perplexity", "value": value}]))
    table = pd.concat(tables, ignore_index=True)
    print(table.to_string(index=False, float_format="{:.4f}".format))
    if options.out:
        print(f"wrote {write_table(table, options.out)}")


def _add_demo(commands) -> None:
    parser = commands.add_parser("demo", help="the whole job: prune, insert SPP, train, merge, evaluate, plot")
    _add_model(parser)
    parser.add_argument("--sparsity", nargs="+", default=["50%", "2:4", "75%", "90%"])
    parser.add_argument("--method", default="wanda", help="magnitude, wanda or sparsegpt")
    _add_calibration(parser)
    parser.add_argument("--tasks", nargs="+", help="lm-eval tasks, 'none' for none (default: tiny, else paper)")
    parser.add_argument("--text", type=Path, help="text file for perplexity")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--learning-rate", type=float, help="default: 5e-2 for tiny, else 4e-3")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--cutoff", type=int, default=512)
    parser.add_argument("--limit", type=int, help="items a task")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for demo.csv, demo.png and models")
    parser.add_argument("--save-models", action="store_true", help="also save each merged model")
    parser.set_defaults(run=_demo)


def _demo(options) -> None:
    from .evaluation import chance_accuracy
    from .experiment import dense_and_recovered, write_table
    from .models import environment, save
    from .plotting import plot_accuracy_vs_sparsity

    recipe = _recipe(options)
    print(", ".join(f"{name} {value}" for name, value in environment().items()))
    rows = []
    stages = dense_and_recovered(recipe, options.sparsity, say=lambda stage: print(f"== {stage}", flush=True))
    for row, model, tokenizer in stages:
        rows.append(row)
        table = write_table(pd.DataFrame(rows), options.out / "demo.csv")
        if options.save_models and row["method"] == "spp":
            name = f"{row['sparsity'].replace(':', 'of').rstrip('%')}-spp"
            print(f"wrote the merged model to {save(model, tokenizer, options.out / name)}")
    result = pd.DataFrame(rows)
    value = "accuracy" if recipe.tasks else "perplexity"
    chance = chance_accuracy() if recipe.tasks == "tiny" else None
    figure = plot_accuracy_vs_sparsity(result, value=value, chance=chance, title=f"{recipe.model}, {recipe.pruner}")
    figure.savefig(options.out / "demo.png", dpi=120)
    columns = [name for name in SUMMARY if name in result]
    print(result[columns].to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    print(f"wrote {table} and {options.out / 'demo.png'}")


def _recipe(options):
    from . import load_alpaca
    from .data import read_texts
    from .experiment import Recipe
    from .models import load_tokenizer, resolve

    name = options.model or os.environ.get("SPP_MODEL", "tiny")
    tasks = options.tasks or [_default_tasks(name)]
    rate = options.learning_rate or (5e-2 if name == "tiny" else 4e-3)
    return Recipe(
        model=name,
        records=load_alpaca(options.data),
        calibration=_calibration(options, load_tokenizer(resolve(name))),
        tasks=None if tasks == ["none"] else tasks[0] if len(tasks) == 1 else tasks,
        text="\n\n".join(read_texts(options.text)) if options.text else None,
        pruner=options.method,
        r=options.r,
        limit=options.limit,
        training={"max_steps": options.steps, "learning_rate": rate}
        | {"batch_size": options.batch_size, "cutoff": options.cutoff},
    )


def _default_tasks(name: str | None) -> str:
    return "tiny" if (name or os.environ.get("SPP_MODEL", "tiny")) == "tiny" else "paper"


def _calibration(options, tokenizer):
    """Windows of the texts that the user names; else of the embedded ones for tiny; else of the Alpaca records."""
    from .data import calibration_batches, embedded, load_alpaca, prompt, read_texts

    tiny = (options.model or os.environ.get("SPP_MODEL", "tiny")) == "tiny"
    if options.calibration or tiny:
        texts = read_texts(options.calibration or embedded("text", "calibration.jsonl"))
    elif options.data or os.environ.get("SPP_DATA"):
        texts = [prompt(record) + record["output"] for record in load_alpaca(options.data)]
    else:
        raise ValueError("pruning needs calibration texts: name a file with --calibration, or records with --data")
    length = options.calibration_length or (128 if tiny else 512)
    return calibration_batches(texts, tokenizer, samples=options.calibration_samples, length=length)


if __name__ == "__main__":
    sys.exit(main())
