"""The grid method × sparsity × seed: its runs, one tidy table, its statistics and figures; the rivals' baselines.

>>> from pathlib import Path
>>> from spp_lite import load, load_alpaca
>>> from spp_lite.experiment import Recipe, Run, choose_rates, dense_and_recovered, do_run, grid, rate_grid, sweep
>>> from spp_lite.experiment import score, write_table, zeros
>>> from spp_lite.models import embedded
>>> from spp_lite.recover.data import calibration_batches, read_texts
>>> model, tokenizer = load("tiny")
>>> batches = calibration_batches(read_texts(embedded("text", "calibration.jsonl")), tokenizer, samples=16, length=64)
>>> few = {"training": {"max_steps": 2, "batch_size": 4}, "limit": 8, "progress": False}
>>> recipe = Recipe("tiny", load_alpaca("tiny").select(range(32)), batches, ["tiny_rte"], **few)
>>> rates = choose_rates(sweep(recipe, rate_grid(["spp"], ["75%"], [1e-3, 1e-2]), Path("rates.csv")))
>>> runs = grid(["none", "spp"], ["wanda"], ["75%"], seeds=1, rates=rates)
>>> table = sweep(recipe, runs, Path("sweep.csv"))  # a second time it would find all its rows there
>>> table[["method", "sparsity"]].values.tolist()
[['dense', '0%'], ['none', '75%'], ['spp', '75%']]
>>> path = write_table(table[table["method"] != "dense"], Path("recovered.csv"))
>>> row = do_run(recipe, Run("none", "magnitude", "2:4", seed=0, lr=0))  # one of them, and no table
>>> row["zeros_after"]
0.5
>>> score(recipe, model, tokenizer)["zeros"] == zeros(model)  # what a row says of any model
True
>>> [row["method"] for row, model, tokenizer in dense_and_recovered(recipe, ["2:4"])]
['dense', 'none', 'spp']
"""

from .recipe import Recipe, Run, grid, rate_grid
from .runs import dense_and_recovered, do_run, score, zeros
from .table import choose_rates, sweep, write_table

__all__ = [
    "Recipe", "Run", "choose_rates", "dense_and_recovered", "do_run", "grid", "rate_grid", "score", "sweep",
    "write_table", "zeros",
]  # fmt: skip
