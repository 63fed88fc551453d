"""spp-lite sweep: the grid method × sparsity × seed as one table and its figures."""

from pathlib import Path

from .cli_runs import Several, _held_out, _recipe, add_calibration, add_model, add_scores, add_training, at_least, path

ALL_SPARSITIES = ("50%", "60%", "70%", "75%", "80%", "90%", "2:4", "4:8", "2:8")
GRID = [  # methods, pruners, sparsities: what `spp-lite sweep` does for every seed
    (("none", "spp", "direct", "lora", "lora*", "masked-lora", "hira", "masked-full"), ("wanda",), ALL_SPARSITIES),
    (("none",), ("magnitude", "sparsegpt"), ALL_SPARSITIES),
]
QUICK = [(("none", "spp", "lora*"), ("wanda",), ("50%", "75%", "90%", "2:8"))]


def add(parser) -> None:
    """The options of `spp-lite sweep`."""
    add_model(parser)
    add_calibration(parser)
    add_scores(parser)
    parser.add_argument("--quick", action="store_true", help="one seed, three methods, four sparsities: five minutes")
    parser.add_argument("--pruners", action=Several, help="default: the whole grid of docs/results.md")
    parser.add_argument("--methods", action=Several, help="default: the whole grid")
    parser.add_argument("--sparsity", action=Several, help="default: the whole grid")
    parser.add_argument("--seeds", type=at_least(1), help="default: 3; of --quick 1")
    add_training(parser, batch_size=16)
    about = "default: 160; of --quick 80; several: a sweep and a table each, in a folder of --out each, and accuracy against steps"
    parser.add_argument("--steps", action=Several, type=at_least(1), help=about)
    about = "rates.csv of another sweep (default: the one in --out, made if absent)"
    parser.add_argument("--rates", type=path, help=about)
    about = "the learning rates to choose from (default: quarter decades from 3e-4 to 1e-1)"
    parser.add_argument("--try-rates", action=Several, type=at_least(0, float), help=about)
    about = "where they are chosen; a run takes those of the nearest (default: 75%%)"
    parser.add_argument("--rates-at", action=Several, metavar="SPARSITY", help=about)
    parser.add_argument("--rate-seeds", type=at_least(1), help="seeds a rate is tried with (default: 1)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="processes")
    parser.add_argument("--out", type=path, default=Path("results"), help="folder for sweep.csv, rates.csv and figures")


def run(options) -> None:
    """A sweep for each number of steps, of one recipe that is read once; of several, accuracy against steps."""
    from dataclasses import replace

    import pandas as pd

    from ..experiment.panels import plot_budgets
    from ..experiment.report import SCORES
    from ..writing import replaced

    plan, budgets = _plan(options), sorted(set(options.steps or [80 if options.quick else 160]))
    samples, options.steps = options.calibration_samples, budgets[0]
    options.calibration_batch = next(size for size in range(8, 0, -1) if samples % size == 0)
    options.calibration_samples = 3 * samples  # of which every run draws its own third
    recipe = replace(_recipe(options), draws=samples // options.calibration_batch)
    recipes = recipe, _held_out(recipe, options)
    tables = []
    for steps in budgets:
        of_budget = [replace(one, training=one.training | {"max_steps": steps}) for one in recipes]
        out = options.out / f"{steps}-steps" if len(budgets) > 1 else options.out
        tables.append(_sweep(plan, *of_budget, options, out))
    if len(budgets) == 1:
        return
    table = pd.concat(tables)
    score = next(name for name in SCORES if name in table)
    for pruner in filter("dense".__ne__, table["pruner"].unique()):
        path = options.out / f"budgets_{pruner}.png"
        with replaced(path) as new:
            plot_budgets(table[table["pruner"] == pruner], value=score).savefig(new, dpi=120)
        print(f"wrote {path}")


def _sweep(plan, recipe, chosen_by, options, out: Path):
    """Choose a rate per method, do the runs that the table lacks, print its cells, draw it; returns the table."""
    from ..experiment.recipe import grid

    say = (lambda line: None) if options.progress else lambda line: print(line, flush=True)
    named = dict.fromkeys(method for methods, _, _ in plan for method in methods)
    rates = _rates(chosen_by, list(named), options, out, say)
    cells = [(methods, pruners, sparsity) for methods, pruners, sparsities in plan for sparsity in sparsities]
    seeds = options.seeds or (1 if options.quick else 3)
    runs = [run for *most, sparsity in cells for run in grid(*most, [sparsity], seeds, rates(sparsity))]
    runs = sorted(runs, key=lambda run: run.seed)
    table = _without_superseded(_table(recipe, runs, out / "sweep.csv", options.jobs, say), runs)
    _report(table, out, tiny=recipe.tasks == "tiny")
    return table


def _report(table, out: Path, tiny: bool) -> None:
    """Print a table's cells, draw its figures, say what was written."""
    from ..experiment.report import figures_of, texts_of
    from ..recover.evaluation import chance_accuracy
    from ..writing import replaced

    print(*(f"\n{text}" for text in texts_of(table)), sep="\n")
    paths = []
    for name, figure in figures_of(table, chance_accuracy() if tiny else None).items():
        paths.append(str(out / f"{name}.png"))
        with replaced(out / f"{name}.png") as new:
            figure.savefig(new, dpi=120)
    failed = int(table["error"].fillna("").ne("").sum())
    if failed == len(table):
        raise ValueError(f"all {failed} runs failed, and {out / 'sweep.csv'} says why: {table['error'].iloc[0]}")
    print(f"wrote {out / 'sweep.csv'} ({len(table)} rows, {failed} of them failed) and {', '.join(paths)}")


def _plan(options) -> list[tuple]:
    """(methods, pruners, sparsities), …; what does not exist or has no effect is named before anything is read."""
    from ..experiment.recipe import grid
    from ..models import require_writable

    plan = QUICK if options.quick else GRID
    if options.pruners or options.methods or options.sparsity:
        plan = [(options.methods or plan[0][0], options.pruners or plan[0][1], options.sparsity or plan[0][2])]
    for methods, pruners, sparsities in plan:
        grid(methods, pruners, sparsities, 1, dict.fromkeys(methods, 0.0))
    if options.rates and not options.rates.is_file():
        raise ValueError(f"--rates: there is no file {options.rates}")
    for name in ("try_rates", "rates_at", "rate_seeds") if options.rates or options.quick else ():
        if getattr(options, name):
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} has no effect beside --rates or --quick, which bring their rates: leave it out")
    if options.norm_learning_rate is not None and not any("+norms" in name for part in plan for name in part[0]):
        raise ValueError("--norm-learning-rate has no effect: no method ends in +norms")
    require_writable(options.out)
    return plan


def _rates(recipe, methods: list[str], options, out: Path, say):
    """A function: sparsity → {method: learning rate}, of the file that is named, of the embedded one, or chosen now."""
    from ..experiment.recipe import rate_grid, trains
    from ..experiment.statistics import by_sparsity
    from ..experiment.table import choose_rates, differences, read_table
    from ..models import embedded, load

    if not any(map(trains, methods)):
        return lambda sparsity: {}
    path = options.rates or (embedded("results", "rates.csv") if options.quick else out / "rates.csv")
    if options.rates or options.quick:
        table = read_table(path, key=("method", "lr"))
        if other := differences(table, recipe.identity(load(recipe.model)[0])):
            print(f"note: the rates of {path} were chosen otherwise ({'; '.join(other)})")
    else:
        runs = rate_grid(methods, options.rates_at or ["75%"], options.try_rates, options.rate_seeds or 1)
        table = _table(recipe, runs, path, options.jobs, say)
        asked = {(run.sparsity, run.lr) for run in runs}
        table = table[[cell in asked for cell in zip(table["sparsity"], table["lr"], strict=True)]]  # others are older
        if (failed := table["error"].fillna("").ne("")).all():
            raise ValueError(f"no rate could be tried: {table['error'].iloc[0]}")
        print(f"of the rates' {len(table)} runs {int(failed.sum())} failed") if failed.any() else None
    for sparsity in by_sparsity(table.get("sparsity", ["75%"])):
        print(f"learning rates, chosen on held-out data at {sparsity}: {choose_rates(table, sparsity)}", flush=True)
    return lambda sparsity: choose_rates(table, sparsity)


def _table(recipe, runs, path: Path, jobs: int, say):
    """sweep(), beside a table that another model, other records, … made: that one is put aside, and it is said."""
    from ..experiment.table import make_room, sweep
    from ..models import load

    there = any(path.parent.glob(f"{path.stem}*{path.suffix}"))  # it, or one that was put aside
    if there and (note := make_room(path, recipe.identity(load(recipe.model)[0]))):
        print(note, flush=True)
    return sweep(recipe, runs, path, jobs=jobs, say=say)


def _without_superseded(table, runs):
    """Of every cell the runs of one rate: of that which is asked for now, else of the last one that was."""
    runs_there = [(tuple(cell), lr) for *cell, lr in table[["method", "pruner", "sparsity", "lr"]].to_numpy()]
    rates = dict(runs_there) | {(run.method, run.pruner, run.sparsity): run.lr for run in runs}
    return table[[lr == rates[cell] for cell, lr in runs_there]].reset_index(drop=True)
