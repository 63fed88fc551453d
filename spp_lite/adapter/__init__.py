"""W ⊙ (1 + s · R(α)β): the arithmetic, the PEFT tuner, the merge that proves itself. Importing it registers SPP."""

from .merging import MergeReport, merge, to_hira
from .tuner import SppConfig, SppLinear, SppModel

__all__ = ["MergeReport", "SppConfig", "SppLinear", "SppModel", "merge", "to_hira"]
