"""Every method but plain LoRA keeps each zero; parameter counts are the paper's."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from spp_lite import prune
from spp_lite.experiment.baselines import METHODS, attach, recover
from spp_lite.pruning.blocks import block_linears
from spp_lite.teaching.figures import parameter_table

IDS = torch.randint(0, 96, (8, 12), generator=torch.Generator().manual_seed(3))


def small():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def pruned():
    model = small()
    prune(model, [IDS], "2:4", progress=False)
    return model


def train(model, steps=4):
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if not hasattr(model, "peft_config"):  # masked full: the moments of zeros are zero too
        for parameter in parameters:
            for name in ("exp_avg", "exp_avg_sq"):
                assert not optimizer.state[parameter][name][parameter == 0].any()


@pytest.mark.parametrize("method", METHODS)
def test_methods_learn_and_keep_their_promise_on_zeros(pruned, method):
    masks = {name: linear.weight == 0 for name, linear in block_linears(pruned).items()}
    before = {name: linear.weight.clone() for name, linear in block_linears(pruned).items()}
    with torch.no_grad():
        start = pruned(input_ids=IDS, labels=IDS).loss
    model = recover(pruned, method, train)
    after = block_linears(model)
    refilled = sum(int(torch.count_nonzero(after[name].weight[masks[name]])) for name in masks)
    assert refilled == 0 if method != "lora" else refilled > 0.5 * sum(int(mask.sum()) for mask in masks.values())
    changed = any(not torch.equal(after[name].weight, before[name]) for name in masks)
    assert changed == (method != "none")
    with torch.no_grad():
        loss = model(input_ids=IDS, labels=IDS).loss
    if method not in ("none", "lora*"):
        assert loss < start
    assert type(model) is LlamaForCausalLM and not model.training


def test_masked_lora_forward_equals_its_merged_form(pruned):
    model = attach(pruned, "masked-lora")
    train(model)
    model.eval()
    with torch.no_grad():
        found, expected = model(IDS).logits, model.merge_and_unload()(IDS).logits
    torch.testing.assert_close(found, expected)


def test_unknown_methods_are_named(pruned):
    with pytest.raises(ValueError, match="method 'dora' is none of none, spp, direct, lora"):
        attach(pruned, "dora")


@pytest.mark.parametrize(
    "hidden, inner, layers, heads, spp, lora",
    [
        (4096, 11008, 32, 32, 19_578_880, 19_988_480),
        (5120, 13824, 40, 40, 30_638_080, None),
        (6656, 17920, 60, 52, 59_688_960, None),
        (8192, 22016, 80, 64, 97_894_400, None),
    ],
    ids=["7B", "13B", "30B", "65B"],
)
def test_parameter_counts_are_the_papers(hidden, inner, layers, heads, spp, lora):
    config = LlamaConfig(
        vocab_size=32000, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    table = parameter_table(model, ["spp", "lora"] if lora else ["spp"]).set_index("method")
    assert table.loc["spp", "parameters"] == spp
    if lora:
        assert table.loc["lora", "parameters"] == lora
        assert (
            round(100 * table.loc["spp", "share"], 3) == 0.291 and round(100 * table.loc["lora", "share"], 3) == 0.297
        )
