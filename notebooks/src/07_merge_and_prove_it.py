# %% [markdown]
# # 07 · Merge and prove it
# {{badge}}
#
# A trained adapter is half a model. Merging folds it into the weights and leaves an ordinary model file. A wrong
# merge raises no error and destroys the sparsity in silence, so here you write a merge **with a proof**, and then see
# what the library's merge adds to yours.
#
# > **Goals** – save, load, merge and un-merge an SPP adapter; count the zeros that a merge filled (Ex 07a); test an n:m
# > pattern (Ex 07b); write a merge that checks itself (Ex 07c); know which check catches which bad merge; know what zeros
# > buy at inference.
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 05: what $\alpha$, $\beta$ and $W' = W \odot (1 + s\,R(\alpha)\,\beta)$ are. The symbols are
# > those of [notebook 00](00_start_here.ipynb). A GPU is of use only for one optional cell.
# > **Tiny** – the model and its few training steps. **Real** – the adapter files, the merge and its checks, the sparse
# > formats and their timings.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · An adapter that you can carry
#
# We prune the model to 2:4: of every four consecutive inputs of an output, at most two weights are not zero. One copy
# stays as it is, to compare with. The other gets SPP factors and a short training.

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

adapted = get_peft_model(model, SppConfig(r=16, scaling=2.0))
steps = 40 if TINY else 5  # long records and a large vocabulary take their time
settings = {"max_steps": steps, "batch_size": 16, "learning_rate": 5e-2, "progress": False}
output = finetune(adapted, load_alpaca(), tokenizer, **settings)
print(f"{output.global_step} steps, mean training loss {output.training_loss:.2f}")

# %% [markdown]
# PEFT saves only what was trained: $\alpha$ and $\beta$ as safetensors, and a small JSON file.
#
# **Predict:** how large is the adapter's file, compared with the model's weights?

# %%
from spp_lite.teaching import Guess

options = ["over 20 %", "5 to 20 %", "1 to 5 %", "under 1 %"]
guess_file = Guess("How large is the adapter's file?", options)

# %%
import json
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
adapted.save_pretrained(folder / "adapter")
adapter_bytes = (folder / "adapter" / "adapter_model.safetensors").stat().st_size
model_bytes = sum(p.nbytes for p in pruned.parameters())
share = adapter_bytes / model_bytes
guess_file.compare(f"{adapter_bytes:,} bytes, {share:.1%} of the model's {model_bytes:,}")
config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
print({key: config[key] for key in ("peft_type", "r", "scaling", "mask_fingerprint")})

# %% [markdown]
# To use the adapter somewhere else, one needs the pruned model, this folder, and `import spp_lite`: the import tells PEFT
# what the type SPP is. *Logits* are the scores that a model gives to every next token. We compare them on one fixed, random
# probe.

# %%
import torch
from peft import PeftModel

probe = torch.randint(model.config.vocab_size, (2, 16), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def logits(model):
    return model(input_ids=probe.to(model.device)).logits


again = PeftModel.from_pretrained(copy.deepcopy(pruned), folder / "adapter").eval()
expected = logits(adapted)
print("loaded, it gives the same logits, to the last bit:", torch.equal(logits(again), expected))

# %% [markdown]
# Without that import PEFT does not know the type. Here a second Python tries it:

# %%
import subprocess
import sys

code = "import sys; from peft import PeftConfig; PeftConfig.from_pretrained(sys.argv[1])"
command = [sys.executable, "-c", code, str(folder / "adapter")]
stranger = subprocess.run(command, capture_output=True, text=True)
print("PEFT without spp_lite says:", stranger.stderr.strip().splitlines()[-1])

# %% tags=["we-checked"]
assert config["peft_type"] == "SPP" and adapter_bytes < model_bytes
assert torch.equal(logits(again), expected)
assert stranger.returncode and "SPP" in stranger.stderr.strip().splitlines()[-1]
print("checked: a small file of type SPP, the same logits when loaded, an error without spp_lite")

# %% [markdown]
# For someone who cannot install spp_lite there are two ways: write the adapter as a HiRA adapter with `to_hira` (notebook 05),
# which stock PEFT reads, or merge it, which is the subject of this notebook.
#
# <details><summary>What you should see</summary>
#
# The type is SPP, and the file holds a *fingerprint* of the base's zeros. Section 8 shows what that is for. The
# factors shrink in relation as a model grows wider (notebook 05).
# </details>
#
# ## 2 · Merge, un-merge, to the last bit
#
# `merge_adapter()` writes $W'$ into the weight, and `unmerge_adapter()` takes it back. LoRA adds its update $\Delta$ and later
# subtracts it. On paper that gives $W$ again, but a computer rounds $(W + \Delta) - \Delta$ twice.
#
# **Predict:** in float32, how many of the kept entries of $W$ come back exactly that way?

# %%
options = ["all", "more than half", "less than half", "none"]
guess_back = Guess("How many come back exactly?", options)

# %%
W = pruned.model.layers[0].mlp.down_proj.weight.detach()
delta = 0.1 * W.std() * torch.randn_like(W)
kept = W != 0
back = ((W + delta - delta) == W)[kept].float().mean()
guess_back.compare(f"{back:.0%} of the kept weights")

# %% [markdown]
# SPP keeps $W$ aside and puts it back. In both states the forward pass multiplies by the same tensor $W'$, so the
# logits do not move either.

# %%
layer = adapted.base_model.model.model.layers[0].mlp.down_proj  # an SppLinear around the linear
adapted.merge_adapter()
moved = not torch.equal(layer.base_layer.weight, W)  # the weight is W' now
same_logits = torch.equal(logits(adapted), expected)
adapted.unmerge_adapter()
restored = torch.equal(layer.base_layer.weight, W)
print(f"merged: the weight changed: {moved}, the logits are equal: {same_logits}")
print(f"un-merged: W is back: {restored}")

# %% tags=["we-checked"]
assert moved and same_logits and restored and back < 1
print("checked: W' is written and taken back bit for bit, the logits stay; LoRA's way loses bits")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# All three are True. "Equal" here means `torch.equal`, with no tolerance. Adding and subtracting loses the last bits of some
# weights.
# </details>
#
# ## 3 · A merge with a proof
#
# Now you write the merge yourself. What could be wrong with a merged weight? Three things can be seen in the weight alone:
#
# | check | question | what it would miss |
# |---|---|---|
# | zeros | is every zero of $W$ still zero? | any change of the kept weights |
# | pattern | does every group keep at most n of m? | zeros that moved |
# | finite | is no entry infinite or NaN ("not a number")? | wrong, but finite numbers |
#
# **Ex 07a · core · difficulty ●○○ · importance ●●● · ~6 min.** For the first check: how many entries were zero before the merge
# and are not zero after it? Return a whole number. New zeros elsewhere do not make up for filled ones.


# %%
def zeros_filled(before, after):
    # BEGIN SOLUTION
    return int(((before == 0) & (after != 0)).sum())
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_07a(zeros_filled)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Comparing a tensor with a number gives a *mask*, a tensor of True and False. You need one for the state before and one for
# the state after.
# </details>
# <details><summary>Hint 2</summary>
#
# `&` joins two masks entry by entry, and the sum of a mask counts its True entries.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import yours

zeros_filled = yours(zeros_filled, checks.ex_07a)
for name, after in {"W + Δ": W + delta, "2 W": 2 * W}.items():
    print(f"{name:6} fills {int(zeros_filled(W, after)):,} of {int((W == 0).sum()):,} zeros")

# %% [markdown]
# **Ex 07b · core · difficulty ●●○ · importance ●●○ · ~8 min.** For the second check: does a weight (outputs × inputs) keep to
# n:m, that is, does *every* group of m consecutive inputs hold at most n entries that are not zero? Return True or False. You
# may rely on m dividing the number of inputs.


# %%
def follows(weight, n, m):
    # BEGIN SOLUTION
    kept = (weight != 0).reshape(-1, m).sum(1)
    return bool((kept <= n).all())
    # END SOLUTION


# %% tags=["check"]
checks.ex_07b(follows)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The inputs of one output lie side by side in memory. Another shape of the same numbers has one group in each row.
# </details>
# <details><summary>Hint 2</summary>
#
# Count the entries of every group that are not zero. The answer is about all counts, not about their mean.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
follows = yours(follows, checks.ex_07b)
changed = {"W + Δ": W + delta, "2 W": 2 * W, "2 W, rows reversed": 2 * W.flip(0)}
for name, after in changed.items():
    keeps, filled = bool(follows(after, 2, 4)), int(zeros_filled(W, after))
    print(f"{name:18} keeps to 2:4: {keeps!s:5}  zeros filled: {filled:,}")

# %% [markdown]
# Look at the last line: after reversing its rows the weight still keeps to the pattern, but zeros have been filled. The pattern
# check cannot replace the zeros check.
#
# **Ex 07c · core · difficulty ●●● · importance ●●● · ~15 min.** Write the merge. `linears` is a dictionary from a name to an
# `nn.Linear` with its pruned weight, `merged` one from the same names to the new weights, as tensors.
#
# - If in any layer a zero would be filled, n:m would be broken, or an entry would be infinite or NaN, raise a `ValueError` that
#   names the layer. In that case *every* linear must still hold its old weight.
# - Otherwise write the new weights into the linears, and return how many weights changed.


# %%
def checked_merge(linears, merged, n, m):
    # BEGIN SOLUTION
    for name, new in merged.items():
        if filled := zeros_filled(linears[name].weight, new):
            raise ValueError(f"{name}: the merge fills {filled} zeros")
        if not follows(new, n, m):
            raise ValueError(f"{name}: a group of {m} holds more than {n} weights")
        if not torch.isfinite(new).all():
            raise ValueError(f"{name}: a weight is infinite or NaN")
    changed = sum(int((linears[name].weight != new).sum()) for name, new in merged.items())
    for name, new in merged.items():
        linears[name].weight.data.copy_(new)
    return changed
    # END SOLUTION


# %% tags=["check"]
checks.ex_07c(checked_merge)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# When the third layer turns out to be bad, the first two must not have been written yet. So you need two loops.
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.isfinite(tensor)` is a mask. `linear.weight.data.copy_(tensor)` writes into a weight. Count what will change while old
# and new still differ.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Your merge gets to work on the trained adapter. `effective_weight` is the library's $W'$ of one layer.

# %%
from spp_lite.teaching import block_linears, effective_weight

checked_merge = yours(checked_merge, checks.ex_07c)
by_hand = copy.deepcopy(pruned)
linears, merged_weights = block_linears(by_hand), {}
for name, linear in linears.items():
    part = adapted.base_model.model.get_submodule(name)
    factors = part.spp_alpha["default"].detach(), part.spp_beta["default"].detach(), 2.0
    merged_weights[name] = effective_weight(linear.weight.detach(), [factors])
changed = checked_merge(linears, merged_weights, 2, 4)
print(f"{changed:,} weights changed")
print("the same logits, to the last bit:", torch.equal(logits(by_hand), expected))

# %% [markdown]
# And when a bad merge comes along? We add a small dense update to the last layer, as a merged LoRA would:

# %%
before = copy.deepcopy(by_hand.state_dict())
last = list(merged_weights)[-1]
spoilt = merged_weights[last] + 1e-3 * torch.randn_like(merged_weights[last])
try:
    checked_merge(linears, {**merged_weights, last: spoilt}, 2, 4)
except ValueError as error:
    print("refused:", error)
after = by_hand.state_dict()
print("all weights as they were:", all(torch.equal(after[name], before[name]) for name in before))

# %% [markdown]
# The library's `merge` does what yours does, removes the adapter, and adds a fourth check: does the merged model answer as
# the adapted one did? It compares the logits on a probe. If any check fails, it raises a `SparsityError` and leaves the model
# as it was.
#
# **Predict:** which numbers of its report must be 0, and which must not? `densification` is the share of the zeros that were
# filled, `change` is $\lVert W'-W\rVert / \lVert W\rVert$, and there is the largest difference of the logits.

# %%
guess_report = Guess("Which numbers of the report must be 0, and which must not?")

# %%
from spp_lite import merge

merged, report = merge(adapted)
least = report.table["change"].min()
guess_report.compare(
    f"densification {report.densification:g}, difference of the logits {report.logits_error:g} "
    f"(allowed {report.tolerance:g}), change at least {least:.2g}"
)
report.table.head(7).round(3)

# %% [markdown]
# The merged model is a plain transformers model. Save it, and load it as someone would who has never heard of spp_lite.

# %%
from transformers import AutoModelForCausalLM

from spp_lite.teaching import save

save(merged, tokenizer, folder / "merged")
plain = AutoModelForCausalLM.from_pretrained(folder / "merged").to(merged.device).eval()
print("saved and loaded, the same logits:", torch.equal(logits(plain), expected))
now, then = block_linears(plain), block_linears(pruned)
print("zeros filled:", sum(int(zeros_filled(then[name].weight, now[name].weight)) for name in now))

# %% tags=["we-checked"]
assert torch.equal(logits(by_hand), expected) and torch.equal(logits(plain), expected)
assert report.densification == 0 and report.logits_error == 0 and least > 0
assert (report.table["pattern"] == "2:4").all()
assert (report.table["before"] == report.table["after"]).all()
assert all(torch.equal(now[name].weight == 0, then[name].weight == 0) for name in now)
assert all(torch.equal(after[name], before[name]) for name in before)
print("checked: your merge, the library's and the saved file agree; every mask is that of pruning")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Your merge and the library's give the same logits. Densification and the difference of the logits are 0, while every layer
# changed: it did merge something. Every layer has exactly the mask that pruning chose, after training, merging, saving and
# loading.
# </details>
#
# ## 4 · Why merge in float32?
#
# Many models are stored in *float16*: 16 bits a number, and nothing above 65,504. A product beyond that is infinite.
#
# **Predict:** take a zero and a weight of 0.5, with $\alpha = \beta = 300$ and $s = 1$. What does each become in float16?

# %%
options = ["0 and 45,000", "0 and infinity", "NaN and infinity", "NaN and NaN"]
guess_half = Guess("What do 0 and 0.5 become?", options)

# %%
from spp_lite.teaching import row_blocks

two = torch.tensor([[0.0, 0.5]], dtype=torch.float16)
alpha, beta = torch.full((1, 2), 300.0), torch.full((1,), 300.0)
in_half = two * (1 + alpha.half() * beta.half())
in_float = effective_weight(two, [(alpha, beta, 1.0)])  # computed in float32, cast once
guess_half.compare(f"{in_half[0].tolist()} when all is float16")
print(f"in float32, then cast to float16: {in_float[0].tolist()}")

# %% [markdown]
# You would notice such large factors. Rounding you would not: float16 keeps about three decimal digits, and every step of
# $W \odot (1 + s\,R(\alpha)\,\beta)$ rounds again. Here is the layer that was trained above:

# %%
trained = layer.spp_alpha["default"].detach(), layer.spp_beta["default"].detach()
half = W.half()
rows = trained[0][row_blocks(len(W), len(trained[0]), W.device)]  # R(α)
exact = effective_weight(half.double(), [(*[factor.double() for factor in trained], 2.0)])
low = half * (1 + 2 * trained[1].half()[:, None] * rows.half())
high = effective_weight(half, [(*trained, 2.0)])
errors = [float((each.double() - exact).norm() / exact.norm()) for each in (low, high)]
print(f"relative error {errors[0]:.1e} all in float16, {errors[1]:.1e} in float32 and cast once")

# %% tags=["we-checked"]
assert in_half[0, 0].isnan() and in_half[0, 1].isinf()
assert in_float[0, 0] == 0 and in_float.isfinite().all() and in_float.dtype == torch.float16
assert errors[1] < errors[0]
print("checked: float16 loses the zero, float32 keeps it and rounds less")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# All in float16, the factor is infinite: the zero becomes NaN (zero times infinity), and the weight infinite. Computed in float32 and cast once, both are right. With everyday
# factors float16 only makes a larger error than the one cast does.
# </details>
#
# ## 5 · What do the zeros buy?
#
# In memory they buy nothing, until a format leaves them out. Three formats:
#
# - **dense**: every number, $b$ bytes each.
# - **CSR** (compressed sparse rows): the kept values, a 4-byte column for each, and where each row starts. It takes any pattern.
# - **2:4**: of every group of four, two values and their two places, 2 bits each. It takes only this pattern, and is made for GPUs.
#
# **Ex 07d · stretch · difficulty ●●○ · importance ●●○ · ~10 min.** Write the last one. From a weight that keeps to 2:4, return
# two tensors of shape (groups, 2): the values that a group keeps, and their places, 0 to 3, in the group. A group with fewer
# than two values may fill up with zeros, at other places. (Notebook 01 packed a weight with its mask; here you have the weight alone.)


# %%
def pack(weight):
    # BEGIN SOLUTION
    groups = weight.reshape(-1, 4)
    places = (groups != 0).int().topk(2).indices
    return groups.gather(1, places), places
    # END SOLUTION


# %% tags=["check"]
checks.ex_07d(pack)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Begin as in Ex 07b: one group in each row. Then you look for the two largest entries of a mask.
# </details>
# <details><summary>Hint 2</summary>
#
# `topk(2)` gives values and indices, but not of a mask of True and False: make whole numbers of it first. `gather` takes the
# entries of a row at the given places.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
pack = yours(pack, checks.ex_07d)
weight = merged_weights["model.layers.0.mlp.down_proj"].cpu()
values, places = (torch.as_tensor(part) for part in pack(weight))
empty = torch.zeros(len(values), 4, dtype=values.dtype)
rebuilt = empty.scatter(1, places.long(), values).view_as(weight)
print("rebuilt from values and places:", torch.equal(rebuilt, weight))
print("one group", weight.view(-1, 4)[:1] + 0, "values", values[:1], "places", places[:1], sep="\n")

# %% [markdown]
# **Predict:** half of the weights are zero. Is a CSR file smaller than the dense one in float32? In float16?

# %%
options = ["in both", "in float32 only", "in float16 only", "in neither"]
guess_csr = Guess("Where is CSR smaller than dense?", options)

# %%
import pandas as pd


def sizes_of(shapes, kept, b):
    """Bytes of linears in three formats; b bytes a number, `kept` weights that are not zero."""
    size = sum(out * inputs for out, inputs in shapes)
    starts = sum(4 * (out + 1) for out, _ in shapes)
    return {"dense": b * size, "CSR": kept * (b + 4) + starts, "2:4": size / 2 * (b + 2 / 8)}


weights = [linear.weight.detach() for linear in block_linears(merged).values()]
shapes, kept = [weight.shape for weight in weights], sum(int((w != 0).sum()) for w in weights)
numbers = {"float32": 4, "float16": 2}
stored = pd.DataFrame({name: sizes_of(shapes, kept, b) for name, b in numbers.items()}).T
smaller = [name for name, row in stored.iterrows() if row["CSR"] < row["dense"]]
guess_csr.compare(f"in {' and '.join(smaller) or 'neither'}")
stored.div(stored["dense"], axis=0).map("{:.0%}".format)  # of the dense linears

# %%
files = {"pruned": save(pruned, None, folder / "pruned"), "merged": folder / "merged"}
for name, place in files.items():
    print(f"{name}: {(place / 'model.safetensors').stat().st_size:,} bytes on disk")

# %% tags=["we-checked"]
sizes = {(place / "model.safetensors").stat().st_size for place in files.values()}
assert torch.equal(rebuilt, weight) and len(sizes) == 1
assert (stored["CSR"] >= stored["dense"]).all() and (stored["2:4"] < 0.6 * stored["dense"]).all()
print("checked: CSR saves nothing at half zeros, 2:4 nearly half; safetensors stores every number")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# At half zeros CSR saves nothing: the columns cost as much as the zeros, or more. 2:4 pays 2 bits a value and nearly halves the
# bytes. On disk the zeros change nothing, since safetensors stores every number.
# </details>
#
# **In time** it is the same story. A *matmul* multiplies weight and inputs. We time the dense one and CSR's in turn, on one
# thread, and keep the median. Ratios of one run travel between machines better than milliseconds do.
#
# **Predict:** with one token at a time, from how many zeros on is CSR faster than dense?

# %%
options = ["50 %", "75 %", "90 %", "95 %", "99 %", "never"]
guess_speed = Guess("From how many zeros on is CSR faster than dense?", options)

# %%
from torch.utils.benchmark import Timer

from spp_lite.teaching.labs.storage import overtakes, plot_speed, to_csr


def median_ms(weight, x):
    timer = Timer("weight @ x", globals={"weight": weight, "x": x}, num_threads=1)
    return 1000 * timer.blocked_autorange(min_run_time=0.1).median


# %%
rows, width, wrong = [], 2048, 0.0
for percent in (50, 75, 90, 95, 99):
    weight = torch.randn(width, width)
    weight[torch.rand_like(weight) < percent / 100] = 0
    csr = to_csr(weight)
    for tokens in (1, 64):
        x = torch.randn(width) if tokens == 1 else torch.randn(width, tokens)  # CSR likes vectors
        wrong = max(wrong, float((csr @ x - weight @ x).abs().max()))  # the same product?
        rows.append((percent, tokens, median_ms(weight, x), median_ms(csr, x)))
times = pd.DataFrame(rows, columns=["zeros", "tokens", "dense", "csr"])

# %%
from spp_lite.teaching import show

alt = f"CSR is faster than dense, one token at a time, {overtakes(times, 1)}."
show(plot_speed(times), alt=alt)
guess_speed.compare(f"{overtakes(times, 1)}; with 64 tokens at a time {overtakes(times, 64)}")
print(times.assign(speed=(times["dense"] / times["csr"])).round(3).to_string(index=False))

# %% tags=["we-checked"]
assert wrong < 1e-2
print("checked: both products are the same; their times are yours, and nothing guards them")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# At the left end of a line half of the weights are zeros, at its right end nearly all. Where your lines cross 1× depends
# on your processor and on the number of tokens, and another run on a busy machine may move it. (PyTorch calls its CSR beta.)
# </details>
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
    print("No GPU with 2:4 units here: nothing is timed. With one, this cell compares the two.")

# %% [markdown]
# ## 6 · Lab: spoil a merge
#
# **Predict:** which single check would you keep, if you could keep only one? **Try** the menus (mouse, or Tab and the
# arrow keys): each corruption, in one layer of your merged model. The picture shows the corner of its weight, and the lines
# part the groups of four.

# %% tags=["lab"]
from spp_lite.teaching.labs.merging import CorruptionLab

lab = CorruptionLab(pruned, merged)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets, for two corruptions:

# %%
lab.static(corruption="two rows swapped")

# %%
lab.static(corruption="kept weights 1 % too large")

# %% [markdown]
# **Explain.** (1) Name a corruption that only the logits check catches, and one that the logits check lets pass although a
# zero is lost. (2) Which single check catches the most (the Predict), and which two together catch all that any check
# catches? (3) No check minds that the weight was rounded to float16. Why?
#
# <details><summary>Answers</summary>
#
# (1) Only the logits notice that the kept weights are 1 % too large: all zeros are in place and all numbers are finite. A zero
# filled with a tiny number moves no logit, but the zeros check counts it. (2) The logits, all but one of what any check catches;
# with the zeros, all of it. Pattern and finite catch no more, but they say *what* is broken, and they need no forward pass.
# (3) Rounding to float16 changes each weight by half a thousandth at most: zeros stay, and the logits move by less than is
# allowed. The table below has all of it.
# </details>

# %%
first = report.table["layer"][0]
verdicts = {
    name: {each.name: "pass" if each.passed else "FAIL" for each in lab.checks(name, first)}
    for name in lab.inputs["corruption"].options
}
verdicts = pd.DataFrame(verdicts).T
verdicts.rename_axis("what goes wrong")

# %% tags=["we-checked"]
assert (verdicts.loc["nothing"] == "pass").all()
tiny, scaled = "one zero filled, with a tiny number", "kept weights 1 % too large"
assert list(verdicts.loc[tiny]) == ["FAIL", "FAIL", "pass", "pass"]
assert list(verdicts.loc[scaled]) == ["pass", "pass", "pass", "FAIL"] or not TINY
failed = verdicts == "FAIL"
assert (failed.any(axis=1) == (failed["zeros"] | failed["logits"])).all()
assert failed["logits"].sum() == failed.any(axis=1).sum() - 1 or not TINY
assert not failed.loc["rounded to float16"].any() or not TINY
print("checked: zeros and logits together catch all that any check catches, in the layer shown")

# %% [markdown]
# ## 7 · On a real LLaMA
#
# SmolLM2-135M was pruned to 2:4 by Wanda, trained with SPP and merged by the library's `merge`, which refuses if a single zero is
# filled. Then the zeros of the merged model were counted. These are the rows of that measurement, one for each run:

# %%
from spp_lite.teaching import embedded

sweep = pd.read_csv(embedded("results", "smollm2", "sweep.csv"))
real = sweep[sweep["error"].isna() & (sweep["method"] == "spp")]
real[["sparsity", "seed", "parameters", "zeros_before", "zeros_after"]]

# %% [markdown]
# How large would its files be? That follows from the shapes of its layers, and from the share of zeros in the row of 2:4. We count
# 16 bits a number for the model, and 32 for the factors.

# %%
from transformers import LlamaConfig, LlamaForCausalLM

smol = LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True,
)  # fmt: skip
with torch.device("meta"):  # shapes only
    skeleton = LlamaForCausalLM(smol)
shapes = [linear.weight.shape for linear in block_linears(skeleton).values()]
size, row = sum(out * inputs for out, inputs in shapes), real[real["sparsity"] == "2:4"].iloc[0]
rest = 2 * (skeleton.num_parameters() - size)  # embeddings and norms, never pruned
kept = round((1 - row["zeros_after"]) * size)

# %%
from spp_lite.teaching.labs.storage import plot_sizes

files = {name: (linears, rest) for name, linears in sizes_of(shapes, kept, 2).items()}
files["adapter"] = (4 * int(row["parameters"]), 0)
shares = {name: sum(parts) / sum(files["dense"]) for name, parts in files.items()}
title = f"SmolLM2: 2:4 storage takes {shares['2:4']:.0%} of the dense file, CSR {shares['CSR']:.0%}"
show(plot_sizes(files, title), alt=title + f", the adapter {shares['adapter']:.0%}.")

# %% tags=["we-checked"]
assert len(real) and (real["zeros_before"] <= real["zeros_after"]).all()
assert shares["adapter"] < 0.5 < shares["2:4"] < 1 < shares["CSR"]
print("checked: no row has fewer zeros after than before; 2:4 is smaller than dense, CSR larger")

# %% [markdown]
# In no row are there fewer zeros after than before. Of the formats, only 2:4 makes this file smaller, and since the embeddings
# are not pruned, by less than half. One command prunes, trains, merges with the proof, and writes the row:
#
# ```bash
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 --steps 40 \
#     --batch-size 8 --cutoff 256 --bf16 --seeds 1 --methods spp --pruners wanda --sparsity 2:4 --rates-at 2:4 \
#     --try-rates 3e-3 1e-2 3e-2 --out results
# ```
#
# ## 8 · Read an error message
#
# "An adapter is a small file, so I can put it on any pruned copy of the model." This cell follows that sentence: it takes the
# adapter to a model with other zeros, and fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
other, _ = load()
prune(other, None, "50%", method="magnitude", progress=False)
PeftModel.from_pretrained(other, folder / "adapter")

# %% [markdown]
# Read the two fingerprints in the brackets: one of the zeros that the adapter was trained on, one of the zeros that are here; after
# the colon stands the way out. Without this check the adapter would run all the same, over zeros that it has never seen.
#
# ## Recap
#
# 1. An SPP adapter is a small safetensors file with the fingerprint of its mask; to load it takes `import spp_lite`.
# 2. Merging stores the very tensor that the forward pass used; un-merging restores W bit for bit.
# 3. A merge checks all layers before it writes one; zeros and logits each catch bad merges that the other lets pass.
# 4. Merge in float32 and cast once: in float16 0 · inf is NaN, and every step rounds.
# 5. Zeros pay only in a format that skips them: CSR when most weights are zero, 2:4 on a GPU that has units for it.
#
# ## Quiz
#
# <details><summary>1. Two rows of a merged 2:4 weight are swapped. Does the pattern check notice?</summary>
#
# No: every group still keeps at most two. The zeros check notices if the rows had different masks; so do the logits.
# </details>
# <details><summary>2. The logits agree. Why look at the zeros too?</summary>
#
# A filled zero may be too small to move a logit, yet a sparse format must store it, and a 2:4 kernel has no room for it.
# </details>
# <details><summary>3. Half of the weights are zero. Why is CSR no smaller than dense?</summary>
#
# Every kept value brings a 4-byte column. In float32 that doubles its cost, in float16 it triples it.
# </details>
# <details><summary>4. Why is un-merging by division, W = W′ / (1 + s R(α)β), a bad idea?</summary>
#
# It rounds again, and fails where the factor is zero. Keeping W aside costs memory and is exact.
# </details>
#
# **Next:** [08 · Accuracy against sparsity](08_accuracy_against_sparsity.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
