"""SPP as a layer: exact arithmetic in every type and shape; as a PEFT tuner: what PEFT users expect."""

import copy
import json
import subprocess
import sys
import warnings

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spp_lite import SppConfig, prune
from spp_lite.adapter.kernels import effective_weight, row_blocks, spp_linear, spp_linear_ref
from spp_lite.adapter.tuner import SppLinear
from spp_lite.pruning.blocks import block_linears
from spp_lite.pruning.sparsity import SparsityError

IDS = torch.randint(0, 96, (4, 10), generator=torch.Generator().manual_seed(3))


def small(sparsity="2:4", seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    if sparsity:
        prune(model, [IDS], sparsity, progress=False)
    return model


def shake(model, adapter="default"):
    """Give every factor a value, as training would."""
    torch.manual_seed(7)
    for module in model.modules():
        if isinstance(module, SppLinear) and adapter in module.spp_beta:
            module.spp_beta[adapter].data.normal_()
            if module.shift[adapter]:
                module.spp_alpha[adapter].data.normal_(std=0.3)
    return model


def adapted(sparsity="2:4", **config):
    return shake(peft.get_peft_model(small(sparsity), SppConfig(**config)))


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def tensors(out, inside, r, tokens, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inside, generator=draw) * (torch.rand(out, inside, generator=draw) > 0.5)
    x, bias = torch.randn(*tokens, inside, generator=draw), torch.randn(out, generator=draw)
    alpha, beta = torch.randn(r, inside, generator=draw), torch.randn(out, generator=draw)
    wide = torch.promote_types(dtype, torch.float32)
    return x.to(dtype), weight.to(dtype), bias.to(dtype), alpha.to(wide), beta.to(wide)


def naive(x, weight, bias, alpha, beta, scaling):
    """Row by row in float64."""
    rows = []
    for i in range(len(weight)):
        block = i * len(alpha) // len(weight)
        rows.append(x.double() @ (weight[i].double() * (1 + scaling * alpha[block].double() * beta[i].double())))
    return torch.stack(rows, -1) + bias.double()


SHAPES = [
    (12, 8, 4, (3, 5)),
    (7, 5, 3, (6,)),
    (5, 9, 16, (2, 3)),
    (1, 1, 1, (4,)),
    (10, 4, 1, (2, 1, 3)),
    (6, 11, 6, (1,)),
]


@pytest.mark.parametrize("out, inside, r, tokens", SHAPES)
def test_value_and_gradients_equal_the_naive_form_in_float64(out, inside, r, tokens):
    leaves = [t.requires_grad_() for t in tensors(out, inside, r, tokens, torch.float64)]
    torch.testing.assert_close(spp_linear(*leaves, 2.0), naive(*leaves, 2.0))
    assert torch.autograd.gradcheck(lambda *args: spp_linear(*args, 2.0), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("out, inside, r, tokens", [(48, 64, 16, (4, 33)), (45, 63, 7, (50,))])
def test_the_fast_form_errs_at_most_twice_as_much_as_the_plain_one(out, inside, r, tokens, dtype):
    leaves = tensors(out, inside, r, tokens, dtype)

    def run(function, values):
        values = [value.clone().requires_grad_() for value in values]
        y = function(*values, 2.0)
        up = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        return [y, *torch.autograd.grad((y.double() * up).sum(), values)]

    exact = run(naive, [leaf.double() for leaf in leaves])
    fast, plain = run(spp_linear, leaves), run(spp_linear_ref, leaves)
    for f, p, e in zip(fast, plain, exact, strict=True):
        floor = 4 * torch.finfo(dtype).eps * e.abs().max()
        assert (f.double() - e).abs().max() <= 2 * (p.double() - e).abs().max() + floor


def test_gradients_accumulate_over_micro_batches_and_a_frozen_input_gets_none():
    x, weight, bias, alpha, beta = tensors(12, 8, 4, (6,), torch.float64)
    alpha.requires_grad_(), beta.requires_grad_()
    spp_linear(x, weight, bias, alpha, beta, 2.0).square().sum().backward()
    whole = alpha.grad.clone(), beta.grad.clone()
    alpha.grad = beta.grad = None
    for part in x.split(2):
        spp_linear(part, weight, bias, alpha, beta, 2.0).square().sum().backward()
    torch.testing.assert_close((alpha.grad, beta.grad), whole)
    assert x.grad is weight.grad is bias.grad is None


def test_nothing_of_the_weights_size_is_kept_for_backward():
    x, weight, bias, alpha, beta = tensors(96, 80, 4, (7,))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        spp_linear(x, weight, bias, alpha.requires_grad_(), beta.requires_grad_(), 2.0)
    large = [t for t in saved if t.numel() >= weight.numel()]
    assert len(saved) == 4 and len(large) == 1 and large[0].data_ptr() == weight.data_ptr()


def test_zeros_stay_zero_even_where_factors_overflow_half_precision():
    weight = torch.tensor([[0.0, 1e-4]], dtype=torch.float16)
    merged = effective_weight(weight, [(torch.full((1, 2), 1e3), torch.tensor([1e3]), 2.0)])
    assert merged[0, 0] == 0 and torch.isfinite(merged).all()


@pytest.mark.parametrize("r, out", [(1, 5), (3, 7), (16, 5), (4, 8), (7, 3)])
def test_blocks_are_contiguous_and_differ_by_one_row_at_most(r, out):
    blocks = row_blocks(out, r)
    assert blocks.tolist() == [i * r // out for i in range(out)] and (blocks.diff() >= 0).all()
    sizes = torch.bincount(blocks, minlength=r)
    assert sizes.max() - sizes.min() <= 1


def test_the_token_sample_is_unbiased():
    x, weight, bias, alpha, beta = tensors(6, 5, 2, (8,), torch.float64)
    leaves = [alpha.requires_grad_(), beta.requires_grad_()]
    exact = torch.autograd.grad(spp_linear(x, weight, bias, *leaves, 2.0).square().sum(), leaves)
    torch.manual_seed(0)
    sums = [torch.zeros_like(gradient) for gradient in exact]
    for _ in range(3000):
        found = torch.autograd.grad(spp_linear(x, weight, bias, *leaves, 2.0, 0.25).square().sum(), leaves)
        sums = [total + gradient for total, gradient in zip(sums, found, strict=True)]
    for total, gradient in zip(sums, exact, strict=True):
        assert (total / 3000 - gradient).norm() < 0.1 * gradient.norm()


def test_compiled_autocast_and_checkpointed_runs_agree():
    model = adapted()
    model.train()

    def gradients(run):
        model.zero_grad()
        run().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    plain = gradients(lambda: model(input_ids=IDS, labels=IDS).loss)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    again = gradients(lambda: model(input_ids=IDS, labels=IDS).loss)
    model.gradient_checkpointing_disable()
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=IDS, labels=IDS).loss
    torch.testing.assert_close(loss, model(input_ids=IDS, labels=IDS).loss, rtol=2e-2, atol=2e-2)
    gradients(lambda: loss)


def test_torch_compile_gives_the_same():
    values = tensors(8, 6, 2, (5,))
    compiled = torch.compile(lambda *args: spp_linear(*args, 2.0), backend="aot_eager", fullgraph=True)
    leaves = [value.clone().requires_grad_() for value in values]
    others = [value.clone().requires_grad_() for value in values]
    compiled(*leaves).square().sum().backward()
    spp_linear(*others, 2.0).square().sum().backward()
    for a, b in zip(leaves, others, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("dropout, active", [(0.0, ["default"]), (0.0, ["default", "second"]), (0.1, ["default"])])
def test_a_layer_is_one_graph_to_torch_compile(dropout, active):
    model = adapted(r=4, dropout=dropout).train()
    model.add_adapter("second", SppConfig(r=3))
    shake(model, "second").base_model.set_adapter(active)
    layer, x = model.base_model.model.model.layers[0].mlp.up_proj, torch.randn(3, 32)
    found = []
    for run in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        found.append(run(x))
    torch.testing.assert_close(*found)


# --- the tuner ---


@pytest.mark.parametrize("targets", [None, "all-linear", ["q_proj", "down_proj"], r".*layers\.0\..*(k|v)_proj"])
def test_insertion_changes_nothing_to_the_last_bit(targets):
    model = small()
    before = logits(model)
    found = peft.get_peft_model(model, SppConfig(target_modules=targets))
    assert torch.equal(logits(found), before)
    count = sum(isinstance(module, SppLinear) for module in found.modules())
    assert count == {None: 14, "all-linear": 14}.get(
        targets if isinstance(targets, str | None) else 0, 4 if isinstance(targets, list) else 2
    )
    trainable = [name for name, parameter in found.named_parameters() if parameter.requires_grad]
    assert trainable and all("spp_" in name for name in trainable)


def test_the_direct_form_is_the_product_that_its_name_says():
    x, weight, _, alpha, beta = tensors(7, 5, 3, (6,), torch.float64)
    linear = torch.nn.Linear(5, 7, bias=False, dtype=torch.float64)
    linear.weight.data = weight
    layer = SppLinear(linear, "default", SppConfig(form="direct"), 3, 2.0).double()
    factors = layer.spp_alpha["default"], layer.spp_beta["default"]
    assert torch.equal(layer(x), linear(x)) and not any(factor.any() for factor in factors)  # the very start
    (layer(x) * torch.arange(7)).sum().backward()
    assert all(factor.grad.any() for factor in factors)  # both can move from there
    for factor, value in zip(factors, (alpha, beta), strict=True):
        factor.grad, factor.data = None, value
    alpha, beta = (value.clone().requires_grad_() for value in (alpha, beta))
    plain = x @ (weight * (1 + alpha[row_blocks(7, 3)]) * (1 + beta[:, None])).T
    torch.testing.assert_close(layer(x), plain)
    expected = torch.autograd.grad(plain.square().sum(), (alpha, beta))
    torch.testing.assert_close(torch.autograd.grad(layer(x).square().sum(), factors), expected)


def test_one_config_serves_models_with_other_zeros():
    config = SppConfig()
    for sparsity in ("2:4", "50%"):
        peft.get_peft_model(small(sparsity), config)
    assert config.mask_fingerprint is None and config.target_modules is None


@pytest.mark.scaling
def test_r_and_scaling_are_real_and_have_patterns():
    model = peft.get_peft_model(
        small(), SppConfig(r=3, scaling=0.5, rank_pattern={"q_proj": 5}, scaling_pattern={"v_proj": 4.0})
    )
    layers = {
        name.rpartition(".")[2]: module for name, module in model.named_modules() if isinstance(module, SppLinear)
    }
    assert layers["q_proj"].spp_alpha["default"].shape == (5, 32) and layers["k_proj"].spp_alpha["default"].shape == (
        3,
        32,
    )
    assert layers["v_proj"].scaling["default"] == 4.0 and layers["q_proj"].scaling["default"] == 0.5
    assert layers["q_proj"].spp_beta["default"].shape == (32,)


@pytest.mark.parametrize("loader", ["PeftModel", "AutoPeftModel", "load_adapter", "low_cpu_mem_usage"])
def test_saved_adapters_load_to_the_same_bits(tmp_path, loader):
    model = adapted(r=5)
    expected = logits(model)
    base = tmp_path / "base"
    small().save_pretrained(base)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "SPP" and (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert (tmp_path / "adapter" / "README.md").exists()  # the model card
    if loader == "AutoPeftModel":
        loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    elif loader == "load_adapter":
        loaded = AutoModelForCausalLM.from_pretrained(base)
        loaded.load_adapter(str(tmp_path / "adapter"))
    else:
        low = loader == "low_cpu_mem_usage"
        loaded = peft.PeftModel.from_pretrained(small(), tmp_path / "adapter", low_cpu_mem_usage=low)
    assert torch.equal(logits(loaded.eval()), expected)


@pytest.mark.parametrize("other, found", [("50%", "other zeros"), (None, "other zeros")])
def test_an_adapter_for_another_base_is_refused(tmp_path, other, found):
    adapted().save_pretrained(tmp_path)
    with pytest.raises(SparsityError, match=f"'default' was made on a base with {found}.*load the pruned model"):
        peft.PeftModel.from_pretrained(small(other), tmp_path)


def test_without_spp_lite_the_adapter_does_not_load_silently(tmp_path):
    adapted().save_pretrained(tmp_path)
    code = f"import peft; peft.PeftConfig.from_pretrained({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "SPP" in done.stderr.splitlines()[-1]


def test_several_adapters_switch_add_disable_and_go():
    model = adapted(r=4)
    base = logits(small())
    first = logits(model)
    model.add_adapter("second", SppConfig(form="spp", r=2, scaling=1.0))
    shake(model, "second").set_adapter("second")
    second = logits(model)
    assert not torch.equal(first, second) and not torch.equal(second, base)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    expected = layer.base_layer.weight + layer.get_delta_weight("default") + layer.get_delta_weight("second")
    names = ["default", "second"]
    found = effective_weight(layer.base_layer.weight, layer.factors(names), layer.start(names))
    torch.testing.assert_close(found, expected)
    model.merge_adapter()
    assert torch.equal(logits(model), both)
    model.unmerge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("second")
    assert torch.equal(logits(model), first) and list(model.peft_config) == ["default"]
    assert model.get_model_status().active_adapters == ["default"]
    assert torch.equal(logits(model.unload()), base)


def test_merge_unmerge_and_reload_are_bit_equal(tmp_path):
    model = adapted()
    expected, weights = logits(model), copy.deepcopy(small().state_dict())
    model.merge_adapter(safe_merge=True)
    assert torch.equal(logits(model), expected)
    model.unmerge_adapter()
    for name, linear in block_linears(small()).items():
        found = model.get_submodule(f"base_model.model.{name}").base_layer.weight
        assert torch.equal(found, weights[f"{name}.weight"]) and torch.equal(found, linear.weight)
    plain = model.merge_and_unload()
    assert type(plain) is LlamaForCausalLM and torch.equal(logits(plain), expected)
    plain.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected)


def test_modules_to_save_are_trained_and_saved(tmp_path):
    model = adapted(modules_to_save=["lm_head"])
    assert any(p.requires_grad and "lm_head" in name for name, p in model.named_parameters())
    model.base_model.model.lm_head.modules_to_save["default"].weight.data.add_(0.1)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(small(), tmp_path)), expected)


def test_dropout_acts_in_training_alone():
    model = adapted(dropout=0.5)
    quiet, expected = adapted(), logits(model)
    assert torch.equal(logits(quiet), expected)
    model.train()
    torch.manual_seed(1)
    noisy = logits(model)
    assert not torch.equal(noisy, expected)
    torch.manual_seed(2)
    assert not torch.equal(logits(model), noisy)
    model(input_ids=IDS, labels=IDS).loss.backward()


def test_half_precision_bases_keep_float32_factors():
    model = peft.get_peft_model(small().to(torch.bfloat16), SppConfig())
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(factor.dtype == torch.float32 for factor in factors)
    shake(model)(input_ids=IDS, labels=IDS).loss.backward()
    assert all(torch.isfinite(factor.grad).all() for factor in factors)
    expected = logits(model)
    assert torch.equal(logits(model.merge_and_unload()), expected)


def test_a_dense_model_gets_one_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peft.get_peft_model(small(sparsity=None), SppConfig())
    ours = [str(w.message) for w in caught if "nothing to preserve" in str(w.message)]
    assert len(ours) == 1 and "14 of 14 linears have no zeros" in ours[0]


@pytest.mark.scaling
@pytest.mark.parametrize(
    "config, message",
    [({"r": 0}, "r=0 for 'r'"), ({"r": 2.5}, "r=2.5"), ({"rank_pattern": {"q_proj": 0}}, "r=0 for 'q_proj'"),
     ({"r": True}, "r=True"), ({"dropout": 1.0}, "dropout=1.0 must be in"), ({"token_fraction": 0.0}, "=0.0 in"),
     ({"scaling": 0}, "scaling=0 for 'scaling'"), ({"scaling": float("nan")}, "scaling=nan"), ({"scaling": "2"}, "'2'"),
     ({"scaling_pattern": {"q": float("inf")}}, "scaling=inf for 'q'"), ({"target_modules": "("}, "'[(]' is no regular"),
     ({"form": "product"}, "form='product' is none of spp, direct"),
     *(({"form": "direct", **s}, "has no scaling") for s in ({"scaling": 1.0}, {"scaling_pattern": {"q_proj": 3.0}})),
     ({"rank_pattern": {"(": 2}}, "'[(]' is no regular"), ({"layers_pattern": "h"}, "no layers_pattern"),
     *(({"layers_to_transform": n}, "give the blocks' numbers") for n in ([], True, ["0"], [1.5]))],
)  # fmt: skip
def test_wrong_settings_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        SppConfig(**config)


def test_one_vector_goes_both_ways_as_through_a_linear():
    layer = adapted().base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(layer.in_features, requires_grad=True)
    alpha, beta = layer.spp_alpha["default"], layer.spp_beta["default"]
    one = torch.autograd.grad(layer(x).square().sum(), (x, alpha, beta))
    row = torch.autograd.grad(layer(x[None]).square().sum(), (x, alpha, beta))
    assert all(map(torch.equal, one, row))
