"""The merge proves its zeros or leaves everything as it was; the HiRA export is exact in a process without spp_lite."""

import itertools
import subprocess
import sys
import warnings
from functools import partial

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from test_adapter import IDS, adapted, logits, shake, small
from test_peft import bert, layers, same, state
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertForTokenClassification,
    BertModel,
    Gemma3Config,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Trainer,
    TrainingArguments,
)

from spp_lite import SppConfig, load, merge, prune, to_hira
from spp_lite.adapter import load_adapter
from spp_lite.adapter.config import FORMS
from spp_lite.adapter.tuner import SppLinear
from spp_lite.models import save
from spp_lite.pruning.blocks import block_linears
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


def test_a_failed_proof_puts_a_trained_head_back_and_the_config(monkeypatch):
    model = tied(["lm_head"])
    before, expected = state(model), logits(model)
    monkeypatch.setattr(type(model.base_model.model), "tie_weights", retie)
    with (
        pytest.warns(UserWarning, match="no longer tied after merging"),
        pytest.raises(SparsityError, match=r"logits differ by .* of the largest"),
    ):
        merge(model)
    assert same(state(model), before) and torch.equal(logits(model), expected)
    assert model.config.tie_word_embeddings and list(model.base_model.model.peft_config) == ["default"]


def retie(model):
    """As a loader does that does not know that the head was trained apart."""
    model.lm_head.weight = model.model.embed_tokens.weight


def tied(saved, tie=True):
    config = small(None).config
    config.tie_word_embeddings = tie
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).eval()
    prune(base, [IDS], "2:4", progress=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        model = shake(peft.get_peft_model(base, SppConfig(r=4, modules_to_save=saved)))
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
    return model


@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied")
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("saved", [None, ["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"], ["norm"]])
def test_what_is_handed_over_is_what_a_fresh_load_gives_heads_included(tmp_path, saved, tie):
    model = tied(saved, tie)
    expected, before = logits(model), model.config.tie_word_embeddings
    merged, report = merge(model)
    assert before == tie and report.logits_error == 0 and torch.equal(logits(merged), expected)
    assert not any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in merged.modules())
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("saved", [["mlp"], ["up_proj", "down_proj"]])
def test_modules_that_are_saved_whole_have_to_keep_the_zeros_too(saved, masked):
    model = shake(peft.get_peft_model(small(), SppConfig(r=4, target_modules=["q_proj"], modules_to_save=saved)))
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data.add_(0.01 * (parameter != 0) if masked else 0.01)
    before, expected = state(model), logits(model)
    if masked:
        merged, report = merge(model)
        assert torch.equal(logits(merged), expected) and len(report.table) == 2 + 2 * {1: 3, 2: 2}[len(saved)]
        return
    with pytest.raises(SparsityError, match=r"mlp.(gate|up)_proj: merging fills 768 of 768 zeros"):
        merge(model)
    assert same(state(model), before) and torch.equal(logits(model), expected)


def disabled(model):
    model.base_model.disable_adapter_layers()


def partly_disabled(model):
    list(layers(model).values())[-1].enable_adapters(False)


def inactive(model):
    model.base_model.set_adapter([])


def partly_merged(model):
    list(layers(model).values())[-1].merge()


def broken(model):
    layers(model)["model.layers.1.mlp.up_proj"].spp_alpha["default"].data[0, 0] = float("nan")


@pytest.mark.parametrize(
    "sabotage, message",
    [(disabled, r"q_proj has its adapters disabled: call base_model.enable_adapter_layers\(\) first"),
     (partly_disabled, "has its adapters disabled"), (partly_merged, "is merged already"),
     (inactive, r"none of the adapters default is active: set_adapter\(\) first"),
     (broken, "layers.1.mlp.up_proj: spp_alpha.default is not finite")],
)  # fmt: skip
def test_what_would_be_a_clean_proof_of_nothing_is_refused(sabotage, message):
    model = adapted()
    sabotage(model)
    before = state(model)
    with pytest.raises(SparsityError, match=message):
        merge(model)
    assert same(state(model), before)


def test_layers_without_an_active_adapter_are_proved_too_and_an_empty_update_is_one():
    model = peft.get_peft_model(small(), SppConfig())
    expected = logits(model)
    merged, report = merge(model)
    assert torch.equal(logits(merged), expected) and (report.table.change == 0).all()
    model = adapted(target_modules=["q_proj"])
    model.add_adapter("second", SppConfig(target_modules=["up_proj"]))
    merged, report = merge(model)
    assert len(report.table) == 4 and (report.table.change > 0).sum() == 2


@pytest.mark.parametrize("active", [["default"], ["second"], ["default", "second"]])
def test_what_is_active_is_what_is_merged(active):
    model = adapted(r=4)
    model.add_adapter("second", SppConfig(form="spp", r=3, scaling=0.5, target_modules=["q_proj", "down_proj"]))
    shake(model, "second").base_model.set_adapter(active)
    expected = logits(model)
    merged, report = merge(model)
    assert torch.equal(logits(merged), expected) and len(report.table) == 14 and report.logits_error == 0


def test_a_model_that_cannot_run_on_tokens_alone_is_refused():
    class Blind(LlamaForCausalLM):
        def forward(self, pixel_values, **kwargs): ...

    model = small()
    model.__class__ = Blind
    with pytest.raises(ValueError, match=r"cannot be run on token ids alone, so a merge cannot be proved \(Type"):
        merge(shake(peft.get_peft_model(model, SppConfig(r=2))))


def test_a_model_that_knows_no_tokens_at_all_is_refused():
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].weight.data[0] = 0
    with pytest.raises(ValueError, match="cannot be run on token ids alone"):
        merge(peft.get_peft_model(model, SppConfig(r=2, target_modules=["0"])))


@pytest.mark.parametrize("make", [lambda: bert(BertForTokenClassification), lambda: bert(BertModel)])
def test_models_without_a_language_head_are_merged_too(make):
    model = shake(peft.get_peft_model(make(), SppConfig(r=4)))
    with torch.no_grad():
        expected = model(input_ids=IDS)[0]
        assert torch.equal(merge(model)[0](input_ids=IDS)[0], expected)


def test_a_multimodal_model_is_probed_with_its_texts_vocabulary_and_no_image_tokens(monkeypatch):
    model = gemma()
    seen = []
    monkeypatch.setattr(
        model, "forward", partial(lambda forward, **kw: seen.append(kw["input_ids"]) or forward(**kw), model.forward)
    )
    _merged, report = merge(shake(peft.get_peft_model(model, SppConfig(r=4))))
    assert report.logits_error == 0 and report.table.layer.str.contains("language_model").all()
    assert (
        len(seen) == 2 and max(ids.max() for ids in seen) < 96 and not set(seen[0].flatten().tolist()) & {1, 2, 5, 6, 7}
    )


def gemma():
    text = {
        "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16, "max_position_embeddings": 128,
    }  # fmt: skip
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    }
    images = {"mm_tokens_per_image": 1, "boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision, **images)).eval()
    prune(model, None, "50%", method="magnitude", progress=False)
    return model


def test_what_cannot_be_merged_is_named():
    with pytest.raises(SparsityError, match="carries no adapter"):
        merge(small())
    model = adapted()
    model.merge_adapter()
    with pytest.raises(SparsityError, match=r"q_proj is merged already: call unmerge_adapter\(\) first"):
        merge(model)


HIRA = [
    {"r": 4, "modules_to_save": ["lm_head"]}, {"form": "spp", "r": 5, "scaling": 0.7, "rank_pattern": {"q_proj": 3}},
    {"r": 3, "rank_pattern": {"k_proj": 5}},
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models by form and number, and the folder of their exports with the logits that stock PEFT gets in one process."""
    folder, models = tmp_path_factory.mktemp("hira"), {}
    small().save_pretrained(folder / "base")
    for form, (number, config) in itertools.product(FORMS, enumerate(HIRA)):
        model = models[f"{form}{number}"] = adapted(**{"form": form, **config})
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
        to_hira(model, folder / f"{form}{number}")
    code = f"""
import sys, torch, peft
from transformers import AutoModelForCausalLM
for name in {list(models)}:
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), name).eval()
    assert "spp_lite" not in sys.modules and model.peft_config["default"].peft_type == "HIRA"
    with torch.no_grad():
        torch.save(model(input_ids=torch.tensor({IDS.tolist()})).logits, name + ".pt")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-1000:]
    return models, folder


@pytest.mark.parametrize("number, config", enumerate(HIRA))
def test_hira_export_is_exact_in_stock_peft(exported, form, number, config):
    (models, folder), name = exported, f"{form}{number}"
    found = torch.load(folder / f"{name}.pt", weights_only=True)
    torch.testing.assert_close(found, logits(models[name]), rtol=1e-5, atol=1e-6)
    saved = peft.PeftConfig.from_pretrained(str(folder / name)).modules_to_save
    assert saved == config.get("modules_to_save")


def test_only_spp_is_exported(tmp_path):
    lora = peft.get_peft_model(small(), peft.LoraConfig(target_modules=["q_proj"]))
    for model, name in ((lora, "default"), (adapted(), "second")):
        with pytest.raises(ValueError, match=f"carries no SPP adapter '{name}': only SPP can be written as HiRA"):
            to_hira(model, tmp_path / "hira", name)
    assert not (tmp_path / "hira").exists()
    model = adapted()
    overflow(model)
    with pytest.raises(ValueError, match=r"layers.0.mlp.down_proj.hira_B would not be finite: export an earlier"):
        to_hira(model, tmp_path / "hira")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file: name a folder to write to"):
        to_hira(adapted(), tmp_path / "file")


def test_one_of_several_adapters_is_exported_merged_or_not(tmp_path):
    model = adapted(r=4)
    model.add_adapter("second", SppConfig(r=3, target_modules=["q_proj"]))
    shake(model, "second").set_adapter("second")
    expected = logits(model)
    model.merge_adapter()
    to_hira(model, tmp_path, "second")
    torch.testing.assert_close(logits(load_adapter(small(), tmp_path)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["refilled", "scaled"])
def test_a_base_that_changed_under_its_adapter_is_not_proved(change):
    model = adapted(r=4)
    for module in model.modules():
        if hasattr(module, "spp_alpha"):
            weight = module.base_layer.weight.data
            weight.add_(0.01) if change == "refilled" else weight.mul_(1.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SparsityError, match=r"was made on a base with (other zeros|the same zeros and other weights)"):
        merge(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("other", [{"form": "spp"}, {"form": "direct"}, {"form": "spp", "scaling": 8.0}])
def test_weights_that_mean_something_else_are_not_loaded_over_an_adapter(tmp_path, other):
    adapted(r=4, **other).save_pretrained(tmp_path)
    model = peft.get_peft_model(small(), SppConfig(form="spp", r=4))
    if other == {"form": "spp"}:
        model.load_adapter(tmp_path, "default")
        return
    with pytest.raises(ValueError, match="made with another form, scaling or scaling_pattern than adapter 'default'"):
        model.load_adapter(tmp_path, "default")


def test_an_export_does_not_take_the_place_of_a_model_or_of_another_adapter(tmp_path):
    model = adapted(r=4)
    model.save_pretrained(tmp_path / "adapter")
    small().save_pretrained(tmp_path / "base")
    for name in ("adapter", "base"):
        before = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        with pytest.raises(ValueError, match="holds a model or another adapter, which would be lost"):
            to_hira(model, tmp_path / name)
        assert before == {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    for _ in range(2):  # over its own it may be written again
        to_hira(model, tmp_path / "hira")
    with pytest.raises(ValueError, match="carries an adapter: merge"):
        save(model, None, tmp_path / "base")
    model = small()
    model.add_adapter(SppConfig(r=4))
    with pytest.raises(SparsityError, match=r"is no PeftModel: insert it with peft.get_peft_model"):
        merge(model)


def test_an_adapter_that_transformers_own_trainer_trained_in_bfloat16_is_merged(tmp_path):
    """It leaves autocast around the model's forward, whose logits would pass for those of a base that changed."""
    model = adapted("2:4")
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}] * 8
    args = TrainingArguments(tmp_path, max_steps=2, bf16=True, use_cpu=True, report_to="none", disable_tqdm=True)
    Trainer(model, args, train_dataset=rows).train()
    whole = {name: layer.base_weight + layer.get_delta_weight("default") for name, layer in layers(model).items()}
    merged, proof = merge(model)
    assert proof.logits_error < 1e-5 and whole
    for name, weight in whole.items():
        torch.testing.assert_close(merged.get_submodule(name).weight, weight)


def test_fused_experts_and_a_tied_head_are_refused_by_name():
    config = MixtralConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    fused = peft.LoraConfig(target_modules=[], target_parameters=["mlp.experts.gate_up_proj"])
    with pytest.raises(SparsityError, match=r"experts adapts a parameter of a MixtralExperts \(target_parameters\)"):
        merge(peft.get_peft_model(MixtralForCausalLM(config), fused))
    model, _ = load("tiny")
    prune(model, sparsity="50%", method="magnitude", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of tied layers, and ours, of a head without zeros
        both = peft.get_peft_model(model, SppConfig(r=4, target_modules=["lm_head", "q_proj"]))
    with pytest.raises(
        SparsityError, match="lm_head shares its weight with the embeddings, which a merge would change"
    ):
        merge(both)
