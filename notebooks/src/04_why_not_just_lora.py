# %% [markdown]
# # 04 · Why not just LoRA?
# {{badge}}
#
# LoRA is the usual way to fine-tune a large model cheaply. What does it do to the zeros of a pruned model? Here you measure
# that, see why it must be so, and build the two repairs that come to mind first.
#
# > **Goals** – measure how many zeros a merge fills (Ex 04a); show that a low-rank update cannot spare scattered zeros
# > (Ex 04b); write LoRA's update under the mask and train with it (Ex 04c); compare methods by paired differences, and say
# > what they leave open.
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 03: a pruned model, its masks, its accuracy. Symbols: the table in
# > [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model, its world and the training: 160 steps. **Real** – PEFT's own LoRA, the pruning, the evaluation, and
# > the runs over several seeds in `data/results/sweep.csv`.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · LoRA on a pruned model
#
# First we need a pruned model. We prune exactly as seed 0 of the logged table did, with the same calibration windows, so
# that our runs can be laid beside the table's. The *mask* $M$ of a weight is 1 where the weight survived and 0 where it
# was pruned.

# %%
from spp_lite import evaluate, load, prune
from spp_lite.teaching import block_linears, calibration_batches, default_texts, is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
pruned, tokenizer = load()
windows = calibration_batches(default_texts(), tokenizer, samples=384, length=128)

# %%
import torch
from transformers import set_seed

SPARSITY, SEED = "75%", 0
set_seed(SEED)
drawn = torch.randperm(len(windows))[:16]  # a seed takes 16 of these batches
prune(pruned, [windows[i] for i in drawn], SPARSITY, method="wanda", progress=False)
masks = {name: linear.weight != 0 for name, linear in block_linears(pruned).items()}
start = torch.get_rng_state()  # every method below starts from this state of the random numbers

# %% [markdown]
# Every model in this notebook gets the same two scores: the share of zeros in its linear layers, and its accuracy over all
# items of the test tasks.

# %%
from spp_lite.teaching import average_accuracy, default_tasks, zeros

LIMIT = None if TINY else 40  # items per task; None: all of them


def score(model):
    table = evaluate(model, tokenizer, default_tasks(), limit=LIMIT, progress=False)
    return zeros(model), average_accuracy(table)


found = {"none": score(pruned)}
print("pruned: {:.0%} zeros, accuracy {:.1%}".format(*found["none"]))

# %% [markdown]
# LoRA leaves a weight matrix $W$ ($\mathrm{out} \times \mathrm{in}$) frozen and trains two thin matrices, $A$
# ($\rho \times \mathrm{in}$) and $B$ ($\mathrm{out} \times \rho$). The *rank* $\rho$ (PEFT calls it `r`) is small, and the *scaling* $s$ is a constant:
#
# $$W' = W + s\,BA.$$
#
# $B$ starts at zero, so at first nothing changes. The learning rate is the one that won on the validation split.

# %%
import copy

import pandas as pd
from peft import LoraConfig, get_peft_model

from spp_lite.teaching import choose_rates, embedded

rates = choose_rates(pd.read_csv(embedded("results", "rates.csv")), SPARSITY)
config = LoraConfig(r=8, lora_alpha=16, target_modules=sorted(masks))  # s = lora_alpha / r = 2
torch.set_rng_state(start)
lora = get_peft_model(copy.deepcopy(pruned), config)
lora.print_trainable_parameters()

# %%
from spp_lite import finetune, load_alpaca
from spp_lite.teaching import tokenize_records

records = tokenize_records(load_alpaca(), tokenizer)


def train(model, rate):
    settings = {"max_steps": 160, "batch_size": 16, "seed": SEED, "progress": False}
    output = finetune(model, records, tokenizer, learning_rate=rate, **settings)
    print(f"{output.global_step} steps at rate {rate:g}, mean loss {output.training_loss:.2f}")


train(lora, rates["lora"])

# %% [markdown]
# So far the zeros are safe: $W$ is frozen, and $A$ and $B$ stand beside it. But every layer now computes two more products,
# in every forward pass, for as long as the model lives. To be rid of them one *merges*: one adds $s\,BA$ to $W$ once and
# throws $A$ and $B$ away. We take one layer of the trained model and look at what would be added to it.

# %%
NAME = next(iter(masks))  # the first linear layer
weight = block_linears(pruned)[NAME].weight.detach()
layer = lora.get_submodule(f"base_model.model.{NAME}")
A, B = (part["default"].weight.detach() for part in (layer.lora_A, layer.lora_B))
update = layer.get_delta_weight("default").detach()  # s · BA
print(NAME, "is", tuple(weight.shape), "- A is", tuple(A.shape), "- B is", tuple(B.shape))

# %% [markdown]
# **Predict:** how many of the zeros of $W$ does this merge fill?

# %%
from spp_lite.teaching import Guess

filled_guess = Guess(
    "How many of the zeros does the merge fill?",
    options=["a few", "about 8 in a hundred", "about half", "all"],
)

# %% [markdown]
# **Ex 04a · core · difficulty ●●○ · importance ●●● · ~8 min.** Write the measure that answers it. Of all entries where
# `weight` is zero, which share is *not* zero in `weight + update`? Return that share, a number between 0 and 1. The library
# calls it *densification*.


# %%
def refilled(weight, update):
    # BEGIN SOLUTION
    zero = weight == 0
    return float(((weight + update)[zero] != 0).float().mean())
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_04a(refilled)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A comparison gives a tensor of booleans, and a tensor that is indexed with it gives the chosen entries as one flat list.
# </details>
# <details><summary>Hint 2</summary>
#
# Look only at the places where the pruned weight was zero, and divide by how many of those there are. Other places do not
# count, neither above nor below the line.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import yours

refilled = yours(refilled, checks.ex_04a)
filled_guess.compare(f"{refilled(weight, update):.0%} of the zeros of {NAME}")

# %% [markdown]
# Your measure says what a merge would do. Our `merge` measures the same thing in every layer, before it hands a model over.
# The next cell therefore stops **on purpose**: it is the mistake of treating a pruned model like any other.

# %% tags=["raises-exception"]
# %xmode Minimal
from spp_lite import merge

merge(lora)

# %% [markdown]
# Read the message from left to right: it names the layer, says how many of its zeros would be filled, and ends with two ways
# out. The model was left as it was, unmerged, so that nothing is lost. We go on with PEFT's own method, which asks no questions.

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.lora import plot_merge

merged = lora.merge_and_unload()
found["lora"] = score(merged)
print("merged LoRA: {:.0%} zeros, accuracy {:.1%}".format(*found["lora"]))
picture = "A corner of W, B, A and W′ as boxes: the grey zeros of W are gone in W′."
show(plot_merge(weight, A, B, 2.0), alt=picture)

# %% tags=["we-checked"]
from spp_lite.teaching import measure

assert abs(refilled(weight, update) - (1 - measure(weight + update) / measure(weight))) < 1e-3
assert found["lora"][0] < 0.01 < found["none"][0]  # the sparse model is a dense one
assert found["lora"][1] > found["none"][1] or not TINY
print("checked: merged LoRA has no zeros left, and is more accurate than the pruned model")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# All zeros are filled: in the picture, the grey cells of $W$ are gone in $W'$. The accuracy went up, and PEFT warned you of
# nothing. The model works; it is only no longer sparse.
# </details>
#
# ## 2 · Could a low-rank update spare the zeros?
#
# Perhaps we were only unlucky, and a better trained $A$ and $B$ would leave the zeros alone. Write $b_i$ for row $i$ of $B$ and
# $a_j$ for column $j$ of $A$; both have $\rho$ entries. The update of weight $(i, j)$ is $s\,b_i \cdot a_j$.
#
# To spare every zero of row $i$, $b_i$ must be orthogonal to $a_j$ for *each* pruned column $j$. That is one equation for
# every zero of the row, and there are only $\rho$ unknowns. If the pruned $a_j$ span all $\rho$ dimensions, the only solution is
# $b_i = 0$: the row may not change at all. If they span fewer, the row is *free* to change a little.
#
# **Predict:** in how many rows of our layer could the trained $A$ change anything without filling a zero?

# %%
free_guess = Guess(f"How many of the {len(weight)} rows are free?")

# %% [markdown]
# **Ex 04b · core · difficulty ●●● · importance ●●○ · ~12 min.** Count the free rows. For each row of `weight`, take the
# columns of `A` at which that row is zero, and find how many dimensions they span. Return the number of rows for which
# they span fewer than all columns of `A` do.


# %%
def free_rows(weight, A):
    # BEGIN SOLUTION
    rank = torch.linalg.matrix_rank(A)
    return sum(int(torch.linalg.matrix_rank(A[:, row == 0]) < rank) for row in weight)
    # END SOLUTION


# %% tags=["check"]
checks.ex_04b(free_rows)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The number of dimensions that the columns of a matrix span is its rank: `torch.linalg.matrix_rank`. A loop over the rows is
# fine.
# </details>
# <details><summary>Hint 2</summary>
#
# `A[:, chosen]` takes the columns at which the boolean list `chosen` is true. Counting zeros is not enough, since two
# pruned columns of `A` may point the same way.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
free_rows = yours(free_rows, checks.ex_04b)
free = free_rows(weight, A)
fewest = int((weight == 0).sum(1).min())
free_guess.compare(f"{free} rows: a row has at least {fewest} zeros, and the rank is only {len(A)}")

# %% [markdown]
# So the mask has to be applied by force: entry by entry, we set $s\,BA$ to zero wherever $M$ is 0. That has a price of its own:
# what is left has no thin form any more. We compare the rank before and after.

# %%
from spp_lite.teaching.labs.lora import ranks

before, after = ranks(update, masks[NAME])
print(f"rank of the update: {before}; under the mask: {after}, of at most {min(weight.shape)}")

# %% tags=["we-checked"]
assert free == 0 or not TINY
assert before <= len(A) < after
print("checked: no row is free, and the mask raises the rank")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# No row is free, and the mask turns an update of rank $\rho$ into one of full rank. No two thin matrices can hold the
# masked update, so masked LoRA cannot be cheaper in this way.
# </details>
#
# ## 3 · Repair one: merge, then mask again (LoRA\*)
#
# The simplest repair is to merge and then to set the pruned entries back to zero. The literature calls it LoRA\*. Training
# knew nothing of the mask, so part of what it found is thrown away.
#
# **Predict:** three entries of four are pruned. Which share of the update's squared norm does the mask throw away?

# %%
lost_guess = Guess(
    "Which share of the squared norm is thrown away?",
    options=["almost nothing: training avoids zeros", "about a quarter", "about three quarters"],
)

# %%
from spp_lite.teaching.labs.lora import kept_share

lost = 1 - kept_share(update, masks[NAME])
entries = 1 - float(masks[NAME].float().mean())
lost_guess.compare(f"{lost:.0%} of the squared norm, with {entries:.0%} of the entries")

# %%
for name, linear in block_linears(merged).items():
    linear.weight.data.mul_(masks[name])
found["lora*"] = score(merged)
print("LoRA*: {:.0%} zeros, accuracy {:.1%}".format(*found["lora*"]))

# %% tags=["we-checked"]
assert abs(lost - entries) < 0.2 or not TINY
assert found["lora*"][0] >= found["none"][0]
assert found["lora*"][1] > found["none"][1] or not TINY
print("checked: the mask takes about its share, every zero is back, and some of the gain stays")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The mask takes about its share of the update, because the update does not know where the zeros are. What survives still
# helps: LoRA\* is more accurate than the pruned model. Whether it is worse than merged LoRA is a question for section 5,
# since one run cannot answer it.
# </details>
#
# ## 4 · Repair two: mask while training (masked LoRA)
#
# Now we let the mask into the forward pass, so that training knows of it. With $x$ for the inputs of a layer, and $\odot$ for
# multiplication entry by entry, the layer computes
#
# $$y = x\,(W + M \odot s\,BA)^\top.$$
#
# The merged weight has the same form as that of LoRA\*, because $M \odot W = W$. Only the training that finds $A$ and $B$ differs.
#
# **Predict:** same parameters, same start, same number of steps. Which of the two ends higher in our run?

# %%
higher_guess = Guess("Which ends higher in our run?", options=["LoRA*", "masked LoRA", "they tie"])

# %% [markdown]
# **Ex 04c · core · difficulty ●●○ · importance ●●● · ~10 min.** Write the update of masked LoRA, $M \odot s\,BA$, as a new
# tensor with the shape of `weight`. `A` is $\rho \times \mathrm{in}$, `B` is $\mathrm{out} \times \rho$, `scaling` is $s$, and the
# mask has to be read off `weight`. Your function will run in every layer at every training step, and gradients have to flow
# through it to `A` and `B`: compute with whole matrices, in torch.


# %%
def masked_update(weight, A, B, scaling):
    # BEGIN SOLUTION
    return scaling * (B @ A) * (weight != 0)
    # END SOLUTION


# %% tags=["check"]
checks.ex_04c(masked_update)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First build the update of ordinary LoRA, which has a row for every output and a column for every input. `@` multiplies
# matrices, `*` multiplies entry by entry.
# </details>
# <details><summary>Hint 2</summary>
#
# A boolean mask counts as 1 and 0 in a product. Negative weights survive pruning, too, so do not ask for positive ones.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Now your function trains. `with_update` puts it into every LoRA layer: from here on, each of them asks it for its
# update. This time `merge` has nothing to complain about.

# %%
from spp_lite.teaching import attach
from spp_lite.teaching.labs.lora import with_update

masked_update = yours(masked_update, checks.ex_04c)
torch.set_rng_state(start)
masked_lora = with_update(attach(copy.deepcopy(pruned), "masked-lora"), masked_update)
train(masked_lora, rates["masked-lora"])
masked_layer = masked_lora.get_submodule(f"base_model.model.{NAME}")
thin = [part["default"].weight.detach() for part in (masked_layer.lora_A, masked_layer.lora_B)]
merged, proof = merge(masked_lora)

# %%
found["masked-lora"] = score(merged)
print("masked LoRA: {:.0%} zeros, accuracy {:.1%}".format(*found["masked-lora"]))
percent = {name: f"{accuracy:.1%}" for name, (_, accuracy) in found.items()}
higher_guess.compare(f"LoRA* {percent['lora*']}, masked LoRA {percent['masked-lora']}")
picture = "The same boxes with the mask M between: the zeros of W are the zeros of W′."
show(plot_merge(weight, *thin, 2.0, masked=True), alt=picture)

# %% tags=["we-checked"]
library_row = proof.table.set_index("layer").loc[NAME]
assert library_row["densification"] == refilled(weight, masked_update(weight, *thin, 2.0)) == 0
assert proof.densification == 0 and found["masked-lora"][0] >= found["none"][0]
assert found["masked-lora"][1] > found["none"][1] or not TINY
print("checked: no zero was filled in any layer, and masked LoRA is above the pruned model")

# %% [markdown]
# What does it cost? LoRA never forms $BA$: it computes $(x A^\top) B^\top$, and for the backward pass it keeps little more than
# $x$ and one small matrix with $\rho$ numbers for every token. A masked product has no thin form, so each step builds matrices of the
# size of $W$, in every layer.
#
# PyTorch can tell us what a layer keeps. `kept_for_backward` runs the layer once and notes every tensor that autograd stores
# for later and that is no parameter.
#
# **Predict:** for 16 tokens, how many times as many numbers does masked LoRA keep?

# %%
cost_guess = Guess("How many times as many numbers?", options=["2", "5", "16", "50"])

# %%
from spp_lite.teaching.labs.equation import kept_for_backward
from spp_lite.teaching.labs.lora import plot_saved

tokens = torch.randn(16, weight.shape[1], device=weight.device, requires_grad=True)
shapes = {}
for method in ("lora", "masked-lora"):
    one = attach(copy.deepcopy(pruned), method).get_submodule(f"base_model.model.{NAME}")
    shapes[method] = kept_for_backward(lambda one=one: one(tokens), list(one.parameters()))

# %%
import math

kept = {method: sum(map(math.prod, each)) for method, each in shapes.items()}
cost_guess.compare(f"{kept['masked-lora'] / kept['lora']:.0f} times as many")
show(plot_saved(shapes, weight), alt="Boxes to scale: LoRA keeps a sliver, masked LoRA two W.")
for count in (16, 128, 2048):
    inputs = torch.randn(count, weight.shape[1], device=weight.device, requires_grad=True)
    sizes = []
    for method in shapes:
        one = attach(copy.deepcopy(pruned), method).get_submodule(f"base_model.model.{NAME}")
        saved = kept_for_backward(lambda one=one, x=inputs: one(x), list(one.parameters()))
        sizes.append(sum(map(math.prod, saved)))
    print(f"{count:5} tokens: LoRA {sizes[0]:,}, masked LoRA {sizes[1]:,} numbers")

# %% tags=["we-checked"]
assert kept["lora"] < weight.numel() < kept["masked-lora"] / 2 or not TINY
print("checked: LoRA keeps less than one W for 16 tokens, masked LoRA more than two")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# LoRA keeps its inputs and one thin matrix. Masked LoRA keeps, besides the inputs, two matrices of the size of $W$: the sum
# $W + M \odot s\,BA$, and the mask. The trained parameters are as few as LoRA's; the memory is not. The two matrices do not grow
# with the tokens, the inputs do: in this narrow layer they are soon the larger part. A wide layer has more of both.
# </details>
#
# ## 5 · One run is no result
#
# Your four numbers come from one seed. The logged table has several seeds for every method, and our run repeats its seed 0: the
# same windows, the same start, the same order of the records, all test items. There is one exception: the table trains
# LoRA\* at a rate of its own, while ours came out of the run at LoRA's rate.

# %%
from spp_lite.teaching.labs.lora_runs import plot_recovery
from spp_lite.teaching.labs.results import sweep_table

sweep = sweep_table()  # about the tiny model, whatever SPP_MODEL names
wanda = sweep[sweep["pruner"] == "wanda"]
here = wanda[wanda["sparsity"] == SPARSITY]
logged = here[here["seed"] == SEED].set_index("method")["accuracy"]
for method, (_, accuracy) in found.items():
    there = logged[method]
    off = 100 * (accuracy - there)
    print(f"{method:12} here {accuracy:.1%}, logged run of seed {SEED}: {there:.1%} ({off:+.1f})")

# %%
said = ", ".join(f"{name} {accuracy:.0%}" for name, (_, accuracy) in found.items())
show(plot_recovery(found, here), alt=f"Accuracy of this run, beside the logged seeds: {said}.")

# %% [markdown]
# On another machine the same run comes out differently, because sums are rounded differently there, and training makes small
# differences large. The numbers in brackets above show this rounding; the next answer shows the effect of the seed. A seed changes three things: the masks, the start
# of $A$, and the order of the records; the logged runs of one method differ in nothing else, but for such rounding.
#
# **Predict:** by how many points do the best and the worst logged run of the same method lie apart, at most?

# %%
seed_guess = Guess("By how many points do runs of one method lie apart, at most?")

# %%
logged_runs = here[here["method"].isin(found)].groupby("method")["accuracy"]
spread = 100 * (logged_runs.max() - logged_runs.min())
far, near = spread.idxmax(), spread.idxmin()
seed_guess.compare(f"{spread[far]:.1f} points, for {far}; {spread[near]:.1f}, for {near}")

# %% [markdown]
# Why should LoRA\* need a rate of its own? Below are the accuracies on the validation split, by which the rates were chosen.

# %%
grid = pd.read_csv(embedded("results", "rates.csv"))
grid = grid[grid["sparsity"] == SPARSITY]
grid = grid.pivot_table(index="lr", columns="method", values="accuracy")
grid = grid[["lora", "lora*", "masked-lora"]].dropna()  # rates that all three were tried with
grid.map("{:.1%}".format)

# %% tags=["we-checked"]
best, cliff = grid["lora"].idxmax(), grid["lora*"].loc[grid.index > rates["lora*"]]
assert best < grid["lora*"].idxmax()
assert grid["lora"].loc[best:].iloc[1] > grid["lora"].max() - 0.02
assert cliff.iloc[0] < grid["lora*"].max() - 0.3
print("checked: LoRA's best rate is far from the cliff, that of LoRA* stands before it")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Merged LoRA has a calm best: the rates beside it do nearly as well. LoRA\* gains with every rate, up to the last one before a
# cliff: at the next, training diverges, and both are near to guessing. A reason could be that the mask leaves only a quarter
# of the update, so that it takes a larger one to leave enough; the table does not test that. If LoRA\* had to use LoRA's rate,
# it would look worse than it is: every method gets the rate that suits it.
# </details>
#
# The same seed prunes alike for every method, and it orders the records alike. So we compare methods *by pairs*: we
# take the difference seed by seed, and ask whether the 95 % interval of these differences contains 0. If it does, the table
# leaves the question open. (Whether the intervals of two methods overlap says nothing of the kind; see notebook 08.)
#
# **Predict:** at which sparsities does masked LoRA beat LoRA\*, which has the same zeros?

# %%
pair_guess = Guess("At which sparsities is masked LoRA clearly above LoRA*?")

# %%
from spp_lite.teaching.labs.lora_runs import plot_pairs, tell, verdicts

pair_guess.compare(tell(wanda, "masked-lora", "lora*"))
picture = "Merged LoRA and masked LoRA minus LoRA*, paired by seed, for every sparsity."
show(plot_pairs(wanda), alt=picture)

# %% [markdown]
# Two more questions can be put to the same table. Does it cost accuracy to mask again what was merged? And is merged LoRA,
# which may use every entry, better than masked LoRA?

# %%
print(tell(wanda, "lora", "lora*"))
print(tell(wanda, "lora", "masked-lora"))

# %% tags=["we-checked"]
lead, again_masked = verdicts(wanda, "masked-lora", "lora*"), verdicts(wanda, "lora", "lora*")
assert len(lead["above"]) == 7 and not lead["below"] and not again_masked["below"]
assert {*again_masked["above"]} == {"70%", "75%", "80%", "90%", "2:8"}
dense = verdicts(wanda, "lora", "masked-lora")
assert [*dense["above"]] == ["75%"] and [*dense["below"]] == ["80%"]
print("checked: both lead LoRA* where the text says; merged leads masked at 75 %, trails at 80 %")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# At seven of nine sparsities masked LoRA is clearly above LoRA\*, by most where much was pruned: it pays to train under the mask.
# Nowhere is it clearly below.
#
# Masking again has its price where much was pruned: at 70 % and more, and at 2:8, merged LoRA is clearly above LoRA\*. Where the line says "undecided",
# the table does **not** say that it costs nothing; little was lost there, so there was little to tell apart.
#
# Merged LoRA, which may use every entry, is above masked LoRA at 75 % (by 0.6 ± 0.4 points) and below it at 80 % (by 1.3 ± 1.3);
# elsewhere these runs do not tell. So the freedom to fill zeros buys nothing that one could count on, at 160 steps of
# this model. With nine intervals at 95 %, one that misses by luck would be no surprise.
# </details>
#
# ## 6 · Lab: where do the zeros go?
#
# A corner of your pruned layer, with $A$ and $B$ drawn at random. **Predict:** does a smaller rank fill fewer zeros?
# **Try** the sliders and the menu (mouse, or Tab and the arrow keys). Grey is exactly zero.

# %% tags=["lab"]
from spp_lite.teaching.labs.lora import LoraLab

lab = LoraLab(weight)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(rank=1, scale=2.0, mode="merge")

# %%
lab.static(rank=1, scale=2.0, mode="masked LoRA")

# %% tags=["we-checked"]
corner = {(rank, s): lab.weight + lab.update(rank, s) for rank in (1, 16) for s in (0.0, 0.5, 2.0)}
assert all((merged == 0).any() == (s == 0) for (_, s), merged in corner.items())
after, inside = (lab.render(4, 2.0, mode)[0].axes[2].images[0] for mode in lab.modes[2:])
assert (after.get_array() == inside.get_array()).all()
print("checked: merging spares the zeros only at s = 0; both ways to mask give the same weight")

# %% [markdown]
# **Explain.** (1) At which settings of rank and scaling does "merge" leave the zeros in place, and what could a model learn
# there? (2) "merge, then mask" and "masked LoRA" give the same $W'$ in the lab. Why did they differ in section 4?
#
# <details><summary>Answers</summary>
#
# (1) Only at $s = 0$, for every rank. There $W' = W$ whatever $A$ and $B$ are, so nothing can be learned. At any other
# scaling, even rank 1 fills every zero, since the product of two numbers that are not zero is not zero.
#
# (2) In the lab both use the same $A$ and $B$. In section 4 they were trained differently: LoRA\* looked for the $A$ and $B$ that
# are good without a mask, masked LoRA for those that are good under it.
# </details>
#
# ## 7 · Masks that LoRA can respect
#
# Scattered zeros cannot be spared, but some masks can. Suppose that pruning removed whole columns of $W$ (inputs that nobody
# reads any more) and whole rows (outputs that are always 0). Then each zero lies in a column or in a row that is zero from
# end to end, and it is enough to change $A$ and $B$ a little.
#
# **Ex 04d · stretch · difficulty ●●○ · importance ●○○ · ~12 min.** Return a new `A` and a new `B` whose product fills no zero of such
# a weight. Change as little as you can: whatever touches a surviving weight stays as it is.


# %%
def spare(weight, A, B):
    # BEGIN SOLUTION
    kept = weight != 0
    return A * kept.any(0), B * kept.any(1)[:, None]
    # END SOLUTION


# %% tags=["check"]
checks.ex_04d(spare)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Entry $(i, j)$ of the product is row $i$ of $B$ times column $j$ of $A$. For a column of zeros, which of the two would you
# have to silence, so that no surviving weight loses anything? And for a row of zeros?
# </details>
# <details><summary>Hint 2</summary>
#
# `any` along one dimension tells for each column, or for each row, whether anything survived there. Mind the shape by which
# you multiply `B`.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
spare = yours(spare, checks.ex_04d)
structured = torch.randn_like(weight)  # every other column and the first ten rows are pruned
structured[:, ::2] = structured[:10] = 0.0
A_new, B_new = spare(structured, A, B)
print(f"LoRA as trained fills {refilled(structured, 2.0 * (B @ A)):.0%} of the zeros,")
print(f"the changed A and B fill {refilled(structured, 2.0 * (B_new @ A_new)):.0%}")

# %% [markdown]
# This is why LoRA and *structured* pruning get along, and why this tutorial needs another method for the patterns of
# notebook 01.
#
# ## 8 · On a real LLaMA
#
# SmolLM2-135M is a pre-trained LLaMA of 30 blocks. The table `data/results/smollm2/60-steps/sweep.csv` says what pruning to 2:4 takes
# from it, and what each method brings back in 60 steps, at the best of eight learning rates of its own.

# %%
from spp_lite.teaching.labs.lora_runs import plot_smollm2, smollm2

real = smollm2()
show(plot_smollm2(real), alt="SmolLM2-135M at 2:4: perplexity dense, pruned, recovered.")

# %%
from spp_lite.teaching import paired

pairs = paired(real, "alpaca_loss", against="spp")
pairs = pairs[pairs["n"] > 1].set_index("method")[["n", "mean", "half", "verdict"]]
pairs.rename(columns={"n": "seeds", "verdict": "SPP"}).round(3)

# %% [markdown]
# Each row is a method's loss of held-out answers minus that of SPP, in nats, paired by seed, with half of its 95 % interval, and
# what SPP does by it. The command, with your own text files (`docs/results-smollm2.md` says which were used here):
#
# ```bash
# spp-lite fetch smollm2
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 40960 --tasks text:wiki.txt \
#     --steps 60 --batch-size 8 --cutoff 256 --bf16 --rates data/results/smollm2/60-steps/rates.csv --seeds 3 \
#     --methods none spp 'lora*' masked-lora masked-full --pruners wanda --sparsity 2:4 --out results/smollm2
# ```
#
# What masked LoRA keeps can be counted without running it. LLaMA-7B has 32 blocks with seven linears each: four of
# 4096 × 4096 and three of 4096 × 11008. Masked LoRA keeps a sum and a mask for every one of them.

# %%
entries = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
gib = entries * (2 + 1) / 2**30  # the sum in bfloat16: two bytes; the mask: one
print(f"{entries / 1e9:.1f} billion weights: {gib:.0f} GiB are kept between forward and backward,")
print(f"beside {entries * 2 / 2**30:.0f} GiB for the weights themselves")

# %% [markdown]
# One can recompute these matrices in the backward pass instead of keeping them, and pay with time. The next notebook does so for
# SPP, whose gradients are short enough to be written by hand.
#
# ## Recap
#
# 1. Merging LoRA fills the zeros: $BA$ knows nothing of the mask.
# 2. A low-rank update cannot spare scattered zeros: each row has more equations than unknowns.
# 3. LoRA\* masks afterwards; where much is pruned, masked LoRA, which trains under the mask, is clearly ahead of it.
# 4. Masked LoRA keeps every zero, but it builds matrices of the size of $W$ in each layer at each step.
# 5. One run is one dot: compare methods by paired differences, and say what stays undecided.
#
# ## Quiz
#
# <details><summary>1. Is a LoRA model sparse if you never merge it?</summary>
#
# Its W is. But two dense products run beside it in every layer, so the model as a whole computes more than the pruned one.
# </details>
# <details><summary>2. Why does rank 1 fill as many zeros as rank 16?</summary>
#
# One entry of BA is a dot product of two trained vectors; with rank 1 it is a product of two numbers. Both are practically never
# exactly zero.
# </details>
# <details><summary>3. LoRA* and masked LoRA have the same formula. Why not the same accuracy?</summary>
#
# LoRA* finds A and B for the unmasked sum; the mask then removes most of it. Masked LoRA finds those that work under the mask.
# </details>
# <details><summary>4. What would an adapter need to keep zeros without a mask?</summary>
#
# It must change weights by multiplication: zero times anything is zero. Multiply with thin factors, and you have SPP (Eq. 5).
# </details>
#
# **Next:** [05 · Insert the SPP factors](05_insert_the_spp_factors.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5, whose product keeps what LoRA's sum loses.
