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
# %matplotlib inline
import glob
import importlib.util

if importlib.util.find_spec("spp_lite") is None:  # Colab: upload the wheel that `make wheel` builds
    wheel = (glob.glob("spp_lite-*.whl") or ["spp-lite"])[0]
    # %pip install -q {wheel}

# %% [markdown]
# ## 1 · Meet the model
#
# The embedded model is an ordinary `LlamaForCausalLM`: blocks of attention and MLP, seven linear layers each. It knows a
# made-up world: who lives where, what things are for, which thing is bigger.

# %%
from spp_lite import load

model, tokenizer = load()  # "tiny", or what SPP_MODEL names
print(f"{model.num_parameters():,} parameters in {model.config.num_hidden_layers} blocks")
print(model.model.layers[0])

# %% [markdown]
# Seven task families ask about that world, each built like one of the paper's seven zero-shot tasks. They are scored by
# **lm-eval**, the harness that the field uses: the answer to which the model gives the highest log-likelihood counts.
#
# **Predict:** blind guessing would score about 35 %. What does a model score that was trained on this world?

# %%
from spp_lite import evaluate
from spp_lite.evaluation import average_accuracy, chance_accuracy

ITEMS = 60  # per task, to keep this notebook quick
dense_table = evaluate(model, tokenizer, "tiny", limit=ITEMS, progress=False)
dense_table[dense_table["metric"] == "acc"]

# %%
dense, chance = average_accuracy(dense_table), chance_accuracy()
print(f"dense model {dense:.0%}, chance {chance:.0%}")
assert dense > chance + 0.4  # it knows its world

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
from spp_lite.data import calibration_batches, embedded, read_texts

SPARSITY = "75%"
texts = read_texts(embedded("text", "calibration.jsonl"))
batches = calibration_batches(texts, tokenizer, samples=64, length=128)
report = prune(model, batches, SPARSITY, method="wanda", progress=False)
report.table.head(7)

# %%
pruned = average_accuracy(evaluate(model, tokenizer, "tiny", limit=ITEMS, progress=False))
print(f"pruned to {SPARSITY}: {pruned:.0%}")
assert pruned < dense  # pruning hurts

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
output = finetune(adapted, records, tokenizer, max_steps=100, learning_rate=1.5e-2, progress=False)
print(f"{output.global_step} steps, mean training loss {output.training_loss:.2f}")

# %% [markdown]
# Merging multiplies the factors into the weights. `merge` proves for every layer that no zero was filled; if one were,
# it would refuse.

# %%
from spp_lite import merge

merged, proof = merge(adapted)
recovered = average_accuracy(evaluate(merged, tokenizer, "tiny", limit=ITEMS, progress=False))
print(f"dense {dense:.0%} → pruned {pruned:.0%} → recovered {recovered:.0%}")
assert recovered > pruned and (proof.table["densification"] == 0).all()

# %% [markdown]
# **What you should see:** most of what pruning took is back, and `densification` (the share of zeros that were filled)
# is 0 in every layer.

# %%
import pandas as pd

from spp_lite.plotting import plot_accuracy_vs_sparsity
from spp_lite.widgets import show

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
# The numbers are logged runs of `spp-lite demo` over the full test split.

# %% tags=["lab"]
from spp_lite.labs.start import RecoveryLab

lab = RecoveryLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(sparsity="75%")
