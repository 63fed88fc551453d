"""The calculator counts what a model on the meta device counts, and reads it out."""

import statistics
import time

import pytest
import torch
from transformers import LlamaForCausalLM

from spp_lite.baselines import parameter_table
from spp_lite.labs.real import CONFIGS, CalculatorLab, memory, model_parameters, spp_parameters


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_are_those_of_the_model(name):
    with torch.device("meta"):
        model = LlamaForCausalLM(CONFIGS[name])
    assert model_parameters(CONFIGS[name]) == model.num_parameters()
    table = parameter_table(model, ["spp"])
    assert spp_parameters(CONFIGS[name]) == table["parameters"].iloc[0]


def test_the_papers_counts():
    assert spp_parameters(CONFIGS["LLaMA-2-7B"]) == 19_578_880
    assert spp_parameters(CONFIGS["LLaMA-2-13B"]) == 30_638_080


def test_more_gpus_and_fewer_records_take_less():
    config = CONFIGS["TinyLlama-1.1B"]
    total = sum(memory(config).values())
    assert sum(memory(config, gpus=4).values()) < total < sum(memory(config, records=32).values())


def test_every_state_works_and_a_move_is_quick():
    lab = CalculatorLab()
    lab.selftest()
    assert "19,578,880 trainable numbers" in lab.render("LLaMA-2-7B", 16, 8, 1)[1]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        lab.render(**lab.state)
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.5
