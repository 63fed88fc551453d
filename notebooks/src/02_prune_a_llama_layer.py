# %% [markdown]
# # 02 · Prune a LLaMA layer
# {{badge}}
#
# In notebook 01 every input was alike. In a language model some inputs are far larger than others, and a small weight on
# a large input can matter more than a large weight on a small one. Two criteria look at the inputs: Wanda and SparseGPT.
#
# > **Goals** – collect the inputs of a linear with a hook and measure them (Ex 02a); write Wanda's mask (Ex 02b); read
# > SparseGPT's update and check it against least squares.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 01: masks, per row and over the whole matrix.
# > **Tiny** – the model and its texts. **Real** – hooks, criteria and errors are computed as for any LLaMA: `SPP_MODEL`
# > and `SPP_DATA` take another one.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Size alone misleads
#
# This is the model whose first block we shall look into:

# %%
from spp_lite import load
from spp_lite.teaching import is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
print(model.model.layers[0].mlp)

# %% [markdown]
# A linear layer with weight $W$ (out, in) gets an input vector $x$ for every token. Its output $i$ is $\sum_j W_{ij}
# x_j$. Set $W_{ij}$ to zero, and the output loses $W_{ij}\,x_j$: the weight *times its input*. Magnitude looks at
# $|W_{ij}|$ only.
#
# A layer with one output and two inputs: weights 1 and 0.1, inputs of size about 0.05 and about 5. One weight must go.
#
# **Predict:** how much of the output is lost if the smaller weight goes? And if the larger one goes?

# %%
import torch

torch.manual_seed(0)
x = torch.randn(1000, 2) * torch.tensor([0.05, 5.0])  # 1000 tokens, two inputs
w = torch.tensor([1.0, 0.1])
lost = {}
for name, goes in {"smaller": torch.tensor([0.0, 1.0]), "larger": torch.tensor([1.0, 0.0])}.items():
    lost[name] = float((x @ (w * goes)).square().sum() / (x @ w).square().sum())
    print(f"the {name} weight goes: {lost[name]:.1%} of the output's sum of squares is lost")
assert lost["larger"] < 0.1 < 0.9 < lost["smaller"]

# %% [markdown]
# **What you should see:** dropping the smaller weight costs nearly everything. Magnitude would do just that.
#
# ## 2 · Look at the inputs with a hook
#
# Is a real layer like that? PyTorch calls a **forward pre-hook** just before a module runs, with the module and its
# arguments. *Register* the hook and keep the handle, *run* the model, *remove* the hook. One that is forgotten goes on
# collecting.
#
# What we run are the *calibration* batches: LongTensors (batch, length) of token numbers. We watch two linears of the
# first block: `down_proj`, which closes the MLP, and `q_proj`, which makes the queries of attention.

# %%
from spp_lite.teaching import block_linears, calibration_batches, default_texts

linears = block_linears(model)
DOWN, QUERY = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"
batches = calibration_batches(default_texts(), tokenizer, samples=64, length=128)
held_out = calibration_batches(default_texts("validation"), tokenizer, samples=64, length=128)
print(f"{len(batches)} batches of {tuple(batches[0].shape)} tokens; {DOWN}: {linears[DOWN]}")


# %%
def run(batches):
    with torch.no_grad():
        for batch in batches:
            model(batch.to(model.device))


def inputs_of(name, batches):
    """All inputs of one linear, (tokens, in): batch after batch, text after text."""
    found = []
    handle = linears[name].register_forward_pre_hook(lambda module, args: found.append(args[0]))
    run(batches)
    handle.remove()
    return torch.cat(found).flatten(0, 1).float()


# %% [markdown]
# `args[0]` has the shape (batch, length, in). To a linear every token is a row of its own, so we flatten. The **size** of
# input $j$ is its root mean square over all $n$ tokens $t$:
#
# $$\lVert x_j \rVert = \sqrt{\textstyle\frac1n \sum_t x_{tj}^2}.$$
#
# **Predict:** the inputs of `q_proj` come out of a normalisation; those of `down_proj` are products of two numbers, gate
# and up. Which sizes are more uneven?

# %%
weights = {name: linears[name].weight.detach().float() for name in (DOWN, QUERY)}
rows = {name: inputs_of(name, batches) for name in (DOWN, QUERY)}
new_rows = {name: inputs_of(name, held_out) for name in (DOWN, QUERY)}  # other texts, to measure errors on
norms = {name: x.square().mean(dim=0).sqrt() for name, x in rows.items()}
spread = {name: float(norm.max() / norm.median()) for name, norm in norms.items()}
print({name: f"the largest input is {value:.1f} times the median" for name, value in spread.items()})
assert spread[DOWN] > 5 * spread[QUERY] or not TINY
assert not linears[DOWN]._forward_pre_hooks  # no hook was left behind

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.layer import plot_norms

show(
    plot_norms(norms),
    alt=f"Sorted input sizes over their median: {DOWN} up to {spread[DOWN]:.0f}, {QUERY} up to {spread[QUERY]:.1f}.",
)

# %% [markdown]
# **What you should see:** a steep line and a flat one. A few inputs of `down_proj` tower over the rest: *outliers*. Those
# of `q_proj` are nearly alike.
#
# ## 3 · Wanda: weight times input
#
# Wanda (Sun et al., 2023, Eq. 1) scores each weight by what section 1 taught:
#
# $$S_{ij} = |W_{ij}| \cdot \lVert x_j \rVert,$$
#
# and in every row the lowest scores go. Its authors take the root of the *sum* of squares; that is $\sqrt n$ times ours
# for every input, so the order is the same. No gradient, no training: one pass over a few texts.
#
# **Predict:** a quarter of the weights may stay. What share of an outlier's weights will Wanda keep?

# %%
from spp_lite import Sparsity

weight, norm = weights[DOWN], norms[DOWN]
scores = weight.abs() * norm  # (out, in) times (in,): column j times norm[j]
keeps = {
    "magnitude": Sparsity.parse("75%").mask(weight.abs()),
    "wanda": Sparsity.parse("75%").mask(scores, per_row=True),
}
outliers = norm.topk(max(1, len(norm) // 20)).indices  # the largest twentieth
kept = {name: float(keep[:, outliers].float().mean()) for name, keep in keeps.items()}
for name, keep in keeps.items():
    print(f"{name:9} keeps {keep.float().mean():.0%} of all weights, {kept[name]:.0%} of those on outliers")

# %%
from spp_lite.teaching.labs.layer import plot_kept

show(plot_kept(norm, keeps), alt="Weights kept against input size: magnitude nearly level, Wanda rising to nearly all.")
assert kept["wanda"] > kept["magnitude"] + 0.3 or not TINY
assert weight[:, outliers].abs().mean() > weight.abs().mean() or not TINY  # large inputs meet larger weights
assert (keeps["wanda"].sum(dim=1) == keeps["wanda"][0].sum()).all()  # every row keeps the same number

# %% [markdown]
# **What you should see:** Wanda keeps nearly all weights on the largest inputs and pays with those on the smallest.
# Magnitude cannot see the inputs; it rises a little, because here large inputs meet somewhat larger weights.
#
# ## 4 · Count the damage
#
# The weight after pruning is $W'$, and $X$ holds the inputs, a row per token. The **output error** is
#
# $$E = \frac{\lVert X (W' - W)^\top \rVert^2}{\lVert X W^\top \rVert^2},$$
#
# the square of notebook 01's $e$, on real inputs: those of *new* texts, which no criterion has seen. The third criterion
# is SparseGPT; section 5 opens it.
#
# **Predict:** at 75 % zeros, by which factor does Wanda beat magnitude on `down_proj`: 1.1, 2, or more than 4?

# %%
import pandas as pd

from spp_lite.teaching.labs.layer import plot_errors, prune_by


def output_error(name, new):
    X, W = new_rows[name], weights[name]
    return float((X @ (new - W).T).square().sum() / (X @ W.T).square().sum())


ratios, criteria = (0.3, 0.45, 0.6, 0.75, 0.9), ("magnitude", "wanda", "sparsegpt")
table = pd.DataFrame(index=ratios, columns=criteria, dtype=float)
for ratio in ratios:
    for name in criteria:
        table.loc[ratio, name] = output_error(DOWN, prune_by(name, weight, rows[DOWN], ratio))
table.map("{:.2%}".format)

# %%
show(plot_errors(table), alt="Output error of down_proj against zeros, log scale: magnitude on top, Wanda, SparseGPT.")
assert (table.diff(axis=1).iloc[:, 1:] < 0).all(axis=None) or not TINY  # the order of the columns, in every line
assert table.loc[0.75, "magnitude"] > 4 * table.loc[0.75, "wanda"] or not TINY

# %% [markdown]
# **What you should see:** the same order at every ratio, by large factors.
#
# Does Wanda always win? It differs from magnitude in *two* things: the score, and where scores are compared, in a row
# or over the whole matrix. Take them apart.
#
# **Predict:** is the output error lower with rows or with the whole matrix?

# %%
found = {}
for name in (DOWN, QUERY):
    for label, scores in {"magnitude": weights[name].abs(), "wanda": weights[name].abs() * norms[name]}.items():
        for group, per_row in {"whole matrix": False, "each row": True}.items():
            keep = Sparsity.parse("75%").mask(scores, per_row=per_row)
            found[name.split(".")[-1], label, group] = output_error(name, weights[name] * keep)
errors = pd.Series(found).unstack()
errors.map("{:.1%}".format)

# %%
for linear in ("down_proj", "q_proj"):
    assert (errors.loc[(linear, "wanda")] < errors.loc[(linear, "magnitude")]).all() or not TINY  # the score helps
q, row_sizes = errors.loc["q_proj"], weights[QUERY].norm(dim=1)
assert row_sizes.max() > 2 * row_sizes.min() or not TINY  # rows differ in size
assert q.loc["wanda", "each row"] > 1.2 * q.loc["magnitude", "whole matrix"] or not TINY  # rows cost more than it gains

# %% [markdown]
# **What you should see:** the *score* helps on both linears. But on `q_proj`, whose inputs are alike, Wanda as published
# (each row) loses to plain magnitude (whole matrix): equal shares take much from rows with large weights. Why rows then?
# One layer's error is not the model's quality. Wanda's authors found rows better for LLaMA; judge in the stretch.
#
# ## 5 · SparseGPT: let the others make up for it
#
# SparseGPT (Frantar and Alistarh, 2023) also changes the weights that stay. Take one row $w$ of $W$, and let $\delta$ be
# its change. It costs $\lVert X\delta\rVert^2 = \tfrac12\,\delta^\top H\,\delta$ with $H = 2X^\top X$, the *Hessian*.
# Weight $q$ must become zero. The cheapest $\delta$ that does it is the *optimal brain surgeon*'s:
#
# $$\delta = -\frac{w_q}{[H^{-1}]_{qq}}\,H^{-1}_{:,q}, \qquad \text{cost } \frac{w_q^2}{2\,[H^{-1}]_{qq}}.$$
#
# **Predict:** six inputs that vary together. How much of the error of zeroing a weight do the other five take away?

# %%
X = (torch.randn(200, 1) + torch.randn(200, 6)).double()  # 200 tokens; the shared part makes the inputs vary together
row = torch.tensor([0.4, 1.0, -0.9, 0.8, 1.2, -0.7]).double()
H = 2 * X.T @ X
inverse, q = H.inverse(), 0
zeroed = row * (torch.arange(6) != q)
updated = row - row[q] / inverse[q, q] * inverse[:, q]
cost = {name: float((X @ (new - row)).square().sum()) for name, new in {"zeroed": zeroed, "updated": updated}.items()}
print({name: round(value, 1) for name, value in cost.items()}, updated.numpy().round(2))
assert abs(updated[q]) < 1e-9 and cost["updated"] < 0.8 * cost["zeroed"]
assert abs(cost["updated"] / (row[q] ** 2 / 2 / inverse[q, q]) - 1) < 1e-6

# %% [markdown]
# Is that the best? The obvious reference: leave input $q$ out, and fit the other five weights to the old outputs by
# least squares.

# %%
refit = torch.linalg.lstsq(X[:, 1:], X @ row).solution
assert torch.allclose(updated[1:], refit)  # the same weights: no other five do better

# %% [markdown]
# Each row drops other weights, so each would need its own inverse. SparseGPT's trick: walk over the columns from left to
# right, and let only those *to the right* make up for an error. Then all rows share one factor of $H^{-1}$. The score is
# the cost above. For the first column, all others are to the right, and the library must do just our update:

# %%
from spp_lite.teaching import inverse_factor, sparsegpt

factor, dead = inverse_factor(H / len(X), damping=0.0)  # dead: inputs that are always zero
one_of_six = Sparsity.parse(1 / 6)
theirs = sparsegpt(row[None], factor, dead, one_of_six)[0]
assert torch.allclose(theirs.double(), updated, atol=1e-4)

# %%
gram = 2 * rows[DOWN].T @ rows[DOWN] / len(rows[DOWN])
new = sparsegpt(weight, *inverse_factor(gram), Sparsity.parse("75%"))
survivors = new != 0
moved = float((new - weight)[survivors].norm() / weight[survivors].norm())
print(f"survivors moved by {moved:.0%} of their size; {(new == weight)[survivors].float().mean():.1%} did not move")
assert moved > 0.05 or not TINY
assert abs(output_error(DOWN, new) - table.loc[0.75, "sparsegpt"]) < 1e-6

# %% [markdown]
# **What you should see:** survivors have moved. A SparseGPT model is not the dense model with holes: mask *and* weights
# are new. SPP starts from these weights $W$ and keeps their zeros.
#
# ## 6 · Lab: outliers
#
# A made-up layer, 64 × 64. Four of its inputs are larger than the others, by a factor that you set.
#
# **Predict:** without outliers (1 ×), how far apart are magnitude and Wanda? **Try** all three controls (mouse, or Tab and the arrow keys).
# **Explain** with the read-out.

# %% tags=["lab"]
from spp_lite.teaching.labs.layer import OutlierLab

lab = OutlierLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(size=10, ratio=0.75, criterion="wanda")

# %% [markdown]
# **Explain.** (1) At 1 ×, magnitude and Wanda err alike, yet SparseGPT errs less. Where does its gain come from? (2)
# Go from 1 × to 30 × at 90 % zeros. Wanda's error falls to almost nothing. Why does magnitude's not?
#
# <details><summary>Answers</summary>
#
# (1) From the update: the inputs vary together, so survivors can stand in for what went, whatever the sizes. (2) At 30 ×
# the four outliers make nearly all of the output. Magnitude does not see them: it keeps the same weights at every factor, and
# drops most of the outliers' weights like all others. Wanda keeps nearly all of them.
# </details>
#
# ## 7 · Your turn
#
# **Ex 02a · core · difficulty ●●○ · ~10 min.** Section 2 kept all inputs; for a real model that is gigabytes. Measure
# sizes without keeping inputs: add up squares and count tokens. `run()` runs the model on all batches.
# Return the root mean square of each input, (in,), and leave no hook behind.


# %%
def input_norm(linear, run):
    # BEGIN SOLUTION
    total, tokens = 0.0, 0

    def add(module, args):
        nonlocal total, tokens
        flat = args[0].reshape(-1, args[0].shape[-1]).float()
        total, tokens = total + flat.square().sum(dim=0), tokens + len(flat)

    handle = linear.register_forward_pre_hook(add)
    run()
    handle.remove()
    return (total / tokens).sqrt()
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks, walk

checks.ex_02a(input_norm)
library = next(walk(model, batches)).statistics()[DOWN]  # of the first block
assert torch.allclose(input_norm(linears[DOWN], lambda: run(batches)), library.squares.sqrt(), rtol=1e-4)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The hook is an inner function; `nonlocal` lets it change a sum and a count of the outer one. Flatten the input to
# (tokens, in) first.
# </details>
# <details><summary>Hint 2</summary>
#
# Batches may differ in tokens: divide the sum of all squares by the count of all tokens, once, at the end. Then the root.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 02b · core · difficulty ●●○ · ~8 min.** Wanda's mask. weight is (out, in), norm is (in,). In every row, the ⌊ratio · in⌋ weights
# with the lowest $|W_{ij}|\,\lVert x_j\rVert$ become zero (⌊ ⌋: round down). Return True where a weight stays.


# %%
def wanda_mask(weight, norm, ratio):
    # BEGIN SOLUTION
    scores = weight.abs() * norm
    lowest = scores.argsort(dim=1, stable=True)[:, : int(ratio * weight.shape[1])]
    return torch.ones_like(weight, dtype=torch.bool).scatter(1, lowest, False)
    # END SOLUTION


# %% tags=["check"]
import copy

from spp_lite import prune

checks.ex_02b(wanda_mask)
pruned = copy.deepcopy(model)
prune(pruned, batches, "75%", method="wanda", only=[DOWN], progress=False)
differ = int((wanda_mask(weight, norm, 0.75) != (block_linears(pruned)[DOWN].weight != 0)).sum())
print(f"your mask and that of prune() differ in {differ} of {weight.numel():,} weights")
assert differ <= (0 if TINY else weight.numel() // 1000)  # in a large weight, rounding may decide a near tie

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# (out, in) times (in,) multiplies column j by norm[j], as it should.
# </details>
# <details><summary>Hint 2</summary>
#
# `argsort(dim=1)` gives for every row the places of its lowest scores first; `scatter` writes False there.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●● · ~20 min.** Rows or whole matrix? Prune every linear of a fresh model to 75 % by Wanda's
# score, once per row, once over the matrix (take all norms from the dense model), and compare
# `evaluate(model, tokenizer)`. Does the lower layer error make the better model? Repeat with other calibration texts
# (`seed=1`, `seed=2`) before you answer.
#
# ## 8 · Read an error message
#
# Wanda without a text has nothing to multiply by. This cell fails on purpose: what does the message ask for, and what
# does its note say about the model?

# %% tags=["raises-exception"]
prune(copy.deepcopy(model), [], "75%", method="wanda", progress=False)

# %% [markdown]
# ## Recap
#
# 1. Zeroing a weight loses the weight *times its input*, and inputs differ in size.
# 2. A hook sees a layer's inputs: register, run, remove.
# 3. Wanda scores |W| · ‖x‖ and compares within each row; it needs a few texts and no gradient.
# 4. SparseGPT also changes the survivors: left to right, each column's error goes to the columns on its right.
# 5. Where inputs have outliers, both leave far less output error than magnitude; where they are alike, the comparison
#    group can matter more than the score.
#
# ## Quiz
#
# <details><summary>1. All inputs have the same size. What is Wanda then?</summary>
#
# Magnitude, compared within each row: every score is multiplied by the same number.
# </details>
# <details><summary>2. Would Wanda's mask change if the calibration texts were twice as long?</summary>
#
# Only as far as the new tokens change the sizes of inputs relative to each other. Twice the same tokens gives the same mask.
# </details>
# <details><summary>3. When does SparseGPT's update change nothing but the weight that goes?</summary>
#
# When inputs do not vary together: then $H$ and its inverse are diagonal, and column q of the inverse is zero except at q.
# </details>
# <details><summary>4. You forget handle.remove(), and measure again with other texts. What goes wrong?</summary>
#
# The old hook still runs: it goes on filling the old list, so memory grows, and old and new inputs mix there.
# </details>
#
# **Next:** [03 · Prune the whole model](03_prune_the_whole_model.ipynb). The papers: [Wanda, arXiv
# 2306.11695](https://arxiv.org/abs/2306.11695), Eq. 1; [SparseGPT, arXiv 2301.00774](https://arxiv.org/abs/2301.00774),
# Algorithm 1; [SPP, arXiv 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5: the $W$ that it fine-tunes was pruned by
# one of these two.
