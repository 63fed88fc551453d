"""The calculator counts what a model on the meta device counts and what autograd keeps, and reads it out."""

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from spp_lite import Sparsity, SppConfig
from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.figures import parameter_table
from spp_lite.teaching.labs.real import (
    CONFIGS,
    CalculatorLab,
    block_activations,
    hours,
    memory,
    model_parameters,
    spp_parameters,
)


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
    assert hours(config, gpus=4) == pytest.approx(hours(config) / 4)


def test_the_estimate_of_a_blocks_activations_is_what_autograd_keeps():
    config = LlamaConfig(
        hidden_size=256, intermediate_size=700, num_hidden_layers=1, num_attention_heads=8, vocab_size=50
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for linear in block_linears(model).values():
        linear.weight.data.mul_(Sparsity.parse("2:4").mask(linear.weight.float().abs()))
    model = get_peft_model(model, SppConfig()).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own and 50 not in tensor.shape:  # 50: the logits
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.arange(256).view(2, 128) % 50
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(input_ids=ids, labels=ids)
    assert output.loss.isfinite()
    assert sum(kept.values()) / ids.numel() == pytest.approx(block_activations(config), rel=0.15)


def test_the_read_out_and_the_answers_to_the_labs_questions():
    lab = CalculatorLab()
    _, text = lab.render("LLaMA-2-7B", 16, 8, 1)
    assert "19,578,880 trainable numbers (0.291%)" in text and "fits a card of 24 GiB" in text
    assert "most of it weights" in text and "on each of 1 GPU," in text
    assert "most of it logits" in lab.render("SmolLM2-135M", 16, 8, 1)[1]
    narrow, wide = (memory(CONFIGS["LLaMA-2-7B"], r) for r in (16, 256))
    grown = [name for name in narrow if wide[name] > narrow[name]]
    assert grown == ["factors, gradients, Adam"] and 14 < wide[grown[0]] / narrow[grown[0]] < 16


def test_every_state_works_and_a_move_is_quick(drive):
    drive(CalculatorLab())
