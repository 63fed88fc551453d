# %% [markdown]
# # 03 · Prune the whole model
# {{badge}}
#
# You can prune one matrix and one layer. A model has dozens of them, they feed each other, and they are not equally
# patient. Here you prune all of them, find out which ones hurt, and spend the same number of zeros where they hurt least.
#
# > **Goals** – calibrate, prune and evaluate a whole model; work out the ratio that is left to the other layers
# > (Ex 03a); rank kinds of layers by sensitivity (Ex 03b); spend a sparsity budget better than uniformly.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 01 and 02: masks, and the scores of magnitude pruning, Wanda and SparseGPT.
# > **Tiny** – the model and its tasks; which kind of layer is sensitive is a finding about *this* model. **Real** – the
# > walk through the blocks, the scan, the budget: the same calls take a LLaMA folder (`SPP_MODEL`).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Two yardsticks
#
# *Perplexity* is the usual first score: $\exp$ of the mean of $-\log q(\text{next token})$ over the tokens of a text,
# where $q$ is the probability that the model gave. Lower is better; 1 is a sure prophet.
#
# **Predict:** our texts are passages of about a hundred tokens, and the model was trained on them one by one. We join 40
# of them into one long text. Does perplexity rise or fall?

# %%
import math

from spp_lite import load, perplexity
from spp_lite.teaching import default_texts, is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
dense_weights = {name: value.clone() for name, value in model.state_dict().items()}
texts = default_texts("validation")[:40]


# %%
def text_perplexity(model):  # every text by itself
    return math.exp(sum(math.log(perplexity(model, tokenizer, text)) for text in texts) / len(texts))


joined, alone = perplexity(model, tokenizer, texts), text_perplexity(model)
print(f"perplexity of the joined texts {joined:.1f}, of each by itself {alone:.1f}")
assert joined > 3 * alone or not TINY

# %% [markdown]
# **What you should see:** joined, perplexity is many times higher: the tiny model has never read past the end of a
# passage. A yardstick must fit the model. (LLaMA was trained on long texts and gains from them.)
#
# The second yardstick asks how much pruning *changed*. Let $p$ be the dense model's probabilities for the next token,
# and $q$ the pruned model's. Their Kullback–Leibler divergence, averaged over $T$ tokens, is our **damage**:
#
# $$D = \frac1T\sum_{t=1}^{T}\sum_v p_t(v)\,\log\frac{p_t(v)}{q_t(v)},$$
#
# with $v$ over the vocabulary. It is 0 when nothing changed and never negative; its unit is the nat per token.

# %%
import torch
import torch.nn.functional as F

inputs = tokenizer(texts[:16], truncation=True, max_length=64, padding=True, return_tensors="pt").to(model.device)
real = inputs["attention_mask"].bool()  # padding does not count


@torch.no_grad()
def log_probabilities(model):
    return model(**inputs).logits[real].float().log_softmax(-1)


# %%
log_p = log_probabilities(model)


def damage(model):
    return F.kl_div(log_probabilities(model), log_p, log_target=True, reduction="batchmean").item()


assert abs(damage(model)) < 1e-6  # nothing is pruned yet

# %% [markdown]
# ## 2 · Block by block
#
# `prune` *walks* through the decoder blocks in order. At each it does three things:
#
# 1. run the block on the calibration texts and note the inputs of its seven linears;
# 2. score the weights, zero the lowest;
# 3. run the **pruned** block: its outputs are the inputs of the next.
#
# So every block is pruned for the inputs that it will really get, and only one block's statistics are in memory.

# %%
from spp_lite import prune
from spp_lite.teaching import calibration_batches, plot_pruning_report, show

batches = calibration_batches(default_texts(), tokenizer, samples=32, length=128)
report = prune(model, batches, "50%", method="wanda", progress=False)
show(
    plot_pruning_report(report.table),
    alt="Relative output error and share of zeros of every linear, in the order of the model.",
)

# %% [markdown]
# The upper panel is each linear's own error: $\lVert \Delta W x\rVert^2 / \lVert W x\rVert^2$, where $x$ are its inputs
# and $\Delta W$ is what pruning changed.
#
# **Predict:** these errors are a few percent. How far is the *last block's output* from the dense model's?
#
# The library's `walk` yields the blocks one by one. We walk through both models side by side:

# %%
from spp_lite.teaching import walk

dense, _ = load()
drift = []
with torch.no_grad():
    for before, after in zip(walk(dense, batches[:1]), walk(model, batches[:1]), strict=True):
        right, found = before.output(0), after.output(0)
        drift.append(((found - right).square().sum() / right.square().sum()).item())

# %%
from spp_lite.teaching.labs.model import plot_drift

blocks = report.table["layer"].str.extract(r"\.(\d+)\.")[0].astype(int)  # model.layers.3.mlp.up_proj → 3
errors = report.table["error"].groupby(blocks).mean()
show(
    plot_drift(errors, drift),
    alt="The blocks' outputs drift from the dense model's while the linears' errors stay flat.",
)
assert (drift[-1] > drift[0] and drift[-1] > 3 * errors.iloc[-1]) or not TINY

# %% [markdown]
# **What you should see:** a linear in the last block errs about as much as one in the first, given its inputs. But the
# inputs are already wrong: from block to block the outputs drift further, to several times a single linear's error.
#
# ## 3 · How far can you go?
#
# A fair comparison has the same number of zeros. Wanda rounds down in every row, so "70%" can mean a little less;
# `allocation={"*": 0.7}` makes it exact to the weight.
#
# **Predict:** SparseGPT also corrects the weights that stay. Will it win by damage? By perplexity? By accuracy?

# %%
from spp_lite import evaluate
from spp_lite.teaching import average_accuracy, default_tasks


def pruned(ratio, method="wanda", batches=batches, **options):
    model.load_state_dict(dense_weights)
    return prune(model, batches, ratio, method, progress=False, **options)


def accuracy(model):  # 40 items a task: a quick look
    return average_accuracy(evaluate(model, tokenizer, default_tasks(), limit=40, progress=False))


# %%
import pandas as pd

rows = []
for method in ("magnitude", "wanda", "sparsegpt"):
    for ratio in (0.5, 0.7, 0.8):
        pruned(ratio, method, allocation={"*": ratio})
        rows.append((method, ratio, damage(model), text_perplexity(model), accuracy(model)))
methods = pd.DataFrame(rows, columns=["method", "ratio", "damage", "perplexity", "accuracy"])
methods.round(3)

# %%
from spp_lite.teaching.labs.model import plot_methods

unpruned = {"damage": 0.0, "perplexity": alone, "accuracy": accuracy(dense)}
show(plot_methods(methods, unpruned), alt="Damage, perplexity and accuracy against zeros, a line per pruning method.")

# %%
score = methods.set_index(["method", "ratio"])
assert (score.loc["sparsegpt", "damage"] < score.loc["wanda", "damage"]).all() or not TINY
assert score.loc[("sparsegpt", 0.5), "perplexity"] < alone or not TINY  # better than dense?!
assert score.loc[("sparsegpt", 0.8), "accuracy"] < score.loc[("wanda", 0.8), "accuracy"] - 0.04 or not TINY
assert (score.loc["magnitude", "accuracy"] > score.loc["wanda", "accuracy"] - 0.02).all() or not TINY

# %% [markdown]
# **What you should see:** the yardsticks disagree. SparseGPT changes the model least, and at 50 % its perplexity is even
# *below* the dense model's. Yet at 80 % it answers fewer questions than Wanda. The texts list facts in random order, so
# much of a text cannot be known, and a model that is less sure pays less for surprises. Only the tasks ask for facts.
#
# And plain magnitude does not lose to Wanda here, as it does on LLaMA: a tiny model is no proof for a large one.
#
# So: damage to look for sensitive layers (quick, needs no labels), tasks to decide.
#
# ## 4 · What is sensitive?
#
# A *sensitivity scan* prunes one kind of linear in all blocks and leaves the rest dense. Seven kinds, four ratios.
#
# **Predict:** which kind hurts most, and which least?

# %%
from spp_lite.teaching.labs.model import KINDS

rows = []
for kind in KINDS:
    for ratio in (0.5, 0.7, 0.8, 0.9):
        report = pruned(ratio, only=[f"*.{kind}"], allocation={"*": ratio})
        size = sum(math.prod(shape) for shape in report.table["shape"])
        rows.append((kind, ratio, round(report.sparsity * size), damage(model)))
scan = pd.DataFrame(rows, columns=["kind", "ratio", "zeros", "damage"])
scan.pivot(index="kind", columns="ratio", values="damage").loc[list(KINDS)].round(3)

# %% [markdown]
# Kinds differ in size: `k_proj` and `v_proj` serve several query heads each, so they are small, and the three MLP
# matrices are large. Whoever spends a budget of zeros wants the price of *one zero*: damage divided by zeros.

# %%
from spp_lite.teaching.labs.model import plot_scan

show(plot_scan(scan, 0.7), alt="Damage against zeros for each kind pruned alone, and damage per million zeros at 70 %.")
at_70 = scan[scan["ratio"] == 0.7].set_index("kind")
price = at_70["damage"] / at_70["zeros"]
attention, mlp = price[list(KINDS[:4])], price[list(KINDS[4:])]
assert attention.min() > 2 * mlp.max() or not TINY
assert price[["k_proj", "v_proj"]].min() > price[["q_proj", "o_proj"]].max() or not TINY
assert price.idxmin() == "down_proj" or not TINY

# %% [markdown]
# **What you should see:** every attention matrix is dearer per zero than every MLP matrix, by far; `down_proj` is the
# cheapest. Here, the smaller the matrix, the dearer its zeros.
#
# ## 5 · Spend a budget
#
# Let layer $l$ have $n_l$ weights and ratio $s_l$. A budget $S$ demands
#
# $$\sum_l s_l\, n_l = S \sum_l n_l .$$
#
# Whoever gives some layers less must give the others more. `prune(…, allocation=…)` takes ratios by name pattern and lets
# the others share the rest; `"owl"` (Yin et al., 2023) spares *blocks* with many outlying scores.
#
# **Predict:** at 70 %, rank four ways to spend: the same everywhere, OWL, attention 20 points below, MLP 5 points below.

# %%
TARGET = 0.7
allocations = {
    "uniform": {"*": TARGET},
    "OWL": "owl",
    "spare attention": {"*.self_attn.*": TARGET - 0.2},
    "spare MLP": {"*.mlp.*": TARGET - 0.05},
}

# %%
rows = []
for name, allocation in allocations.items():
    report = pruned(TARGET, allocation=allocation)
    rows.append((name, report.sparsity, damage(model), accuracy(model)))
spent = pd.DataFrame(rows, columns=["allocation", "zeros", "damage", "accuracy"])
weights = sum(math.prod(shape) for shape in report.table["shape"])
assert (spent["zeros"] * weights - TARGET * weights).abs().max() < 1.01  # the same zeros for all, to the weight
spent.round(4)

# %%
from spp_lite.teaching.labs.model import plot_allocations

show(plot_allocations(spent), alt="Damage and accuracy of four ways to spend the same zeros.")
result = spent.set_index("allocation")
assert result.loc["spare attention", "accuracy"] > result.loc["uniform", "accuracy"] + 0.05 or not TINY
cost = result["damage"] - result.loc["uniform", "damage"]
assert cost["spare MLP"] > -cost["spare attention"] or not TINY

# %% [markdown]
# Is it luck of the calibration texts? Draw other ones:

# %%
for seed in (1, 2):
    other = calibration_batches(default_texts(), tokenizer, samples=32, length=128, seed=seed)
    found = {}
    for name, allocation in allocations.items():
        pruned(TARGET, batches=other, allocation=allocation)
        found[name] = damage(model)
    print(f"seed {seed}:", ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    assert sorted(found, key=found.get) == ["spare attention", "OWL", "uniform", "spare MLP"] or not TINY

# %% [markdown]
# **What you should see:** the same order with every draw. Sparing attention wins, and OWL beats uniform without any scan.
# By damage, five points in the wrong place cost more than twenty in the right place gain. On another model the order may
# differ: scan first.
#
# ## 6 · Lab: one budget, three sliders
#
# **Predict:** at a budget of 70 %, how low can you push the predicted damage? **Try** the sliders (mouse, or Tab and the
# arrow keys): first break the budget, then meet it again. The prediction *adds* what the scan measured for each kind
# alone.

# %% tags=["lab"]
from spp_lite.teaching.labs.model import BudgetLab

lab = BudgetLab(scan, target=TARGET)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(**{"attention": 0.5, "gate, up": 0.8, "down": 0.7})

# %% [markdown]
# **Explain.** (1) From attention 50 %, gate and up 80 %, down 70 %, move ten points of attention's zeros elsewhere: which
# move of *down* keeps the budget, and why is one step enough? (2) Set all sliders to 70 %: section 5 measured
# more damage than the lab predicts. Why does a sum say too little?
#
# Now the lab's own best setting, pruned for real:

# %%
best = lab.cheapest()
print(best)
pruned(lab.reached(best), allocation=lab.allocation(best))
print(f"damage predicted {lab.damage(best):.2f}, measured {damage(model):.2f}; accuracy {accuracy(model):.0%}")
assert damage(model) < result.loc["uniform", "damage"] or not TINY
assert damage(model) > 0.9 * result.loc["spare attention", "damage"] or not TINY
assert lab.damage(dict.fromkeys(best, TARGET)) < result.loc["uniform", "damage"] or not TINY  # question 2

# %% [markdown]
# **What you should see:** far better than uniform, but no better than section 5's rough "spare attention". A prediction
# finds the right region; within it, only measuring tells.
#
# ## 7 · Your turn
#
# **Ex 03a · core · difficulty ●●○ · ~8 min.** `sizes` maps each layer's name to its number of weights; `given` maps some
# names to a ratio; `target` is the ratio over all weights. Return the one ratio that all *other* layers must take.


# %%
def rest_ratio(sizes, given, target):
    # BEGIN SOLUTION
    missing = target * sum(sizes.values()) - sum(given[name] * sizes[name] for name in given)
    return missing / sum(size for name, size in sizes.items() if name not in given)
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import block_linears, budget, checks

checks.ex_03a(rest_ratio)
sizes = {name: linear.weight.numel() for name, linear in block_linears(model).items()}
library = budget({"*.self_attn.*": 0.5}, sizes, TARGET)  # what prune() uses
given = {name: 0.5 for name in sizes if ".self_attn." in name}
assert all(abs(library[name] - rest_ratio(sizes, given, TARGET)) < 1e-9 for name in sizes if name not in given)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How many zeros are asked for in all? How many do the given layers bring?
# </details>
# <details><summary>Hint 2</summary>
#
# Divide the zeros that are missing by the number of weights in the layers that are not given.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 03b · core · difficulty ●○○ · ~6 min.** `scan` has the columns `kind`, `zeros` and `damage`, one row a kind. Return
# the kinds as a list, the one with the most damage *per zero* first.


# %%
def most_sensitive(scan):
    # BEGIN SOLUTION
    order = (scan["damage"] / scan["zeros"]).sort_values(ascending=False).index
    return scan.loc[order, "kind"].tolist()
    # END SOLUTION


# %% tags=["check"]
checks.ex_03b(most_sensitive)
ranking = most_sensitive(scan[scan["ratio"] == 0.7])
print(" > ".join(ranking))
assert ranking == price.sort_values(ascending=False).index.tolist()

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A large layer makes more zeros at the same ratio. Divide before you compare.
# </details>
# <details><summary>Hint 2</summary>
#
# `(a / b).sort_values(ascending=False).index` gives row labels; `scan.loc[labels, "kind"]` the names.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●○ · ~15 min.** Scan the *blocks* instead of the kinds (`only=["model.layers.0.*"]`, …). Which
# block is the most sensitive, and does OWL spare it? Can you spare both a block and attention, and beat the lab's best?
#
# ## 8 · Read an error message
#
# Generosity has a limit. This cell fails on purpose: what would the other layers have to do?

# %% tags=["raises-exception"]
prune(dense, batches, TARGET, allocation={"*.mlp.*": 0.2}, progress=False)

# %% [markdown]
# ## Recap
#
# 1. `prune` walks block by block: each block is pruned for the inputs that the pruned blocks before it produce.
# 2. Each linear errs a little; through the depth the errors add up.
# 3. Damage, perplexity and accuracy can disagree: look with the quick ones, decide with tasks.
# 4. A scan prunes one kind at a time; judge it per pruned weight.
# 5. The same zeros, spent elsewhere, cost less: here attention is to be spared. Measure, do not assume.
#
# ## Quiz
#
# <details><summary>1. Why not gather all statistics from the dense model once, and then prune every block?</summary>
#
# Then block 3 would be pruned for inputs that it never gets: those of a dense block 2.
# </details>
# <details><summary>2. Pruning lowered perplexity. Is the pruned model better?</summary>
#
# Not by that. A less sure model pays less where the text cannot be known. Ask tasks that need what was learned.
# </details>
# <details><summary>3. Attention holds a quarter of the weights and goes from 70 % to 50 %. Where must the rest go?</summary>
#
# A quarter times 20 points are 5 points of all weights; the other three quarters take 5 / 0.75 = 6.7 points more: 76.7 %.
# </details>
# <details><summary>4. Can a budget by kinds be spent with 2:4?</summary>
#
# No: 2:4 makes exactly half of every layer zero. It leaves nothing to share out; `prune` refuses the combination.
# </details>
#
# **Next:** [04 · Why not just LoRA?](04_why_not_just_lora.ipynb): the zeros are placed, now retrain without losing them. The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5; its pruned models come from SparseGPT and Wanda, block by block.
