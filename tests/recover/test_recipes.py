"""Each recipe is read by `spp-lite finetune` and trains two steps, the first at a rate of 0; two processes, with a model
each or with shards of one, train the adapter that one trains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from spp_lite import load
from spp_lite.cli import main
from spp_lite.pruning.blocks import zeros

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.stem for path in (CONFIGS / "recipes").glob("*.yaml"))
AUTHORS = {"llama-7b": (4e-3, 128), "llama-13b": (2e-3, 128), "llama-30b": (4e-3, 256), "llama-65b": (5e-4, 128)}

ON_A_CPU = """
import sys
from accelerate.state import DistributedType, PartialState

begin = PartialState.__init__
def as_on_gpus(self, *args, **kwargs):  # accelerate shards on accelerators alone; what it does there works here, too
    begin(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU
PartialState.__init__ = as_on_gpus

from spp_lite.cli import main
sys.exit(main(sys.argv[1:]))
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


def run(*command, **env):
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"} | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stderr


def settings_of_fsdp():
    """What `accelerate launch` makes of configs/accelerate/fsdp2.yaml."""
    given = yaml.safe_load((CONFIGS / "accelerate" / "fsdp2.yaml").read_text())["fsdp_config"]
    given["fsdp_transformer_cls_to_wrap"] = given.pop("fsdp_transformer_layer_cls_to_wrap")
    found = {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()
    }
    return found | {"ACCELERATE_USE_FSDP": "true"}


def settings_of_zero():
    """The same of configs/accelerate/zero3.yaml."""
    given = yaml.safe_load((CONFIGS / "accelerate" / "zero3.yaml").read_text())["deepspeed_config"]
    assert given["zero_stage"] == 3 and not given["zero3_init_flag"]
    return {
        "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "DS_ACCELERATOR": "cpu",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "false",
    }  # fmt: skip


@pytest.fixture(scope="module")
def one(pruned, few_records, tmp_path_factory):
    """A command without its batch and place, and the adapter that one process makes by it."""
    words = f"finetune --model {pruned} --data {few_records} --max-steps 4 --learning-rate 1e-2 --use-cpu true --seed 3"
    words, folder = [*words.split(), "--report-to", "none", "--save-steps", "2"], tmp_path_factory.mktemp("one")
    batch = ["--per-device-train-batch-size", "8", "--save-strategy", "no"]
    run(sys.executable, "-m", "spp_lite", *words, *batch, "--output-dir", str(folder))
    return words, load_file(folder / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2", "fsdp2 with checkpoints in shards", "zero3"])
def test_two_processes_train_the_adapter_of_one(one, pruned, tmp_path, engine):
    """Four steps of 8 records: 8 in one process, 4 in each of two (gloo), which have a model each or shards of one; the
    same records and the same α. With shards after a checkpoint, too; and what was trained in shards merges."""
    if engine == "zero3":
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: ZeRO-3 is not tried")
    words, single = one
    (tmp_path / "shards.py").write_text(ON_A_CPU)
    command = [*LAUNCH, str(tmp_path / "shards.py")] if "fsdp2" in engine else [*LAUNCH, "-m", "spp_lite"]
    places = f"--per-device-train-batch-size 4 --ddp-backend gloo --output-dir {tmp_path / 'two'}"
    command += [*words, *places.split()]
    env = {"ddp": dict, "fsdp2": settings_of_fsdp, "zero3": settings_of_zero}[engine.split()[0]]()
    if "in shards" in engine:  # what accelerate does when nothing is said
        del env["FSDP_STATE_DICT_TYPE"]
    run(*command, **env)
    again = (tmp_path / "two" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "two" / "checkpoint-4")
    assert "starts anew" not in run(*command, "--resume-from-checkpoint", "true", **env)
    assert (tmp_path / "two" / "adapter_model.safetensors").read_bytes() == again
    double = load_file(tmp_path / "two" / "adapter_model.safetensors")
    assert single.keys() == double.keys()
    for name, weight in single.items():
        torch.testing.assert_close(
            double[name], weight, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert max(float(weight.abs().max()) for name, weight in double.items() if "beta" in name) > 1e-3
    merged = f"--model {pruned} --adapter {tmp_path / 'two'} --out {tmp_path / 'merged'}"
    assert main(["merge", *merged.split()]) == 0
    assert zeros(load(tmp_path / "merged")[0]) == zeros(load(pruned)[0]) == 0.5
