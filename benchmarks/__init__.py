"""One script per claim in the README; each prints a table of ratios against a reference timed in the same run."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds(*candidates: Callable[[], object], repeats: int = 7, clock=time.perf_counter) -> list[float]:
    """Median seconds of each candidate; they take turns, so that a slow moment of the machine hits all alike.

    clock: time.process_time leaves out what other processes took; for one thread on a CPU only.
    """
    cuda = torch.cuda.is_available()
    taken: list[list[float]] = [[] for _ in candidates]
    for turn in range(repeats + 1):
        for candidate, times in zip(candidates, taken, strict=True):
            if cuda:
                torch.cuda.synchronize()
            start = clock()
            candidate()
            if cuda:
                torch.cuda.synchronize()
            if turn:  # the first is a warm-up
                times.append(clock() - start)
    return [statistics.median(times) for times in taken]
