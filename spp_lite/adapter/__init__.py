"""W ⊙ (1 + s · R(α)β): the arithmetic, the PEFT tuner, the merge that proves itself. Importing it registers SPP."""

from .base import norm_names, norm_weights
from .config import SppConfig
from .layer import SppLinear
from .loading import check_adapter_weights, load_adapter, unsaved
from .merging import MergeReport, merge, to_hira
from .tuner import SppModel

__all__ = [
    "MergeReport", "SppConfig", "SppLinear", "SppModel", "check_adapter_weights", "load_adapter", "merge",
    "norm_names", "norm_weights", "to_hira", "unsaved",
]  # fmt: skip
