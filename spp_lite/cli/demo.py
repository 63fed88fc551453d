"""spp-lite demo: the whole job for a few sparsities, as a table and a figure."""

from pathlib import Path

from .cli_runs import Several, _recipe, add_calibration, add_model, add_scores, add_training, at_least, path

SUMMARY = ("method", "sparsity", "zeros", "accuracy", "perplexity", "alpaca_loss", "loss_first", "loss_last", "seconds")


def add(parser) -> None:
    """The options of `spp-lite demo`."""
    add_model(parser)
    parser.add_argument("--sparsity", action=Several, default=["50%", "2:4", "75%", "90%"])
    parser.add_argument("--method", default="wanda", help="magnitude, wanda or sparsegpt")
    add_calibration(parser)
    add_scores(parser)
    add_training(parser, batch_size=16)
    parser.add_argument("--steps", type=at_least(1), default=60)
    parser.add_argument("--learning-rate", type=at_least(0, float), help="default: 2.4e-2 for tiny, else 4e-3")
    parser.add_argument("--r", type=at_least(1), default=16)
    parser.add_argument("--out", type=path, default=Path("results"), help="folder for demo.csv, demo.png and models")
    parser.add_argument("--save-models", action="store_true", help="also save each merged model")


def run(options) -> None:
    """Prune, train, merge and score at each sparsity; print the table, and what was written."""
    import pandas as pd

    from ..experiment.plotting import plot_accuracy_vs_sparsity
    from ..experiment.runs import dense_and_recovered
    from ..experiment.table import write_table
    from ..models import environment, save
    from ..recover.evaluation import chance_accuracy
    from ..writing import replaced

    folders = _folders(options)
    recipe = _with_settings(_recipe(options), options)
    print(", ".join(f"{name} {value}" for name, value in environment().items()))
    rows = []
    stages = dense_and_recovered(recipe, list(folders), say=lambda stage: print(f"== {stage}", flush=True))
    for row, model, tokenizer in stages:
        rows.append(row)
        table = write_table(pd.DataFrame(rows), options.out / "demo.csv")
        if options.save_models and row["method"] == "spp":
            print(f"wrote the merged model to {save(model, tokenizer, folders[row['sparsity']])}")
        del model  # one copy at a time
    result = pd.DataFrame(rows)
    value = "accuracy" if recipe.tasks else "perplexity"
    chance = chance_accuracy() if recipe.tasks == "tiny" else None
    figure = plot_accuracy_vs_sparsity(result, value=value, chance=chance, title=f"{recipe.model}, {recipe.pruner}")
    with replaced(options.out / "demo.png") as new:
        figure.savefig(new, dpi=120)
    columns = [name for name in SUMMARY if name in result]
    print(result[columns].to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    print(f"wrote {table} and {options.out / 'demo.png'}")


def _folders(options) -> dict[str, Path]:
    """Sparsity → where its merged model goes, "50-spp" or "2of4-spp"; refused now where nothing can be written."""
    from .. import Sparsity
    from ..models import model_name, require_writable

    names = {one: str(Sparsity.parse(one)).replace("row:", "row").replace(":", "of") for one in options.sparsity}
    folders = {one: options.out / f"{name.rstrip('%')}-spp" for one, name in names.items()}
    require_writable(options.out)
    for folder in folders.values() if options.save_models else ():
        require_writable(folder, model=True, keep=(model_name(options.model),))
    return folders


def _with_settings(recipe, options):
    from dataclasses import replace

    rate = (2.4e-2 if recipe.model == "tiny" else 4e-3) if options.learning_rate is None else options.learning_rate
    training = {**recipe.training, "learning_rate": rate}
    return replace(recipe, pruner=options.method, r=options.r, training=training, progress=options.progress)
