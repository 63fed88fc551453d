"""Sparsity-preserving fine-tuning of LLMs: prune, insert SPP factors, train, merge with every zero in place.

Importing this package registers SPP with PEFT; without it, PEFT cannot load an SPP adapter (KeyError: 'SPP').
"""

import importlib
import os
import re
import sys
import warnings

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when torch loads: spinning threads crawl beside others

_HOMES = {
    "Sparsity": "pruning", "SppConfig": "adapter", "evaluate": "recover.evaluation", "finetune": "recover.training",
    "load": "models", "load_alpaca": "recover.data", "load_sparse": "models", "merge": "adapter",
    "perplexity": "recover.perplexity", "prune": "pruning", "save_sparse": "packed", "to_hira": "adapter",
    "to_sparse": "inference",
}  # fmt: skip
__all__ = list(_HOMES)


def __getattr__(name: str):
    """A public name, imported when it is first used: `spp-lite --help` answers without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spp_lite' has no attribute {name!r}: the public names are {', '.join(_HOMES)}")
    globals()[name] = value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


if not {"-h", "--help"} & set(sys.argv):
    try:
        import torch

        from . import adapter as adapter  # registers SPP with PEFT

        if "SPP_THREADS" in os.environ:  # the one place that sets threads
            if re.fullmatch("0*[1-9][0-9]{0,3}", threads := os.environ["SPP_THREADS"]):
                torch.set_num_threads(int(threads))
            else:
                warnings.warn(f"SPP_THREADS={threads!r} is no number of threads, and is not used", stacklevel=2)
    except Exception:
        if sys.argv[1:2] != ["doctor"]:  # which says what is broken
            raise
