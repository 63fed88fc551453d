# %% [markdown]
# # 04 · Why not just LoRA?
# {{badge}}
#
# LoRA is the usual way to fine-tune cheaply. On a pruned model it has a flaw: merge it, and every zero is gone. Here you
# watch that happen, see why it must, and try the two obvious repairs.
#
# > **Goals** – measure how many zeros a merge fills (Ex 04a); write LoRA's update under the mask (Ex 04b); say what
# > masking afterwards costs, and what masking during training costs.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 03: a pruned model, its masks, its accuracy.
# > **Tiny** – the model, its world and the training: 80 steps. **Real** – PEFT's own LoRA, the pruning, the evaluation, and
# > the runs over several seeds in `data/results/sweep.csv`.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · LoRA on a pruned model
#
# First the pruned model. We keep its *masks*: $M$ is 1 where a weight survived and 0 where it was pruned.

# %%
from spp_lite import evaluate, load, prune
from spp_lite.teaching import block_linears, calibration_batches, default_texts, is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
SPARSITY, SEED = "75%", 0
pruned, tokenizer = load()
batches = calibration_batches(default_texts(), tokenizer, samples=128, length=128)
prune(pruned, batches, SPARSITY, method="wanda", progress=False)
masks = {name: linear.weight != 0 for name, linear in block_linears(pruned).items()}

# %%
from spp_lite.teaching import average_accuracy, default_tasks, zeros

TASKS, ITEMS = default_tasks(), 110  # per task, half of the test split, to keep this notebook quick


def score(model):
    """Zeros left in the blocks' linear weights, accuracy."""
    return zeros(model), average_accuracy(evaluate(model, tokenizer, TASKS, limit=ITEMS, progress=False))


found = {"none": score(pruned)}
print("zeros {:.0%}, accuracy {:.1%}".format(*found["none"]))

# %% [markdown]
# LoRA leaves a weight matrix $W$ (*out × in*) frozen and trains two thin matrices, $A$ (*r × in*) and $B$ (*out × r*).
# The *rank* $r$ is small, and the *strength* $s$ is a constant:
#
# $$W' = W + s\,BA.$$
#
# $B$ starts at zero, so at first nothing changes. The learning rate is the one that won on the validation split.

# %%
import copy

import pandas as pd
from peft import LoraConfig, get_peft_model
from transformers import set_seed

from spp_lite.teaching import choose_rates, embedded

rates = choose_rates(pd.read_csv(embedded("results", "rates.csv")))
set_seed(SEED)
config = LoraConfig(r=8, lora_alpha=16, target_modules=sorted(masks))  # s = lora_alpha / r = 2
lora = get_peft_model(copy.deepcopy(pruned), config)
lora.print_trainable_parameters()

# %%
from spp_lite import finetune, load_alpaca
from spp_lite.teaching import tokenize_records

records = tokenize_records(load_alpaca(), tokenizer)


def train(model, rate):
    settings = {"max_steps": 80, "batch_size": 16, "seed": SEED, "progress": False}
    output = finetune(model, records, tokenizer, learning_rate=rate, **settings)
    print(f"{output.global_step} steps at rate {rate:g}, mean training loss {output.training_loss:.2f}")


train(lora, rates["lora"])

# %% [markdown]
# So far the zeros are safe: $W$ is frozen, and $A$ and $B$ stand beside it. But every layer now computes two more products, in
# every forward pass, for ever. To be rid of them one *merges*: adds $s\,BA$ to $W$.
#
# **Predict:** how many of the zeros of $W$ does the merge fill: a few, about $r$ in a hundred, or all?
#
# This cell fails on purpose: our `merge` refuses to return a model whose zeros were filled. Read which layer it names,
# which share, and which way out.

# %% tags=["raises-exception"]
from spp_lite import merge

merge(lora)

# %% [markdown]
# The model was left as it was, unmerged. We keep one layer for later, then merge with PEFT's own method, which asks no
# questions.

# %%
NAME = next(iter(masks))  # the first linear layer
weight = block_linears(pruned)[NAME].weight.detach()
layer = lora.get_submodule(f"base_model.model.{NAME}")
A, B = (part["default"].weight.detach() for part in (layer.lora_A, layer.lora_B))
update = layer.get_delta_weight("default").detach()  # s · BA

merged = lora.merge_and_unload()
found["lora"] = score(merged)
print("zeros {:.0%}, accuracy {:.1%}".format(*found["lora"]))
assert found["lora"][0] < 0.01  # the sparse model is a dense one

# %% [markdown]
# **What you should see:** some accuracy came back, and no zeros are left. PEFT warned you of nothing: the model works, it is
# only no longer sparse.
#
# ## 2 · Could a low-rank update spare the zeros?
#
# Write $b_i$ for row $i$ of $B$ and $a_j$ for column $j$ of $A$, both of length $r$. The update of weight $(i, j)$ is
# $s\,b_i \cdot a_j$. To spare every zero of row $i$, $b_i$ must be orthogonal to $a_j$ for *each* pruned column $j$.
# That is one equation per zero, for $r$ unknowns. When $r$ of those $a_j$ are linearly independent, only $b_i = 0$ is left: the row
# may not change at all.
#
# **Predict:** in how many rows of this layer could the trained $A$ change anything without filling a zero?

# %%
import torch

rank = len(A)
spanned = torch.stack([torch.linalg.matrix_rank(A[:, pruned_columns]) for pruned_columns in weight == 0])
free = int((spanned < rank).sum())
print(f"{int((weight[0] == 0).sum())} zeros in a row, rank {rank}: {free} of {len(weight)} rows could change")
assert free == 0 or not TINY

# %% [markdown]
# So the mask must be applied by force: $M \odot s\,BA$, where $\odot$ multiplies entry by entry. That has its own price.
# A masked product is no longer of low rank.

# %%
masked = update * masks[NAME]
before, after = (int(torch.linalg.matrix_rank(matrix)) for matrix in (update, masked))
print(f"rank of the update {before}, under the mask {after}, of at most {min(weight.shape)}")
assert before <= rank < after

# %% [markdown]
# **What you should see:** no row is free, and the mask turns rank $r$ into nearly full rank. No two thin matrices hold the
# masked update.
#
# ## 3 · Repair one: merge, then mask again (LoRA\*)
#
# The simplest repair: merge, then set the pruned entries back to zero. The literature calls it LoRA\*.
#
# **Predict:** three entries of four are pruned. How much of the update's squared norm does the mask throw away?

# %%
from spp_lite.teaching.labs.lora import kept_share

lost = 1 - kept_share(update, masks[NAME])
print(f"{lost:.0%} of the squared norm thrown away, {1 - masks[NAME].float().mean():.0%} of the entries")
assert abs(lost - 0.75) < 0.15 or not TINY

# %%
for name, linear in block_linears(merged).items():
    linear.weight.data.mul_(masks[name])
found["lora*"] = score(merged)
print("zeros {:.0%}, accuracy {:.1%}".format(*found["lora*"]))
assert found["lora*"][0] >= found["none"][0] and (found["lora*"][1] > found["none"][1] or not TINY)

# %% [markdown]
# **What you should see:** the mask takes about its share, three quarters: the update does not know where the zeros are.
# What survives still helps. Compare with dense LoRA above, but judge neither by one run: section 5 has five.
#
# ## 4 · Repair two: mask while training (masked LoRA)
#
# Now let the mask into the forward pass, so that training knows it:
#
# $$y = x\,(W + M \odot s\,BA)^\top.$$
#
# The merged weight has the same form as LoRA\*'s, because $M \odot W = W$. Only the training that finds $A$ and $B$ differs.
#
# **Predict:** same parameters, same steps, same rate. Which ends higher?

# %%
from spp_lite.teaching import attach

set_seed(SEED)
masked_lora = attach(copy.deepcopy(pruned), "masked-lora")
train(masked_lora, rates["masked-lora"])
masked_layer = masked_lora.get_submodule(f"base_model.model.{NAME}")
library_update = masked_layer.get_delta_weight("default").detach()
merged, proof = merge(masked_lora)  # no error this time
found["masked-lora"] = score(merged)
print("zeros {:.0%}, accuracy {:.1%}".format(*found["masked-lora"]))
assert proof.densification == 0 and (found["masked-lora"][1] > found["none"][1] or not TINY)

# %% [markdown]
# What does it cost? LoRA never forms $BA$: it computes $(x A^\top) B^\top$ and keeps one small *tokens × r* matrix for the backward
# pass. A masked product has no thin form, so each step builds an *out × in* matrix in every layer. Count the numbers that
# the backward pass of one layer keeps beside its parameters:


# %%
def kept_for_backward(method):
    layer = attach(copy.deepcopy(pruned), method).get_submodule(f"base_model.model.{NAME}")
    own = {parameter.data_ptr() for parameter in layer.parameters()}
    inputs, sizes = torch.randn(16, weight.shape[1], requires_grad=True), {}

    def note(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(inputs)
    return sum(size for place, size in sizes.items() if place not in own)


plain, under_mask = kept_for_backward("lora"), kept_for_backward("masked-lora")
print(f"16 tokens: LoRA keeps {plain:,} numbers, masked LoRA {under_mask:,}; W has {weight.numel():,}")
assert plain < weight.numel() and under_mask > 2 * weight.numel()

# %% [markdown]
# **What you should see:** LoRA keeps little more than its inputs; masked LoRA keeps two matrices of the size of $W$, the sum
# and the mask. In LLaMA-7B, $W$ has millions of entries, and there are 224 such layers. The trained parameters are as few
# as LoRA's; the memory is not.
#
# ## 5 · One run is no result
#
# Your four numbers hang on one seed and half of the test items. The logged sweep has five seeds, and all items.

# %%
from spp_lite.teaching import LOOKS, show
from spp_lite.teaching.labs.lora import gains, plot_gains, plot_recovery
from spp_lite.teaching.labs.results import sweep_table

sweep = sweep_table()  # about the tiny model, whatever SPP_MODEL names
wanda = sweep[sweep["pruner"] == "wanda"]
runs = pd.DataFrame([(name, acc, left) for name, (left, acc) in found.items()], columns=["method", "accuracy", "zeros"])
alt = "; ".join(f"{LOOKS[row.method][0]} {row.accuracy:.0%}, {row.zeros:.0%} zeros" for row in runs.itertuples())
show(plot_recovery(runs, wanda[wanda["sparsity"] == SPARSITY]), alt=f"Accuracy and zeros left in this run: {alt}.")

# %% [markdown]
# The same seed prunes and orders records alike for every method. So we may take differences seed by seed, here to LoRA\*.
#
# **Predict:** at which sparsities does masked LoRA beat LoRA\*?

# %%
from spp_lite.teaching import summarise

paired = gains(wanda, against="lora*")
show(plot_gains(paired), alt="LoRA and masked LoRA minus LoRA*, by sparsity: masked LoRA's lead opens at 70 % zeros.")

# %%
table = summarise(paired, "gain").set_index(["method", "sparsity"])
lead = table.loc["masked-lora"]
clear = lead.index[lead["mean"] > lead["half"]]
print("masked LoRA clearly above LoRA* at", ", ".join(clear))
assert {"70%", "75%", "80%", "90%", "2:8"} <= set(clear)
assert not set(clear) & {"50%", "60%", "2:4", "4:8"}
assert table.loc[("lora", "50%"), "mean"] < -table.loc[("lora", "50%"), "half"]
assert not (table.loc["lora", "mean"] > table.loc["masked-lora", "mean"]).any()

# %% [markdown]
# **What you should see:** at half zeros, re-masking costs nothing: dense LoRA even lies below LoRA\*, and pruning had left
# little to repair. From 70 % on, masked LoRA is clearly ahead.
#
# A surprise, too: merged *dense* LoRA is on average no better than masked LoRA, though it may use every entry. Do not
# conclude that masks help. Both use the best of a few rates; the next larger rate breaks LoRA more, and at its best rate its
# runs scatter more. A finer tuned LoRA may well end higher.

# %%
grid = pd.read_csv(embedded("results", "rates.csv")).pivot_table(index="lr", columns="method", values="accuracy")
print(grid[["lora", "masked-lora"]].map("{:.1%}".format))
spread = wanda[wanda["sparsity"] == "75%"].groupby("method")["accuracy"].std()
assert grid.loc[0.03, "lora"] < grid.loc[0.03, "masked-lora"] and spread["lora"] > 2 * spread["masked-lora"]

# %% [markdown]
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

# %% [markdown]
# **Explain.** (1) At which settings of rank and strength does "merge" leave the zeros in place, and what does the model
# learn there? (2) "merge, then mask" and "masked LoRA" give the same $W'$ here. Why did they differ in section 4?
#
# ## 7 · Your turn
#
# **Ex 04a · core · difficulty ●●○ · ~6 min.** How many zeros does an update fill? Return the share: of all entries where `weight`
# is zero, how many are not zero in `weight + update`? The library calls it *densification*.


# %%
def refilled(weight, update):
    # BEGIN SOLUTION
    zero = weight == 0
    return float(((weight + update)[zero] != 0).float().mean())
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks, measure

checks.ex_04a(refilled)
assert refilled(weight, library_update) == proof.table.set_index("layer").loc[NAME, "densification"]  # the library's
assert abs(refilled(weight, update) - (1 - measure(weight + update) / measure(weight))) < 1e-4

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `weight == 0` is a mask of booleans; a tensor indexed with it gives the entries there, as a flat tensor.
# </details>
# <details><summary>Hint 2</summary>
#
# Divide by the number of zeros of `weight`, not by the number of entries.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 04b · core · difficulty ●●○ · ~8 min.** Masked LoRA's update, $M \odot s\,BA$: a new tensor with the shape of
# `weight`. `A` is *r × in*, `B` is *out × r*, `scaling` is $s$.


# %%
def masked_update(weight, A, B, scaling):
    # BEGIN SOLUTION
    return scaling * (B @ A) * (weight != 0)
    # END SOLUTION


# %% tags=["check"]
checks.ex_04b(masked_update)
parts = [part["default"].weight.detach() for part in (masked_layer.lora_A, masked_layer.lora_B)]
mine = masked_update(weight, *parts, masked_layer.scaling["default"])
assert torch.allclose(mine, library_update, atol=1e-6)  # the library's layer computes the same

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `B @ A` has the shape *out × in*. `*` multiplies entry by entry.
# </details>
# <details><summary>Hint 2</summary>
#
# The mask is where `weight` is not zero; negative weights survive, too.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●● · ~15 min.** Some masks LoRA *can* respect without force. Suppose pruning removed whole columns of
# $W$. Write an $A$ for which every $B$ spares all zeros, and check it with `refilled`. Which whole structures would you
# have to remove so that a condition on $B$ alone is enough?
#
# ## Recap
#
# 1. Merging LoRA fills the zeros: $BA$ knows nothing of the mask.
# 2. A low-rank update cannot spare scattered zeros: each row has more equations than unknowns.
# 3. LoRA\* masks afterwards: at 70 % zeros and more that costs accuracy, at half zeros it does not.
# 4. Masked LoRA trains under the mask and keeps every zero, but builds an *out × in* matrix in each layer at each step.
# 5. One run wobbles; paired differences over seeds show what is real.
#
# ## Quiz
#
# <details><summary>1. Is a LoRA model sparse if you never merge it?</summary>
#
# Its W is. But two dense products run beside it in every layer, so the model as a whole computes more than the pruned one.
# </details>
# <details><summary>2. Why does rank 1 fill as many zeros as rank 16?</summary>
#
# One entry of BA is a dot product of two trained vectors; with r = 1 it is a product of two numbers. Both are practically never
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
