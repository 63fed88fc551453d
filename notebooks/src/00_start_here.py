# %% [markdown]
# # 00 · Start here
# {{badge}}
#
# Pruning makes a language model sparse, but it also makes it worse. This suite shows how to bring back what was lost
# **without filling the zeros again**: SPP multiplies the weights that survived by two thin learned factors, and zero times
# anything is zero.
#
# > **Goals** – check that your set-up works and that a pruned model has the zeros that were asked for (Ex 00a); know what
# > is tiny here and what is real; go the whole path once, dense → pruned → recovered, and measure how much came back
# > (Ex 00b).
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – a little PyTorch; no GPU, no account, no network.
# > **Tiny** – the model (a LLaMA of 1.6 million parameters, trained on a small made-up world) and the tasks. **Real** –
# > the architecture, the pruning criteria, the adapter, the training loop and the evaluation harness: the same calls take
# > a LLaMA folder instead (`SPP_MODEL`, notebook 09).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · The whole path
#
# Ten notebooks follow one path. This one walks it from end to end without stopping; each of the others opens one box.

# %%
from spp_lite import load
from spp_lite.teaching import Guess, is_tiny, show
from spp_lite.teaching.labs.start import draw_path

show(draw_path(), alt="Dense model, prune, adapt, train, merge, score; each with its notebooks.")

# %% [markdown]
# How to read these notebooks: where a paragraph says *Predict*, write down your guess in the line below it before you go
# on; it is shown again beside what came out. Where an exercise stands, write the missing lines and run the check below
# them. The notebook then goes on with *your* function. If you leave a blank, it goes on with the library's.
#
# ## 2 · Meet the model
#
# The embedded model is an ordinary `LlamaForCausalLM`: a pile of decoder blocks, each of attention and an MLP, with seven
# linear layers. It was trained on a made-up world: who lives where, what things are for, where they are kept, and small sums.

# %%
TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
print(f"{model.num_parameters():,} parameters in {model.config.num_hidden_layers} blocks")
print(model.model.layers[0])

# %% [markdown]
# Seven families of questions ask about that world, each built like one of the paper's seven tasks. Every question has two
# or four choices. They are scored by **lm-eval**, the harness that the field uses: the answer counts to which the model
# gives the highest likelihood.

# %%
from spp_lite.teaching import average_accuracy, chance_accuracy, default_tasks

TASKS = default_tasks()  # our seven for the tiny model, else SPP_TASKS or the paper's seven
ITEMS = None if TINY else 60  # questions of each task; None: all of them
chance = chance_accuracy(TASKS)
print(f"blind guessing scores {chance:.1%}")

# %% [markdown]
# **Predict:** which percentage of all questions does the model answer right, before any pruning?

# %%
guess_dense = Guess("Accuracy of the dense model, in percent?")

# %%
from spp_lite import evaluate

dense_table = evaluate(model, tokenizer, TASKS, limit=ITEMS, progress=False)
accuracies = dense_table[dense_table["metric"] == "acc"].set_index("task")["value"]
accuracies.map("{:.0%}".format).to_frame("accuracy")

# %%
dense = average_accuracy(dense_table)
guess_dense.compare(f"{dense:.0%} on average")
print(f"best family: {accuracies.idxmax()}, {accuracies.max():.0%}")
print(f"worst family: {accuracies.idxmin()}, {accuracies.min():.0%}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The average is far above blind guessing: there is something to lose. The families need not all be equally good, so look
# at the table too, and not only at the average. A family has some two hundred questions, so its number may be off by
# several points.
# </details>

# %% tags=["we-checked"]
assert not TINY or (abs(chance - 0.357) < 0.001 and dense > chance + 0.2)
print("checked: chance is 35.7 %, and the dense model is far above it")

# %% [markdown]
# ## 3 · Prune it
#
# *Pruning* sets the least important weights to zero. Wanda (Sun et al., 2023) scores a weight by its size times the size
# of the inputs that it meets, $|W_{ij}|\,\lVert x_j\rVert$. So it needs a few texts to look at: the *calibration* batches.
#
# **Predict:** three weights of four become zero, and nothing is trained. What is the accuracy then?

# %%
guess_pruned = Guess("Accuracy with three quarters of the weights gone, in percent?")

# %%
from spp_lite import prune
from spp_lite.teaching import calibration_batches, default_texts

SPARSITY = "75%"
batches = calibration_batches(default_texts(), tokenizer, samples=64, length=128)
report = prune(model, batches, SPARSITY, method="wanda", progress=False)
report.table[["layer", "shape", "reached", "error"]].head(7)  # the seven linears of the first block

# %% [markdown]
# Never trust a report that you can check. `block_linears(model)` returns the linear layers of all decoder blocks, by name.
#
# **Ex 00a · core · difficulty ●○○ · importance ●●● · ~5 min.** Which share of their weights is exactly zero? Count over
# the linears of the decoder blocks only, and return a number between 0 and 1.

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
# Comparing a tensor with 0 gives True at every zero, and True counts as 1 in a sum. `.numel()` is the number of entries.
# </details>
# <details><summary>Hint 2</summary>
#
# Layers differ in size: add up all zeros and all entries before you divide.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import yours

share_of_zeros = yours(share_of_zeros, checks.ex_00a)
pruned_table = evaluate(model, tokenizer, TASKS, limit=ITEMS, progress=False)
pruned = average_accuracy(pruned_table)
print(f"share of zeros {float(share_of_zeros(model)):.1%}, asked for {SPARSITY}")
guess_pruned.compare(f"{pruned:.0%}")

# %% [markdown]
# ## 4 · Recover it, zeros in place
#
# SPP (Lu et al., 2024, Eq. 5) leaves the pruned weight $W$ as it is and trains two thin factors for each, $\alpha$ and
# $\beta$. The model then computes with
#
# $$W' = W \odot \bigl(1 + s\,R(\alpha)\,\beta\bigr).$$
#
# The sign $\odot$ multiplies entry by entry: where $W$ is zero, $W'$ is zero, whatever $\alpha$ and $\beta$ are. (Section 7
# says what each letter means, notebook 05 builds it.) The adapter is one of PEFT, the usual library for small trainable additions; the training loop is
# `transformers.Trainer`, and the data are instructions with answers, in the format of Alpaca.

# %%
from peft import get_peft_model

from spp_lite import SppConfig, load_alpaca

records = load_alpaca()
print(records[0])
adapted = get_peft_model(model, SppConfig(r=16))
adapted.print_trainable_parameters()

# %% [markdown]
# How many steps, how many records in each, which learning rate? We take the settings of the logged runs of `spp-lite
# sweep`, whose table comes with this project. (Notebook 08 says how they were chosen.)
#
# **Predict:** the weights that are gone stay gone. What is the accuracy after training?

# %%
guess_recovered = Guess("Accuracy after training, in percent?")

# %%
from spp_lite import finetune
from spp_lite.teaching.labs.results import sweep_table

runs = sweep_table()
runs = runs[(runs["pruner"] == "wanda") & (runs["sparsity"] == SPARSITY)]
logged = runs[runs["method"] == "spp"].iloc[0]
settings = {"max_steps": int(logged["max_steps"]), "batch_size": int(logged["batch_size"])}
settings["learning_rate"] = float(logged["lr"])
output = finetune(adapted, records, tokenizer, **settings, progress=False)
print(settings)
print(f"{output.global_step} steps, mean training loss {output.training_loss:.2f}")

# %% [markdown]
# *Merging* multiplies the factors into the weights, so that an ordinary model is left. `merge` proves for every layer that
# no zero was filled; if one were, it would refuse. In its table, *densification* is the share of the zeros that were
# filled.

# %%
from spp_lite import merge

merged, proof = merge(adapted)
recovered_table = evaluate(merged, tokenizer, TASKS, limit=ITEMS, progress=False)
recovered = average_accuracy(recovered_table)
print(f"share of zeros after merging {float(share_of_zeros(merged)):.1%}")
guess_recovered.compare(f"{recovered:.0%}")

# %% tags=["we-checked"]
assert (proof.table["densification"] == 0).all()
print(f"checked: no zero was filled, in any of {len(proof.table)} linears")

# %% [markdown]
# How much is that? The field reports the **gap recovered**. It is 0 when training gave nothing back, and 1 when all that
# pruning took is back. It is negative when training made things worse.
#
# **Ex 00b · core · difficulty ●○○ · importance ●●○ · ~4 min.** Write it for three accuracies, each between 0 and 1.


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

# %%
from spp_lite.teaching.labs.start import plot_three

gap_recovered = yours(gap_recovered, checks.ex_00b)
show(
    plot_three(dense, pruned, recovered, chance),
    alt=f"Accuracy: dense {dense:.0%}, pruned {pruned:.0%}, recovered {recovered:.0%}.",
)
print(f"gap recovered in this run: {float(gap_recovered(dense, pruned, recovered)):.0%}")

# %% [markdown]
# ## 5 · One run is one draw
#
# Your bars come from one draw of calibration texts and one training run. With other texts and another order of the records
# they would be a little different. One run proves nothing, so we rely on several *seeds*. The table of `spp-lite sweep` has the same training with five of them, scored on the same questions.
#
# For every seed, the pruned and the recovered model share their mask. So take the difference for each seed, and look
# at the mean of these *paired* differences and at its 95 % interval. If the interval does not
# contain 0, chance alone is an unlikely explanation of the difference.

# %%
from spp_lite.teaching import paired

gain = paired(runs, against="none").set_index("method").loc["spp"]
mean, half = 100 * gain["mean"], 100 * gain["half"]
print(f"SPP minus pruned, {gain['n']} seeds: {mean:+.1f} points, 95 % interval ± {half:.1f}")

# %% tags=["we-checked"]
assert mean > half > 0
print("checked: over the seeds, SPP's gain is clear of 0")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The interval lies above 0: SPP really brings accuracy back here, and not only in a lucky run. Your own run is one more draw: it
# need not lie in the interval, which is one of the *mean*.
# </details>
#
# ## 6 · Lab: how far can you prune?
#
# The means over the seeds of the same table, with 95 % intervals, for every sparsity.
#
# **Predict:** from which sparsity on does pruning cost more than ten points? **Try** the slider (mouse, or Tab and the arrow
# keys); the title says what pruning takes and what SPP brings back.

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
# **Explain.** (1) 75 % and 2:8 have the same number of zeros. Which costs more accuracy, and why? (2) Is SPP's gain in
# points largest where pruning took the most?
#
# <details><summary>Answers</summary>
#
# (1) 2:8 costs more. With 75 %, Wanda may take its zeros from anywhere in a row; with 2:8 it must take exactly six of every
# eight neighbours, even where five of the eight are important. Every 2:8 mask is also a 75 % mask, but not the other way
# round. (2) No: the next cell looks both up. Where nearly everything is gone, too few weights are left to work with. And the
# Predict: from 75 % on, and at 2:8, which has as many zeros.
# </details>

# %%
table = lab.means.unstack().drop(index="0%")
lost, back = lab.means["0%", "dense"] - table["none"], table["spp"] - table["none"]
print("pruning costs more than ten points at", *lost.index[lost > 0.1])
print(f"pruning takes most at {lost.idxmax()}: {100 * lost.max():.1f} points")
print(f"SPP gives most at {back.idxmax()}: {100 * back.max():.1f} points")

# %% tags=["we-checked"]
free = lab.table[(lab.table["method"] == "none") & lab.table["sparsity"].isin(["75%", "2:8"])]
cost = paired(free.assign(method=free["sparsity"], sparsity="75%"), against="75%").iloc[0]
assert cost["method"] == "2:8" and cost["mean"] + cost["half"] < 0
assert lost.idxmax() != back.idxmax()
print("checked: answer (1), by paired differences over the seeds; answer (2), by the means")

# %% [markdown]
# ## 7 · Names and symbols
#
# One letter and one name for one thing in this table, in all ten notebooks. Other letters ($A$, $B$, $G$, $H$, $b$, $d$, …) are explained in
# each notebook where they stand.
#
# | symbol | shape | what it is | first in |
# |---|---|---|---|
# | $W$ | ($\mathrm{out}$, $\mathrm{in}$) | weight of a linear: row $i$ makes output $i$, column $j$ meets input $j$ | 01 |
# | $M$ | like $W$ | mask: 1 where a weight stays, 0 where it is pruned | 01 |
# | N:M | | pattern: N of every M neighbouring inputs stay (2:4, 2:8); here N and M are numbers | 01 |
# | $x$, $X$ | ($\mathrm{in}$,), (tokens, $\mathrm{in}$) | inputs of a linear, for one token, for many | 01 |
# | $\lVert x_j\rVert$ | ($\mathrm{in}$,) | size of input $j$: root of its mean square over the tokens | 02 |
# | $S$ | like $W$ | scores of a pruning criterion: the lowest go | 01 |
# | $\Delta W$ | like $W$ | what was changed: $W$ after minus $W$ before | 01 |
# | output error | | $\lVert\Delta W x\rVert^2 / \lVert W x\rVert^2$, over the tokens | 01 |
# | $D$ | | damage: how far the model's next-token probabilities are from the dense model's | 03 |
# | $\alpha$ | ($r$, $\mathrm{in}$) | SPP's first factor, a row for each block of outputs; starts random | 05 |
# | $\beta$ | ($\mathrm{out}$,) | SPP's second factor, a number for each output; starts at 0 | 05 |
# | $r$ | | number of row blocks of $\alpha$ | 05 |
# | $R(\alpha)$ | like $W$ | row $i$ is the row of $\alpha$ that belongs to output $i$'s block | 05 |
# | $s$ | | scaling, a fixed number | 05 |
# | $W'$ | like $W$ | merged weight, $W \odot (1 + s\,R(\alpha)\,\beta)$ | 05 |
#
# In $R(\alpha)\,\beta$ every row $i$ of $R(\alpha)$ is multiplied by its own $\beta_i$. PyTorch does that by *broadcasting*:
# `beta[:, None]`, of shape ($\mathrm{out}$, 1), is repeated along the inputs.
#
# | name | what it means |
# |---|---|
# | dense, pruned, recovered | before pruning; after it; after training and merging |
# | linear, block | one weight matrix; one decoder block with its seven linears |
# | calibration | running a few texts to see what the inputs look like; nothing is trained |
# | merge | multiply an adapter into the weights; *densification* is the share of zeros that this fills |
# | held out | not used for training nor for choosing |
# | accuracy, chance | share of right answers, averaged over tasks; the same for blind guessing |
# | perplexity | exp of the mean loss per token: lower is better |
# | seed, paired | one draw of everything random; differences are taken within one seed |
#
# ## 8 · On a real LLaMA
#
# SmolLM2-135M is a LLaMA that was trained on real text. Its path, as far as we measured it on two CPU cores: Wanda 2:4, then
# 40 steps of SPP. Perplexity is that of encyclopedia prose and of held-out Alpaca answers.

# %%
import pandas as pd

from spp_lite.teaching import embedded

real = pd.read_csv(embedded("results") / "smollm2" / "sweep.csv")
path = real[(real["method"] == "dense") | (real["pruner"] == "wanda") & (real["sparsity"] == "2:4")]
means = path.groupby("method")[["zeros_after", "perplexity", "alpaca_perplexity"]].mean()
means.loc[["dense", "none", "spp"]].round(3)

# %% tags=["we-checked"]
for column in ("perplexity", "alpaca_perplexity"):
    assert 2 * means.loc["spp", column] < means.loc["none", column]
    assert means.loc["spp", column] > means.loc["dense", column]
assert means.loc["spp", "zeros_after"] >= 0.5
print("checked: less than half of the pruned model's, and still above the dense model's")

# %% [markdown]
# The real model tells the same story in its own numbers. Both perplexities fall to less than half of the pruned model's, every
# zero stays in place, and the dense model is not reached. One command makes such rows; the files that it names are yours to
# fetch, and notebook 09 says how:
#
# ```bash
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 \
#     --steps 40 --batch-size 8 --cutoff 256 --bf16 --methods none spp --pruners wanda --sparsity 2:4 \
#     --rates-at 2:4 --try-rates 3e-3 1e-2 3e-2 --seeds 1 --out smollm2
# ```
#
# ## 9 · Stretch: which family suffers most?
#
# An average hides who pays. `evaluate` returns a table with a row for each task and metric; the metric `acc` is what we
# average.
#
# **Ex 00c · stretch · difficulty ●●○ · importance ●○○ · ~8 min.** From two such tables, before and after pruning, return
# the name of the task whose `acc` fell by the most points. The tables have the columns `task`, `metric` and `value`. They
# may hold other metrics too, and their rows may stand in different orders.


# %%
def hardest_hit(before, after):
    # BEGIN SOLUTION
    was, now = (table[table["metric"] == "acc"] for table in (before, after))
    fell = was.set_index("task")["value"] - now.set_index("task")["value"]
    return fell.idxmax()
    # END SOLUTION


# %% tags=["check"]
checks.ex_00c(hardest_hit)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep the rows of the one metric first, then bring the two tables together by the name of the task.
# </details>
# <details><summary>Hint 2</summary>
#
# Two pandas columns that carry names, by `.set_index(…)`, are subtracted name by name, whatever their order.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
hardest_hit = yours(hardest_hit, checks.ex_00c)
print("hardest hit by pruning in this run:", hardest_hit(dense_table, pruned_table))

# %% [markdown]
# ## 10 · Read an error message
#
# "I insert the adapter first, and prune when it is trained." This cell fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
late = get_peft_model(load()[0], SppConfig(r=16))
prune(late, batches, SPARSITY, progress=False)

# %% [markdown]
# The message says what is wrong and gives the way out: merge or unload the adapter, prune, then insert a new one. The
# order is the idea of the method: the factors are trained *for* the weights that survived, so the zeros must be there
# first.
#
# ## Recap
#
# 1. Pruning sets weights to zero, and the model answers fewer questions.
# 2. Wanda scores a weight by its size times its input's size: it needs a few texts and no training.
# 3. SPP trains two thin factors for each matrix and multiplies: zeros stay zero by construction.
# 4. Merging leaves an ordinary model; `merge` proves that no zero was filled.
# 5. One run is one draw: claims come from paired differences over seeds.
#
# ## Quiz
#
# <details><summary>1. Why does a zero of W stay zero whatever α and β are?</summary>
#
# Because W′ is W times a factor, entry by entry, and zero times any finite number is zero.
# </details>
# <details><summary>2. Three quarters of the weights are gone for good. How can training a few factors help at all?</summary>
#
# What the model knows is spread over many weights, and a quarter of them is left. Pruning changed how strongly these are
# used: sums lost many of their terms. The factors rescale the weights that are left, so that the outputs come closer to
# what is needed again. What was held only by weights that are gone does not come back.
# </details>
# <details><summary>3. What does blind guessing score on our seven tasks, and why not 0 %?</summary>
#
# 35.7 %: four families have four choices (25 %), three have two (50 %), and (4 · 25 + 3 · 50) / 7 = 35.7.
# </details>
# <details><summary>4. Does a model with 75 % zeros run four times faster?</summary>
#
# Not by itself: zeros are multiplied like any number until a sparse format skips them (notebook 07).
# </details>
#
# **Next:** [01 · Prune one matrix](01_prune_one_matrix.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
