"""Sparsity-preserving fine-tuning of LLMs: prune, insert SPP factors, train, merge with every zero in place.

Importing this package registers SPP with PEFT; without it, PEFT cannot load an SPP adapter (KeyError: 'SPP').
"""

import os

import torch

from .adapter import SppConfig
from .data import load_alpaca
from .evaluation import evaluate, perplexity
from .merging import merge, to_hira
from .models import load
from .pruning import prune
from .sparsity import Sparsity
from .training import finetune

if "SPP_THREADS" in os.environ:  # the one place that sets threads: two busy torch threads on two busy cores crawl
    torch.set_num_threads(int(os.environ["SPP_THREADS"]))

__all__ = [
    "Sparsity", "SppConfig", "evaluate", "finetune", "load", "load_alpaca", "merge", "perplexity", "prune", "to_hira",
]  # fmt: skip
