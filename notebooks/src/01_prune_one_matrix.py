# %% [markdown]
# # 01 · Prune one matrix
# {{badge}}
#
# A language model is mostly matrices. Before you prune a whole model, take one of its matrices apart: which weights may
# go, in which pattern, and what does each pattern cost?
#
# > **Goals** – write a mask over the whole matrix (Ex 01a) and an N:M mask (Ex 01b); explain unstructured, row-wise and
# > N:M masks; measure what a mask costs, in error and in bits.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 00, and tensor indexing in PyTorch.
# > **Tiny** – the model, so its matrices have thousands of weights, not millions. **Real** – the weight is a trained
# > one, and masks are made by the library's own function. `SPP_MODEL` takes the weight from another LLaMA.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · One weight, and what is small in it
#
# A linear layer has a weight matrix $W$ of shape (out, in): a row per output, a column per input.
#
# *Magnitude pruning* sets the weights nearest to zero to zero; the *ratio* is their share. A **mask** $M$ has the shape
# of $W$: True where a weight is kept, False where it becomes zero. The pruned weight is $W \odot M$, entry times entry.

# %%
from spp_lite import load
from spp_lite.teaching import block_linears, is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, _ = load()
name = f"model.layers.{model.config.num_hidden_layers // 2}.mlp.up_proj"
weight = block_linears(model)[name].weight.detach().float().cpu()
print(f"{name}: {weight.shape[0]} outputs, {weight.shape[1]} inputs, {weight.numel():,} weights")

# %% [markdown]
# How much of $W$ is lost with the smaller half? Measure by the sum of squares, $\lVert W\rVert^2$.
#
# **Predict:** if all sizes up to a largest one were equally frequent, the smaller half would hold an eighth of that sum.
# Does it hold more here, or less?

# %%
from spp_lite import Sparsity

scores = weight.abs()  # a high score: keep me
half = Sparsity.parse("50%").mask(scores)
share = ((weight * ~half) ** 2).sum() / (weight**2).sum()
print(f"{(~half).sum():,} weights go; they hold {share:.1%} of the sum of squares")
assert scores[~half].max() <= scores[half].min()  # one threshold parts them
assert share < 1 / 8 or not TINY

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.matrix import plot_histogram

show(plot_histogram(weight, half), alt="Histogram of the weights: a bell around 0. The half nearest to 0 goes.")

# %% [markdown]
# **What you should see:** a bell. Most weights are small, few are large, so half of the *weights* hold less than an
# eighth of the *squares*.
#
# ## 2 · Three patterns
#
# Three rules say where the zeros may be, each stricter than the one before:
#
# - **unstructured** (`"50%"`): anywhere. One threshold for the whole matrix.
# - **row-wise** (`"row:50%"`): the ratio holds in every row.
# - **N:M** (`"2:4"`): every group of M consecutive inputs of a row keeps exactly N. The ratio is $1 - N/M$.
#
# Careful: N counts what is *kept*. Some code, Wanda's for one, counts what is pruned.
#
# **Predict:** an unstructured mask has 50 % zeros in all. Has every row about 50 %?

# %%
masks = {pattern: Sparsity.parse(pattern).mask(scores) for pattern in ("50%", "row:50%", "2:4")}
for pattern, keep in masks.items():
    rows = (~keep).float().mean(dim=1)  # share of zeros, row by row
    print(f"{pattern:8} zeros in all {(~keep).float().mean():.1%}, in a row {rows.min():.0%} to {rows.max():.0%}")

# %%
groups = masks["2:4"].view(-1, 4)  # four consecutive inputs a line
for values, keep in zip(scores.view(-1, 4)[:3], groups[:3], strict=True):
    print([f"{value:.3f}" for value in values], keep.tolist())
assert (groups.sum(dim=1) == 2).all()
assert not (masks["50%"].view(-1, 4).sum(dim=1) == 2).all()
zeros = (~masks["50%"]).sum(dim=1)
assert weight[zeros.argmax()].norm() < weight[zeros.argmin()].norm() or not TINY  # small rows lose most
assert scores[~masks["2:4"]].max() > scores[masks["2:4"]].min()  # a larger weight goes, a smaller stays

# %%
from spp_lite.teaching.labs.matrix import plot_masks

alt = "A corner of the weight under three masks. Zeros are scattered freely; evenly in rows; two in every four inputs."
show(plot_masks(weight, masks), alt=alt)

# %% [markdown]
# **What you should see:** the free mask takes most from rows of small weights. Compare 2:4 with it: some dark (large)
# weights are gone, because two neighbours are larger still, and pale ones stay.
#
# ## 3 · What a mask costs
#
# A layer turns inputs $X$ (a row per token) into outputs $XW^\top$. The *relative output error* of a mask is
#
# $$e(M) = \frac{\lVert X(W - W\odot M)^\top\rVert}{\lVert XW^\top\rVert}.$$
#
# Here $X$ is random: independent entries, mean 0, variance 1. Then no input matters more than another, and $e(M)$ is
# nearly the *weight error*, the same without $X$.
#
# **Predict:** which step costs more: unstructured to row-wise, or row-wise to 2:4?

# %%
import torch

torch.manual_seed(1)
X = torch.randn(512, weight.shape[1])


def weight_error(keep):
    return float((weight - weight * keep).norm() / weight.norm())


def output_error(keep):
    return float((X @ (weight - weight * keep).T).norm() / (X @ weight.T).norm())


# %%
for pattern, keep in masks.items():
    print(f"{pattern:8} weight error {weight_error(keep):.1%}, output error {output_error(keep):.1%}")
    assert abs(output_error(keep) / weight_error(keep) - 1) < 0.05

# %% [markdown]
# Now every multiple of 1/8, and as a baseline zeros drawn at random.

# %%
from spp_lite.teaching.labs.matrix import family

families = {name: family(name) for name in ("unstructured", "row-wise", "n:8", "n:4")}
kept = {name: {one.ratio: one.mask(scores) for one in found} for name, found in families.items()}
kept["random zeros"] = {one.ratio: one.mask(torch.rand_like(weight)) for one in families["unstructured"]}
errors = {name: {ratio: output_error(keep) for ratio, keep in found.items()} for name, found in kept.items()}

# %%
from spp_lite.teaching.labs.matrix import plot_errors

show(plot_errors(errors), alt="Output error against zeros: random worst, then n:4, n:8, row-wise, unstructured lowest.")

# %%
for free, strict in [("unstructured", "row-wise"), ("row-wise", "n:8"), ("n:8", "n:4")]:
    for ratio, keep in kept[strict].items():
        assert weight_error(kept[free][ratio]) <= weight_error(keep) + 1e-6  # the freer pattern is never worse
at_half = [errors[name][0.5] for name in ("unstructured", "row-wise", "n:4")]
assert at_half[2] - at_half[1] > at_half[1] - at_half[0] or not TINY
for ratio, error in errors["n:4"].items():
    assert error < 0.8 * errors["random zeros"][ratio] or not TINY

# %% [markdown]
# **What you should see:** one order at every ratio, and it must be so: every 2:4 mask is also a 4:8 mask, every 4:8 mask
# is row-wise, and the best of more masks cannot be worse. Equal rows cost this weight little, small groups more. Random
# zeros are far worse.
#
# ## 4 · What a mask costs to store
#
# Zeros save memory only if they are not stored; then you must note where the others are. Take 16-bit weights. *CSR*
# stores each kept weight with its column number (16 bits). A *bitmap* spends one bit on every weight. The *2:4 format* of
# GPUs spends two bits on each kept weight: its place among four. (They know no 1:4; it is for comparison.)
#
# **Predict:** at 50 % zeros, which takes fewest bits?

# %%
import pandas as pd

bits = pd.DataFrame({"kept": [0.5, 0.25]}, index=["50% or 2:4", "75% or 1:4"])
bits["dense"] = 16
bits["CSR"] = bits["kept"] * (16 + 16)
bits["bitmap"] = bits["kept"] * 16 + 1
bits["n:4 format"] = bits["kept"] * (16 + 2)
bits.round(2)

# %% [markdown]
# To tell $K$ possible masks apart takes at least $\log_2 K$ bits: freedom has a price. `lgamma(n + 1)` is the logarithm
# of $n!$.

# %%
from math import lgamma, log


def mask_bits(size, zeros):
    """Bits a weight to say which `zeros` of `size` weights are zero."""
    return (lgamma(size + 1) - lgamma(zeros + 1) - lgamma(size - zeros + 1)) / log(2) / size


sizes = {"unstructured": weight.numel(), "row-wise": weight.shape[1], "4:8": 8, "2:4": 4}
least = {name: mask_bits(size, size // 2) for name, size in sizes.items()}
print({name: f"{count:.2f}" for name, count in least.items()})
assert least["2:4"] < least["4:8"] < least["row-wise"] < least["unstructured"] <= 1
assert bits.loc["50% or 2:4", "bitmap"] == bits.loc["50% or 2:4", "n:4 format"]
assert bits.loc["50% or 2:4", "CSR"] == bits.loc["50% or 2:4", "dense"]

# %% [markdown]
# **What you should see:** at 50 %, CSR saves nothing, and 2:4 is no smaller than a bitmap. What 2:4 buys is *order*: every
# group holds as many weights, so hardware knows where the next one lies. Notebook 07 measures it.
#
# ## 5 · Lab: mask, histogram, error
#
# **Predict:** ask for 30 % zeros and n:4. Which pattern comes nearest? **Try** all views (mouse, or Tab and the arrow
# keys); compare unstructured with n:4 in the histogram; at 90 %, see what is left of the emptiest row.

# %% tags=["lab"]
from spp_lite.teaching.labs.matrix import MaskLab

lab = MaskLab(weight)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(ratio=0.5, pattern="n:4", view="histogram")

# %% [markdown]
# **Explain.** (1) Step n:4 through all ratios. How many masks do you meet, and why not more? (2) In the histogram under
# n:4, one bar holds weights that stay and weights that go. Why is there no threshold?
#
# <details><summary>Answers</summary>
#
# (1) Three: 3:4, 2:4 and 1:4. Four weights can lose one, two or three; losing none prunes nothing, losing all leaves
# nothing. (2) Each group has its own threshold. A weight of medium size stays among small neighbours and goes among large
# ones, so one number cannot part the matrix.
# </details>
#
# ## 6 · Your turn
#
# **Ex 01a · core · difficulty ●○○ · ~8 min.** The unstructured mask: of the whole matrix, exactly ⌊ratio · size⌋ weights
# (rounded down), the smallest by magnitude, become zero. True where a weight is kept. Mind equal magnitudes, and ratio 0.


# %%
def magnitude_mask(weight, ratio):
    # BEGIN SOLUTION
    order = weight.abs().flatten().argsort(stable=True)
    keep = torch.ones(weight.numel(), dtype=torch.bool)
    keep[order[: int(ratio * weight.numel())]] = False
    return keep.view(weight.shape)
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_01a(magnitude_mask)
assert (magnitude_mask(weight, 0.5) == Sparsity.parse("50%").mask(scores)).all()  # the library's is yours

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Flatten the magnitudes and sort *positions* by them: `argsort`. A threshold alone cannot split weights of equal size.
# </details>
# <details><summary>Hint 2</summary>
#
# Start from a mask that is True everywhere, set the first ⌊ratio · size⌋ positions to False, and give it the shape of W.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 01b · core · difficulty ●●○ · ~10 min.** The N:M mask. `scores` has the shape of W (out, in), and m divides in. Of
# every m consecutive inputs, **keep** the n with the highest scores.


# %%
def nm_mask(scores, n, m):
    # BEGIN SOLUTION
    groups = scores.reshape(-1, m)
    lowest = groups.topk(m - n, dim=1, largest=False).indices
    keep = torch.ones_like(groups, dtype=torch.bool).scatter(1, lowest, False)
    return keep.view(scores.shape)
    # END SOLUTION


# %% tags=["check"]
checks.ex_01b(nm_mask)
for pattern, n, m in [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)]:
    assert (nm_mask(scores, n, m) == Sparsity.parse(pattern).mask(scores)).all()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `scores.reshape(-1, m)` puts each group in a row of its own, because a row of W lies in memory input after input.
# </details>
# <details><summary>Hint 2</summary>
#
# `topk(…, dim=1).indices` names places within each group; `scatter` writes True or False there. Then restore the shape.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●● · ~20 min.** With shuffled inputs, `weight[:, torch.randperm(weight.shape[1])]`, 2:4 sees
# other groups. Try 200 orders: how much does its error fall? Can you find a better order than luck does?
#
# ## 7 · Read an error message
#
# Six inputs make no groups of four. This cell fails on purpose: which layer, value and way out does it name?

# %% tags=["raises-exception"]
Sparsity.parse("2:4").mask(scores[:, :6], name=f"{name}, inputs 0 to 5")

# %% [markdown]
# ## Recap
#
# 1. A mask is True where a weight is kept; the pruned weight is W ⊙ M.
# 2. Weights form a bell: the small half holds little of the sum of squares.
# 3. Unstructured, row-wise, 4:8, 2:4: each is a special case of the one before, so it never costs less error.
# 4. N:M means here: keep N of every M consecutive inputs of a row.
# 5. Strict patterns need fewer bits to describe and are easier for hardware to skip.
#
# ## Quiz
#
# <details><summary>1. Can a 2:4 mask by magnitude have a lower weight error than the 4:8 mask by magnitude?</summary>
#
# No. Two groups of four side by side, each keeping two, are a group of eight that keeps four. The 4:8 mask takes the best of
# all such choices, that one included.
# </details>
# <details><summary>2. A file says "1:4" and has 25 % zeros. What happened?</summary>
#
# Its author counts what is pruned. In this suite 1:4 keeps one of four, which leaves 75 % zeros; theirs is our 3:4.
# </details>
# <details><summary>3. Why might the mask with the lowest error on random inputs not be the best for the model?</summary>
#
# A model's inputs are not alike: some are far larger than others. A small weight on a large input can matter more than a
# large weight on a small one. Notebook 02 scores weights by both.
# </details>
# <details><summary>4. Half of the weights are zero, 16 bits each, stored as a bitmap and the kept weights. How large is it?</summary>
#
# One bit for each weight and 16 for every second one: 9 bits a weight instead of 16, for any pattern with 50 % zeros.
# </details>
#
# **Next:** [02 · Prune a LLaMA layer](02_prune_a_llama_layer.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5: the $W$ that it fine-tunes is such a $W \odot M$.
