"""spp-lite sweep: the grid method × sparsity × seed as one table and its figures."""

import itertools
from pathlib import Path

from .cli_runs import _recipes, add_calibration, add_model, add_scores, add_training, at_least

ALL_SPARSITIES = ("50%", "60%", "70%", "75%", "80%", "90%", "2:4", "4:8", "2:8")
GRID = [  # methods, pruners, sparsities: what `spp-lite sweep` does for every seed
    (("none", "spp", "lora", "lora*", "masked-lora", "hira", "masked-full", "reconstruct"), ("wanda",), ALL_SPARSITIES),
    (("none", "spp", "lora*", "masked-full"), ("magnitude", "sparsegpt"), ("50%", "75%", "2:4", "2:8")),
]
QUICK = [(("none", "spp", "lora*"), ("wanda",), ("50%", "75%", "90%", "2:8"))]


def add(parser) -> None:
    """The options of `spp-lite sweep`."""
    add_model(parser)
    add_calibration(parser)
    add_scores(parser)
    parser.add_argument("--quick", action="store_true", help="one seed, three methods, four sparsities: five minutes")
    parser.add_argument("--pruners", nargs="+", help="default: the whole grid of docs/results.md")
    parser.add_argument("--methods", nargs="+", help="default: the whole grid")
    parser.add_argument("--sparsity", nargs="+", help="default: the whole grid")
    parser.add_argument("--seeds", type=at_least(1), default=5)
    add_training(parser, batch_size=16)
    about = "rates.csv of another sweep (default: the one in --out, made if absent)"
    parser.add_argument("--rates", type=Path, help=about)
    about = "the learning rates to choose from (default: half decades from 3e-4 to 1e-1)"
    parser.add_argument("--try-rates", nargs="+", type=at_least(0, float), help=about)
    about = "where they are chosen; a run takes those of the nearest (default: 75%%)"
    parser.add_argument("--rates-at", nargs="+", default=["75%"], metavar="SPARSITY", help=about)
    parser.add_argument("--rate-seeds", type=at_least(1), default=1, help="seeds a rate is tried with")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for sweep.csv, rates.csv and figures")


def run(options) -> None:
    """Choose a rate per method, do the runs that the table lacks, print its cells, draw it."""
    from dataclasses import replace

    from ..experiment.table import grid
    from ..models import require_writable

    plan = QUICK if options.quick else GRID
    if options.pruners or options.methods or options.sparsity:
        plan = [(options.methods or plan[0][0], options.pruners or plan[0][1], options.sparsity or plan[0][2])]
    for methods, pruners, sparsities in plan:  # whatever does not exist is named before anything is read
        grid(methods, pruners, sparsities, 1, dict.fromkeys(methods, 0.0))
    if options.rates and not options.rates.is_file():
        raise ValueError(f"--rates: there is no file {options.rates}")
    require_writable(options.out)
    options.calibration_samples *= 3
    recipe, choosing = (replace(one, draws=-(-len(one.calibration) // 3)) for one in _recipes(options))  # its own third
    say = (lambda line: None) if options.progress else lambda line: print(line, flush=True)
    rates = _rates(choosing, list(dict.fromkeys(method for methods, _, _ in plan for method in methods)), options, say)
    cells = [(methods, pruners, sparsity) for methods, pruners, sparsities in plan for sparsity in sparsities]
    seeds = 1 if options.quick else options.seeds
    runs = [run for *most, sparsity in cells for run in grid(*most, [sparsity], seeds, rates(sparsity))]
    runs = sorted(runs, key=lambda run: run.seed)
    table = _table(recipe, runs, options.out / "sweep.csv", options.jobs, say)
    for pruner, score in itertools.product(filter("dense".__ne__, table["pruner"].unique()), _scores(table)):
        unit = " in percent" if score == "accuracy" else ""
        print(f"\n{pruner}: mean {score}{unit} ± half of its 95 % interval over seeds")
        print(_cells(table[table["pruner"] == pruner], score, 100 if unit else 1).to_string(na_rep="-"))
    _say_paired(table)
    failed = int(table["error"].fillna("").ne("").sum())
    figures = ", ".join(map(str, _figures(table, recipe, options.out)))
    print(f"wrote {options.out / 'sweep.csv'} ({len(table)} rows, {failed} of them failed) and {figures}")


def _rates(recipe, methods: list[str], options, say):
    """A function: sparsity → {method: learning rate}, of the file that is named, of the embedded one, or chosen now."""
    from ..experiment.recipe import trains
    from ..experiment.statistics import by_sparsity
    from ..experiment.table import choose_rates, differences, rate_grid, read_table
    from ..models import embedded, load

    if not any(map(trains, methods)):
        return lambda sparsity: {}
    path = options.rates or (embedded("results", "rates.csv") if options.quick else options.out / "rates.csv")
    if options.rates or options.quick:
        table = read_table(path, key=("method", "lr"))
        if other := differences(table, recipe.identity(load(recipe.model)[0])):
            print(f"note: the rates of {path} were chosen otherwise ({'; '.join(other)})")
    else:
        runs = rate_grid(methods, options.rates_at, options.try_rates, options.rate_seeds)
        table = _table(recipe, runs, path, options.jobs, say)
    for sparsity in by_sparsity(table.get("sparsity", ["75%"])):
        print(f"learning rates, chosen on held-out data at {sparsity}: {choose_rates(table, sparsity)}", flush=True)
    return lambda sparsity: choose_rates(table, sparsity)


def _table(recipe, runs, path: Path, jobs: int, say):
    """sweep(), beside a table that another model, other records, … made: that one is put aside, and it is said."""
    from ..experiment.table import make_room, sweep
    from ..models import load

    if path.exists() and (note := make_room(path, recipe.identity(load(recipe.model)[0]))):
        print(note, flush=True)
    return sweep(recipe, runs, path, jobs=jobs, say=say)


def _scores(table) -> list[str]:
    return [name for name in ("accuracy", "perplexity", "alpaca_perplexity") if name in table]


def _cells(table, value: str, scale: int):
    """A row a method, a column a sparsity."""
    from ..experiment.statistics import by_sparsity, summarise

    found = summarise(table, value)
    whole = [f"{scale * row.mean:.1f} ± {scale * row.half:.1f}" if row.n else "failed" for row in found.itertuples()]
    partly = [f" ({row.n} of {row.n + row.failed})" if row.n and row.failed else "" for row in found.itertuples()]
    found["text"] = [text + rest for text, rest in zip(whole, partly, strict=True)]
    cells = found.pivot(index="method", columns="sparsity", values="text")
    return cells.loc[found["method"].unique(), by_sparsity(found["sparsity"])]


def _say_paired(table) -> None:
    """What is told apart from SPP, and what is not."""
    from ..experiment.statistics import by_sparsity, paired

    for score in _scores(table) if "spp" in set(table["method"]) else ():
        found = paired(table, score)
        for pruner, rows in found[found["n"] > 1].groupby("pruner", sort=False):
            scale = 100 if score == "accuracy" else 1
            cells = [f"{scale * row.mean:+.1f} ± {scale * row.half:.1f}, {row.verdict}" for row in rows.itertuples()]
            cells = rows.assign(text=cells).pivot(index="method", columns="sparsity", values="text")
            print(f"\n{pruner}: {score} minus that of SPP, paired by seed, 95 % interval; SPP wins, loses, undecided")
            print(cells[by_sparsity(rows["sparsity"])].to_string(na_rep="-"))


def _figures(table, recipe, folder: Path) -> list[Path]:
    """Each score against sparsity, of the criterion that most methods were tried with; then what compares the others."""
    from ..experiment import plotting
    from ..experiment.statistics import ratio_of
    from ..recover.evaluation import chance_accuracy

    chance = chance_accuracy() if recipe.tasks == "tiny" else None
    pruner = table[table["pruner"] != "dense"].groupby("pruner", sort=False)["method"].nunique().idxmax()
    here = table[table["pruner"].isin(["dense", pruner])]
    scores = _scores(table)
    figures = {
        name: plotting.plot_accuracy_vs_sparsity(here, value=name, chance=chance, title=f"pruned by {pruner}")
        for name in scores
    }
    if "none" in set(table["method"]):
        figures["criteria"] = plotting.plot_criteria(table, value=scores[min(1, len(scores) - 1)], chance=chance)
    if recipe.tasks:
        asked = set(table.loc[table["pruner"] == pruner, "sparsity"])
        cell = {"sparsity": "75%" if "75%" in asked else max(asked, key=ratio_of), "pruner": pruner}
        if len(plotting.gap_recovered(here)):
            figures["gap"] = plotting.plot_gap_recovered(table, pruner=pruner)
        if {"spp"} < set(here["method"]) - {"dense"}:
            figures["paired"] = plotting.plot_paired(table, pruner=pruner)
        if plotting.shared_sparsities(table):
            figures["pruners"] = plotting.plot_pruners(table, chance=chance)
        if table["parameters"].max() > 0:
            figures["parameters"] = plotting.plot_parameters(table, **cell)
        if plotting.task_columns(table):
            figures["tasks"] = plotting.plot_tasks(table, **cell)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths
