"""Every default of PEFT's that we rely on, and every wish of a user's that PEFT passes on to a tuner: kept, or refused."""

import importlib
import subprocess
import sys
import warnings

import peft
import pytest
import torch
from test_adapter import IDS, adapted, logits, shake, small
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

import spp_lite.adapter
from spp_lite import SppConfig, prune
from spp_lite.adapter import load_adapter
from spp_lite.adapter.kernels import effective_weight, spp_linear_sum
from spp_lite.adapter.layer import SppLinear
from spp_lite.pruning.sparsity import SparsityError


def state(model):
    """All that a refusal must leave alone."""
    values = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    return [name for name, _ in model.named_modules()], values


def same(one, other):
    return one[0] == other[0] and all(
        torch.allclose(value, other[1][name][0], 0, 0, equal_nan=True) and flag == other[1][name][1]
        for name, (value, flag) in one[1].items()
    )


def layers(model, adapter="default"):
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, SppLinear)]
    return {name.removeprefix("base_model.model."): layer for name, layer in found if adapter in layer.scaling}


def bert(cls=BertForTokenClassification, sparsity="50%", seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=2
    )
    model = cls(config).eval()
    prune(model, None, sparsity, method="magnitude", progress=False)
    return model


# --- which layers ---


@pytest.mark.parametrize("blocks, pattern", [([1], None), (0, None), (range(1, 2), "layers"), ((1,), ["h", "layers"])])
@pytest.mark.parametrize(
    "targets",
    [None, "all-linear", ["q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"], r".*[qv]_proj"],
)
def test_layers_to_transform_holds_for_every_kind_of_target(tmp_path, targets, blocks, pattern):
    config = SppConfig(r=4, target_modules=targets, layers_to_transform=blocks, layers_pattern=pattern)
    model = shake(peft.get_peft_model(small(), config))
    wanted = {blocks} if isinstance(blocks, int) else set(blocks)
    assert {int(name.split(".")[2]) for name in layers(model)} == wanted
    assert len(layers(model)) == {None: 7, "all-linear": 7}.get(targets if isinstance(targets, str | None) else 0, 2)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_adapter(small(), tmp_path)), logits(model))


@pytest.mark.scaling
@pytest.mark.parametrize(
    "config, message",
    [({"layers_to_transform": [0, 9]}, r"layers_to_transform: \[9\] match nothing"),
     ({"layers_to_transform": [0], "layers_pattern": "blocks"}, "layers_pattern"),
     ({"rank_pattern": {"qproj": 3}}, r"rank_pattern: \['qproj'\] match nothing that is adapted"),
     ({"rank_pattern": {"q_proj": 3}, "target_modules": ["k_proj"]}, r"rank_pattern: \['q_proj'\]"),
     ({"scaling_pattern": {"v_porj": 1.0, "q_proj": 3.0}}, r"scaling_pattern: \['v_porj'\] match nothing"),
     ({"target_modules": ["q_proj", "vproj"]}, r"target_modules: \['vproj'\] match nothing"),
     ({"target_modules": ["nothing"]}, "not found in the base model"),
     ({"modules_to_save": ["lmhead"]}, r"modules_to_save: \['lmhead'\] match nothing")],
)  # fmt: skip
def test_names_that_match_nothing_are_refused_and_nothing_stays_behind(config, message):
    model = small()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        peft.get_peft_model(model, SppConfig(r=4, **config))
    assert same(state(model), before) and not hasattr(model, "peft_config")


@pytest.mark.scaling
def test_scaling_patterns_reach_one_layer_of_many():
    model = peft.get_peft_model(small(), SppConfig(scaling_pattern={r"layers\.0\.mlp\.up_proj": 3.0}))
    assert {
        name: layer.scaling["default"] for name, layer in layers(model).items() if layer.scaling["default"] != 2
    } == {"model.layers.0.mlp.up_proj": 3.0}


# --- what PEFT does to configs, types and tasks ---


@pytest.mark.parametrize(
    "cls, task", [(BertForTokenClassification, "TOKEN_CLS"), (BertForQuestionAnswering, "QUESTION_ANS"),
                  (BertForSequenceClassification, "SEQ_CLS"), (BertModel, "FEATURE_EXTRACTION")],
)  # fmt: skip
def test_one_config_serves_two_bases_in_every_task(tmp_path, cls, task):
    config = SppConfig(r=4, task_type=task)
    models = [shake(peft.get_peft_model(bert(cls, sparsity), config)) for sparsity in ("50%", "75%")]
    masks = {model.peft_config["default"].mask_fingerprint for model in models}
    assert len(masks) == 2 and config.mask_fingerprint is None and config.target_modules is None
    for model, sparsity in zip(models, ("50%", "75%"), strict=True):
        head = [name for name, p in model.named_parameters() if p.requires_grad and "spp_" not in name]
        assert bool(head) == (task != "FEATURE_EXTRACTION") and all("modules_to_save" in name for name in head)
        for name in head:
            model.get_parameter(name).data.normal_()
        model.save_pretrained(tmp_path / sparsity)
        loaded = load_adapter(bert(cls, sparsity), tmp_path / sparsity)
        with torch.no_grad():
            assert torch.equal(loaded(input_ids=IDS)[0], model(input_ids=IDS)[0])
        with pytest.raises(SparsityError, match="other zeros"):
            load_adapter(bert(cls, "25%"), tmp_path / sparsity)
    models[0].add_adapter("second", SppConfig(r=2, task_type=task))
    assert layers(models[0], "second")


def test_a_second_adapter_on_all_linears_of_a_classifier_loads_alone(tmp_path):
    config = {"task_type": "SEQ_CLS", "target_modules": "all-linear", "exclude_modules": r".*pooler.*"}
    model = shake(peft.get_peft_model(bert(BertForSequenceClassification), SppConfig(**config)))
    model.add_adapter("second", SppConfig(r=2, **config))
    shake(model, "second").set_adapter("second")
    model.save_pretrained(tmp_path)
    loaded = load_adapter(bert(BertForSequenceClassification), tmp_path / "second")
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=IDS)[0], model(input_ids=IDS)[0])
    assert not [name for name in loaded.peft_config["default"].target_modules if "original_module" in name]


def test_a_config_that_is_loaded_stays_the_one_that_was_given(tmp_path):
    adapted(r=4).save_pretrained(tmp_path)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert peft.PeftModel.from_pretrained(small(), tmp_path, config=config).peft_config["default"] is config


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("autocast", [True, False])
def test_autocast_adapter_dtype_is_honoured(tmp_path, dtype, autocast):
    model = peft.get_peft_model(small().to(dtype), SppConfig(r=4), autocast_adapter_dtype=autocast)
    model.add_adapter("second", SppConfig(r=2), autocast_adapter_dtype=autocast)
    model.save_pretrained(tmp_path)
    model.load_adapter(tmp_path, "third", autocast_adapter_dtype=autocast)
    wanted = torch.float32 if autocast else dtype
    assert {p.dtype for name, p in model.named_parameters() if "spp_" in name} == {wanted}
    shake(model).train()(input_ids=IDS, labels=IDS).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert {g.dtype for g in gradients} == {wanted} and all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("low", [True, False])
def test_loading_does_not_round_factors_to_the_bases_type(tmp_path, low):
    model = shake(peft.get_peft_model(small().bfloat16(), SppConfig(r=4)))
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(small().bfloat16(), tmp_path, low_cpu_mem_usage=low)
    for (name, found), (_, given) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(found, given) and ("spp_" not in name or found.dtype == torch.float32)
    alpha = layers(model)["model.layers.0.mlp.up_proj"].spp_alpha["default"]
    assert not torch.equal(alpha, alpha.bfloat16().float())  # drawn in float32, too


@pytest.mark.parametrize("out, r", [(12, 4), (7, 3)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_factors_get_the_gradients_of_wide_ones_rounded(out, r, dtype):
    torch.manual_seed(0)
    x, weight, up = torch.randn(9, 8), torch.randn(out, 8) * (torch.rand(out, 8) > 0.5), torch.randn(9, out)
    narrow = [torch.randn(r, 8).to(dtype).requires_grad_(), torch.randn(out).to(dtype).requires_grad_()]
    wide = [factor.detach().float().requires_grad_() for factor in narrow]
    for factors in (narrow, wide):
        (spp_linear_sum(x, weight, None, [(*factors, 2.0)]) * up).sum().backward()
    for a, b in zip(narrow, wide, strict=True):
        assert a.grad.dtype == dtype and torch.equal(a.grad, b.grad.to(dtype))
    assert torch.equal(*(effective_weight(weight, [(*factors, 2.0)]) for factors in (narrow, wide)))


def test_a_model_cast_to_bfloat16_trains():
    model = adapted(r=5, dropout=0.1).to(torch.bfloat16).train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert {p.grad.dtype for p in model.parameters() if p.requires_grad} == {torch.bfloat16}


# --- several adapters, and what stays behind ---


def test_a_refused_second_adapter_leaves_nothing_behind(tmp_path):
    adapted("50%", modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    model = adapted(r=4)
    before, expected = state(model), logits(model)
    with pytest.raises(SparsityError, match="'second' was made on a base with other zeros"):
        model.load_adapter(tmp_path, "second")
    assert same(state(model), before) and list(model.peft_config) == ["default"]
    assert torch.equal(logits(model), expected) and model.get_model_status().available_adapters == ["default"]
    plain = small()
    before = state(plain)
    for load in (lambda: peft.PeftModel.from_pretrained(plain, tmp_path), lambda: plain.load_adapter(str(tmp_path))):
        with pytest.raises(SparsityError, match="other zeros"):
            load()
        assert same(state(plain), before) and not hasattr(plain, "peft_config")


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time:UserWarning")
def test_the_settings_of_another_kind_under_the_same_name_stay_its_own(tmp_path):
    base = small()
    lora = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="carries an adapter 'default' already: merge"):
        peft.get_peft_model(base, SppConfig(target_modules=["k_proj"]))
    lora.save_pretrained(tmp_path)
    assert peft.PeftConfig.from_pretrained(tmp_path).peft_type == "LORA"


@pytest.mark.parametrize("second", ["same name", "bad config", "another mask", "another kind"])
def test_whatever_second_adapter_is_refused_the_trained_one_stays_as_it_was(tmp_path, second):
    adapted("50%").save_pretrained(tmp_path)
    base = small()
    model = peft.get_peft_model(base, SppConfig(r=4))
    shake(model)
    before, expected, configs = state(model), logits(model), dict(model.peft_config)
    tries = {
        "same name": lambda: peft.get_peft_model(base, SppConfig(r=4)),
        "bad config": lambda: peft.get_peft_model(base, SppConfig(target_modules=["no_proj"]), adapter_name="b"),
        "another mask": lambda: peft.PeftModel.from_pretrained(base, tmp_path),
        "another kind": lambda: peft.get_peft_model(base, SppConfig(target_modules=["embed_tokens"]), adapter_name="c"),
    }
    with warnings.catch_warnings(), pytest.raises(ValueError):
        warnings.simplefilter("ignore")  # PEFT's, that this is a second one
        tries[second]()
    assert same(state(model), before) and torch.equal(logits(model), expected)
    assert model.peft_config == base.peft_config == configs
    assert len(layers(model)) == 14


def test_an_adapter_that_is_merged_is_not_loaded_over(tmp_path):
    adapted(r=4).save_pretrained(tmp_path)
    model = adapted(r=4)
    model.merge_adapter()
    with pytest.raises(ValueError, match="'default' is merged, so that its old factors would stay: unmerge_adapter"):
        model.load_adapter(tmp_path, "default")
    model.unmerge_adapter()
    model.load_adapter(tmp_path, "default")


def test_weights_made_on_another_mask_are_refused_under_a_name_that_is_there(tmp_path):
    adapted("50%", r=4).save_pretrained(tmp_path)
    model = adapted(r=4)
    before = state(model)
    with pytest.raises(
        SparsityError, match=r"made on a base with other zeros \(mask \w+\) than adapter 'default' \(mask"
    ):
        model.load_adapter(tmp_path, "default")
    assert same(state(model), before)
    other = adapted("50%", r=4)
    other.load_adapter(tmp_path, "default")
    assert torch.equal(logits(other.eval()), logits(adapted("50%", r=4)))


@pytest.mark.parametrize(
    "saved, targets", [(["mlp"], None), (["mlp"], ["up_proj"]), (["up_proj"], None), (["mlp"], "all-linear")]
)
def test_a_second_adapter_does_not_touch_what_the_first_trains_whole(saved, targets):
    model = shake(peft.get_peft_model(small(), SppConfig(r=4, target_modules=["q_proj"], modules_to_save=saved)))
    before, expected = state(model), logits(model)
    with pytest.raises(ValueError, match=r"_proj is in another adapter's modules_to_save: exclude it from this one"):
        model.add_adapter("second", SppConfig(r=2, target_modules=targets))
    assert same(state(model), before)
    model.add_adapter("second", SppConfig(r=2, target_modules=targets, exclude_modules=r".*(mlp|lm_head).*")
                      if targets != ["up_proj"] else SppConfig(r=2, target_modules=["k_proj"]))  # fmt: skip
    assert all("self_attn" in name for name in layers(model, "second")) and torch.equal(logits(model), expected)


def test_a_second_adapter_does_not_save_whole_what_the_first_adapts():
    model = adapted(r=4)
    before = state(model)
    with pytest.raises(ValueError, match="q_proj has another adapter's factors: leave it out of modules_to_save"):
        model.add_adapter("second", SppConfig(target_modules=["up_proj"], modules_to_save=["self_attn"]))
    assert same(state(model), before)


def test_a_batch_of_several_adapters_is_refused():
    model = adapted(r=2)
    model.add_adapter("second", SppConfig(r=2))
    for run in (model, lambda **kwargs: model.generate(max_new_tokens=1, **kwargs)):
        with pytest.raises(ValueError, match=r"SPP takes no adapter_names: .* use set_adapter"):
            run(input_ids=IDS, adapter_names=["default", "second", "second", "__base__"])


def test_the_update_of_an_adapter_is_the_same_while_it_is_merged():
    model = adapted(r=4)
    before = {name: layer.get_delta_weight("default") for name, layer in layers(model).items()}
    model.merge_adapter()
    after = {name: layer.get_delta_weight("default") for name, layer in layers(model).items()}
    assert all(torch.equal(before[name], after[name]) and before[name].any() for name in before)


def test_inference_mode_freezes_and_an_inactive_adapter_gets_no_gradient():
    model = adapted(r=4, inference_mode=True)
    assert not any(p.requires_grad for p in model.parameters())
    model = adapted(r=4)
    model.add_adapter("second", SppConfig(r=2))
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.grad is not None} == {"default"}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_share_of_the_tokens_is_taken_with_dropout_and_with_several_adapters(monkeypatch, dropout):
    from spp_lite.adapter import kernels

    shares = []
    original = kernels._weight_gradient
    monkeypatch.setattr(kernels, "_weight_gradient", lambda g, x, share: shares.append(share) or original(g, x, share))
    model = adapted(r=2, token_fraction=0.25, dropout=dropout)
    model.add_adapter("second", SppConfig(r=2, token_fraction=0.5, dropout=dropout))
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert set(shares) == {0.25}
    model.base_model.set_adapter(["default", "second"])
    shares.clear()
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert set(shares) == ({0.25, 0.5} if dropout else {0.5})


@pytest.mark.parametrize("dropout", [1e-9, 0.0])  # so rare that it drops nothing: the residual form, and the fused one
def test_forms_and_several_adapters_have_the_gradients_of_autograd(dropout):
    model = adapted(r=3, dropout=dropout).double()
    model.add_adapter("second", SppConfig(form="spp", r=5, scaling=0.5, dropout=dropout))
    shake(model.double(), "second").base_model.set_adapter(["default", "second"])
    layer = layers(model)["model.layers.0.mlp.up_proj"].train()
    x = torch.randn(6, 32, dtype=torch.float64, requires_grad=True)
    leaves = [x, *layer.spp_alpha.values(), *layer.spp_beta.values()]
    found = torch.autograd.grad(layer(x).square().sum(), leaves)
    names = ["default", "second"]
    weight = effective_weight(layer.base_weight, layer.factors(names), layer.start(names))
    expected = torch.autograd.grad(nn.functional.linear(x, weight).square().sum(), leaves)
    torch.testing.assert_close(found, expected)


# --- registration ---


def test_files_that_are_imported_again_keep_old_models_and_make_new_ones(tmp_path):
    code = f"""
import importlib, sys, peft, torch
sys.path.insert(0, {str(spp_lite.__path__[0] + "/../tests/adapter")!r})
from test_adapter import adapted, logits, shake, small
model = adapted(r=4)
expected = logits(model)
model.save_pretrained({str(tmp_path)!r})
for name in ("kernels", "base", "config", "layer", "tuner", "merging", "loading"):
    module = importlib.reload(sys.modules["spp_lite.adapter." + name])
    new = peft.get_peft_model(small(), sys.modules["spp_lite.adapter.config"].SppConfig(r=2))
    assert torch.equal(logits(peft.PeftModel.from_pretrained(small(), {str(tmp_path)!r})), expected), name
adapter = importlib.reload(sys.modules["spp_lite.adapter"])
model.add_adapter("second", adapter.SppConfig(r=2))
adapter.to_hira(model, {str(tmp_path / "hira")!r})
assert torch.equal(logits(adapter.merge(model)[0]), expected)
for name in [name for name in sys.modules if name.startswith("spp_lite")]:
    del sys.modules[name]
import spp_lite
loaded = peft.PeftModel.from_pretrained(small(), {str(tmp_path)!r})
assert torch.equal(logits(spp_lite.merge(loaded)[0]), expected)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]


def test_a_peft_with_an_spp_of_its_own_is_refused(monkeypatch):
    config = sys.modules["spp_lite.adapter.config"]
    monkeypatch.setattr(peft.PeftType.SPP, "made_by", "peft")
    with pytest.raises(ImportError, match="peft has an SPP of its own"):
        importlib.reload(config)
