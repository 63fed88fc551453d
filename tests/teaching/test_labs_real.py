"""What notebook 09 tells of real models: counts, memory that is measured on small ones, commands whose options exist."""

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from spp_lite import Sparsity, SppConfig, merge, prune
from spp_lite.cli import COMMANDS
from spp_lite.cli.finetune import _settings
from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.figures import parameter_table
from spp_lite.teaching.labs.live import LiveBytes, training_peak
from spp_lite.teaching.labs.real import (
    CARDS,
    CONFIGS,
    SPARE,
    CalculatorLab,
    block_activations,
    hours,
    jobs,
    memory,
    model_parameters,
    spp_parameters,
)
from spp_lite.teaching.labs.shards import draw_fsdp

SOURCE = Path(__file__).parents[2] / "notebooks" / "src" / "09_a_real_llama.py"
NARROW = LlamaConfig(
    hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, vocab_size=3000
)
WIDE = LlamaConfig(hidden_size=256, intermediate_size=700, num_hidden_layers=3, num_attention_heads=8, vocab_size=50)


def small(config, dtype=torch.float32):
    """A random LLaMA, half zeros."""
    model = LlamaForCausalLM(config).to(dtype)
    for linear in block_linears(model).values():
        linear.weight.data.mul_(Sparsity.parse("2:4").mask(linear.weight.float().abs()))
    return model


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
    assert hours(config, "T4", gpus=4) == pytest.approx(hours(config, "T4") / 4)
    assert hours(config, "T4") > hours(config, "A100") > hours(config, "H100")


def test_live_bytes_sees_what_is_made_and_what_is_freed():
    model = torch.nn.Linear(8, 8, bias=False)
    with LiveBytes(model) as live:
        x = torch.ones(16, 8)
        view = x.T
        y = x * 2
        del x, view, y
        z = torch.ones(8)
    assert (live.now, live.most) == (256 + 32, 256 + 2 * 512) and len(z) == 8


@pytest.mark.parametrize("dtype, b", [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("config", [NARROW, WIDE])
def test_the_memory_of_training_is_what_a_step_takes(config, dtype, b):
    adapted = get_peft_model(small(config, dtype), SppConfig(r=16))
    estimate = sum(memory(config, records=8, tokens=128, b=b).values()) * 2**30
    assert training_peak(adapted, 8, 128) == pytest.approx(estimate, rel=0.3)


@pytest.mark.parametrize("dtype, b", [(torch.float32, 4), (torch.bfloat16, 2)])
def test_the_memory_of_the_other_jobs_is_near_what_they_take(dtype, b):
    needs, model = jobs(WIDE, b=b, samples=32, length=128), small(WIDE, dtype)
    with LiveBytes(model) as live:
        prune(model, [torch.arange(8 * 128).view(8, 128) % 50] * 4, "2:4", method="sparsegpt", progress=False)
    assert live.most / 2**30 == pytest.approx(needs["prune"], rel=0.4)
    adapted = get_peft_model(model, SppConfig(r=16))
    with LiveBytes(adapted) as live:
        merge(adapted)
    assert live.most / 2**30 == pytest.approx(needs["merge"], rel=0.4)


def test_the_estimate_of_a_blocks_activations_is_what_autograd_keeps():
    config = LlamaConfig(
        hidden_size=256, intermediate_size=700, num_hidden_layers=1, num_attention_heads=8, vocab_size=50
    )
    model = get_peft_model(small(config, torch.bfloat16), SppConfig()).train()
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
    lab, seven = CalculatorLab(), CONFIGS["LLaMA-2-7B"]
    _, text = lab.render("LLaMA-2-7B", 16, 8, "RTX 3090", 1)
    assert "19,578,880 trainable numbers (0.291%)" in text and "fits 24 GiB" in text and "(one GPU)" in text
    assert "does not fit 16 GiB" in lab.render("LLaMA-2-7B", 16, 8, "T4", 1)[1]
    assert "does not fit 16 GiB" in lab.render("LLaMA-2-7B", 16, 4, "T4", 1)[1]  # by a quarter more than the formula
    assert "it fits 16 GiB" in lab.render("TinyLlama-1.1B", 16, 4, "T4", 1)[1]
    assert "most of it weights" in text and "under FSDP" in lab.render("LLaMA-2-7B", 16, 8, "T4", 2)[1]
    assert "most of it the loss" in lab.render("SmolLM2-135M", 16, 8, "T4", 1)[1]
    narrow, wide = (memory(seven, r) for r in (16, 256))
    grown = [name for name in narrow if wide[name] > narrow[name]]
    assert grown == ["factors, gradients, Adam"] and 14 < wide[grown[0]] / narrow[grown[0]] < 16
    assert 13.5 < hours(seven, "RTX 3090") / hours(seven, "H100") < 14.5 and CARDS["T4"][0] > SPARE


def test_every_state_works_and_a_move_is_quick(drive):
    drive(CalculatorLab())


def test_the_diagram_names_four_gpus():
    (axes,) = draw_fsdp().axes
    assert {f"GPU {i}" for i in range(4)} <= {text.get_text() for text in axes.texts}


def commands():
    """Every command of spp-lite in the fenced blocks of notebook 09, its lines joined."""
    text = re.sub(r"^# ?", "", SOURCE.read_text(), flags=re.M)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [re.search(r"^(?:spp-lite|accelerate launch .*-m spp_lite) (.*)", line) for line in lines]
    return [one[1] for one in found if one]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_notebook_has_options_that_exist(command):
    kept = command if "--use_cpu" in command else re.sub("--(fp|bf)16 true", "", command)  # refused without a GPU
    words = shlex.split(kept)
    parser = argparse.ArgumentParser()
    assert words[0] in COMMANDS
    import_module(f"spp_lite.cli.{words[0]}").add(parser)
    options, options.rest = parser.parse_known_args(words[1:])
    assert words[0] == "finetune" or not options.rest
    if words[0] == "finetune":
        _settings(options)


def test_the_notebook_shows_all_commands_but_the_sweep_and_the_doctor():
    assert {command.split()[0] for command in commands()} == set(COMMANDS) - {"sweep", "doctor"}
