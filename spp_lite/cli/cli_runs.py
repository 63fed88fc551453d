"""spp-lite demo and sweep: whole experiments as commands; and the options that all commands share. It prints."""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

SUMMARY = ("method", "sparsity", "zeros", "accuracy", "perplexity", "loss_first", "loss_last", "seconds")
ALL_SPARSITIES = ("50%", "60%", "70%", "75%", "80%", "90%", "2:4", "4:8", "2:8")
GRID = [  # methods, pruners, sparsities: what `spp-lite sweep` does for every seed
    (("none", "spp", "lora", "lora*", "masked-lora", "hira", "masked-full", "reconstruct"), ("wanda",), ALL_SPARSITIES),
    (("none", "spp", "lora*", "masked-full"), ("magnitude", "sparsegpt"), ("50%", "75%", "2:4", "2:8")),
]
QUICK = [(("none", "spp", "lora*"), ("wanda",), ("50%", "75%", "90%", "2:8"))]


def add_model(parser, **kwargs) -> None:
    parser.add_argument("--model", help="'tiny', a folder or a hub id (default: $SPP_MODEL, else tiny)", **kwargs)


def add_calibration(parser) -> None:
    parser.add_argument("--data", help="'tiny', an Alpaca JSON or a hub id (default: $SPP_DATA, else tiny)")
    parser.add_argument("--calibration", type=Path, help="texts: .jsonl with 'text', or plain (default: the records)")
    parser.add_argument("--calibration-samples", type=int, default=128)
    parser.add_argument("--calibration-length", type=int, help="tokens a sample (default: 128 for tiny, else 512)")


def _add_scores(parser) -> None:
    parser.add_argument("--tasks", nargs="+", help="lm-eval tasks, 'none' for none (default: tiny, else paper)")
    parser.add_argument("--text", type=Path, help="text file for perplexity")
    parser.add_argument("--limit", type=int, help="items a task")


def add_demo(commands) -> None:
    parser = commands.add_parser("demo", help="the whole job: prune, insert SPP, train, merge, evaluate, plot")
    add_model(parser)
    parser.add_argument("--sparsity", nargs="+", default=["50%", "2:4", "75%", "90%"])
    parser.add_argument("--method", default="wanda", help="magnitude, wanda or sparsegpt")
    add_calibration(parser)
    _add_scores(parser)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--learning-rate", type=float, help="default: 5e-2 for tiny, else 4e-3")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--cutoff", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for demo.csv, demo.png and models")
    parser.add_argument("--save-models", action="store_true", help="also save each merged model")
    parser.set_defaults(run=_demo)


def _demo(options) -> None:
    from ..experiment.plotting import plot_accuracy_vs_sparsity
    from ..experiment.runs import dense_and_recovered
    from ..experiment.table import write_table
    from ..models import environment, save
    from ..recover.evaluation import chance_accuracy

    recipe = _recipe(options)
    rate = options.learning_rate or (5e-2 if recipe.model == "tiny" else 4e-3)
    training = {**recipe.training, "learning_rate": rate, "cutoff": options.cutoff}
    recipe = replace(recipe, pruner=options.method, r=options.r, training=training)
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


def add_sweep(commands) -> None:
    """The sweep command."""
    parser = commands.add_parser("sweep", help="the grid method × sparsity × seed → one table and its figures; resumes")
    add_model(parser)
    add_calibration(parser)
    _add_scores(parser)
    parser.add_argument("--quick", action="store_true", help="one seed, three methods, four sparsities: five minutes")
    parser.add_argument("--pruners", nargs="+", help="default: the whole grid of docs/results.md")
    parser.add_argument("--methods", nargs="+", help="default: the whole grid")
    parser.add_argument("--sparsity", nargs="+", help="default: the whole grid")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--rates", type=Path, help="rates.csv of another sweep (default: the one in --out, made if absent)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for sweep.csv, rates.csv and figures")
    parser.set_defaults(run=_sweep)


def _sweep(options) -> None:
    from ..experiment.table import choose_rates, grid, rate_grid, sweep
    from ..models import embedded

    plan = QUICK if options.quick else GRID
    if options.pruners or options.methods or options.sparsity:
        plan = [(options.methods or plan[0][0], options.pruners or plan[0][1], options.sparsity or plan[0][2])]
    options.calibration_samples *= 3  # every run draws its own third
    recipe = _recipe(options)
    methods = list(dict.fromkeys(method for found, _, _ in plan for method in found))
    path = options.rates or (embedded("results", "rates.csv") if options.quick else options.out / "rates.csv")
    if not options.quick and not options.rates:  # nothing is left to do where it is complete
        sweep(_held_out(recipe, options), rate_grid(methods, "75%"), path, jobs=options.jobs)
    rates = choose_rates(pd.read_csv(path))
    print("learning rates, chosen on held-out data:", rates, flush=True)
    seeds = 1 if options.quick else options.seeds
    runs = sorted((run for part in plan for run in grid(*part, seeds, rates)), key=lambda run: run.seed)
    table = sweep(recipe, runs, options.out / "sweep.csv", jobs=options.jobs)
    for pruner in [name for name in table["pruner"].unique() if name != "dense" and recipe.tasks]:
        print(f"\n{pruner}: mean accuracy in percent ± half of its 95 % interval over seeds")
        print(_cells(table[table["pruner"] == pruner]).to_string(na_rep="-"))
    figures = ", ".join(map(str, _figures(table, recipe, options.out)))
    print(f"wrote {options.out / 'sweep.csv'} ({len(table)} rows) and {figures}")


def _held_out(recipe, options):
    """What learning rates are chosen by: our tasks' validation split, or the perplexity of held-out texts."""
    from ..recover.data import default_texts

    if recipe.tasks == "tiny":
        return replace(recipe, tasks="tiny_val")
    texts = default_texts("validation", model=options.model, data=options.data)
    return replace(recipe, tasks=None, text="\n\n".join(texts))


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column a sparsity."""
    from ..experiment.statistics import ratio_of, summarise

    found = summarise(table.dropna(subset=["accuracy"]))
    found["text"] = [f"{100 * row.mean:.1f} ± {100 * row.half:.1f}" for row in found.itertuples()]
    order = sorted(found["sparsity"].unique(), key=lambda text: (":" in text, ratio_of(text)))
    return found.pivot(index="method", columns="sparsity", values="text").loc[found["method"].unique(), order]


def _figures(table: pd.DataFrame, recipe, folder: Path) -> list[Path]:
    from ..experiment import plotting
    from ..recover.evaluation import chance_accuracy

    chance = chance_accuracy() if recipe.tasks == "tiny" else None
    first, value = table["pruner"].drop_duplicates().iloc[:2].to_list(), "accuracy" if recipe.tasks else "perplexity"
    headline = plotting.plot_accuracy_vs_sparsity(
        table[table["pruner"].isin(first)], value=value, chance=chance, title=f"pruned by {first[-1]}"
    )
    figures = {value: headline}
    if recipe.tasks:
        asked = set(table["sparsity"])
        here = {"sparsity": "75%" if "75%" in asked else max(asked, key=plotting.ratio_of), "pruner": first[-1]}
        if len(plotting.gap_recovered(table[table["pruner"].isin(first)])):
            figures["gap"] = plotting.plot_gap_recovered(table, pruner=first[-1])
        figures["pruners"] = plotting.plot_pruners(table, chance=chance)
        if table["parameters"].max() > 0:
            figures["parameters"] = plotting.plot_parameters(table, **here)
        if plotting.task_columns(table):
            figures["tasks"] = plotting.plot_tasks(table, **here)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def _recipe(options):
    from .. import load_alpaca
    from ..experiment.runs import Recipe
    from ..models import load_tokenizer, resolve
    from ..recover.data import read_texts
    from ..recover.evaluation import default_tasks

    name = options.model or os.environ.get("SPP_MODEL", "tiny")
    tasks = options.tasks or default_tasks(name)
    tasks = tasks[0] if len(tasks) == 1 else tasks  # "tiny" is told from ["tiny_rte", …]: it has a chance line
    return Recipe(
        model=name,
        records=load_alpaca(options.data),
        calibration=calibration(options, load_tokenizer(resolve(name))),
        tasks=None if tasks == "none" else tasks,
        text="\n\n".join(read_texts(options.text)) if options.text else None,
        training={"max_steps": options.steps, "batch_size": options.batch_size},
        limit=options.limit,
    )


def calibration(options, tokenizer):
    """Windows of the texts that the user names; else of the embedded ones for tiny; else of the Alpaca records."""
    from ..models import is_tiny
    from ..recover.data import calibration_batches, default_texts, read_texts

    tiny = is_tiny(options.model)
    if options.calibration:
        texts = read_texts(options.calibration)
    elif tiny or options.data or os.environ.get("SPP_DATA"):
        texts = default_texts(model=options.model, data=options.data)
    else:
        raise ValueError("pruning needs calibration texts: name a file with --calibration, or records with --data")
    length = options.calibration_length or (128 if tiny else 512)
    return calibration_batches(texts, tokenizer, samples=options.calibration_samples, length=length)
