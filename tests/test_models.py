import os
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spp_lite.models import environment, load, require_network, save


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
    with pytest.raises(ValueError, match=r"has no .safetensors file"):
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


def test_save_replaces_a_model_whole(small, tmp_path):
    save(small, None, tmp_path / "m")
    with torch.no_grad():
        small.model.embed_tokens.weight.add_(1)
    save(small, None, tmp_path / "m")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(loaded.model.embed_tokens.weight, small.model.embed_tokens.weight)
    assert os.listdir(tmp_path) == ["m"]


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
    with pytest.raises(ValueError, match="is not a model folder"):
        save(small, None, tmp_path / "notes")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"


def test_environment_names_versions():
    found = environment()
    assert found["torch"] == torch.__version__ and {"python", "transformers", "peft", "threads", "gpu"} <= set(found)
