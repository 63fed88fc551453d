"""to_sparse: the same logits in the form that pays, in place, freeing what was dense; what cannot be is refused."""

import gc
import weakref

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config

from spp_lite import load, prune, to_sparse
from spp_lite.inference import CsrLinear, choose, stored, to_csr
from spp_lite.models import fingerprint, save
from spp_lite.pruning.blocks import block_linears, zeros
from spp_lite.pruning.sparsity import Sparsity, SparsityError

SIZES = {
    "vocab_size": 64,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
IDS = torch.arange(3, 27).view(2, 12)


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=4, **SIZES)).eval()


def linear(rows=64, columns=128, pattern=None, dtype=torch.float32):
    torch.manual_seed(0)
    made = nn.Linear(columns, rows, dtype=dtype)
    if pattern:
        made.weight.data *= Sparsity.parse(pattern).mask(made.weight.abs())
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 7), (2, 1, 7), (2, 5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_csr_computes_the_same_product(dtype, shape, bias):
    wide = nn.Linear(7, 5, bias=bias, dtype=dtype)
    wide.weight.data *= torch.rand(5, 7) > 0.6
    wide.weight.data[2] = 0  # a row with nothing in it
    x = torch.randn(shape, dtype=dtype)
    y = CsrLinear(wide)(x)
    torch.testing.assert_close(y, wide(x))
    assert y.is_contiguous() and y.shape == (*shape[:-1], 5)


def test_csr_has_int32_indices_and_counts_its_bytes():
    weight = linear(pattern="75%").weight.detach()
    csr = to_csr(weight)
    assert csr.col_indices().dtype == csr.crow_indices().dtype == torch.int32
    assert torch.equal(csr.to_dense(), weight)
    assert stored(csr) == 8 * int((weight != 0).sum()) + 4 * 65 and stored(weight) == 4 * weight.numel()


@pytest.mark.parametrize("sparsity", ["75%", "90%", "1:4"])
def test_a_pruned_model_gives_the_same_logits_and_text(dense, sparsity):
    prune(dense, None, sparsity, method="magnitude", progress=False)
    with torch.no_grad():
        expected, text = dense(IDS).logits, dense.generate(IDS, max_new_tokens=5, do_sample=False)
    report = to_sparse(dense)
    assert set(report.table["form"]) == {"CSR"} and not report.dense
    assert report.table["after"].sum() < 0.52 * report.table["before"].sum()
    with torch.no_grad():
        torch.testing.assert_close(dense(IDS).logits, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(dense.generate(IDS, max_new_tokens=5, do_sample=False), text)


def test_biases_stay(dense):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen2Config(num_key_value_heads=4, **SIZES)).eval()
    nn.init.normal_(model.model.layers[0].self_attn.q_proj.bias)
    prune(model, None, "75%", method="magnitude", progress=False)
    with torch.no_grad():
        expected = model(IDS).logits
        to_sparse(model)
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_each_dense_weight_is_freed(dense):
    prune(dense, None, "75%", method="magnitude", progress=False)
    weights = [weakref.ref(one.weight) for one in block_linears(dense).values()]
    to_sparse(dense)
    gc.collect()
    assert not any(weight() is not None for weight in weights)


def test_what_does_not_pay_stays_dense_and_is_listed(dense):
    prune(dense, None, "75%", method="magnitude", only=["*mlp*"], progress=False)
    before = {name: one.weight for name, one in block_linears(dense).items() if "self_attn" in name}
    report = to_sparse(dense)
    assert set(report.dense) == set(before)
    assert "100% non-zeros: CSR is slower above 30%" in report.dense["model.layers.0.self_attn.q_proj"]
    assert "stays dense: model.layers.0.self_attn.q_proj" in str(report) and "6 CSR" in str(report)
    assert all(dense.get_submodule(name).weight is weight for name, weight in before.items())
    tiny, _ = load("tiny")
    prune(tiny, None, "90%", method="magnitude", progress=False)
    assert "CSR is slower below" in to_sparse(tiny).dense["model.layers.0.mlp.up_proj"]
    half, _ = load("tiny")
    prune(half, None, "2:4", method="magnitude", progress=False)
    assert set(to_sparse(half, densest=0.5).table["form"]) == {"CSR"}  # whoever asks gets it


def test_a_linear_that_does_more_stays_dense(dense):
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    scaled = Scaled(512, 256, bias=False)
    nn.init.zeros_(scaled.weight)
    dense.model.layers[1].mlp.down_proj = scaled
    assert "a Scaled computes more" in to_sparse(dense).dense["model.layers.1.mlp.down_proj"]


def test_hooks_of_a_users_stay_called_and_those_of_accelerate_keep_nothing_dense(dense):
    from accelerate.hooks import attach_execution_device_hook

    prune(dense, sparsity="90%", method="magnitude", progress=False)
    attach_execution_device_hook(dense, "cpu")  # as dispatch_model does for device_map
    seen, hooked = [], "model.layers.0.mlp.up_proj"
    dense.get_submodule(hooked).register_forward_hook(lambda *_: seen.append(1))
    report = to_sparse(dense)
    assert list(report.dense) == [hooked] and "hooks" in report.dense[hooked]
    dense(IDS)
    assert seen
    assert choose("up", linear(64, 128, "2:4", torch.float16), device="cuda") == ("2:4", "")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda one: one.to(torch.bfloat16), r"layers\.1\.mlp\.up_proj is bfloat16: .* a CPU takes float32 or float64"),
        (lambda one: one.to("meta"), r"layers\.1\.mlp\.up_proj is on meta: the sparse forms run on a CPU or on CUDA"),
    ],
)
def test_wrong_types_and_devices_are_refused_before_anything_changes(dense, spoil, message):
    prune(dense, None, "75%", method="magnitude", progress=False)
    spoil(dense.model.layers[1].mlp.up_proj)
    with pytest.raises(SparsityError, match=message):
        to_sparse(dense)
    assert not any(isinstance(one, CsrLinear) for one in dense.modules())


def test_twice_and_with_an_adapter_is_refused(dense, tmp_path):
    prune(dense, None, "75%", method="magnitude", progress=False)
    to_sparse(dense)
    with pytest.raises(SparsityError, match=r"layers\.0\.self_attn\.q_proj is sparse already"):
        to_sparse(dense)
    with pytest.raises(ValueError, match=r"q_proj\.weight is in a form for inference: save the model before to_sparse"):
        save(dense, None, tmp_path / "m")
    assert not list(tmp_path.iterdir())
    for count in (zeros, fingerprint):
        with pytest.raises(ValueError, match=r"q_proj.* is in a form for inference.* before to_sparse"):
            count(dense)
    tiny, _ = load("tiny")
    import peft

    with pytest.raises(SparsityError, match="carries an adapter: merge"):
        to_sparse(peft.get_peft_model(tiny, peft.LoraConfig(r=2, target_modules=["q_proj"])))


HALF = {"dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (linear(pattern="2:4", **HALF), ("2:4", "")),
        (linear(pattern="1:4", **HALF), ("2:4", "")),
        (linear(**HALF), ("dense", "0% zeros: it is not pruned")),
        (linear(48, 128, "2:4", **HALF), ("dense", "48 × 128 is no multiple of 32 × 64")),
    ],
    ids=["2:4", "1:4", "unpruned", "odd shape"],
)
def test_on_cuda_2_4_pays(made, outcome):
    assert choose("q", made, device="cuda") == outcome


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (linear(pattern="50%", **HALF), '^q has 50% zeros and breaks 2:4, .*: prune with "2:4"$'),
        (linear(pattern="4:8", **HALF), "^q has 50% zeros and breaks 2:4"),
        (linear(pattern="2:4"), "^q is float32: the sparse form on CUDA takes float16 or bfloat16"),
    ],
    ids=["unstructured", "4:8", "float32"],
)
def test_on_cuda_the_rest_is_refused(made, message):
    with pytest.raises(SparsityError, match=message):
        choose("q", made, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_2_4_on_a_gpu_gives_the_same_logits(dense):
    prune(dense, None, "2:4", method="magnitude", progress=False)
    dense.to("cuda", torch.bfloat16)
    with torch.no_grad():
        expected = dense(IDS.cuda()).logits
        report = to_sparse(dense)
        found = dense(IDS.cuda()).logits
    assert set(report.table["form"]) == {"2:4"}
    assert report.table["after"].sum() < 0.6 * report.table["before"].sum()
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


@torch.no_grad()
def test_csr_runs_within_autocast():
    """A bfloat16 evaluation loop hands it bfloat16 inputs, for which there is no CSR."""
    linear = torch.nn.Linear(256, 256)
    linear.weight.mul_(torch.rand(256, 256, generator=torch.Generator().manual_seed(0)) > 0.9)
    x = torch.randn(2, 3, 256, generator=torch.Generator().manual_seed(1))
    wanted, sparse = linear(x), CsrLinear(linear)
    assert torch.allclose(sparse(x), wanted, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        for rows in (x, x[:1, :1], x.bfloat16()):
            found = sparse(rows)
            assert found.dtype == rows.dtype
            torch.testing.assert_close(found.float(), wanted[: len(rows), : rows.shape[1]], atol=0.02, rtol=0.02)
