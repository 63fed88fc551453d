"""The base an adapter sits on: told from every other, read wherever it is, never copied for backward, never guessed."""

import accelerate
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_adapter import IDS, adapted, logits, shake, small
from torch import nn
from transformers import LlamaForCausalLM

from spp_lite import SppConfig, merge
from spp_lite.adapter import load_adapter
from spp_lite.adapter.base import SAMPLE, compare, misfit, sample
from spp_lite.pruning.blocks import block_linears
from spp_lite.pruning.sparsity import SparsityError

ROUNDED = "made on weights of type .*rounding made zeros of"


class Codes(nn.Linear):
    """A linear that keeps codes of few levels, as HQQ and bitsandbytes do: zeros stay, small weights become zeros."""

    def __init__(self, linear, levels=3, zero=0.0):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = nn.Parameter(torch.empty(1, dtype=torch.uint8), requires_grad=False)
        self.scale, self.zero, self.made = linear.weight.detach().abs().max() / levels, zero, 0
        self.W_q = torch.round(linear.weight.detach() / self.scale)

    def dequantize(self):
        self.made += 1
        return self.W_q * self.scale + self.zero

    def forward(self, x):
        return nn.functional.linear(x, self.dequantize())


def quantised(model, **settings):
    for name, linear in block_linears(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Codes(linear, **settings))
    return model


def halved(sparsity="50%"):
    """A pruned float32 model of which float16 cannot hold some weights."""
    model = small(sparsity)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3] *= 1e-8
    return model


def offloaded(model):
    accelerate.cpu_offload(model, execution_device="cpu")
    return model


@pytest.mark.parametrize("make", [lambda: quantised(small("50%")), lambda: halved().half()], ids=["quantised", "half"])
def test_an_adapter_made_on_a_rounded_base_is_merged_on_the_exact_one_with_a_warning(tmp_path, make):
    model = shake(peft.get_peft_model(make(), SppConfig(r=4)))
    model.save_pretrained(tmp_path)
    exact = halved() if model.dtype == torch.float16 else small("50%")
    zeros = {name: linear.weight == 0 for name, linear in block_linears(exact).items()}
    with pytest.warns(UserWarning, match=ROUNDED):
        loaded = load_adapter(exact, tmp_path)
    expected = logits(loaded)
    merged, report = merge(loaded)
    assert torch.equal(logits(merged), expected) and report.densification == 0 and len(report.table) == 14
    assert not any(linear.weight[zeros[name]].any() for name, linear in block_linears(merged).items())


def test_an_adapter_made_on_the_exact_base_runs_on_the_rounded_one_and_saves_where_it_came_from(tmp_path):
    model = adapted("50%")
    mask = model.peft_config["default"].mask_fingerprint
    model.save_pretrained(tmp_path / "a")
    with pytest.warns(UserWarning, match=ROUNDED):
        loaded = load_adapter(quantised(small("50%")), tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert load_adapter(small("50%"), tmp_path / "b").peft_config["default"].mask_fingerprint == mask


@pytest.mark.parametrize("sparsity", ["75%", "2:4", "60%"])
@pytest.mark.parametrize("rounded", [True, False])
def test_a_base_pruned_otherwise_is_refused_rounded_or_not(tmp_path, sparsity, rounded):
    model = shake(peft.get_peft_model(quantised(small("50%")) if rounded else small("50%"), SppConfig(r=4)))
    model.save_pretrained(tmp_path)
    with pytest.raises(SparsityError, match=r"other zeros \(mask \w{16}, this one \w{16}\): load the pruned model"):
        load_adapter(small(sparsity) if rounded else quantised(small(sparsity)), tmp_path)


bits = st.integers(0, 2**SAMPLE - 1)


@given(bits, bits, bits)
def test_only_a_coarser_type_may_have_more_zeros_and_not_many_more(base, some, few):
    hexed = lambda number: {"layer": f"{number:064x}"}  # noqa: E731
    few &= few >> 1 & few >> 2 & few >> 3  # about one in sixteen
    exact, rounded = ("a", "torch.float32", hexed(base)), ("b", "Params4bit", hexed(base | few))
    assert compare("x", exact, ("a", "Params4bit", {})) is None
    kept = SAMPLE - base.bit_count()
    if 8 * (few & ~base).bit_count() <= kept:
        for made_on, here in ((exact, rounded), (rounded, exact)):
            assert "rounding made zeros" in compare("x", made_on, here)
    other = ("c", "torch.float32", hexed(base | some))  # the same type: another mask is another base
    pairs = [(exact, other), (other, exact)]
    if base & ~some:  # the coarser lacks a zero
        pairs += [(exact, ("d", "Params4bit", hexed(some))), (("d", "torch.float16", hexed(some)), exact)]
    if 8 * (some & ~base).bit_count() > kept:  # nested, but rounding does not take so many: a sparser base
        pairs += [(exact, ("e", "Int8Params", hexed(base | some)))]
    for made_on, here in pairs:
        with pytest.raises(SparsityError, match="'x' was made on a base with other zeros"):
            compare("x", made_on, here)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 32), (128, 344)])
def test_samples_are_where_they_say(shape):
    weight = torch.randn(shape) * (torch.rand(shape) > 0.5)
    zeros, values = sample(weight)
    found = int(zeros, 16)
    places = [(k + 1) * 2654435761 % weight.numel() for k in range(SAMPLE)]
    assert [bool(found >> k & 1) for k in range(SAMPLE)] == [bool(weight.view(-1)[place] == 0) for place in places]
    assert len(set(places)) >= min(weight.numel(), SAMPLE) / 2
    assert values == pytest.approx([float(x) for x in weight.view(-1)[places] if x != 0][:8], rel=1e-5)


def test_the_same_zeros_with_other_weights_are_another_base(tmp_path):
    model = adapted(r=4)
    model.save_pretrained(tmp_path)
    merged = model.merge_and_unload()
    with pytest.raises(SparsityError, match=r"the same zeros and other weights .* not one into which it was merged"):
        load_adapter(merged, tmp_path)
    for dtype in (torch.bfloat16, torch.float16):  # rounding alone is the same base
        load_adapter(small().to(dtype), tmp_path)


@pytest.mark.parametrize("here", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [None, [1]])
def test_an_adapter_that_changed_little_is_not_merged_twice(tmp_path, layers, here):
    model = peft.get_peft_model(small(), SppConfig(r=4, layers_to_transform=layers))
    for name, value in model.named_parameters():
        if "spp_beta" in name:  # a few steps: half a percent, in float32; what rounding hides may pass
            value.data.fill_(2e-3 if here == torch.float32 else 1e-2)
    model.save_pretrained(tmp_path)
    merged = model.merge_and_unload().to(here)
    with pytest.raises(SparsityError, match=r"the same zeros and other weights \([01]\.\d+% apart"):
        load_adapter(merged, tmp_path)
    load_adapter(small().to(here), tmp_path)


@pytest.mark.parametrize("first", [SppConfig(r=4), peft.LoraConfig(r=2, target_modules=["q_proj"])])
def test_a_cell_that_is_run_twice_says_that_there_is_an_adapter(first):
    model = peft.get_peft_model(small(), first)
    second = pytest.raises(ValueError, match=r"carries an adapter already: merge\(\) it or unload\(\) it first")
    with pytest.warns(UserWarning, match="for a second time"), second:
        peft.get_peft_model(model, SppConfig(r=4))
    model(IDS)


@pytest.mark.parametrize("config", [{"r": 4}, {"r": 4, "dropout": 0.1}, {"r": 5, "token_fraction": 0.5}])
def test_a_quantised_weight_is_made_again_in_backward_and_not_kept(config):
    model = shake(peft.get_peft_model(quantised(small()), SppConfig(**config))).train()
    sizes = {linear.W_q.shape for linear in model.modules() if isinstance(linear, Codes)}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.shape) or tensor, lambda t: t):
        loss = model(input_ids=IDS, labels=IDS).loss
    if not config.get("dropout"):  # there the frozen part is the layer's own business
        assert sizes and not sizes & set(saved)
    layers = [layer for layer in model.modules() if isinstance(layer, Codes)]
    before = [layer.made for layer in layers]
    loss.backward()
    assert all(layer.made > count for layer, count in zip(layers, before, strict=True))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_a_quantised_base_trains_as_its_dequantised_twin():
    gradients = []
    for chosen in (0, 1):
        model, twin = small(), quantised(small())
        for (name, linear), codes in zip(block_linears(model).items(), block_linears(twin).values(), strict=True):
            linear.weight.data.copy_(codes.dequantize())
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, (linear, codes)[chosen])
        torch.manual_seed(0)
        found = shake(peft.get_peft_model(model, SppConfig())).train()
        found(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append([p.grad for p in found.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients)


def test_a_quantised_base_without_an_exact_zero_is_refused_and_none_is_merged_into():
    with pytest.raises(SparsityError, match=r"q_proj: its Codes has no exact zero left: quantise to a type that has"):
        peft.get_peft_model(quantised(small(), zero=1e-3), SppConfig())
    model = shake(peft.get_peft_model(quantised(small()), SppConfig()))
    with pytest.raises(SparsityError, match="cannot merge into a Codes: load the pruned model unquantised"):
        model.merge_adapter()
    with pytest.raises(SparsityError, match="q_proj is quantised: load the pruned model unquantised, then merge"):
        merge(model)


def test_an_offloaded_base_is_loaded_through_its_hook_or_refused(tmp_path):
    model = adapted()
    expected, plain = logits(model), logits(small())
    model.save_pretrained(tmp_path)
    loaded = load_adapter(offloaded(small()), tmp_path)
    assert torch.equal(logits(loaded), expected)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), plain)
    assert torch.equal(logits(offloaded(load_adapter(small(), tmp_path))), expected)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(offloaded(small()), tmp_path).eval()), expected)
    with pytest.raises(SparsityError, match="other zeros"):
        load_adapter(offloaded(small("50%")), tmp_path)
    with pytest.raises(SparsityError, match="q_proj is offloaded: load the pruned model without device_map"):
        merge(loaded)
    loaded.merge_adapter()
    assert torch.equal(logits(loaded), expected)
    loaded.unmerge_adapter()
    assert torch.equal(logits(loaded), expected)


def test_an_offloaded_base_trains_as_a_present_one():
    gradients = []
    for base in (small(), offloaded(small())):
        torch.manual_seed(0)
        model = shake(peft.get_peft_model(base, SppConfig(r=4))).train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_base_that_is_not_loaded_is_said_to_be_unchecked():
    config = small().config

    def unloaded():
        with torch.device("meta"):
            return LlamaForCausalLM(config)

    known = peft.get_peft_model(small(), SppConfig(r=4)).peft_config["default"]
    with pytest.warns(UserWarning, match=r"'default': the base's weights are not loaded \(meta\): its mask cannot be"):
        peft.get_peft_model(unloaded(), known)
    peft.get_peft_model(unloaded(), SppConfig(r=4))  # nothing to check, as where parameters are counted


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def doubled():
    model = small()
    weight = model.model.layers[1].mlp.up_proj.weight
    model.model.layers[1].mlp.up_proj = Doubled(32, 48, bias=False)
    model.model.layers[1].mlp.up_proj.weight = weight
    return model


class ByHand(nn.Linear):
    def forward(self, x):  # as Falcon writes it
        return x @ self.weight.T


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x), None


@pytest.mark.parametrize("kind, fits", [(ByHand, True), (Noisy, False), (Doubled, False)])
def test_a_subclass_that_computes_what_a_linear_does_is_one(kind, fits):
    assert (misfit(kind(32, 48, bias=False)) is None) == fits


@pytest.mark.parametrize("exclude", [None, ["q_proj"], r".*\.q_proj"])
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_linears_with_a_forward_of_their_own_are_left_out_by_name_and_stay_out(tmp_path, targets, exclude):
    config = SppConfig(r=4, target_modules=targets, exclude_modules=exclude)
    with pytest.warns(UserWarning, match=r"left without factors, 1 in all: model.layers.\*.mlp.up_proj is a Doubled"):
        model = shake(peft.get_peft_model(doubled(), config))
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_adapter(doubled(), tmp_path)), expected)
    merged, report = merge(model)
    assert torch.equal(logits(merged), expected) and len(report.table) == (11 if exclude else 13)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"attention": nn.MultiheadAttention(32, 4)})])
        self.layers[0]["mlp"] = nn.Linear(32, 32)


def eighth():
    model = small()
    linear = model.model.layers[0].mlp.up_proj
    linear.weight = nn.Parameter(linear.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    return model


@pytest.mark.parametrize(
    "model, target, why",
    [(doubled, "up_proj", "up_proj is a Doubled with a forward of its own, which SPP would pass by: leave it out"),
     (eighth, "up_proj", "up_proj holds torch.float8_e4m3fn: leave it out"),
     (Attention, "out_proj", "out_proj is never called: nn.MultiheadAttention reads its weight: leave it out"),
     (small, "embed_tokens", "embed_tokens is a Embedding: SPP works on linears: leave it out")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_it_is_named(model, target, why):
    with pytest.raises(ValueError, match=why):
        peft.get_peft_model(model(), SppConfig(target_modules=[target]))


class Fused(nn.Module):
    """A mixture's block: fused experts beside a linear."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        self.layers[0].gate, self.layers[0].experts = nn.Linear(8, 8), nn.Module()
        self.layers[0].experts.up = nn.Parameter(torch.zeros(2, 8, 8))
        nn.init.zeros_(self.layers[0].gate.weight[0])


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_fused_experts_that_get_no_factors_are_named(targets):
    model = Fused()
    with torch.no_grad():
        model.layers[0].gate.weight[0] = 0
    with pytest.warns(UserWarning, match="left without factors, 1 in all: layers.*experts.up is no linear"):
        peft.get_peft_model(model, SppConfig(r=2, target_modules=targets))
