"""Each recipe is read by `spp-lite finetune` and trains two steps, the first at a rate of 0; two processes, with a model
each or with shards of one, train the adapter that one trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from spp_lite.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.stem for path in (CONFIGS / "recipes").glob("*.yaml"))
AUTHORS = {"llama-7b": (4e-3, 128), "llama-13b": (2e-3, 128), "llama-30b": (4e-3, 256), "llama-65b": (5e-4, 128)}

SHARDED = """
import sys
import torch
from peft import get_peft_model
from torch.distributed.fsdp import fully_shard
from transformers import set_seed
from spp_lite import SppConfig, load, merge
from spp_lite.pruning.blocks import zeros

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
(model, tokenizer), (again, _) = load(sys.argv[1]), load(sys.argv[1])
set_seed(0)
sharded, whole = get_peft_model(model, SppConfig()), get_peft_model(again, SppConfig())
whole.load_state_dict(sharded.state_dict())
for block in sharded.base_model.model.model.layers:
    fully_shard(block)
fully_shard(sharded)
ids = tokenizer(["Where does Mira live?", "What is a bell used for?"], return_tensors="pt", padding=True)["input_ids"]
for trained, rows in ((sharded, ids[rank : rank + 1]), (whole, ids)):
    optimizer = torch.optim.SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=0.3)
    for _ in range(4):
        trained(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
moved = 0.0
for name, weight in sharded.named_parameters():
    full, alone = weight.full_tensor(), whole.get_parameter(name)
    torch.testing.assert_close(full, alone.detach(), rtol=1e-3, atol=1e-5, msg=lambda text: f"{name}: {text}")
    moved = max(moved, float(alone.abs().max()) if "beta" in name else 0.0)
    alone.data = full
merged, _ = merge(whole)
assert moved > 1e-3 and zeros(merged) == 0.5, (moved, zeros(merged))
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A folder with the tiny model at 2:4."""
    folder = tmp_path_factory.mktemp("pruned") / "model"
    assert main(f"prune --sparsity 2:4 --method magnitude --out {folder}".split()) == 0
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps(pruned, few_records, tmp_path, name):
    file = CONFIGS / "recipes" / f"{name}.yaml"
    given = yaml.safe_load(file.read_text())
    if name in AUTHORS:
        batch = given["per_device_train_batch_size"] * given["gradient_accumulation_steps"]
        assert (given["learning_rate"], batch) == AUTHORS[name] and given["num_train_epochs"] == 3
    assert (given["r"], given["scaling"], given["dropout"], given["cutoff"]) == (16, 2.0, 0.05, 512)
    here = f"--model {pruned} --data {few_records} --output-dir {tmp_path} --max-steps 2 --bf16 false --use-cpu true"
    small = "--gradient-accumulation-steps 1 --per-device-train-batch-size 2"
    assert main(["finetune", str(file), *here.split(), *small.split()]) == 0
    trained = load_file(tmp_path / "adapter_model.safetensors")
    assert any(bool(weight.any()) for key, weight in trained.items() if "beta" in key)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_accelerate_reads_its_configurations(name):
    found = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    assert found.num_processes == 8 and found.mixed_precision == "bf16"


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*command):
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(pruned, few_records, tmp_path):
    """Four steps of 8 records: 8 in one process, 4 in each of two (DDP, gloo); the same records and the same α."""
    words = f"--model {pruned} --data {few_records} --max-steps 4 --learning-rate 1e-2 --use-cpu true --report-to none"
    words = ["-m", "spp_lite", "finetune", *words.split(), "--seed", "3", "--save-strategy", "no"]
    words.append("--per-device-train-batch-size")
    run(sys.executable, *words, "8", "--output-dir", str(tmp_path / "one"))
    run(*LAUNCH, *words, "4", "--ddp-backend", "gloo", "--output-dir", str(tmp_path / "two"))
    single, double = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert single.keys() == double.keys()
    for name, weight in single.items():
        torch.testing.assert_close(
            double[name], weight, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_shards_in_two_processes_train_as_the_whole_model_and_merge_with_every_zero(pruned, tmp_path):
    """FSDP2 by torch itself: accelerate shards on accelerators alone."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    run(*LAUNCH, str(script), str(pruned))
