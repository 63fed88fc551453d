"""W ⊙ (1 + s · R(α)β): the arithmetic, the PEFT tuner, the merge that proves itself. Importing it registers SPP."""

from .merging import MergeReport, merge, to_hira
from .tuner import SppConfig, SppLinear, SppModel

__all__ = ["MergeReport", "SppConfig", "SppLinear", "SppModel", "merge", "to_hira"]


def check_adapter_weights(model, folder):
    pass


def load_adapter(model, folder, trainable=False):
    import peft

    return peft.PeftModel.from_pretrained(model, folder, is_trainable=trainable)
