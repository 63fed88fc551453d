"""Shared by all tests: one place sets the number of torch threads."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

torch.set_num_threads(int(os.environ.get("SPP_THREADS", "2")))
