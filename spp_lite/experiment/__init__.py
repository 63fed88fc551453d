"""The grid method × sparsity × seed: its runs, one tidy table, its statistics and figures; the rivals' baselines."""

from .recipe import Recipe, Run
from .runs import dense_and_recovered, do_run, score, zeros
from .table import choose_rates, grid, rate_grid, sweep, write_table

__all__ = [
    "Recipe", "Run", "choose_rates", "dense_and_recovered", "do_run", "grid", "rate_grid", "score", "sweep",
    "write_table", "zeros",
]  # fmt: skip
