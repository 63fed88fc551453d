# %% [markdown]
# # 01 · Prune one matrix
# {{badge}}
#
# A language model is mostly matrices. Before you prune a whole model, take one of its matrices apart: which weights may
# go, in which pattern, and what does each pattern cost? You write the masks yourself, and the notebook then runs yours.
#
# > **Goals** – write a mask over the whole matrix (Ex 01a) and an N:M mask (Ex 01b); measure what a mask costs (Ex 01c);
# > store a 2:4 weight in a little more than half of its memory and get it back (Ex 01d).
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 00, and tensor indexing in PyTorch. The symbols are those of [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model, so its matrices have thousands of weights, not millions. **Real** – the weight is a trained
# > one, and section 7 shows the same patterns on a real LLaMA. `SPP_MODEL` takes the weight from another LLaMA.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · One weight, and what is small in it
#
# A linear layer has a weight matrix $W$ of shape $(\mathrm{out}, \mathrm{in})$: it has one row for every output and one
# column for every input. This notebook takes one such matrix out of the middle of the model.

# %%
from spp_lite import load
from spp_lite.teaching import block_linears, is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, _ = load()
name = f"model.layers.{model.config.num_hidden_layers // 2}.mlp.up_proj"
weight = block_linears(model)[name].weight.detach().float().cpu()
print(f"{name}: {weight.shape[0]} outputs, {weight.shape[1]} inputs, {weight.numel():,} weights")

# %% [markdown]
# To *prune* means to set weights to zero. **Magnitude pruning** takes those that are nearest to zero already. The share
# of weights that become zero is the **ratio**.
#
# We write down which weights stay as a **mask** $M$ of the same shape as $W$: it is True where a weight stays and False
# where it becomes zero. The pruned weight is $W \odot M$, entry times entry, where True counts as 1 and False as 0.
#
# How much of $W$ is lost with the smaller half? Measure it by the sum of all squared weights, $\lVert W\rVert^2$.
#
# **Predict:** if all sizes between zero and the largest were equally frequent, the smaller half of the weights would hold
# one eighth of the sum of squares. Do you think that it holds more here, or less?

# %%
from spp_lite.teaching import Guess

options = ["more than 1/8", "about 1/8", "less than 1/8"]
guess = Guess("Which share of the squares?", options)

# %% [markdown]
# **Ex 01a · core · difficulty ●●○ · importance ●●● · ~8 min.** Write the mask. Of the whole matrix, exactly
# $\lfloor \mathrm{ratio} \cdot \mathrm{size} \rfloor$ weights become zero (⌊ ⌋ means: round down), namely those with the smallest magnitude
# $|W_{ij}|$. Return a mask of the shape of `weight`. Two things to mind: several weights may have the same magnitude, and
# the ratio may be 0.


# %%
import torch


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

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A threshold alone cannot split weights of equal size. Think of *places* instead of sizes: which function gives the
# places of a flat tensor in the order of its values?
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with a flat mask that is True everywhere. Write False at the first places of that order, as many as shall go, and
# give the mask the shape of W.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import yours

magnitude_mask = yours(magnitude_mask, checks.ex_01a)
half = magnitude_mask(weight, 0.5)
share = float(((weight * ~half) ** 2).sum() / (weight**2).sum())  # ~ turns True and False around
print(f"{(~half).sum():,} weights go")

# %%
side = "less than 1/8" if share < 0.115 else "more than 1/8" if share > 0.135 else "about 1/8"
guess.compare(f"{side}: the smaller half holds {share:.1%}")

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.matrix import plot_histogram

title = f"The smaller half of the weights holds {share:.1%} of the sum of squares"
show(plot_histogram(weight, half, title), alt=f"Histogram of the weights, a bell. {title}.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A bell with a tall middle: most weights are small and few are large. So the smaller half of the *weights* holds less than an
# eighth of the *squares*. The middle is tall since some rows have only small weights: neurons that this model hardly uses. One
# threshold parts what stays from what goes, because the whole matrix was compared at once.
# </details>

# %% tags=["we-checked"]
from spp_lite import Sparsity

assert weight[~half].abs().max() <= weight[half].abs().min()
assert share < 1 / 8 or not TINY
theirs = Sparsity.parse("50%").mask(weight.abs())
assert (half == theirs).float().mean() > 0.999  # ties may fall otherwise
print("checked: one threshold parts the weights; the library's mask is yours, up to ties")

# %% [markdown]
# ## 2 · Three patterns
#
# Three rules say where the zeros may be, and each is stricter than the one before:
#
# - **unstructured** (written `"50%"`): anywhere in the matrix. This is your `magnitude_mask`.
# - **row-wise** (`"row:50%"`): the ratio holds in every single row.
# - **N:M** (`"2:4"`): of every M consecutive inputs of a row, exactly N weights stay. The ratio is $1 - N/M$.
#
# Be careful when you read other people's files: here N counts what is *kept*. Some code, Wanda's for one, counts what is
# pruned. The picture shows the first twelve weights of one row, in groups of four, beside a free mask that keeps six of the twelve.

# %%
from spp_lite.teaching.labs.boxes import plot_groups

show(plot_groups(weight[0]), alt="Twelve weights in groups of four: 2:4 keeps two of each.")

# %% [markdown]
# **Ex 01b · core · difficulty ●●○ · importance ●●● · ~10 min.** Write the N:M mask. `scores` has the shape of $W$,
# $(\mathrm{out}, \mathrm{in})$, and m divides the number of inputs. Of every m consecutive inputs of a row, **keep** the
# n that have the highest scores. (Magnitude uses $|W|$ as the scores; notebook 02 uses better ones.)


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

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A row of W lies in memory input after input, and the rows lie one after another. So one `reshape` can put every group
# into a row of its own.
# </details>
# <details><summary>Hint 2</summary>
#
# `topk` names places within each row, and it can also look for the lowest. `scatter` writes a value at such places. At
# the end, restore the shape.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Now make a mask of each pattern, all three with half of the weights zero. The library writes the row-wise one.
#
# **Predict:** the unstructured mask has 50 % zeros in all. Does every row have about 50 %?

# %%
options = ["50 % in every row", "45 to 55 %", "a wider range"]
guess = Guess("Zeros in a row, unstructured:", options)

# %%
nm_mask = yours(nm_mask, checks.ex_01b)
scores = weight.abs()  # a high score says: keep me
masks = {
    "50%": magnitude_mask(weight, 0.5),
    "row:50%": Sparsity.parse("row:50%").mask(scores),
    "2:4": nm_mask(scores, 2, 4),
}

# %%
in_row = {pattern: 100 * (~keep).float().mean(dim=1) for pattern, keep in masks.items()}
for pattern, zeros in in_row.items():  # percent of zeros, row by row
    low, high = zeros.min(), zeros.max()
    print(f"{pattern:8} {zeros.mean():.1f} % zeros, in a row {low:.0f} to {high:.0f} %")
free = in_row["50%"]
guess.compare(f"{free.min():.0f} to {free.max():.0f} % in a row")

# %%
from spp_lite.teaching.labs.matrix import plot_masks

alt = "A corner of the weight under three masks: zeros anywhere, even in rows, two in four inputs."
show(plot_masks(weight, masks, "The same half, in three patterns (white: zero)"), alt=alt)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The free mask takes most from the rows whose weights are small, and leaves some of them empty. Compare 2:4 with it: some dark
# (large) weights are gone, because two of their neighbours are larger still, and some pale ones stay, because their neighbours
# are paler.
# </details>

# %% tags=["we-checked"]
groups = masks["2:4"].view(-1, 4).sum(dim=1)
assert (groups == 2).all() and not (masks["50%"].view(-1, 4).sum(dim=1) == 2).all()
assert weight[free.argmax()].norm() < weight[free.argmin()].norm() or not TINY
assert scores[~masks["2:4"]].max() > scores[masks["2:4"]].min()  # a larger goes, a smaller stays
also = "; small rows lose most under the free mask" if TINY else ""
print(f"checked: every group of the 2:4 mask keeps two{also}")

# %% [markdown]
# ## 3 · What a mask costs
#
# A layer turns an input $x$ into the output $Wx$. Let $X$ hold many inputs, one in a row; then the outputs are
# $XW^\top$. What pruning takes from them is $X(W - W\odot M)^\top$, and its share is the **output error**
#
# $$E(M) = \frac{\lVert X(W - W\odot M)^\top\rVert^2}{\lVert XW^\top\rVert^2}.$$
#
# Here $\lVert\cdot\rVert^2$ is the sum of the squares of all entries. An error of 0 means that nothing is lost.
#
# **Ex 01c · core · difficulty ●○○ · importance ●●● · ~6 min.** Write $E$ as a function of `weight` (out, in), of the
# mask `keep` of the same shape, and of `X` with one token in a row: (tokens, in). Return one number.


# %%
def output_error(weight, keep, X):
    # BEGIN SOLUTION
    lost = X @ (weight - weight * keep).T
    whole = X @ weight.T
    return float(lost.square().sum() / whole.square().sum())
    # END SOLUTION


# %% tags=["check"]
checks.ex_01c(output_error)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compute the two matrices of the formula first, numerator and denominator; both have the shape (tokens, out).
# </details>
# <details><summary>Hint 2</summary>
#
# Square every entry *before* you add them up, and divide the two sums, not the entries.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# We try it on random inputs: all entries are independent, with mean 0 and variance 1. No input matters more than another
# then, and the output error should come out close to the **weight error** $\lVert W - W\odot M\rVert^2 / \lVert W\rVert^2$,
# which is the same without $X$. (For the unstructured half you have computed that already, in section 1.)
#
# **Predict:** which step costs more error: from unstructured to row-wise, or from row-wise to 2:4?

# %%
options = ["unstructured → row-wise", "row-wise → 2:4", "about the same"]
guess = Guess("Which step costs more?", options)

# %%
output_error = yours(output_error, checks.ex_01c)
torch.manual_seed(1)
X = torch.randn(512, weight.shape[1])


def weight_error(keep):
    return float((weight * ~keep).square().sum() / weight.square().sum())


# %%
found = {pattern: output_error(weight, keep, X) for pattern, keep in masks.items()}
for pattern, keep in masks.items():
    print(f"{pattern:8} weight error {weight_error(keep):.1%}, output error {found[pattern]:.1%}")
first, second = found["row:50%"] - found["50%"], found["2:4"] - found["row:50%"]
step = options[1] if second > first else options[0]
step = options[2] if abs(first - second) < 0.1 * max(first, second) else step
guess.compare(f"{step}; the steps cost {100 * first:.1f} and {100 * second:.1f} points")

# %% [markdown]
# Half of the weights is one ratio of many. Take every multiple of 1/8, two kinds of N:M, and as a baseline zeros that
# are drawn at random.

# %%
from spp_lite.teaching.labs.matrix import family

families = {kind: family(kind) for kind in ("unstructured", "row-wise", "n:8", "n:4")}
kept = {kind: {one.ratio: one.mask(scores) for one in found} for kind, found in families.items()}
by_chance = torch.rand_like(weight)
kept["random zeros"] = {one.ratio: one.mask(by_chance) for one in families["unstructured"]}
errors = {}  # kind of pattern → ratio → error
for kind, found in kept.items():
    errors[kind] = {ratio: output_error(weight, keep, X) for ratio, keep in found.items()}

# %%
from spp_lite.teaching.labs.matrix import plot_errors

at_half = {kind: error[0.5] for kind, error in errors.items()}
title = f"At 50 % zeros: n:4 loses {at_half['n:4']:.0%}, random zeros {at_half['random zeros']:.0%}"
show(plot_errors(errors, title=title), alt=f"Output error against zeros, by pattern. {title}.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# One order at every ratio: the freer the pattern, the lower the error. Random zeros are far worse than all of them.
#
# For the *weight* error this order must be so, for any weight. Every 2:4 mask is also a 4:8 mask, every 4:8 mask is also a
# row-wise one, and every row-wise mask is also an unstructured one. Magnitude picks the mask with the lowest weight error
# from each of these sets, and the best of a larger set cannot be worse.
#
# For the *output* error, which is what the figure shows, nothing forces it. On random inputs it follows the weight error
# closely, so the order is the same here. On the inputs of a real layer it need not be: that is where notebook 02 begins.
# </details>

# %% tags=["we-checked"]
for free_kind, strict in [("unstructured", "row-wise"), ("row-wise", "n:8"), ("n:8", "n:4")]:
    for ratio, keep in kept[strict].items():
        assert weight_error(kept[free_kind][ratio]) <= weight_error(keep) + 1e-6  # for any weight
        assert errors[free_kind][ratio] <= errors[strict][ratio] * 1.02  # on these random inputs
for kind, found_masks in kept.items():
    for ratio, keep in found_masks.items():
        assert abs(errors[kind][ratio] / weight_error(keep) - 1) < 0.1
        assert kind == "random zeros" or errors[kind][ratio] < 0.8 * errors["random zeros"][ratio]
assert abs(weight_error(masks["50%"]) - share) < 1e-6  # section 1's share
print("checked: the order of both errors, within a tenth of each other; random zeros far worse")

# %% [markdown]
# ## 4 · What a mask costs to store
#
# Zeros save memory only if they are not stored, and then you must note where the others belong. GPUs of recent years know
# a format for 2:4: it keeps the two values of every group, 16 bits each, and for each of them its *place* among the four
# inputs of the group, a number from 0 to 3, which takes 2 bits.

# %%
from spp_lite.teaching.labs.boxes import plot_packed

show(plot_packed(weight[0]), alt="Of four weights, two values are stored, and their places 0 to 3.")


# %%
def pack(weight, keep):
    """The two values of every group of four, and their places in it: twice (out, in / 2)."""
    out = len(weight)
    places = keep.view(out, -1, 4).nonzero()[:, 2]  # of every True, its place in its group
    return weight[keep].view(out, -1), places.view(out, -1)


values, places = pack(weight, masks["2:4"])
print("values", values[0, :6].numpy().round(3), "places", places[0, :6].tolist())

# %% [markdown]
# **Ex 01d · core · difficulty ●●○ · importance ●●○ · ~10 min.** Write the way back. `values` and `places` both have the
# shape $(\mathrm{out}, \mathrm{in}/2)$ and hold two entries for every group of four, in order. Return the pruned weight,
# $(\mathrm{out}, \mathrm{in})$, with a zero at every place that is not named.


# %%
def unpack(values, places):
    # BEGIN SOLUTION
    out, half = values.shape
    groups = torch.zeros(out, half // 2, 4, dtype=values.dtype)
    groups = groups.scatter(2, places.view(out, -1, 2), values.view(out, -1, 2))
    return groups.view(out, 2 * half)
    # END SOLUTION


# %% tags=["check"]
checks.ex_01d(unpack)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A place counts from the beginning of its own group. Give values and places a third axis of length 2, so that every group
# stands for itself.
# </details>
# <details><summary>Hint 2</summary>
#
# Begin with zeros of the shape (out, in / 4, 4). `scatter` along the last axis writes each value at its place. Then join
# the groups again.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
unpack = yours(unpack, checks.ex_01d)
back = unpack(values, places)
differ = int((back != weight * masks["2:4"]).sum())
print(f"{differ} of {weight.numel():,} entries differ after storing and restoring")

# %% [markdown]
# Compare it with two other ways to store zeros. *CSR*, the usual format for sparse matrices, stores each kept weight with
# the number of its column (16 bits). A *bitmap* spends one bit on every weight, which says whether it is kept, and then
# stores the kept ones. (GPUs know no 1:4; it stands in the table for comparison.)
#
# **Predict:** a dense weight takes 16 bits. At 50 % zeros, which of the three takes the fewest?

# %%
options = ["CSR", "bitmap", "2:4 format", "bitmap and 2:4 format alike", "CSR and bitmap alike"]
guess = Guess("Fewest bits at 50 %?", options)

# %%
import pandas as pd

bits = pd.DataFrame({"kept": [0.5, 0.25]}, index=["50% or 2:4", "75% or 1:4"])
bits["dense"] = 16
bits["CSR"] = bits["kept"] * (16 + 16)
bits["bitmap"] = bits["kept"] * 16 + 1
bits["n:4 format"] = bits["kept"] * (16 + 2)
bits.round(2)  # bits for every weight of the matrix

# %%
of_half = bits.loc["50% or 2:4", ["CSR", "bitmap", "n:4 format"]]
best = " and ".join(of_half.index[of_half == of_half.min()])
guess.compare(f"{best}, {of_half.min():.0f} bits a weight")

# %% [markdown]
# Is there a better way to note the places of zeros than one bit a weight? If a pattern allows $K$ different masks, no
# code can tell all of them apart with fewer than $\log_2 K$ bits. The stricter the pattern, the fewer masks it allows, so
# freedom has a price in bits. (`lgamma(n + 1)` is the logarithm of $n!$, the number of ways to order $n$ things.)

# %%
from math import lgamma, log


def mask_bits(size, zeros):
    """Bits a weight to say which `zeros` of `size` weights are zero."""
    return (lgamma(size + 1) - lgamma(zeros + 1) - lgamma(size - zeros + 1)) / log(2) / size


sizes = {"unstructured": weight.numel(), "row-wise": weight.shape[1], "4:8": 8, "2:4": 4}
least = {kind: mask_bits(size, size // 2) for kind, size in sizes.items()}
print({kind: f"{count:.2f} bits a weight" for kind, count in least.items()})

# %% [markdown]
# <details><summary>What you should see</summary>
#
# At 50 % zeros, CSR saves nothing at all: what it saves in values it spends on column numbers. A bitmap and the 2:4
# format are equally large, 9 bits of 16. So 2:4 takes no less memory than any other half; what it buys is *order*: every group holds two values, and hardware
# knows where the next one lies. Notebook 07 measures what that is worth.
# </details>

# %% tags=["we-checked"]
assert (back == weight * masks["2:4"]).all()
assert least["2:4"] < least["4:8"] < least["row-wise"] < least["unstructured"] <= 1
assert of_half["bitmap"] == of_half["n:4 format"] and of_half["CSR"] == 16
print("checked: the packed weight comes back whole; stricter patterns take fewer bits to describe")

# %% [markdown]
# ## 5 · Lab: mask, histogram, error
#
# **Predict:** you ask for 30 % zeros in the pattern n:4. Which n:4 pattern comes nearest? **Try** all three views (with
# the mouse, or with Tab and the arrow keys). Compare unstructured with n:4 in the histogram, and watch the text below the
# picture.

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
# **Explain.** (1) Step n:4 through all ratios. How many different masks do you meet, and why not more? (2) In the
# histogram under n:4, the same bar holds weights that stay and weights that go. Why is there no threshold?
#
# <details><summary>Answers</summary>
#
# The prediction: 3:4, which has 25 % zeros; 2:4 has 50 %, which is farther away.
#
# (1) Three: 3:4, 2:4 and 1:4. Four weights can lose one, two or three; losing none prunes nothing, and losing all leaves
# nothing. (2) Every group has a threshold of its own. A weight of medium size stays among small neighbours and goes among
# large ones, so no single number can part the whole matrix.
# </details>
#
# ## 6 · For those who want more: a better order of the inputs
#
# Which four inputs share a group is an accident: it depends on how the inputs happen to be numbered. If you shuffle the
# columns of $W$, and the inputs with them, the layer computes the same. But 2:4 now compares other weights with each
# other, and its weight error changes.
#
# **Ex 01e · stretch · difficulty ●●● · importance ●○○ · ~20 min.** Find an order of the inputs in which 2:4 by
# magnitude loses less than in the order as given. Return it as a permutation: every number from 0 to $\mathrm{in} - 1$
# once. The check wants a tenth less error on matrices whose large inputs stand side by side.


# %%
def better_order(weight):
    # BEGIN SOLUTION
    best, least = torch.arange(weight.shape[1]), float("inf")
    for _ in range(200):
        order = torch.randperm(weight.shape[1])
        shuffled = weight[:, order]
        lost = (shuffled * ~nm_mask(shuffled.abs(), 2, 4)).square().sum()
        if lost < least:
            best, least = order, lost
    return best
    # END SOLUTION


# %% tags=["check"]
checks.ex_01e(better_order)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Luck is a good start: try many random permutations and keep the best. `weight[:, order]` shuffles the inputs.
# </details>
# <details><summary>Hint 2</summary>
#
# Better than luck: where four large inputs share a group, two good weights must go. Deal the inputs out to the groups
# like cards, from the largest column to the smallest.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
better_order = yours(better_order, checks.ex_01e)
torch.manual_seed(2)
shuffled = weight[:, better_order(weight)]
new = float((shuffled * ~nm_mask(shuffled.abs(), 2, 4)).square().sum() / weight.square().sum())
old = weight_error(masks["2:4"])
print(f"2:4 loses {old:.2%} of the squares in the order as given, {new:.2%} in yours")

# %% [markdown]
# ## 7 · On a real LLaMA
#
# SmolLM2-135M is a pre-trained LLaMA of 30 blocks. Section 1 found a bell in one matrix of the model of this notebook.
# Are the weights of a real LLaMA a bell, too? Take all linears of both models, each on its own scale (its mean $|W|$ is
# 1), and ask: which size do the largest 50 %, 25 %, 5 %, 1 % and 0.1 % of the weights exceed? The dashed line is the
# answer of *normally distributed* numbers, the bell of the textbooks.

# %%
from spp_lite.teaching import embedded
from spp_lite.teaching.labs.tails import BELL, BELL_HALF, by_kind, plot_weight_tails, weights_of

layers = pd.read_csv(embedded("results", "smollm2", "layers.csv"), index_col="linear")
both = {"The tiny model" if TINY else "This model": weights_of(model), "SmolLM2-135M": layers}

# %%
mine, its = (table["larger_0.1"].median() for table in both.values())
title = f"One weight in 1,000 is above {mine:.1f} times the mean size here, {its:.1f} in SmolLM2"
about = "Sizes that few weights exceed, by kind of linear, two models"
alt = f"{about}. {title}; a bell: {BELL[-1]:.1f}."
show(plot_weight_tails(both, f"{title} (bell: {BELL[-1]:.1f})"), alt=alt)

# %% [markdown]
# And the question of section 1, for every kind of linear: which share of the squares does the smaller half hold? (Each
# entry is the median over the blocks.)

# %%
halves = pd.DataFrame({name: by_kind(table)["half"] for name, table in both.items()})
halves.map("{:.1%}".format)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Nearly a bell, with longer tails: in every linear of SmolLM2 the largest thousandth of the weights lies farther out than
# a bell's, farthest in the queries. So the smaller half holds less than a bell's 7.1 % of the squares, in every linear,
# and less than 5 % in the queries. By the weights alone, half of SmolLM2 should be cheap to prune by magnitude. The next
# figure shows that it is not. What the weights do not tell, the inputs may: notebook 02.
# </details>

# %% tags=["we-checked"]
assert (layers["larger_0.1"] > BELL[-1]).all()
assert by_kind(layers)["larger_0.1"].idxmax() == "q_proj"
assert (layers["half"] < BELL_HALF).all() and round(BELL_HALF, 3) == 0.071
assert by_kind(layers).loc["q_proj", "half"] < 0.05
assert (by_kind(layers)["larger_25"] / BELL[1] - 1).abs().max() < 0.03  # nearly a bell
print(f"checked: in all {len(layers)} linears of SmolLM2 the tails are longer than a bell's")

# %% [markdown]
# Now prune it in the three patterns, half of its weights zero in each, by magnitude and by the two criteria of notebook
# 02, without training afterwards. **Perplexity** says how well the model reads: roughly, between how many words it
# hesitates at every step. Lower is better.

# %%
rows = pd.read_csv(embedded("results", "smollm2", "sweep.csv"))
dense = float(rows.loc[rows["method"] == "dense", "perplexity"].iloc[0])
rows = rows[(rows["method"] == "none") & rows["sparsity"].isin(["50%", "4:8", "2:4"])]
table = rows.pivot_table(index="sparsity", columns="pruner", values="perplexity")
table = table.loc[["50%", "4:8", "2:4"], ["magnitude", "wanda", "sparsegpt"]]
table.round(1)

# %%
from spp_lite.teaching.labs.matrix import plot_perplexity

factor = (table.loc["2:4"] / table.loc["50%"]).round(1)
low, high = factor.min(), factor.max()
title = f"SmolLM2-135M: 2:4 has {low:.1f} to {high:.1f} times the perplexity of 50%"
figure = plot_perplexity(table, dense, title, "pattern, half of the weights zero in each")
show(figure, alt=f"Perplexity by pattern, three criteria. {title}.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# For all three criteria the order of the patterns is the one of section 3: unstructured, then 4:8, then 2:4. (The mask
# "50%" is compared within rows by Wanda and within blocks of columns by SparseGPT.) Between magnitude and the other two the
# criterion matters more than the pattern: magnitude at its best is worse than Wanda at its worst. Between Wanda and SparseGPT
# the pattern matters more. Each cell is one run.
# </details>
#
# SmolLM2 was measured on two CPU cores. These commands do it again, once `spp-lite fetch smollm2` has fetched the model (in
# 4 bits a weight: what you saw are the weights after that rounding); the first one needs a checkout of the repository.
# [The page of results](../docs/results-smollm2.md) says which texts they take.
#
# ```bash
# python -m data.build.layers --calibration c4.jsonl  # the weights
#
# spp-lite sweep --model smollm2 --methods none --pruners magnitude wanda sparsegpt --sparsity 50% 4:8 2:4 --seeds 1 \
#     --data alpaca.json --calibration c4.jsonl --calibration-samples 32 --calibration-length 512 \
#     --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 --out my-results
# ```

# %% tags=["we-checked"]
assert (table.diff().iloc[1:] > 0).all(axis=None)  # 50% < 4:8 < 2:4 for every criterion
assert table["magnitude"].min() > table["wanda"].max() and (table > dense).all(axis=None)
print("checked: one order of patterns for all criteria; magnitude's best is above Wanda's worst")

# %% [markdown]
# ## 8 · Read an error message
#
# Somebody prunes half of every row and hands the weight to hardware that wants 2:4. Half is half, after all? This cell
# fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
Sparsity.parse("2:4").check(weight * masks["row:50%"], name)

# %% [markdown]
# The message names the layer, the pattern that was asked for, and what was found instead: a group that keeps more than
# two weights. Half of every row says nothing about a group of four, so the weight has to be pruned again, with groups.
#
# ## Recap
#
# 1. A mask is True where a weight stays; the pruned weight is $W \odot M$.
# 2. Trained weights form a bell: the smaller half holds little of the sum of squares.
# 3. Unstructured, row-wise, 4:8, 2:4: each is a special case of the one before, so its weight error is never lower.
# 4. N:M means here: keep N of every M consecutive inputs of a row.
# 5. A 2:4 weight is stored as values and places; what the format buys is order, not memory beyond a bitmap's.
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
