import copy
import importlib.metadata
import json
import os
import time
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from spp_lite import SppConfig, prune, to_hira
from spp_lite.models import (
    embedded,
    environment,
    fingerprint,
    load,
    load_tokenizer,
    require_network,
    require_writable,
    resolve,
    save,
)  # fmt: skip


@pytest.fixture
def small():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


def test_the_embedded_model_loads_ready_to_use():
    model, tokenizer = load("tiny")
    assert not model.training and model.dtype == torch.float32
    assert tokenizer.pad_token_id is not None and tokenizer.bos_token == "<s>" and tokenizer.eos_token == "</s>"
    assert 1e6 <= model.num_parameters() <= 3e6


def test_the_environment_names_the_default_model(small, tmp_path, monkeypatch):
    _, tokenizer = load("tiny")
    save(small, tokenizer, tmp_path / "mine")
    monkeypatch.setenv("SPP_MODEL", str(tmp_path / "mine"))
    model, _ = load()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), small.parameters(), strict=True))


def test_folders_that_are_no_models_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not a model: it has no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no model.safetensors"):
        load(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        load(tmp_path / "absent")


def test_no_network_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(ValueError, match="'someone/some-llama' is neither a local path nor in the cache"):
        require_network("someone/some-llama", cache=str(tmp_path))
    assert time.monotonic() - start < 10
    (tmp_path / "models--someone--some-llama").mkdir()
    require_network("someone/some-llama", cache=str(tmp_path))
    for other in (
        "llama",
        "some-llama",
        "model",
        "someone/some",
        "no**thing",
    ):  # a part of what is cached is not cached
        with pytest.raises(ValueError, match="is neither a local path nor in the cache"):
            require_network(other, cache=str(tmp_path))


@pytest.mark.parametrize(
    "error, message",
    [
        (
            OSError("You are trying to access a gated repo.\nMake sure"),
            "cannot be loaded: OSError: You are trying to access",
        ),
        (
            ValueError("x requires … set the option `trust_remote_code=True`"),
            "it needs code of its own, which is never run",
        ),
    ],
)
def test_what_keeps_a_tokenizer_away_is_said(monkeypatch, error, message):
    def fail(source, **settings):
        assert settings["trust_remote_code"] is False, "transformers would ask on the terminal"
        raise error

    monkeypatch.setattr("spp_lite.models.AutoTokenizer.from_pretrained", fail)
    with pytest.raises(
        ValueError, match=f"the tokenizer of someone/some-llama cannot be loaded: .*{message.split(': ')[-1]}"
    ):
        load_tokenizer("someone/some-llama")


def test_a_broken_tokenizer_is_not_called_absent(small, tmp_path):
    save(small, load("tiny")[1], tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"the tokenizer of .* cannot be loaded: "):
        load_tokenizer(tmp_path / "m")


def test_a_models_own_code_is_neither_run_nor_asked_about(small, tmp_path):
    save(small, load("tiny")[1], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | own))
    (tmp_path / "m" / "mine.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ValueError, match="it needs code of its own, which is never run"):
        load(tmp_path / "m")


def test_what_somebody_wrote_about_a_model_stays_above_the_card(small, tmp_path):
    save(small, None, tmp_path / "m", card="first card\n")
    readme = tmp_path / "m" / "README.md"
    assert readme.read_text().endswith("first card\n")
    readme.write_text("my notes\n")
    save(small, None, tmp_path / "m")
    assert readme.read_text() == "my notes\n"
    for card in ("second card\n", "third card\n"):
        save(small, None, tmp_path / "m", card=card)
        assert readme.read_text().startswith("my notes\n") and readme.read_text().endswith(f"\n{card}")
    save(small, None, tmp_path / "m")
    assert readme.read_text() == "my notes\n"


def test_save_replaces_a_model_whole(small, tmp_path):
    save(small, None, tmp_path / "m")
    with torch.no_grad():
        small.model.embed_tokens.weight.add_(1)
    save(small, None, tmp_path / "m")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(loaded.model.embed_tokens.weight, small.model.embed_tokens.weight)
    assert os.listdir(tmp_path) == ["m"]


def test_a_model_that_is_saved_alone_keeps_the_tokenizer_of_its_folder(small, tmp_path):
    words = load_tokenizer(resolve("tiny"))
    save(small, words, tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").glob("tokenizer*")}
    save(small, None, tmp_path / "m", finish=lambda new: (new / "pruning_report.csv").write_text("1"))
    save(small, None, tmp_path / "m")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").glob("tokenizer*")} == before != {}
    assert not (tmp_path / "m" / "pruning_report.csv").exists()


def test_tensors_that_the_model_has_no_place_for_are_named(small, tmp_path):
    config = small.config.__class__(**small.config.to_dict() | {"num_labels": 1, "tie_word_embeddings": True})
    reward = LlamaForSequenceClassification(config)
    save(reward, load_tokenizer(resolve("tiny")), tmp_path / "reward")
    with pytest.warns(
        UserWarning, match=r"holds 1 tensors, score.weight among them, that a LlamaForCausalLM has no place"
    ):
        load(tmp_path / "reward")


def test_a_failing_save_leaves_the_old_model(small, tmp_path, monkeypatch):
    save(small, None, tmp_path / "m")
    before = small.model.embed_tokens.weight.clone()

    def full(folder, **_):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(small, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save(small, None, tmp_path / "m")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(loaded.model.embed_tokens.weight, before)
    assert os.listdir(tmp_path) == ["m"]


def test_save_does_not_replace_what_is_no_model(small, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not a model folder alone"):
        save(small, None, tmp_path / "notes")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"


def test_environment_names_versions():
    found = environment()
    assert found["torch"] == torch.__version__ and {"python", "transformers", "peft", "threads", "gpu"} <= set(found)


def test_a_checkout_that_is_not_installed_has_an_environment(monkeypatch):
    def unknown(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", unknown)
    assert environment()["spp_lite"] == "source"


@pytest.fixture
def folder(small, tmp_path):
    """A whole model folder with a tokenizer."""
    tokenizer = load_tokenizer(embedded("tiny-llama"))
    small.resize_token_embeddings(len(tokenizer))
    return save(small, tokenizer, tmp_path / "whole")


def rewrite(change):
    """A damage: change(tensors) → tensors of the folder's weight file."""

    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def without(tensors):
    return {name: tensor for name, tensor in tensors.items() if "up_proj" not in name}


def narrower(tensors):
    return {name: tensor[:4].contiguous() if "up_proj" in name else tensor for name, tensor in tensors.items()}


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")


def consolidated(folder):
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


def shard_lost(folder):
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def adapter_inside(folder):
    (folder / "adapter_config.json").write_text("{}")


def unknown_type(folder):
    (folder / "config.json").write_text('{"model_type": "llama9"}')


@pytest.mark.parametrize(
    "damage, message",
    [
        (rewrite(without), "lacks 1 of the model's tensors, model.layers.0.mlp.up_proj.weight among them"),
        (rewrite(narrower), "cannot be loaded: "),
        (cut, "cannot be loaded: "),
        (pointer, "is a git-lfs pointer, not the weights: fetch them with `git lfs pull`"),
        (consolidated, "has no model.safetensors .its consolidated.safetensors is in another layout"),
        (shard_lost, "cannot be loaded: "),
        (no_tokenizer, "has no tokenizer: copy its tokenizer.json"),
        (adapter_inside, "holds an adapter: name the pruned model's own folder"),
        (unknown_type, "cannot be loaded: |has no tokenizer"),
    ],
)
def test_a_damaged_model_folder_is_named_in_one_sentence(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as found:
        load(folder)
    assert str(folder) in str(found.value) and "\n" not in str(found.value)


def test_a_padding_token_without_an_embedding_is_replaced(small, tmp_path):
    tokenizer = load_tokenizer(embedded("tiny-llama"))
    small.resize_token_embeddings(len(tokenizer))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    save(small, tokenizer, tmp_path / "m")
    with pytest.warns(UserWarning, match=r"the padding token '\[PAD\]' has the number"):
        model, loaded = load(tmp_path / "m")
    assert loaded.pad_token_id < model.get_input_embeddings().num_embeddings


def test_a_fingerprint_tells_any_two_models_apart(small):
    whole = fingerprint(small)
    assert fingerprint(copy.deepcopy(small)) == whole
    weight = small.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    assert fingerprint(small) != whole
    changed = fingerprint(small)
    assert fingerprint(copy.deepcopy(small).bfloat16()) != changed
    small.requires_grad_(False)
    weight.requires_grad_(True)
    frozen = fingerprint(small, frozen=True)
    weight.data += 1
    assert fingerprint(small, frozen=True) == frozen != fingerprint(small)


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda folder: folder.write_text("mine"), "is a file: name a folder"),
        (lambda folder: (folder / "photos").mkdir(parents=True), r"not a model folder alone \(photos is there\)"),
        (lambda folder: save_notes(folder), r"not a model folder alone \(notes.txt is there\)"),
    ],
)
def test_a_folder_that_cannot_take_a_model_is_refused_before_the_work(tmp_path, prepare, message):
    prepare(tmp_path / "out")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        require_writable(tmp_path / "out", model=True)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def save_notes(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "notes.txt").write_text("years of work")


def test_inputs_and_full_disks_are_refused_too(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(ValueError, match="is read by this command and would be overwritten"):
        require_writable(tmp_path / "link", keep=(None, str(tmp_path / "model")))
    with pytest.raises(ValueError, match=r"needs 1000000000.00 GB and has .* GB free"):
        require_writable(tmp_path / "new", size=10**18)
    assert require_writable(tmp_path / "deep" / "new") == tmp_path / "deep" / "new"
    assert not (tmp_path / "deep").exists()
    with pytest.raises(ValueError, match="nothing can be written to /proc"):
        require_writable("/proc/spp-lite-test")


def test_save_fills_a_mount_point(small, tmp_path, monkeypatch):
    """A container's volume can be neither renamed nor replaced; its files can."""
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    (tmp_path / "volume").mkdir()
    save(small, None, tmp_path / "volume")
    with torch.no_grad():
        small.model.embed_tokens.weight.add_(1)
    inode = (tmp_path / "volume").stat().st_ino
    save(small, None, tmp_path / "volume")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "volume")
    assert torch.equal(loaded.model.embed_tokens.weight, small.model.embed_tokens.weight)
    assert (tmp_path / "volume").stat().st_ino == inode and not list((tmp_path / "volume").glob(".*"))


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED"])
def test_what_is_to_be_cut_into_shards_stays_in_main_memory(monkeypatch, engine):
    """On every process's GPU it would be whole before it is cut: 65 billion parameters fit on none."""
    moved = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: moved.append(device) or self)
    load("tiny")
    assert moved == ["cuda"]
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    load("tiny")
    assert moved == ["cuda"]


def test_a_tokenizer_of_several_chat_templates_is_written_over_and_kept(tmp_path):
    model, tokenizer = load("tiny")
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    for given in (tokenizer, tokenizer, None):
        save(model, given, tmp_path / "m")
        assert load(tmp_path / "m")[1].chat_template == tokenizer.chat_template


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_folder_may_read_every_file_of_it(tmp_path, umask, mode):
    """safetensors makes files that their owner alone can read, whatever the umask."""
    model, tokenizer = load("tiny")
    prune(model, sparsity="50%", method="magnitude", progress=False)
    before = os.umask(umask)
    try:
        save(model, tokenizer, tmp_path / "m")
        adapted = peft.get_peft_model(model, SppConfig(r=2))
        to_hira(adapted, tmp_path / "h")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for name in "mh" for path in (tmp_path / name).iterdir()} == {mode}
