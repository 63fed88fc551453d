# %% [markdown]
# # 00 · Start here
# {{badge}}
#
# Pruning makes a language model small but dull. This suite shows how to bring it back **without filling the zeros
# again**: SPP multiplies the weights that survived by two thin learned factors, so every zero stays zero.
#
# > **Goals** – check that your set-up works (Ex 00a); know what is tiny here and what is real; make one figure of
# > dense → pruned → recovered (Ex 00b).
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – a little PyTorch; no GPU, no account, no network.
# > **Tiny** – the model (a 1–3 M-parameter LLaMA trained on a small made-up world) and the tasks. **Real** – the
# > architecture, the pruning criteria, the adapter, the training loop and the evaluation harness: the same calls take a
# > LLaMA folder instead (`SPP_MODEL`, notebook 09).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Meet the model
#
# The embedded model is an ordinary `LlamaForCausalLM`: blocks of attention and MLP, seven linear layers each. It knows a
# made-up world: who lives where, what things are for, which thing is bigger.

# %%
from spp_lite import load
from spp_lite.teaching import is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
print(f"{model.num_parameters():,} parameters in {model.config.num_hidden_layers} blocks")
print(model.model.layers[0])

# %% [markdown]
# Seven task families ask about that world, each built like one of the paper's seven zero-shot tasks. They are scored by
# **lm-eval**, the harness that the field uses: the answer to which the model gives the highest log-likelihood counts.
#
# **Predict:** blind guessing would score about 35 %. What does a model score that was trained on this world?

# %%
from spp_lite import evaluate
from spp_lite.teaching import average_accuracy, chance_accuracy, default_tasks

TASKS = default_tasks()  # our seven for the tiny model, else SPP_TASKS or the paper's seven
ITEMS = 60  # per task, to keep this notebook quick
dense_table = evaluate(model, tokenizer, TASKS, limit=ITEMS, progress=False)
dense_table[dense_table["metric"] == "acc"]

# %%
dense, chance = average_accuracy(dense_table), chance_accuracy()
print(f"dense model {dense:.0%}, chance {chance:.0%}")
assert dense > chance + 0.4 or not TINY  # it knows its world

# %% [markdown]
# **What you should see:** nearly all answers right, in every family.
#
# ## 2 · Prune it
#
# *Pruning* sets the least important weights to zero. Wanda (Sun et al., 2023) scores a weight by its size times the size
# of the inputs it meets, |W| · ‖x‖, so it needs a few texts to look at: the *calibration* batches.
#
# **Predict:** three weights of four become zero. How much of the accuracy is left?

# %%
from spp_lite import prune
from spp_lite.teaching import calibration_batches, default_texts

SPARSITY = "75%"
batches = calibration_batches(default_texts(), tokenizer, samples=64, length=128)
report = prune(model, batches, SPARSITY, method="wanda", progress=False)
report.table.head(7)

# %%
pruned = average_accuracy(evaluate(model, tokenizer, TASKS, limit=ITEMS, progress=False))
print(f"pruned to {SPARSITY}: {pruned:.0%}")
assert pruned < dense or not TINY  # pruning hurts

# %% [markdown]
# ## 3 · Recover it, zeros in place
#
# SPP (Lu et al., 2024, Eq. 5) trains two thin factors per weight matrix, $\alpha$ and $\beta$, and uses
#
# $$W' = W \odot \bigl(1 + s\,R(\alpha)\,\beta\bigr).$$
#
# Where $W$ is zero, $W'$ is zero, whatever $\alpha$ and $\beta$ are. The adapter is an ordinary PEFT adapter, the
# training loop is `transformers.Trainer`, the data are instruction records in the Alpaca schema.

# %%
from peft import get_peft_model

from spp_lite import SppConfig, finetune, load_alpaca

records = load_alpaca()
print(records[0])
adapted = get_peft_model(model, SppConfig(r=16))
adapted.print_trainable_parameters()

# %%
output = finetune(adapted, records, tokenizer, max_steps=80, learning_rate=5e-2, progress=False)
print(f"{output.global_step} steps, mean training loss {output.training_loss:.2f}")

# %% [markdown]
# Merging multiplies the factors into the weights. `merge` proves for every layer that no zero was filled; if one were,
# it would refuse.

# %%
from spp_lite import merge

merged, proof = merge(adapted)
recovered = average_accuracy(evaluate(merged, tokenizer, TASKS, limit=ITEMS, progress=False))
print(f"dense {dense:.0%} → pruned {pruned:.0%} → recovered {recovered:.0%}")
assert (proof.table["densification"] == 0).all()  # no zero was filled
assert recovered > pruned or not TINY

# %% [markdown]
# **What you should see:** most of what pruning took is back, and `densification` (the share of zeros that were filled)
# is 0 in every layer.

# %%
import pandas as pd

from spp_lite.teaching import plot_accuracy_vs_sparsity, show

rows = [("dense", "0%", dense), ("none", SPARSITY, pruned), ("spp", SPARSITY, recovered)]
table = pd.DataFrame(rows, columns=["method", "sparsity", "accuracy"])
show(
    plot_accuracy_vs_sparsity(table, chance=chance),
    alt=f"Accuracy: dense {dense:.0%}, pruned {pruned:.0%}, SPP {recovered:.0%}.",
)

# %% [markdown]
# ## 4 · Lab: how far can you prune?
#
# **Predict:** at which sparsity does the pruned model fall below 70 %? And the recovered one? **Try** the slider (mouse,
# or Tab and the arrow keys). **Explain:** which costs more at the same number of zeros, a free pattern or N:M?
# The numbers are means over the seeds of `spp-lite sweep`, on the full test split (16 records a step, half of section 3's).

# %% tags=["lab"]
from spp_lite.teaching.labs.start import RecoveryLab

lab = RecoveryLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets, for readers on a code host and on paper:

# %%
lab.static(sparsity="75%")

# %% [markdown]
# **Explain.** (1) Which costs more accuracy at 75 % zeros, a free choice of the zeros or 2:8? (2) Up to which sparsity
# does SPP bring back more than half of what was lost?
#
# ## 5 · Your turn
#
# **Ex 00a · core · difficulty ●○○ · ~4 min.** How many zeros does a model have? Count over the linear weights of its
# decoder blocks only; `block_linears(model)` returns them by name.

# %%
from spp_lite.teaching import block_linears


def share_of_zeros(model):
    # BEGIN SOLUTION
    weights = [linear.weight for linear in block_linears(model).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_00a(share_of_zeros)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `(weight == 0).sum()` counts the zeros of one weight, `weight.numel()` its entries.
# </details>
# <details><summary>Hint 2</summary>
#
# Layers differ in size: add up all zeros and all entries before you divide.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 00b · core · difficulty ●○○ · ~4 min.** The field reports the *gap recovered*: 0 when retraining gave nothing back,
# 1 when all that pruning took is back; negative when it made things worse.


# %%
def gap_recovered(dense, pruned, recovered):
    # BEGIN SOLUTION
    return (recovered - pruned) / (dense - pruned)
    # END SOLUTION


# %% tags=["check"]
checks.ex_00b(gap_recovered)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What did pruning take? What of it came back?
# </details>
# <details><summary>Hint 2</summary>
#
# Divide the gain over the pruned model by the loss from the dense model.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●○ · ~10 min.** Set `SPARSITY = "2:4"` in section 2 and run the notebook again. Which family of
# tasks suffers most?
#
# ## 6 · Read an error message
#
# A pattern must fit the weight. This cell fails on purpose: which layer, which value, which way out does it name?

# %% tags=["raises-exception"]
prune(load("tiny")[0], batches, "3:5", progress=False)

# %% [markdown]
# ## Recap
#
# 1. Pruning sets weights to zero; accuracy falls, first slowly, then fast.
# 2. Wanda scores a weight by |W| · ‖x‖: it needs a few texts, no training.
# 3. SPP trains two thin factors per matrix and multiplies: zeros stay zero by construction.
# 4. Merging leaves an ordinary model; `merge` proves that no zero was filled.
# 5. Everything here is tiny; the calls are the ones you would use on LLaMA.
#
# ## Quiz
#
# <details><summary>1. Why does a zero of W stay zero whatever α and β are?</summary>
#
# Because W′ is W times a factor, entry by entry, and zero times any finite number is zero.
# </details>
# <details><summary>2. Why can fine-tuning restore facts that it never showed?</summary>
#
# The facts are still in the surviving weights; pruning disturbed the paths to them, and training on other facts repairs
# paths that all facts share.
# </details>
# <details><summary>3. What does blind guessing score, and why not 0 %?</summary>
#
# About 35 %: four families have four choices (25 %), three have two (50 %).
# </details>
# <details><summary>4. Does a model with 75 % zeros run four times faster?</summary>
#
# Not by itself: zeros are multiplied like any number until a sparse format skips them.
# </details>
#
# **Next:** [01 · Prune one matrix](01_prune_one_matrix.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
