# %% [markdown]
# # 07 · Merge and prove it
# {{badge}}
#
# A trained adapter is half a model. Merging folds it into the weights and leaves an ordinary model file. A wrong
# merge raises no error and destroys the sparsity in silence, so here you learn to merge **with a proof**.
#
# > **Goals** – save, load, merge and un-merge an SPP adapter; count the zeros that a merge filled (Ex 07a); test an n:m
# > pattern (Ex 07b); know which check catches which bad merge; know what zeros buy at inference.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 05: what $\alpha$, $\beta$ and $W \odot (1 + s\,R(\alpha)\,\beta)$ are. A GPU only for one optional cell.
# > **Tiny** – the model and its 40 training steps. **Real** – the adapter files, the merge and its checks, the sparse
# > formats and their timings.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · An adapter that you can carry
#
# We prune the model to 2:4: of every four consecutive inputs of an output, at most two weights are not zero. One copy stays as it is,
# to compare with. The other gets SPP factors and a short training.

# %%
import copy

from spp_lite import load, prune
from spp_lite.teaching import calibration_batches, default_texts, is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
batches = calibration_batches(default_texts(), tokenizer, samples=64, length=128)
prune(model, batches, "2:4", method="wanda", progress=False)
pruned = copy.deepcopy(model)

# %%
from peft import get_peft_model

from spp_lite import SppConfig, finetune, load_alpaca

records = load_alpaca()
adapted = get_peft_model(model, SppConfig(r=16))
steps = 40 if TINY else 5  # long records and a large vocabulary take their time
output = finetune(adapted, records, tokenizer, max_steps=steps, batch_size=16, learning_rate=5e-2, progress=False)
print(f"{output.global_step} steps, mean training loss {output.training_loss:.2f}")

# %% [markdown]
# PEFT saves only what was trained: $\alpha$ and $\beta$ as safetensors, and a small JSON file.
#
# **Predict:** how large is the adapter's file, compared with the model's weights: a tenth, a hundredth?

# %%
import json
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
adapted.save_pretrained(folder / "adapter")
adapter_bytes = (folder / "adapter" / "adapter_model.safetensors").stat().st_size
model_bytes = sum(p.nbytes for p in pruned.parameters())
config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
print(f"adapter {adapter_bytes:,} bytes, model {model_bytes:,}: {adapter_bytes / model_bytes:.1%}")
print({key: config[key] for key in ("peft_type", "r", "scaling", "mask_fingerprint")})
assert config["peft_type"] == "SPP" and adapter_bytes < model_bytes

# %% [markdown]
# Anyone who has the pruned model can load it. *Logits* are the scores that a model gives to every next token; we compare
# them on one fixed, random probe.

# %%
import torch
from peft import PeftModel

probe = torch.randint(model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def logits(model):
    return model(input_ids=probe.to(model.device)).logits


again = PeftModel.from_pretrained(copy.deepcopy(pruned), folder / "adapter").eval()
expected = logits(adapted)
assert torch.equal(logits(again), expected)  # the same to the last bit

# %% [markdown]
# **What you should see:** the type is SPP, and the file holds a *fingerprint* of the base's zeros. Section 8 shows
# what that is for. The factors shrink in relation as a model grows wider (notebook 05).
#
# ## 2 · Merge, un-merge, to the last bit
#
# `merge_adapter()` writes $W'$ into the weight, `unmerge_adapter()` takes it back. LoRA adds its update $\Delta$ and later
# subtracts it; but $(W + \Delta) - \Delta$ is rounded twice.
#
# **Predict:** in float32, how many entries of $W$ come back exactly that way: all, most, half?

# %%
W = pruned.model.layers[0].mlp.down_proj.weight.detach()
delta = 0.1 * W.std() * torch.randn_like(W)
kept = W != 0
back = ((W + delta - delta) == W)[kept].float().mean()
print(f"adding and subtracting restores {back:.0%} of the kept weights exactly")
assert back < 1

# %% [markdown]
# SPP keeps $W$ aside and puts it back. And in both states the forward pass multiplies by the same tensor $W'$, so the
# logits do not move either.

# %%
layer = adapted.base_model.model.model.layers[0].mlp.down_proj  # an SppLinear around the frozen linear
adapted.merge_adapter()
assert not torch.equal(layer.base_layer.weight, W)  # the weight is W' now
assert torch.equal(logits(adapted), expected)  # and nothing else has changed
adapted.unmerge_adapter()
assert torch.equal(layer.base_layer.weight, W)

# %% [markdown]
# **What you should see:** no assertion fails. "Equal" here means `torch.equal`, with no tolerance.
#
# ## 3 · Merge with a proof
#
# `merge` also removes the adapter, and checks the result:
#
# | check | question | what it would miss |
# |---|---|---|
# | zeros | is every zero of $W$ still zero? | any change of the kept weights |
# | pattern | does every group keep at most n of m? | zeros that moved |
# | finite | no inf, no NaN? | wrong, but finite numbers |
# | logits | does the model answer as before merging? | a filled zero too small to matter today |
#
# If one fails, it raises a `SparsityError` and leaves the model as it was.
#
# **Predict:** which numbers of the report must be 0, and which must not?

# %%
from spp_lite import merge

merged, report = merge(adapted)
print(f"largest difference of logits {report.logits_error:g}, allowed {report.tolerance:g}")
report.table.head(7).round(3)

# %%
assert report.densification == 0 and report.logits_error == 0
assert (report.table["pattern"] == "2:4").all() and (report.table["before"] == report.table["after"]).all()
assert (report.table["change"] > 0).all()  # it did merge something

# %% [markdown]
# `densification` is the share of the zeros that were filled, `change` is $\lVert W'-W\rVert / \lVert W\rVert$. The merged
# model is a plain transformers model: save it, and load it as someone would who has never heard of spp_lite.

# %%
from transformers import AutoModelForCausalLM

from spp_lite.teaching import block_linears, save

save(merged, tokenizer, folder / "merged")
plain = AutoModelForCausalLM.from_pretrained(folder / "merged").to(merged.device).eval()
assert torch.equal(logits(plain), expected)
masks = block_linears(pruned)
for name, linear in block_linears(plain).items():
    assert torch.equal(linear.weight == 0, masks[name].weight == 0), name

# %% [markdown]
# **What you should see:** exactly the mask that pruning chose, in every layer, after training, merging, saving and loading.
#
# ## 4 · Why merge in float32?
#
# Many models are stored in *float16*: 16 bits a number, nothing above 65,504. A product beyond that is `inf`. And
# $0 \cdot \mathrm{inf}$ is NaN, "not a number": the zero is lost.
#
# **Predict:** take a zero and a weight of 0.5, $\alpha = \beta = 300$, $s = 1$. What does each become in float16?

# %%
from spp_lite.teaching import effective_weight, row_blocks

tiny_weight = torch.tensor([[0.0, 0.5]], dtype=torch.float16)
alpha, beta = torch.full((1, 2), 300.0), torch.full((1,), 300.0)
in_half = tiny_weight * (1 + alpha.half() * beta.half())
in_float = effective_weight(tiny_weight, [(alpha, beta, 1.0)])  # computed in float32, cast once
print(f"all in float16: {in_half.tolist()}; in float32, then cast: {in_float.tolist()}")
assert in_half[0, 0].isnan() and in_half[0, 1].isinf()
assert in_float[0, 0] == 0 and in_float.isfinite().all() and in_float.dtype == torch.float16

# %% [markdown]
# Such factors are rare. Rounding is not: float16 keeps about three decimal digits, and every step of
# $W \odot (1 + s\,R(\alpha)\beta)$ rounds again. Here is the layer trained above:

# %%
trained = layer.spp_alpha["default"].detach(), layer.spp_beta["default"].detach()
half, rows = W.half(), trained[0][row_blocks(len(W), len(trained[0]), W.device)]  # R(alpha)
exact = effective_weight(half.double(), [(*[factor.double() for factor in trained], 2.0)])
low = half * (1 + 2 * trained[1].half()[:, None] * rows.half())
high = effective_weight(half, [(*trained, 2.0)])
errors = [float((each.double() - exact).norm() / exact.norm()) for each in (low, high)]
print(f"relative error {errors[0]:.1e} all in float16, {errors[1]:.1e} in float32 and cast once")
assert errors[1] < errors[0]

# %% [markdown]
# **What you should see:** NaN where a zero was; and in everyday sizes a larger error than one cast makes.
#
# ## 5 · What do the zeros buy?
#
# In memory: nothing, until a format leaves them out. Three formats:
#
# - **dense**: every number, $b$ bytes each.
# - **CSR** (compressed sparse rows): the kept values, a 4-byte column for each, and where each row starts. Any pattern.
# - **2:4**: of every group of four, two values and their two places, 2 bits each. Only this pattern; made for GPUs.
#
# The last one fits in four lines:

# %%
groups = high.view(-1, 4)
places = (groups != 0).int().topk(2).indices  # 2 bits each would do; torch has no such type
values = groups.gather(1, places)
rebuilt = torch.zeros_like(groups).scatter(1, places, values).view_as(high)
assert torch.equal(rebuilt, high)
print(groups[:1] + 0, values[:1], places[:1], sep="\n")  # + 0: minus zero prints as zero

# %% [markdown]
# **Predict:** half of the weights are zero. Is a CSR file smaller than the dense one in float32? In float16?

# %%
import pandas as pd

linears = [linear.weight.detach() for linear in block_linears(merged).values()]
size, kept = sum(w.numel() for w in linears), sum(int((w != 0).sum()) for w in linears)
starts = sum(4 * (w.shape[0] + 1) for w in linears)
rows = []
for number, b in (("float32", 4), ("float16", 2)):
    rows.append((number, b * size, kept * (b + 4) + starts, size / 2 * (b + 2 / 8)))  # bytes
stored = pd.DataFrame(rows, columns=["numbers", "dense", "CSR", "2:4"]).set_index("numbers")
assert (stored["CSR"] >= stored["dense"]).all() and (stored["2:4"] < stored["dense"]).all()
stored.div(stored["dense"], axis=0).map("{:.0%}".format)  # of the dense linears

# %%
dense_file = save(pruned, None, folder / "pruned") / "model.safetensors"
assert dense_file.stat().st_size == (folder / "merged" / "model.safetensors").stat().st_size
print(f"on disk, half zeros or not: {dense_file.stat().st_size:,} bytes; safetensors stores every number")

# %% [markdown]
# **What you should see:** at half zeros CSR saves nothing: the columns cost as much as the zeros, or more. 2:4 pays 2 bits
# a value and nearly halves the bytes.
#
# **In time** it is the same story. A *matmul* multiplies weight and inputs; we time the dense one and CSR's in
# turn, on one thread, and keep the median. Ratios of one run travel between machines, milliseconds do not.
#
# **Predict:** from how many zeros on is CSR faster than dense: 50 %, 75 %, 90 %?

# %%
from torch.utils.benchmark import Timer

from spp_lite.teaching.labs.merging import plot_speed, to_csr


def median_ms(weight, x):
    timer = Timer("weight @ x", globals={"weight": weight, "x": x}, num_threads=1)
    return 1000 * timer.blocked_autorange(min_run_time=0.1).median


# %%
rows, width = [], 2048
for percent in (50, 75, 90, 95, 99):
    weight = torch.randn(width, width)
    weight[torch.rand_like(weight) < percent / 100] = 0
    csr = to_csr(weight)
    for tokens in (1, 64):
        x = torch.randn(width, tokens)
        assert torch.allclose(csr @ x, weight @ x, atol=1e-2)  # the same product
        rows.append((percent, tokens, median_ms(weight, x), median_ms(csr, x)))
times = pd.DataFrame(rows, columns=["zeros", "tokens", "dense", "csr"])

# %%
from spp_lite.teaching import show

ratio = (times["dense"] / times["csr"]).round(2)
words = ", ".join(f"{row.zeros} % zeros {ratio[row.Index]}" for row in times.itertuples() if row.tokens == 1)
show(plot_speed(times), alt=f"Speed of CSR in dense matmuls, one token at a time: {words}.")
print(times.assign(speed=ratio).round(3).to_string(index=False))

# %% [markdown]
# **What you should see:** CSR is slower than dense at 50 % zeros and wins when nearly all are zero. Where your lines cross
# 1 depends on your CPU and on the tokens; no assertion guards a time. (PyTorch calls its CSR beta.)
#
# NVIDIA GPUs from the Ampere generation on have units for 2:4. PyTorch reaches them with one call:

# %%
from torch.sparse import to_sparse_semi_structured

from spp_lite import Sparsity

if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0):
    weight = torch.randn(4096, 4096, device="cuda")
    weight = (weight * Sparsity.parse("2:4").mask(weight.abs())).half()
    x = torch.randn(4096, 4096, device="cuda").half()
    faster = median_ms(weight, x) / median_ms(to_sparse_semi_structured(weight), x)
    print(f"2:4 runs at {faster:.2f} times the speed of dense here")
else:
    print("No GPU with 2:4 units here: nothing is timed. With one, this cell compares dense and 2:4.")

# %% [markdown]
# ## 6 · Lab: spoil a merge
#
# **Predict:** which single check would you keep, if you could keep only one? **Try** the menus (mouse, or Tab and the
# arrow keys): each corruption, in one layer of your merged model. The picture shows the corner of its weight, the lines
# part the groups of four. **Explain:** would two checks catch all that the four catch?

# %% tags=["lab"]
from spp_lite.teaching.labs.merging import CorruptionLab

lab = CorruptionLab(pruned, merged)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(corruption="two rows swapped")

# %%
lab.static(corruption="kept weights 1 % too large")

# %% [markdown]
# **Explain.** (1) Which corruptions does only the logits check catch, and which one do the logits let pass although a
# zero is lost? (2) Which two checks together catch all that any check catches?

# %% [markdown]
# The answers, once you have yours: the first layer's whole table.

# %%
first = report.table["layer"][0]
rows = {
    name: {each.name: "pass" if each.passed else "FAIL" for each in lab.checks(name, first)}
    for name in lab.inputs["corruption"].options
}
verdicts = pd.DataFrame(rows).T
assert (verdicts.loc["nothing"] == "pass").all()
assert list(verdicts.loc["kept weights 1 % too large"]) == ["pass", "pass", "pass", "FAIL"] or not TINY
assert list(verdicts.loc["one zero filled, with a tiny number"]) == ["FAIL", "FAIL", "pass", "pass"]
failed = verdicts == "FAIL"
assert (failed.any(axis=1) == (failed["zeros"] | failed["logits"])).all()
verdicts.rename_axis("what goes wrong")

# %% [markdown]
# **What you should see:** zeros and logits together catch all that any check catches, and neither would do alone. Pattern
# and finite catch no more, but they say *what* is broken, and they need no forward pass. Look at the last line: what
# does rounding to float16 do to the four?

# %% [markdown]
# ## 7 · Your turn
#
# **Ex 07a · core · difficulty ●○○ · ~5 min.** How many entries were zero before the merge and are not zero after it?
# Return a whole number. New zeros elsewhere do not make up for filled ones.


# %%
def zeros_filled(before, after):
    # BEGIN SOLUTION
    return int(((before == 0) & (after != 0)).sum())
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_07a(zeros_filled)
for row in report.table.itertuples():  # the report's own count
    before, after, swapped = lab.weights("two rows swapped", row.layer)
    assert zeros_filled(before, after) == row.densification * int((before == 0).sum())
    assert f"{zeros_filled(before, swapped):,} of" in lab.checks("two rows swapped", row.layer)[0].detail

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `before == 0` and `after != 0` are two masks of the same shape.
# </details>
# <details><summary>Hint 2</summary>
#
# `&` joins masks entry by entry; the sum of a mask counts its True entries.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 07b · core · difficulty ●●○ · ~8 min.** Does a weight (outputs × inputs) keep to n:m, that is, at most n non-zeros
# in *every* group of m consecutive inputs? Return True or False. m divides the number of inputs.


# %%
def follows(weight, n, m):
    # BEGIN SOLUTION
    kept = (weight != 0).reshape(-1, m).sum(1)
    return bool((kept <= n).all())
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import SparsityError

checks.ex_07b(follows)
for corruption in ("nothing", "two rows swapped", "one zero filled"):
    _, _, weight = lab.weights(corruption, report.table["layer"][0])
    try:
        Sparsity.parse("2:4").check(weight)  # the library's own check raises
        assert follows(weight, 2, 4)
    except SparsityError:
        assert not follows(weight, 2, 4)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The inputs of one output lie side by side in memory: `reshape(-1, m)` gives one group a row.
# </details>
# <details><summary>Hint 2</summary>
#
# Count the non-zeros of every group; then ask whether *all* counts are at most n.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●● · ~15 min.** `to_hira(again, folder / "hira")` (from spp_lite) writes the adapter so that PEFT loads it without
# spp_lite. Load it onto a copy of `pruned`, merge it with `merge`. Does the mask survive? Are the logits bit-equal, and why not?
#
# ## 8 · Read an error message
#
# An adapter belongs to one pruned model. On another base it would run all the same, over zeros that it was
# not trained for. This cell fails on purpose:
# what does the library compare, and what is the way out?

# %% tags=["raises-exception"]
other, _ = load()
prune(other, None, "50%", method="magnitude", progress=False)
PeftModel.from_pretrained(other, folder / "adapter")

# %% [markdown]
# ## Recap
#
# 1. An SPP adapter is a small safetensors file with the fingerprint of the mask that it belongs to.
# 2. Merging stores the very tensor that the forward pass used; un-merging restores W bit for bit.
# 3. The zeros check and the logits check each catch bad merges that the other lets pass.
# 4. Merge in float32 and cast once: in float16 0 · inf is NaN, and every step rounds.
# 5. Zeros pay only in a format that skips them: CSR when most weights are zero, 2:4 on a GPU that has units for it.
#
# ## Quiz
#
# <details><summary>1. Two rows of a merged 2:4 weight are swapped. Does the pattern check notice?</summary>
#
# No: every group still keeps at most two. The zeros check notices, because the rows had different masks; so do the logits.
# </details>
# <details><summary>2. The logits agree. Why look at the zeros too?</summary>
#
# A filled zero may be too small to move a logit, yet a sparse format must store it, and a 2:4 kernel has no room for it.
# </details>
# <details><summary>3. Half of the weights are zero. Why is CSR no smaller than dense?</summary>
#
# Every kept value brings a 4-byte column. In float32 that doubles its cost, in float16 it triples it.
# </details>
# <details><summary>4. Why is un-merging by division, W = W′ / (1 + sR(α)β), a bad idea?</summary>
#
# It rounds again, and fails where the factor is zero. Keeping W aside costs memory and is exact.
# </details>
#
# **Next:** [08 · Accuracy against sparsity](08_accuracy_against_sparsity.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
