"""The merge proves its zeros or leaves everything as it was; the HiRA export is exact in a process without spp_lite."""

import subprocess
import sys

import peft
import pytest
import torch
from test_adapter import IDS, adapted, logits, small

from spp_lite import merge, to_hira
from spp_lite.adapter.tuner import SppLinear
from spp_lite.pruning.calibration import block_linears
from spp_lite.pruning.sparsity import SparsityError, measure


@pytest.mark.parametrize("sparsity", ["2:4", "2:8", "75%"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_keeps_every_zero_and_says_so(sparsity, dtype):
    model = adapted(sparsity).to(dtype)
    expected = logits(model)
    before = {name: linear.weight == 0 for name, linear in block_linears(small(sparsity)).items()}
    merged, report = merge(model)
    assert torch.equal(logits(merged), expected) and report.logits_error == 0
    after = block_linears(merged)
    for row in report.table.itertuples():
        assert not after[row.layer].weight[before[row.layer]].any()
        assert row.before <= row.after == measure(after[row.layer].weight) and row.change > 0
        assert row.pattern == (sparsity if ":" in sparsity else "unstructured")
    assert report.densification == 0 and len(report.table) == 14
    assert not hasattr(merged, "peft_config") and not merged.training


def test_lora_is_caught_and_the_model_left_as_it_was():
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lora = peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear", init_lora_weights=False))
    expected = logits(lora)
    with pytest.raises(
        SparsityError, match=r"q_proj: merging fills 5\d\d of 512 zeros \(100.0%\): use an adapter that"
    ):
        merge(lora)
    assert torch.equal(logits(lora), expected)
    for name, linear in block_linears(small()).items():
        assert torch.equal(lora.get_submodule(f"base_model.model.{name}").base_layer.weight, linear.weight)
    assert before


def break_base(model):
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    original = layer.merge

    def merge_wrongly(*args, **kwargs):
        original(*args, **kwargs)
        weight = layer.base_layer.weight
        weight.data[weight == weight[weight != 0][0]] *= 40

    layer.merge = merge_wrongly


def overflow(model):
    model.base_model.model.model.layers[0].mlp.down_proj.spp_beta["default"].data[:] = float("inf")


@pytest.mark.parametrize(
    "sabotage, message",
    [(break_base, "logits differ by .* of the largest, more than 0.0001"), (overflow, "down_proj: .* not finite")],
)
def test_a_failed_proof_leaves_the_model_as_it_was(sabotage, message):
    model = adapted()
    sabotage(model)
    weights = {
        name: module.base_layer.weight.clone()
        for name, module in model.named_modules()
        if isinstance(module, SppLinear)
    }
    with pytest.raises(SparsityError, match=message):
        merge(model)
    for name, weight in weights.items():
        layer = model.get_submodule(name)
        assert torch.equal(layer.base_layer.weight, weight) and not layer.merged


def test_what_cannot_be_merged_is_named():
    with pytest.raises(SparsityError, match="carries no adapter"):
        merge(small())
    model = adapted()
    model.merge_adapter()
    with pytest.raises(SparsityError, match=r"q_proj is merged already: call unmerge_adapter\(\) first"):
        merge(model)


@pytest.mark.parametrize("config", [{"r": 4}, {"r": 5, "scaling": 0.7, "rank_pattern": {"q_proj": 3}}])
def test_hira_export_is_exact_in_stock_peft(tmp_path, config):
    model = adapted(**config)
    small().save_pretrained(tmp_path / "base")
    to_hira(model, tmp_path / "hira")
    code = f"""
import sys, torch, peft
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(tmp_path / "base")!r})
model = peft.PeftModel.from_pretrained(base, {str(tmp_path / "hira")!r}).eval()
assert "spp_lite" not in sys.modules and model.peft_config["default"].peft_type == "HIRA"
with torch.no_grad():
    torch.save(model(input_ids=torch.tensor({IDS.tolist()})).logits, {str(tmp_path / "logits.pt")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-1000:]
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(found, logits(model), rtol=1e-5, atol=1e-6)


def test_only_spp_is_exported(tmp_path):
    lora = peft.get_peft_model(small(), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="only SPP can be written as HiRA"):
        to_hira(lora, tmp_path / "hira")
    assert not (tmp_path / "hira").exists()
