"""Statistics of the experiment's table: means with intervals over seeds, the share of the loss that came back.

Works on plain tables. Draws nothing.
"""

import numpy as np
import pandas as pd

T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # Student's t, by sample size


def ratio_of(sparsity: str) -> float:
    """ "75%" → 75.0, "2:8" → 75.0: the percentage of zeros, for an axis."""
    if ":" in sparsity:
        n, m = sparsity.split(":")
        return 100.0 * (1 - int(n) / int(m))
    return float(sparsity.rstrip("%"))


def summarise(table: pd.DataFrame, value: str = "accuracy", by: str = "sparsity") -> pd.DataFrame:
    """Mean and half-width of the 95 % interval over seeds, per method and sparsity (half-width 0 for one seed)."""
    found = table.groupby(["method", by], sort=False)[value].agg(mean="mean", std="std", n="size").reset_index()
    t = found["n"].map(lambda n: T95.get(n, 2.0))
    found["half"] = (t * found["std"] / np.sqrt(found["n"])).fillna(0.0)
    return found.assign(zeros=found[by].map(ratio_of)) if by == "sparsity" else found


def gap_recovered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the methods that train, with `gap`: (accuracy − pruned) / (dense − pruned), pruned by the same seed.

    Cells in which pruning cost less than two points are left out: there is no gap to speak of.
    """
    dense = table.loc[table["method"] == "dense", "accuracy"].mean()
    key = ["pruner", "sparsity", "seed"]
    pruned = table[table["method"] == "none"].set_index(key)["accuracy"].rename("pruned")
    found = table[~table["method"].isin(["dense", "none"])].join(pruned, on=key)
    found = found[dense - found["pruned"] > 0.02]
    return found.assign(gap=(found["accuracy"] - found["pruned"]) / (dense - found["pruned"]))
