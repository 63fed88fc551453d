"""A report counts against the whole: fused experts, towers, hybrids, skipped and quantised layers are never lost sight of."""

import warnings

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config

from spp_lite import prune
from spp_lite.pruning.blocks import CalibrationError, block_linears, block_matrices, decoder_blocks
from spp_lite.pruning.sparsity import SparsityError

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FUSED = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        "num_local_experts": 4, "layer_types": ["attention", "mamba"], "mamba_n_heads": 8, "mamba_d_head": 8,
        "shared_intermediate_size": 32,
    },
}  # fmt: skip
IDS = [torch.randint(3, 96, (4, 12), generator=torch.Generator().manual_seed(0)) for _ in range(2)]


def build(family="llama", **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SMALL, **more})).eval()


def vision_and_language(vision_width):
    vision = {
        "hidden_size": vision_width, "intermediate_size": 2 * vision_width, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    text = {**SMALL, "head_dim": 8, "sliding_window": 8}
    tokens = {"mm_tokens_per_image": 1, "boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision, **tokens)).eval()


@pytest.mark.parametrize("family", FUSED)
def test_fused_experts_are_named_and_counted_as_dense(family):
    model = build(family, **FUSED[family])
    with pytest.warns(UserWarning, match=r"are no linears and stay dense, .*expert"):
        report = prune(model, IDS, "50%", progress=False)
    matrices = [weight for name, weight in block_matrices(model).items()]
    true = sum(int((w == 0).sum()) for w in matrices) / sum(w.numel() for w in matrices)
    assert report.of_blocks == pytest.approx(true, abs=1e-9) and true < 0.2 < report.sparsity
    assert any("expert" in name for name in report.left_dense) and "left dense" in str(report)


def test_zeros_that_were_there_before_are_told_apart():
    model = build()
    assert prune(model, None, "25%", "magnitude", progress=False).before == 0
    report = prune(model, None, "2:4", "magnitude", progress=False)
    assert report.before == report.pruned // 4 and report.sparsity > 0.5 and "linears (25.00% before)" in str(report)


@pytest.mark.parametrize("width", [16, 128])
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_of_a_multimodal_model_the_language_model_is_pruned(width, method):
    model = vision_and_language(width)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    report = prune(model, IDS if method == "wanda" else None, "50%", method, progress=False)
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed and not any("vision" in name for name in changed | set(report.table["layer"]))
    assert report.of_blocks == pytest.approx(0.5, abs=0.01)
    assert report.zeros / report.total < 0.5


def test_blocks_of_several_classes_are_all_found():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(8, 8)

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

    model = nn.Module()
    model.layers = nn.ModuleList([Attention(), Mixture(), Attention()])
    assert decoder_blocks(model)[0] == "layers" and len(block_linears(model)) == 5


def test_what_the_user_skips_is_listed_without_a_warning():
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = prune(model, IDS, "50%", skip=["*.down_proj"], progress=False)
    assert all(name.endswith("down_proj.weight") for name in report.left_dense) and len(report.left_dense) == 2
    assert report.of_blocks < report.sparsity == pytest.approx(0.5, abs=0.01)


def test_weights_that_are_no_floats_are_refused_by_name():
    model = build()
    linear = model.model.layers[1].mlp.up_proj
    linear.weight = nn.Parameter(linear.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(
        SparsityError, match=r"layers.1.mlp.up_proj is a quantised Linear of torch.int8: prune the unqu"
    ):
        prune(model, IDS, "50%", progress=False)


def test_a_weight_that_two_layers_share_is_refused():
    model = build()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(SparsityError, match=r"layers.1.mlp.up_proj and model.layers.0.mlp.up_proj share one weight"):
        prune(model, IDS, "50%", progress=False)


def test_calibration_of_another_tokenizer_is_refused():
    with pytest.raises(CalibrationError, match="calibration holds token 96, the model has 96 embeddings"):
        prune(build(), [torch.full((1, 8), 96)], "50%", progress=False)
