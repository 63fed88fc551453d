"""save_sparse and load_sparse: the same bits back, in the room that was promised, whole or not at all."""

import copy
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spp_lite import load, load_sparse, prune, save_sparse
from spp_lite.cli import main
from spp_lite.models import fingerprint, save
from spp_lite.packed import pack, pack_files, read_packed, unpack

TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
FILE = "model.sparse.safetensors"


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def pruned(sparsity="2:4", dtype=torch.bfloat16, tied=True, **sizes):
    torch.manual_seed(0)
    shape = {"vocab_size": 3072, "hidden_size": 48, "intermediate_size": 104, "num_attention_heads": 2} | sizes
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, tie_word_embeddings=tied, **shape)).to(dtype).eval()
    prune(model, None, sparsity, method="magnitude", progress=False)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return load("tiny")[1]


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.sampled_from(TYPES), st.integers(0, 99))
def test_any_weight_comes_back_bit_for_bit(rows, columns, ratio, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    weight[torch.rand(rows, columns, generator=generator) < ratio] = 0
    for one in (weight.to(dtype), (weight * (weight > 0)).to(dtype)):  # in the second many zeros are -0.0
        parts = pack(one)
        assert parts["mask"].dtype == torch.uint8 and len(parts["mask"]) == -(-rows * columns // 8)
        assert same_bits(unpack(parts, (rows, columns)), one)


@pytest.mark.parametrize("dtype", TYPES)
def test_odd_numbers_keep_their_bits(dtype):
    weight = torch.tensor([[-0.0, 0.0, 1.0], [float("nan"), float("-inf"), 1e-45]], dtype=dtype)
    assert same_bits(unpack(pack(weight), (2, 3)), weight)
    bits = {
        torch.bool: [True, False],
        torch.uint8: [128, 0, 1],
        torch.int64: [-(2**63), 0, 7],
        torch.int8: [-128, 0, 3],
    }
    for kind, entries in bits.items():
        assert torch.equal(
            unpack(pack(torch.tensor(entries * 9, dtype=kind)), (9 * len(entries),)), torch.tensor(entries * 9)
        )


@pytest.mark.parametrize("dtype", TYPES[:3])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back_bit_for_bit(tokenizer, tmp_path, dtype, tied):
    model = pruned(dtype=dtype, tied=tied)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, :2] = torch.tensor([-0.0, 0.0])  # among the kept ones
        model.model.norm.weight.data = model.model.norm.weight.float() + 1e-6  # kept in float32, as some models do
    model.generation_config.max_length = 77
    save_sparse(model, tokenizer, tmp_path / "m", card="# mine\n")
    again, words = load_sparse(tmp_path / "m")
    assert fingerprint(again) == fingerprint(model) and again.dtype == dtype and not again.training
    assert all(same_bits(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    plain = AutoModelForCausalLM.from_pretrained(save(model, tokenizer, tmp_path / "plain"))
    assert all(same_bits(a, b) for a, b in zip(again.buffers(), plain.buffers(), strict=True))
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied
    assert again.generation_config.max_length == 77 and words.get_vocab() == tokenizer.get_vocab()
    uniform = load(tmp_path / "m", dtype="auto")[0]  # as it loads a dense folder
    assert fingerprint(uniform) == fingerprint(load(tmp_path / "plain", dtype="auto")[0])
    assert (tmp_path / "m" / "README.md").read_text().endswith("\n# mine\n")


@pytest.mark.parametrize(("sparsity", "most"), [("2:4", 0.57), ("75%", 0.32)])
def test_the_file_takes_the_promised_share(tmp_path, sparsity, most):
    model = pruned(sparsity, vocab_size=32, hidden_size=512, intermediate_size=1376)
    sizes = [
        (write(model, None, tmp_path / write.__name__) / name).stat().st_size
        for write, name in ((save, "model.safetensors"), (save_sparse, FILE))
    ]
    assert sizes[1] <= most * sizes[0]


def test_the_layout_is_the_documented_one(tmp_path):
    model = pruned()
    save_sparse(model, None, tmp_path / "m")
    name = "model.layers.1.mlp.down_proj.weight"
    with safe_open(tmp_path / "m" / FILE, "pt") as file:
        assert file.metadata()["layout"] == "spp_lite sparse 1" and f'"{name}": [48, 104]' in file.metadata()["shapes"]
        mask, values = file.get_tensor(f"{name}.mask"), file.get_tensor(f"{name}.values")
    bits = [(byte >> (7 - place)) & 1 for byte in mask.tolist() for place in range(8)]
    weight = dict(model.named_parameters())[name].detach()
    assert bits == [int(entry != 0) for row in weight.tolist() for entry in row]
    assert values.tolist() == [entry for row in weight.tolist() for entry in row if entry != 0]
    assert "model.embed_tokens.weight" in load_file(tmp_path / "m" / FILE)  # dense: it is not pruned


@pytest.mark.parametrize(("ratio", "most"), [(0.5, 0.6), (0.75, 0.37)])
def test_zeros_of_a_product_cost_a_bit_each(ratio, most):
    weight = torch.randn(256, 256)
    weight = (weight * (torch.rand(256, 256) > ratio)).to(torch.bfloat16)  # half of these zeros are -0.0
    parts = pack(weight)
    assert set(parts) == {"mask", "values", "signs"} and sum(p.nbytes for p in parts.values()) < most * weight.nbytes
    weight[weight == 0] = 0.0
    weight[0, :3] = -0.0
    assert set(pack(weight)) == {"mask", "values"}  # a few are kept instead


def test_every_tensor_of_a_file_comes_back(tmp_path):
    tensors = {
        "norm": torch.ones(3, dtype=torch.float16), "places": torch.arange(9), "flags": torch.eye(33, dtype=torch.bool),
        "scale": torch.tensor(2.5), "empty": torch.zeros(0, 4), "zero": torch.zeros(7, 9), "w.mask": torch.zeros(99),
    }  # fmt: skip
    save_file(tensors, tmp_path / "model.safetensors")
    pack_files(tmp_path)
    found = read_packed(tmp_path)
    assert found.keys() == tensors.keys() and os.listdir(tmp_path) == [FILE]
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


def test_shards_become_one_model_again(tokenizer, tmp_path, monkeypatch):
    model = pruned()
    write = model.save_pretrained
    monkeypatch.setattr(model, "save_pretrained", lambda folder, **_: write(folder, max_shard_size="100KB"))
    save_sparse(model, tokenizer, tmp_path / "m")
    files = sorted(path.name for path in (tmp_path / "m").glob("*safetensors*"))
    assert len(files) > 1 and all(name.endswith(".sparse.safetensors") for name in files)
    assert fingerprint(load_sparse(tmp_path / "m")[0]) == fingerprint(model)
    (tmp_path / "m" / files[-1]).unlink()
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's tensors"):
        load_sparse(tmp_path / "m")


def test_a_failing_save_leaves_the_old_model(tokenizer, tmp_path, monkeypatch):
    model = pruned()
    save_sparse(model, tokenizer, tmp_path / "m")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other.model.norm.weight)
    monkeypatch.setattr("spp_lite.packed.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_sparse(other, tokenizer, tmp_path / "m")
    assert fingerprint(load_sparse(tmp_path / "m")[0]) == fingerprint(model)
    assert os.listdir(tmp_path) == ["m"]


def test_damage_and_other_layouts_are_said_in_one_sentence(tokenizer, tmp_path):
    save_sparse(pruned(), tokenizer, tmp_path / "m")
    path = tmp_path / "m" / FILE
    whole, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_sparse(tmp_path / "m")
    name = next(name for name in tensors if name.endswith(".values"))
    save_file(tensors | {name: tensors[name][:-1].clone()}, path, metadata=about)
    with pytest.raises(ValueError, match=rf"{name.removesuffix('.values')} has \d+ values, its mask keeps"):
        load_sparse(tmp_path / "m")
    save_file(tensors, path, metadata=about | {"layout": "spp_lite sparse 9"})
    with pytest.raises(ValueError, match="has the layout 'spp_lite sparse 9'"):
        load_sparse(tmp_path / "m")
    save(pruned(), tokenizer, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"plain holds no \*\.sparse\.safetensors"):
        load_sparse(tmp_path / "plain")


def test_commands_pack_a_model_and_make_it_plain_again(tokenizer, tmp_path, capsys):
    model = pruned()
    save(model, tokenizer, tmp_path / "plain")
    steps = (("plain", "--sparse", "packed"), ("packed", "--dense", "again"))
    for source, form, out in steps:
        assert main(f"merge --model {tmp_path / source} {form} --out {tmp_path / out}".split()) == 0
    assert (tmp_path / "packed" / FILE).exists() and not (tmp_path / "packed" / "model.safetensors").exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert fingerprint(again) == fingerprint(model)
    with pytest.raises(OSError, match=r"model\.safetensors"):  # refused, not loaded with random weights
        AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    assert main(f"merge --model {tmp_path / 'plain'} --out {tmp_path / 'x'}".split()) == 2
    assert "nothing to merge" in capsys.readouterr().err and not (tmp_path / "x").exists()
