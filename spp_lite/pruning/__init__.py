"""Which weights go: patterns, criteria, the statistics they need, how a budget is spent, and prune() that joins them."""

from .blocks import CalibrationError, block_linears, decoder_blocks
from .calibration import walk
from .prune import PruningReport, prune
from .sparsity import Sparsity, SparsityError, measure

__all__ = [
    "CalibrationError", "PruningReport", "Sparsity", "SparsityError", "block_linears", "decoder_blocks", "measure",
    "prune", "walk",
]  # fmt: skip
