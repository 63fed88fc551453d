"""The same job on real input: LLaMA's tokenizer, Alpaca records, C4 calibration, prose; skipped where they are absent."""

import re

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from spp_lite import Sparsity
from spp_lite.cli import main
from spp_lite.pruning.blocks import block_linears


@pytest.mark.filterwarnings("ignore:.* answers are cut at 128 tokens:UserWarning")
def test_the_whole_job_on_a_folder_and_real_records(real_data, llama, tmp_path):
    alpaca, c4, prose = (real_data / name for name in ("alpaca_en_999.json", "c4_100.jsonl", "wiki_400k.txt"))
    text = tmp_path / "prose.txt"
    text.write_text(prose.read_text()[:20_000])
    command = (
        f"demo --model {llama} --data {alpaca} --calibration {c4} --calibration-samples 8 "
        f"--calibration-length 128 --text {text} --tasks none --sparsity 50% 2:4 --steps 30 --batch-size 4 "
        f"--cutoff 128 --learning-rate 2e-2 --out {tmp_path / 'out'} --save-models"
    )
    with pytest.warns(UserWarning, match="fill the cutoff") as caught:
        assert main(command.split()) == 0
    said = [re.split(" prompts| at 128", str(warning.message))[0] for warning in caught]
    lost = ["14 of 919", "2 of 40", "27 of 38 answers are cut", "574 of 905 answers are cut"]
    assert sorted(said) == sorted(lost)  # once each: to train on, and held out to score
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
