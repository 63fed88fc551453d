"""The same job on real input: LLaMA's tokenizer, Alpaca records, C4 calibration, prose; skipped where they are absent."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from spp_lite import Sparsity
from spp_lite.calibration import block_linears
from spp_lite.cli import main

REAL = Path(os.environ.get("SPP_REAL_DATA", Path(__file__).parents[2] / "shared" / "real-data"))
FILES = [REAL / name for name in ("llama2_tokenizer.model", "alpaca_en_999.json", "c4_100.jsonl", "wiki_400k.txt")]

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in FILES), reason=f"the real files are not in {REAL} (set SPP_REAL_DATA)"
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small LLaMA with random weights and the real tokenizer, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("models") / "random-llama"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(FILES[0].read_bytes())
    tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_whole_job_on_a_folder_and_real_records(llama, tmp_path):
    text = tmp_path / "prose.txt"
    text.write_text(FILES[3].read_text()[:20_000])
    command = (
        f"demo --model {llama} --data {FILES[1]} --calibration {FILES[2]} --calibration-samples 8 "
        f"--calibration-length 128 --text {text} --tasks none --sparsity 50% 2:4 --steps 30 --batch-size 4 "
        f"--cutoff 128 --learning-rate 2e-2 --out {tmp_path / 'out'} --save-models"
    )
    assert main(command.split()) == 0
    table = pd.read_csv(tmp_path / "out" / "demo.csv")
    recovered = table[table["method"] == "spp"]
    assert (recovered["loss_last"] < recovered["loss_first"]).all()
    assert table["perplexity"].notna().all()
    for name, sparsity in {"50-spp": "50%", "2of4-spp": "2:4"}.items():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / name)
        for layer, linear in block_linears(model).items():
            Sparsity.parse(sparsity).check(linear.weight, layer)
    before = table.loc[table["method"] == "none", "zeros"].to_list()
    assert before == recovered["zeros"].to_list() == pytest.approx([0.5, 0.5], abs=0.01)
