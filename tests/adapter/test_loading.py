"""An adapter folder is taken whole or refused in one sentence that names it; the model is then as it was."""

import json
import os
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_adapter import IDS, adapted, logits, shake, small
from test_peft import same, state
from transformers import AutoModelForCausalLM

from spp_lite import SppConfig
from spp_lite.adapter import check_adapter_weights, load_adapter
from spp_lite.pruning.sparsity import SparsityError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALPHA = "base_model.model.model.layers.0.mlp.up_proj.spp_alpha"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole adapter, with a trained head, and the model that it was saved from."""
    model = adapted(r=4, modules_to_save=["lm_head"])
    model.base_model.model.lm_head.modules_to_save["default"].weight.data.add_(0.1)
    model.save_pretrained(tmp_path_factory.mktemp("adapter"))
    return tmp_path_factory.getbasetemp() / "adapter0", model


def settings(**changes):
    def edit(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | changes))

    return edit


def tensors(change):
    def edit(folder):
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return edit


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(share):
    return lambda folder: write(WEIGHTS, (folder / WEIGHTS).read_bytes()[: int(share * 6000)])(folder)


NO_ADAPTER = "is not an adapter's settings .*: copy or write the adapter again"
ANOTHER = "it was made for another model, or this adapter_model.safetensors is not the one of its adapter_config.json"
WRONG = {
    "absent": (shutil.rmtree, "is no folder: name the folder that finetune"),
    "file": (lambda f: (shutil.rmtree(f), f.write_text("")), "is no folder"),
    "no config": (lambda f: (f / CONFIG).unlink(), r"is no adapter \(it has no adapter_config.json\): name the folder"),
    "config cut": (write(CONFIG, '{"peft_type":'), NO_ADAPTER),
    "config empty": (write(CONFIG, ""), NO_ADAPTER),
    "config list": (write(CONFIG, "[]"), "PEFT knows no adapter of type None"),
    "config utf-16": (write(CONFIG, "{}".encode("utf-16")), NO_ADAPTER),
    "config pointer": (write(CONFIG, POINTER), "adapter_config.json is a git-lfs pointer.*`git lfs pull`"),
    "type absent": (write(CONFIG, '{"r": 4}'), "PEFT knows no adapter of type None"),
    "type unknown": (settings(peft_type="FOO"), "PEFT knows no adapter of type 'FOO'"),
    "type a list": (settings(peft_type=["SPP"]), "PEFT knows no adapter of type"),
    "task unknown": (settings(task_type="FOO"), "Invalid task type"),
    "r text": (settings(r="4"), "r='4' for 'r'"),
    "dropout text": (settings(dropout="much"), NO_ADAPTER),
    "targets a number": (settings(target_modules=5), "does not fit this LlamaForCausalLM"),
    "targets absent": (settings(target_modules=["c_attn"]), "does not fit this LlamaForCausalLM"),
    "pattern absent": (settings(rank_pattern={"zz": 3}), r"rank_pattern: \['zz'\] match nothing"),
    "another r": (settings(r=8), rf"spp_alpha is float \(4, \d+\), here it is float \(8, \d+\): {ANOTHER}"),
    "another type": (settings(peft_type="LORA"), f"lacks 28 of 29 tensors, .*lora_A.weight among them: {ANOTHER}"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no adapter_model.safetensors: name"),
    "pickled": (lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"), "pickled weights are not loaded"),
    "weights a folder": (lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), "has no adapter_model.safetensors"),
    "weights empty": (write(WEIGHTS, ""), "was cut short or is damaged .*: copy it again"),
    "weights cut": (cut(1), "was cut short or is damaged"),
    "header cut": (cut(0.01), "was cut short or is damaged"),
    "a web page": (write(WEIGHTS, "<html>404</html>" * 9), "was cut short or is damaged"),
    "weights pointer": (write(WEIGHTS, POINTER), "adapter_model.safetensors is a git-lfs pointer"),
    "tensor absent": (tensors(lambda t: t.pop(ALPHA)), f"lacks 1 of 30 tensors, {ALPHA} among them: {ANOTHER}"),
    "head absent": (tensors(lambda t: t.pop("base_model.model.lm_head.weight")), "lacks 1 of 30 tensors, .*lm_head"),
    "all absent": (tensors(dict.clear), "lacks 30 of 30 tensors"),
    "surplus": (tensors(lambda t: t.update(foo=torch.ones(2))), f"holds foo, for which there is no place here: {ANOTHER}"),
    "surplus block": (tensors(lambda t: t.update({ALPHA.replace(".0.", ".7."): t[ALPHA] + 0})), "layers.7.* no place"),
    "base's weight": (tensors(lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(32)})), "no place"),
    "shape": (tensors(lambda t: t.update({ALPHA: torch.ones(4, 31)})), r"is float \(4, 31\), here it is float \(4, 32\)"),
    "integers": (tensors(lambda t: t.update({ALPHA: torch.ones(4, 32, dtype=torch.int64)})), "is torch.int64"),
    "nan": (tensors(lambda t: t[ALPHA].fill_(float("nan"))), f"{ALPHA} has values that are not finite: take an earlier"),
    "another mask": (settings(mask_fingerprint="0" * 16), "was made on a base with other zeros .*: load the pruned model"),
    "another's weights": (tensors(lambda t: [v.add_(1) for k, v in t.items() if k.endswith("_fingerprint")]), "other zeros"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Unexpected keyword")  # PEFT, of SPP's settings in a LoRA's
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_folder_is_said_in_one_sentence(tmp_path, good, wrong):
    edit, message = WRONG[wrong]
    folder = tmp_path / "adapter"
    shutil.copytree(good[0], folder)
    edit(folder)
    model = small()
    before = state(model)
    with pytest.raises(ValueError, match=message) as refused:
        load_adapter(model, folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)
    assert same(state(model), before) and not hasattr(model, "peft_config")
    if wrong not in ("targets a number", "targets absent", "another mask"):  # no matter for weights that fit
        values = state(good[1])
        with pytest.raises(ValueError, match=str(folder)):
            check_adapter_weights(good[1], folder)
        assert same(state(good[1]), values)


def test_a_whole_folder_is_loaded_frozen_or_to_be_trained(good):
    folder, model = good
    check_adapter_weights(model, folder)
    loaded = load_adapter(small(), os.path.relpath(folder))
    assert torch.equal(logits(loaded), logits(model)) and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    loaded = load_adapter(small().train(), folder, trainable=True)
    trained = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad} and loaded.training
    assert torch.equal(logits(loaded.eval()), logits(model))
    for carrier in (loaded, loaded.base_model.model):
        with pytest.raises(ValueError, match=f"carries an adapter already: load {folder} into the plain pruned model"):
            load_adapter(carrier, folder)


@pytest.mark.parametrize(
    "config", [peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
               peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)],
    ids=["LoRA", "prompt tuning"],
)  # fmt: skip
def test_other_kinds_of_adapters_load_too(tmp_path, config, good):
    model = peft.get_peft_model(small(), config).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_adapter(small(), tmp_path)), logits(model))
    with pytest.raises(ValueError, match=f"{tmp_path} holds a {config.peft_type.value} adapter, the model's is SPP"):
        check_adapter_weights(good[1], tmp_path)


def test_a_larger_vocabulary_comes_with_the_adapter_and_must_fit(tmp_path):
    def larger():
        model = small()
        model.resize_token_embeddings(99, mean_resizing=False)
        return model

    model = shake(peft.get_peft_model(larger(), SppConfig(r=2)))
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    assert torch.equal(logits(load_adapter(larger(), tmp_path)), logits(model))
    with pytest.raises(ValueError, match=r"is float \(99, 32\), here it is float \(96, 32\)"):
        load_adapter(small(), tmp_path)


@pytest.mark.scaling
@pytest.mark.parametrize("own, message", [
    ({"form": "direct"}, "was made with form=spp, the adapter has direct"),
    ({"sparsity": "50%"}, r"was made on a base with other zeros \(mask \w+, this one \w+\)"),
    ({"scaling": 1.0}, "was made with scaling=2.0, the adapter has 1.0"),
    ({"r": 8}, "was made with r=4, the adapter has 8"),
    ({"scaling_pattern": {"q_proj": 3.0}}, "scaling_pattern"),
])  # fmt: skip
def test_a_checkpoint_of_another_adapter_is_refused(good, own, message):
    with pytest.raises(ValueError, match=message):
        check_adapter_weights(adapted(**{"r": 4, "modules_to_save": ["lm_head"], **own}), good[0])
    with pytest.raises(ValueError, match=r"the model carries no adapter that .* could be compared with"):
        check_adapter_weights(small(), good[0])


def test_transformers_own_loader_finds_all_in_its_place(tmp_path, good):
    small().save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    found = model.load_adapter(str(good[0]))
    assert found.unexpected_keys <= {"spp_mask_fingerprint.default"} and not found.missing_keys
    assert torch.equal(logits(model), logits(good[1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_file_whose_tensors_somebody_has_cast_still_tells_its_mask(tmp_path, good, dtype):
    shutil.copytree(good[0], tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    for load in (load_adapter, peft.PeftModel.from_pretrained):
        assert torch.allclose(logits(load(small(), tmp_path / "adapter")), logits(good[1]), rtol=0.1, atol=0.1)
        with pytest.raises(SparsityError, match="other zeros"):
            load(small("50%"), tmp_path / "adapter")


def test_a_mask_that_the_config_does_not_tell_is_told_by_the_weights(tmp_path, good):
    shutil.copytree(good[0], tmp_path / "adapter")
    settings(mask_fingerprint=None, mask_type=None, mask_samples={})(tmp_path / "adapter")
    assert torch.equal(logits(load_adapter(small(), tmp_path / "adapter")), logits(good[1]))
    with pytest.raises(SparsityError, match="other zeros"):
        load_adapter(small("50%"), tmp_path / "adapter")
    assert IDS.shape
