"""prune() on every decoder family: exact counts, shared statistics, sequential inputs, and what wrong input gets."""

import warnings

import pytest
import torch
import transformers as tf

from spp_lite import Sparsity, load, prune
from spp_lite.pruning.allocation import outlier_share
from spp_lite.pruning.blocks import CalibrationError, block_linears, decoder_blocks, linears_of
from spp_lite.pruning.calibration import walk
from spp_lite.pruning.prune import PruningReport
from spp_lite.pruning.sparsity import SparsityError, measure
from spp_lite.recover.data import calibration_batches

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE = {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64}
FAMILIES = {
    "llama": lambda: tf.LlamaConfig(**SMALL, **WIDE),
    "mistral": lambda: tf.MistralConfig(**SMALL, **WIDE, sliding_window=4),
    "qwen2": lambda: tf.Qwen2Config(**SMALL, **WIDE),
    "qwen3": lambda: tf.Qwen3Config(**SMALL, **WIDE, head_dim=8),
    "smollm": lambda: tf.LlamaConfig(**SMALL, **WIDE, tie_word_embeddings=True),
    "smollm3": lambda: tf.SmolLM3Config(**SMALL, **WIDE, pad_token_id=0, bos_token_id=1, eos_token_id=2),
    "gemma": lambda: tf.GemmaConfig(**SMALL, **WIDE, head_dim=8),
    "gemma2": lambda: tf.Gemma2Config(**SMALL, **WIDE, head_dim=8, sliding_window=4),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**SMALL, intermediate_size=64, max_position_embeddings=64),
    "opt": lambda: tf.OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64),
    "modernbert-decoder": lambda: tf.ModernBertDecoderConfig(
        **SMALL, intermediate_size=64, **ENDS
    ),  # "decoder": its head
    "bamba": lambda: tf.BambaConfig(**SMALL, **WIDE, attn_layer_indices=[1], **MAMBA),  # blocks return two things
}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "cls_token_id": 1}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_expand": 2, "mamba_n_groups": 1}
DRAW = torch.Generator().manual_seed(0)
IDS = [torch.randint(3, 96, (2, 12), generator=DRAW), torch.randint(3, 96, (3, 7), generator=DRAW)]


def masked(batch=2, length=12):
    return {"input_ids": IDS[0], "attention_mask": torch.ones(batch, length)}


def build(family="llama", dtype=torch.float32):
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(FAMILIES[family]()).eval().to(dtype)


def inputs_by_hooks(model, batches, keep=None):
    """Every linear's inputs in a plain forward of the whole model: what calibration must reproduce."""
    found = {name: [] for name in block_linears(model)}
    handles = [
        linear.register_forward_pre_hook(lambda _m, args, name=name: found[name].append(args[0].flatten(0, -2)))
        for name, linear in block_linears(model).items()
    ]
    with torch.no_grad():
        for batch in batches:
            model(input_ids=batch) if isinstance(batch, torch.Tensor) else model(**batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(rows) for name, rows in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_walk_sees_what_the_model_sees(family):
    model = build(family)
    expected = inputs_by_hooks(model, IDS)
    for here in walk(model, IDS):
        for name, found in here.statistics(gram=True).items():
            rows = expected[name]
            assert found.tokens == len(rows) == 2 * 12 + 3 * 7
            torch.testing.assert_close(found.squares, rows.square().mean(0), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found.gram, 2 / len(rows) * rows.T @ rows, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:2 matrices of the blocks:UserWarning")  # Bamba's convolutions
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_every_family_is_pruned_to_the_pattern_and_still_runs(family, method):
    model = build(family)
    report = prune(model, IDS, "2:4", method=method, progress=False)
    linears = block_linears(model)
    assert list(report.table["layer"]) == list(linears) and report.sparsity == 0.5
    for name, linear in linears.items():
        Sparsity.parse("2:4").check(linear.weight, name)
    assert torch.isfinite(model(IDS[0]).logits).all()


def test_linears_that_share_an_input_share_its_statistics():
    here = next(iter(walk(build(), IDS)))
    found = {name.rpartition(".")[2]: id(value) for name, value in here.statistics().items()}
    assert found["q_proj"] == found["k_proj"] == found["v_proj"] and found["gate_proj"] == found["up_proj"]
    assert len({found["q_proj"], found["o_proj"], found["gate_proj"], found["down_proj"]}) == 4


def test_pruned_outputs_feed_the_next_block():
    model = build()
    pruned_first, seen = None, {}
    for index, here in enumerate(walk(model, IDS)):
        seen[index] = here.statistics()[f"{here.name}.self_attn.q_proj"].squares
        if index == 0:
            for linear in here.linears.values():
                linear.weight.data *= 0.5
            pruned_first = inputs_by_hooks(model, IDS)["model.layers.1.self_attn.q_proj"].square().mean(0)
    torch.testing.assert_close(seen[1], pruned_first)


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_padding_does_not_count(family):
    model = build(family)
    ids = torch.cat([IDS[0], torch.zeros(2, 5, dtype=torch.long)], 1)
    mask = torch.cat([torch.ones(2, 12), torch.zeros(2, 5)], 1).long()
    padded, plain = walk(model, [{"input_ids": ids, "attention_mask": mask}]), walk(model, IDS[:1])
    for here, there in zip(padded, plain, strict=True):
        other = there.statistics()
        for name, found in here.statistics().items():
            assert found.tokens == 24
            torch.testing.assert_close(found.squares, other[name].squares, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_are_float32_for_half_weights(dtype):
    model = build(dtype=dtype)
    here = next(iter(walk(model, IDS)))
    assert all(found.squares.dtype == torch.float32 for found in here.statistics().values())
    report = prune(model, IDS, "50%", progress=False)
    assert model.dtype == dtype and report.sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("sparsity", ["50%", "37%", "row:50%"])
def test_zero_counts_are_exact_per_criterion(sparsity):
    wanted = Sparsity.parse(sparsity)
    by_row, whole = build(), build()
    prune(by_row, IDS, sparsity, method="wanda", progress=False)
    prune(whole, None, sparsity, method="magnitude", progress=False)
    for linear in block_linears(by_row).values():
        assert ((linear.weight == 0).sum(1) == wanted.zeros(linear.in_features)).all()
    for linear in block_linears(whole).values():
        exact = (
            wanted.zeros(linear.in_features) * linear.out_features
            if wanted.per_row
            else wanted.zeros(linear.weight.numel())
        )
        assert int((linear.weight == 0).sum()) == exact


def test_skip_and_only_choose_by_name_pattern():
    model = build()
    report = prune(model, IDS, "50%", skip=["*.layers.0.*", "*.down_proj"], only=None, progress=False)
    assert not any("layers.0." in name or "down_proj" in name for name in report.table["layer"])
    assert measure(block_linears(model)["model.layers.0.self_attn.q_proj"].weight) == 0
    assert set(prune(build(), IDS, "50%", only=["*.q_proj"], progress=False).table["layer"].str[-6:]) == {"q_proj"}


def test_an_interruption_leaves_finished_layers_whole_and_names_them():
    model, before = build(), build()

    def batches():
        yield from IDS

    calls = []
    original = Sparsity.mask

    def stop(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    Sparsity.mask = stop
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            prune(model, batches(), "2:4", progress=False)
    finally:
        Sparsity.mask = original
    (note,) = caught.value.__notes__
    assert "pruned whole: model.layers.0.self_attn.q_proj" in note
    for name, linear in block_linears(model).items():
        if f"{name}," in note or f"{name};" in note:
            Sparsity.parse("2:4").check(linear.weight, name)
        else:
            assert torch.equal(linear.weight, block_linears(before)[name].weight)
    assert not any(block._forward_pre_hooks for block in model.modules())
    assert torch.isfinite(model(IDS[0]).logits).all()


def test_the_report_measures_errors():
    report = prune(build(), IDS, "75%", progress=False)
    assert isinstance(report, PruningReport) and (report.table["error"] > 0).all()
    assert {"layer", "shape", "asked", "reached", "error", "seconds"} == set(report.table.columns)


def test_an_offloaded_model_is_pruned_too():
    from accelerate import cpu_offload

    expected, model = build(), build()
    prune(expected, IDS, "2:4", progress=False)
    weights = {name: tensor.clone() for name, tensor in expected.state_dict().items()}
    cpu_offload(model, execution_device=torch.device("cpu"), offload_buffers=True)
    prune(model, IDS, "2:4", progress=False)
    torch.testing.assert_close(model(IDS[0]).logits, expected(IDS[0]).logits)
    assert torch.equal(expected.model.layers[0].mlp.up_proj.weight, weights["model.layers.0.mlp.up_proj.weight"])


def test_a_model_offloaded_to_disk_is_pruned_on_disk(tmp_path):
    from accelerate import disk_offload

    expected, model = build(dtype=torch.bfloat16), build(dtype=torch.bfloat16)
    prune(expected, IDS, "2:4", progress=False)
    disk_offload(model, tmp_path, execution_device=torch.device("cpu"), offload_buffers=True)
    prune(model, IDS, "2:4", progress=False)
    assert model.model.layers[0].mlp.up_proj.weight.is_meta
    torch.testing.assert_close(model(IDS[0]).logits, expected(IDS[0]).logits)


def test_a_model_spread_by_device_map_is_pruned_but_never_in_its_checkpoint(tmp_path):
    expected = build()
    expected.save_pretrained(tmp_path / "model")
    files = {file: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "cpu"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    where = {"device_map": places, "offload_folder": tmp_path / "offload"}
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "model", **where)
    prune(expected, IDS, "2:4", progress=False)
    prune(model, IDS, "2:4", progress=False)
    torch.testing.assert_close(model(IDS[0]).logits, expected(IDS[0]).logits)
    assert files == {file: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "model", device_map=places)  # no folder to write to
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    with pytest.raises(CalibrationError, match=r"layers\.1\.self_attn\.q_proj is offloaded to the checkpoint itself"):
        prune(model, IDS, "2:4", progress=False)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, before)


def ratios(report):
    """Layer → share of zeros, and the zeros and weights of all layers."""
    table = report.table.set_index("layer")
    sizes = table["shape"].map(lambda shape: shape[0] * shape[1])
    return table["reached"], round((table["reached"] * sizes).sum()), sizes.sum()


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("target", [0.5, 0.37, 0.61])
@pytest.mark.parametrize("allocation", ["owl", {"*.down_proj": "30%", "*.layers.0.*": 0.5}])
def test_allocations_meet_the_ratio_to_the_weight(method, target, allocation):
    model = build()
    reached, zeros, size = ratios(prune(model, IDS, target, method, allocation=allocation, progress=False))
    assert zeros == Sparsity(target).zeros(size)
    if allocation == "owl":
        return
    assert reached[reached.index.str.endswith("down_proj")].sub(0.3).abs().max() < 1 / 2000
    rest = reached[~reached.index.str.endswith("down_proj") & ~reached.index.str.contains("layers.0.")]
    sizes = rest.index.map(lambda name: block_linears(model)[name].weight.numel())
    assert (rest.max() - rest.min()) <= 1.01 / min(sizes)  # one weight


def test_owl_gives_blocks_with_outliers_fewer_zeros():
    model = build()
    for linear in linears_of(model.model.layers[1]).values():
        linear.weight.data[:, 0] *= 100
    reached, zeros, size = ratios(prune(model, IDS, "60%", allocation="owl", progress=False))
    by_block = reached.groupby(reached.index.str.extract(r"layers\.(\d)", expand=False)).mean()
    assert by_block.idxmin() == "1"
    assert by_block.max() - by_block.min() == pytest.approx(2 * 0.08, abs=1e-3)  # 2λ apart
    assert zeros == Sparsity(0.6).zeros(size)


def test_outliers_are_counted_over_the_whole_block():
    scores = [torch.ones(10, 10), torch.ones(10, 10)]
    scores[0][0, :5] = 50.0
    assert outlier_share(scores, outlier=5.0) == 5 / 200  # 5 × the mean of 2.2 is 11
    assert outlier_share(scores, outlier=30.0) == 0


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"sparsity": "1:5"}, SparsityError, r"layers.0.self_attn.q_proj has 32 inputs, not a multiple of 5"),
        ({"sparsity": "100%"}, SparsityError, r"outside \[0, 1\)"),
        ({"method": "obs"}, ValueError, "method 'obs' is none of magnitude, wanda, sparsegpt"),
        ({"calibration": None}, ValueError, "wanda needs calibration batches"),
        ({"calibration": []}, CalibrationError, "calibration is empty"),
        ({"calibration": ["text"]}, CalibrationError, "calibration batch 0 is no LongTensor"),
        ({"calibration": [torch.rand(2, 3)]}, CalibrationError, "calibration batch 0 is no LongTensor"),
        ({"calibration": [torch.ones(2, 3) > 0]}, CalibrationError, "calibration batch 0 is no LongTensor"),
        (
            {"calibration": [masked(2, 6)]},
            CalibrationError,
            r"batch 0: attention_mask is of shape \(2, 6\), give one of",
        ),
        ({"calibration": [IDS[0], {**masked(), "attention_mask": [[1]]}]}, CalibrationError, "batch 1: .* is a list"),
        ({"skip": ["*.qproj"]}, SparsityError, r"pattern '\*.qproj' matches no linear"),
        ({"skip": ["*"]}, SparsityError, "leave no linear to prune"),
        ({"allocation": "random"}, ValueError, "allocation 'random' is not one of 'uniform', 'owl'"),
        ({"allocation": "owl", "sparsity": "2:4"}, SparsityError, "2:4 gives every row the same share"),
        ({"allocation": "owl", "calibration": None, "method": "magnitude"}, ValueError, r"'owl' \(with calibration\)"),
        ({"allocation": {"*.qproj": 0.3}}, SparsityError, r"allocation '\*.qproj' matches no linear"),
        ({"allocation": {"*.q_proj": "2:4"}}, SparsityError, "a budget shares out ratios"),
        ({"allocation": {"*": 0.3}}, SparsityError, "the allocation makes 30.00% of zeros, not 50.00%"),
        ({"allocation": {"*.mlp.*": 0.9}}, SparsityError, "the allocation leaves -.*% of zeros to the other layers"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_changes(arguments, error, message):
    model, before = build(), build()
    with pytest.raises(error, match=message):
        prune(model, **{"calibration": IDS, "progress": False, **arguments})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_models_that_cannot_be_pruned_are_named():
    import peft

    with pytest.raises(CalibrationError, match="Linear has no decoder blocks"):
        prune(torch.nn.Linear(4, 4), None, "50%", method="magnitude")
    model = build()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(SparsityError, match=r"model.layers.1.mlp.up_proj has weights that are not finite"):
        prune(model, IDS, "50%")
    model = build()
    model.model.embed_tokens.weight.data[5] = float("nan")
    with pytest.raises(CalibrationError, match=r"layers.0.self_attn.q_proj: 32 of its inputs are not finite"):
        prune(model, [torch.full((1, 4), 5)], "50%", progress=False)
    model.model.embed_tokens.weight.data[:] = float("inf")
    with pytest.raises(CalibrationError, match=r"layers.0.self_attn.q_proj: 32 of its inputs are not finite"):
        prune(model, IDS, "50%", progress=False)
    with pytest.raises(CalibrationError, match="ModuleDict has no config: give the transformers model that it wraps"):
        prune(torch.nn.ModuleDict({"model": build()}), IDS, "50%", progress=False)
    with torch.inference_mode():
        model = build()
    with pytest.raises(SparsityError, match="q_proj was made in inference mode, where weights are final"):
        prune(model, IDS, "50%")
    adapted = peft.get_peft_model(build(), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(SparsityError, match="carries an adapter: merge or unload it"):
        prune(adapted, IDS, "50%")


class Between(torch.nn.Module):
    """A decoder that does something between its blocks, or runs them again."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = build(), kind
        self.config = self.inner.config
        self.get_input_embeddings = self.inner.get_input_embeddings

    def forward(self, input_ids, **_):
        hidden = self.inner.model.embed_tokens(input_ids)
        places = self.inner.model.rotary_emb(hidden, torch.arange(input_ids.shape[1])[None])
        for _round in range(2 if self.kind == "looped" else 1):
            for block in reversed(self.inner.model.layers) if self.kind == "reversed" else self.inner.model.layers:
                hidden = block(hidden * (1.5 if self.kind == "scaled" else 1), position_embeddings=places)
        return hidden


@pytest.mark.parametrize("kind", ["plain", "looped", "scaled", "reversed"])
def test_a_decoder_whose_blocks_are_no_chain_is_refused(kind):
    model = Between(kind)
    if kind == "plain":
        assert prune(model, IDS, "50%", progress=False).sparsity == 0.5
        return
    with pytest.raises(
        CalibrationError, match="Between does not hand the hidden states, and no more, from each of its 3"
    ):
        prune(model, IDS, "50%", progress=False)
    assert not any((linear.weight == 0).any() for linear in block_linears(model).values())


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["mask", "weight_norm", "old weight_norm", "spectral_norm"])
def test_a_weight_that_is_made_anew_at_each_call_is_refused(kind):
    from peft import get_peft_model
    from torch.nn.utils import parametrizations
    from torch.nn.utils import prune as masks

    from spp_lite import SppConfig, to_sparse

    model = build()
    linear = model.model.layers[1].mlp.up_proj
    {
        "mask": lambda: masks.l1_unstructured(linear, "weight", 0.5),
        "weight_norm": lambda: parametrizations.weight_norm(linear),
        "old weight_norm": lambda: torch.nn.utils.weight_norm(linear),
        "spectral_norm": lambda: torch.nn.utils.spectral_norm(linear),
    }[kind]()
    for call in (lambda: prune(model, IDS, "50%"), lambda: to_sparse(model)):
        with pytest.raises(
            SparsityError, match=r"layers.1.mlp.up_proj computes its weight at each call .* prune.remove"
        ):
            call()
    with pytest.raises(ValueError, match="up_proj computes its weight at each call"):
        get_peft_model(model, SppConfig(target_modules=["up_proj"]))
    if kind == "mask":
        masks.remove(linear, "weight")
        assert prune(model, IDS, "75%", progress=False).sparsity == 0.75


def test_under_autocast_statistics_and_scores_are_float32_all_the_same():
    model = build()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = inputs_by_hooks(model, IDS)
        for here in walk(model, IDS):
            for name, found in here.statistics(gram=True).items():
                rows = expected[name].float()
                with torch.autocast("cpu", enabled=False):
                    gram = 2 / len(rows) * rows.T @ rows
                torch.testing.assert_close(found.gram, gram, rtol=1e-4, atol=1e-5)
    mixed = build(dtype=torch.bfloat16)  # runs under autocast alone
    for module in mixed.modules():
        if "RMSNorm" in type(module).__name__:
            module.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert prune(mixed, IDS, "2:4", method="sparsegpt", progress=False).sparsity == 0.5


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("second", ["2:4", "50%", "row:60%"])
def test_pruning_again_fills_no_zero(method, second):
    model = build()
    prune(model, IDS, "75%", method="wanda", progress=False)
    before = {name: linear.weight == 0 for name, linear in block_linears(model).items()}
    report = prune(model, IDS, second, method=method, progress=False)
    assert not any((linear.weight[before[name]] != 0).any() for name, linear in block_linears(model).items())
    assert report.sparsity >= 0.75


def test_blocks_are_found_by_what_they_are():
    for family in FAMILIES:
        name, blocks = decoder_blocks(build(family))
        assert len(blocks) == 3 and name.endswith("layers"), family


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_pruned_weights_hold_no_negative_zero(method):
    model = build()
    prune(model, IDS, "2:4", method=method, progress=False)
    assert not any(bool((one.weight.signbit() & (one.weight == 0)).any()) for one in block_linears(model).values())


def test_every_module_keeps_its_own_mode():
    model, tokenizer = load("tiny")
    model.train()
    model.model.layers[1].eval()
    prune(
        model,
        calibration_batches("Ada lives in the north. " * 40, tokenizer, samples=2, length=16),
        "50%",
        progress=False,
    )
    assert model.training and model.model.layers[0].mlp.training and not model.model.layers[1].mlp.training


def test_one_batch_alone_is_a_list_of_one():
    batch = {"input_ids": torch.arange(3, 35).view(2, 16), "attention_mask": torch.ones(2, 16, dtype=torch.long)}
    found = []
    for calibration in ([batch], batch, batch["input_ids"]):
        model, _ = load("tiny")
        prune(model, calibration, "50%", progress=False)
        found.append([linear.weight for linear in block_linears(model).values()])
    assert all(map(torch.equal, found[0], found[1])) and all(map(torch.equal, found[0], found[2]))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_blocks_that_are_compiled_one_by_one_are_pruned_alike(method):
    plain, compiled = build(), build()
    for i, block in enumerate(compiled.model.layers):
        compiled.model.layers[i] = torch.compile(block, backend="eager")
    for model in (plain, compiled):
        prune(model, IDS, "50%", method=method, progress=False)
    others = block_linears(compiled).values()
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(block_linears(plain).values(), others, strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("masked, said", [(False, True), (True, False)])
def test_padding_without_a_mask_is_said_and_of_real_texts_nothing(side, masked, said):
    """tokenizer(…, padding=True)["input_ids"] alone looks like text, and moved one entry of a mask in nine."""
    model, tokenizer = load("tiny")
    tokenizer.padding_side = side
    texts = [
        "Ada lives in the north.",
        "Bruno has a drum and a flute and a house of stone beside the river in the north.",
    ]
    batch = tokenizer(texts, padding="max_length", max_length=48, return_tensors="pt")
    given = dict(batch) if masked else batch["input_ids"]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        prune(model, [given], "50%", progress=False)
        prune(model, calibration_batches(texts, tokenizer, samples=1, length=20), "75%", progress=False)
    assert [str(one.message) for one in heard if "looks padded" in str(one.message)] == [
        "calibration batch 0 looks padded: without attention_mask padding is text"
    ] * said
