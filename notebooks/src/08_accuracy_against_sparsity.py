# %% [markdown]
# # 08 · Accuracy against sparsity
# {{badge}}
#
# The headline of the paper is one figure: how much accuracy is left, method by method, as the zeros grow. Such a figure
# is easy to draw and easy to draw unfairly. Here you take one apart and learn when to believe it.
#
# > **Goals** – read 95 % intervals and compute one (Ex 08a); choose learning rates fairly (Ex 08b); see where each
# > method fails, and recompute a point yourself.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 04 and 05: what LoRA*, masked LoRA and SPP are.
# > **Tiny** – the model, its world and the training: 80 steps. **Real** – the protocol: validation split for choices,
# > test split for scores, several seeds, every run in one table (`data/results/sweep.csv`, made by `spp-lite sweep`).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · One table, one figure
#
# A *run* prunes the dense model, retrains it with one method, and scores it. A run is one row: method, pruner, sparsity,
# seed, learning rate, parameters, accuracy on the test split. Every figure is drawn from these rows alone. The seed draws
# calibration texts, factors and the order of records.
#
# **Predict:** which method ends highest at 75 % zeros: SPP, masked LoRA, or full fine-tuning of the surviving weights?

# %%
from spp_lite.teaching import is_tiny
from spp_lite.teaching.labs.results import sweep_table

TINY = is_tiny()  # the table is about the tiny model, whatever SPP_MODEL names
table = sweep_table()
print(f"{len(table)} runs, seeds {sorted(table['seed'].unique())}")
table[["method", "pruner", "sparsity", "seed", "lr", "parameters", "accuracy"]].tail(4)

# %%
from spp_lite.teaching import chance_accuracy, plot_accuracy_vs_sparsity, show

wanda = table[table["pruner"].isin(["dense", "wanda"])]
figure = plot_accuracy_vs_sparsity(wanda, chance=chance_accuracy(), title="pruned by Wanda")
show(figure, alt="Accuracy against sparsity for every method, with 95 % intervals, dense model and chance as lines.")

# %%
mean = wanda.groupby(["sparsity", "method"])["accuracy"].mean().unstack()
assert (mean.loc[["70%", "75%", "80%"], "spp"] > mean.loc[["70%", "75%", "80%"], "none"] + 0.03).all()
assert mean.loc["50%", "none"] > mean.loc["75%", "none"] > mean.loc["90%", "none"]
print(mean.loc["75%"].sort_values(ascending=False).map("{:.1%}".format).to_string())

# %% [markdown]
# **What you should see:** at 50 % little is lost and all lie close together; further right they spread, and SPP lies well
# above the pruned model. Read the printed order before you believe any slogan, ours included.
#
# ## 2 · Fair means: the same chances for all
#
# A learning rate that suits LoRA ruins SPP, and the other way round. So each method may choose from the *same* few
# rates, by its score on the **validation** split. Test items only report.
#
# **Predict:** which methods want the largest rate: those that add to a weight, or those that multiply it?

# %%
import pandas as pd

from spp_lite.teaching import embedded

rates = pd.read_csv(embedded("results", "rates.csv"))
grid = rates.pivot_table(index="method", columns="lr", values="accuracy")
grid.map("{:.1%}".format)

# %%
from matplotlib.figure import Figure

from spp_lite.teaching import LOOKS

figure = Figure(figsize=(8, 4.2), layout="constrained")
axes = figure.add_subplot()
for method, scores in grid.iterrows():
    label, colour, marker, dash = LOOKS[method]
    axes.plot(100 * scores, color=colour, marker=marker, linestyle=dash, label=label)
axes.set_xscale("log")
axes.set_xlabel("learning rate", fontsize=12)
axes.set_ylabel("validation accuracy (%)", fontsize=12)
axes.legend(fontsize=11, frameon=False)
show(
    figure, alt="Validation accuracy against learning rate, a line per method: multiplying methods peak furthest right."
)

# %%
best = grid.idxmax(axis=1)
print(best.to_string())
assert min(best["spp"], best["hira"]) > max(best["lora"], best["masked-full"])
print(f"SPP at its own rate {grid.loc['spp', best['spp']]:.1%}, at LoRA's {grid.loc['spp', best['lora']]:.1%}")
print(f"LoRA at its own rate {grid.loc['lora', best['lora']]:.1%}, at SPP's {grid.loc['lora', best['spp']]:.1%}")

# %% [markdown]
# **What you should see:** SPP and HiRA, which *multiply* weights, peak at rates several times those of the methods that
# *add*. One rate for all is unfair to somebody: at LoRA's best rate SPP loses a few points, at SPP's best rate LoRA breaks.
#
# ## 3 · Intervals: is the difference real?
#
# Run the same cell with another seed and the score moves. With $n$ seeds, mean $\bar a$ and standard deviation $s$
# (dividing by $n-1$), the 95 % interval of the mean is $\bar a \pm t_n\, s / \sqrt{n}$, with Student's $t_n$: 12.7 for
# two runs, 4.3 for three, 2.8 for five.
#
# **Ex 08a · core · difficulty ●●○ · ~8 min.** Half of the 95 % interval of a mean. `T95[n]` is Student's t for n runs.

# %%
import statistics

from spp_lite.teaching.checks.results import T95  # Student's t for a 95 % interval, by the number of runs


def half_width(scores):
    # BEGIN SOLUTION
    return T95[len(scores)] * statistics.stdev(scores) / len(scores) ** 0.5
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_08a(half_width)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `statistics.stdev` divides by n - 1, as it should for a sample.
# </details>
# <details><summary>Hint 2</summary>
#
# The mean of n runs varies √n times less than one run; t makes the interval wide enough for few runs.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# An interval of one method's mean says how far *that* mean can be trusted.
#
# **Predict:** are intervals wider at 50 % or at 75 % zeros?

# %%
from spp_lite.teaching import summarise

cells = summarise(wanda[wanda["method"].isin(["none", "spp", "lora*", "masked-lora"])])
half = cells.pivot(index="method", columns="sparsity", values="half")
assert (half["75%"] > half["50%"]).all()
cells[cells["sparsity"].isin(["50%", "75%"])].round(3)

# %% [markdown]
# **Answer:** at 75 %, for all four methods: the more is lost, the more the draw of texts and records matters.
#
# Whether two methods *differ* is another question. The same seed draws the same calibration texts, so the same mask, and the
# same order of records for every method: both of a pair are lucky or unlucky together. So look at the *differences*, seed by
# seed, and at the interval of their mean. Two intervals that overlap do not answer it: differences can be clear of 0 all the same.
#
# **Predict:** SPP and masked LoRA at 75 %: their intervals overlap. Does the interval of their difference hold 0?

# %%
at_75 = wanda[wanda["sparsity"] == "75%"].pivot(index="seed", columns="method", values="accuracy").dropna()
for other in ("lora*", "masked-lora"):
    gains = list(at_75["spp"] - at_75[other])
    mean = statistics.mean(gains)
    half = T95[len(gains)] * statistics.stdev(gains) / len(gains) ** 0.5  # your half_width
    print(f"SPP minus {other} at 75 %: {100 * mean:+.1f} ± {100 * half:.1f} points over {len(gains)} seeds")
at_75[["spp", "masked-lora"]].agg(["min", "max"]).map("{:.1%}".format)

# %% [markdown]
# **Answer:** no, it does not quite: masked LoRA is ahead, by a difference clear of 0, although the two ranges of scores
# overlap. And SPP is ahead of LoRA*. If an interval holds 0, the honest sentence is "undecided", not "equal".
#
# Now for every method and sparsity:

# %%
from spp_lite.teaching import paired, plot_paired

show(plot_paired(table), alt="Each method minus SPP, paired by seed, per sparsity, with 95 % intervals around 0.")

# %%
verdicts = paired(wanda, against="spp").pivot(index="method", columns="sparsity", values="verdict")
verdicts[["50%", "2:4", "70%", "75%", "2:8", "90%"]]

# %% [markdown]
# **What you should see:** each cell says what *SPP* does there. It wins against LoRA* nearly everywhere and against masked full
# fine-tuning at 50 % and 2:4. HiRA beats it from 70 % on, masked LoRA from 75 % on; at 2:8 five seeds do not tell.
#
# ## 4 · Where does each method fail?
#
# An average of seven families can be won by one of them. Methods also differ in cost: SPP trains $r\cdot in + out$
# numbers per matrix, full fine-tuning all surviving weights.
#
# **Predict:** apart from `boolq`, which family is lowest at 75 % after pruning, and does retraining help it?

# %%
from spp_lite.teaching import plot_parameters, plot_tasks

chosen = wanda[wanda["method"].isin(["dense", "none", "spp", "lora*", "masked-full"])]
at = chosen[chosen["sparsity"] == "75%"].groupby("method").mean(numeric_only=True)
families = [name for name in at if name.startswith("tiny_") and name != "tiny_boolq"]
assert at.loc["none", families].idxmin() == "tiny_arc_challenge"
assert at["tiny_winogrande"]["spp"] <= at["tiny_winogrande"]["none"]
show(plot_tasks(chosen, sparsity="75%"), alt="Accuracy of each task family at 75 % zeros, a bar per method.")

# %%
show(plot_parameters(wanda), alt="Accuracy against trainable parameters, a point per method, at 75 % zeros.")

# %% [markdown]
# **What you should see:** `boolq` stays at chance for every method: the dense model never learned to read a passage.
# Of the others, `arc_challenge` (two facts joined) is lowest after pruning, 47 %, and SPP brings it to 65 %; `winogrande`
# gains nothing from SPP.
#
# ## 5 · Recompute a point
#
# One run, the same code, the same seed:

# %%
from spp_lite import load_alpaca
from spp_lite.teaching import Recipe, Run, calibration_batches, default_texts, do_run, load_tokenizer, resolve

texts = default_texts(model="tiny")
batches = calibration_batches(texts, load_tokenizer(resolve("tiny")), samples=384, length=128)
recipe = Recipe("tiny", load_alpaca("tiny"), batches, training={"max_steps": 80, "batch_size": 16}, progress=False)
row = do_run(recipe, Run("spp", "wanda", "75%", 0, float(best["spp"])))
print(f"recomputed {row['accuracy']:.1%}, in the table {at_75.loc[0, 'spp']:.1%}")
assert abs(row["accuracy"] - at_75.loc[0, "spp"]) < 0.03  # other machines round differently

# %% [markdown]
# ## 6 · Lab: the results explorer
#
# **Predict:** how many seeds does it take until SPP wins against LoRA* at most sparsities? **Try** the menus and the slider
# (mouse, or Tab and the arrow keys). The line below counts what paired differences tell apart.

# %% tags=["lab"]
from spp_lite.teaching.labs.results import ResultsLab

lab = ResultsLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(method="spp", other="lora*")

# %% [markdown]
# **Explain.** (1) Under Wanda with five seeds, against which methods does SPP win at eight of nine sparsities? (2) What does
# the read-out say with one seed, and why?
#
# <details><summary>Answers</summary>
#
# (1) Against the pruned model and against LoRA*. With three seeds it wins against LoRA* at three only.
# (2) All nine are undecided: one difference has no spread, so nobody knows how far it would move with another seed.
# </details>
#
# ## 7 · Your turn
#
# **Ex 08b · core · difficulty ●●○ · ~8 min.** From a validation table with the columns `method`, `lr` and `accuracy`,
# return a dict: method → the learning rate to use. Diverged runs have accuracy NaN.


# %%
def best_rates(table):
    # BEGIN SOLUTION
    rows = table.dropna(subset=["accuracy"])
    top = rows.loc[rows.groupby("method")["accuracy"].idxmax()]
    return dict(zip(top["method"], top["lr"], strict=True))
    # END SOLUTION


# %% tags=["check"]
checks.ex_08b(best_rates)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `dropna` first; then `groupby("method")`.
# </details>
# <details><summary>Hint 2</summary>
#
# `idxmax` gives the row with the highest accuracy of each group.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# The library's own choice, `choose_rates`, does the same:

# %%
from spp_lite.teaching import choose_rates

assert choose_rates(rates) == best.to_dict()

# %% [markdown]
# **Stretch · difficulty ●●● · ~20 min.** `spp-lite sweep --quick` makes a small table of your own in `results/` (five
# minutes). Does every one of its points lie within the committed intervals? Which do you expect to fall outside, and how many?
#
# ## 8 · Read an error message
#
# A misspelled task must not become a silent zero in somebody's table. What does this cell, which fails on purpose, offer?

# %% tags=["raises-exception"]
from spp_lite import evaluate, load

evaluate(*load("tiny"), ["tiny_arc_esy"], progress=False)

# %% [markdown]
# ## Recap
#
# 1. One row a run, every figure from the rows alone: anyone can recompute a point.
# 2. Every method chooses its learning rate from the same few, on the validation split.
# 3. Multiplying methods want rates several times larger than adding ones.
# 4. Two methods are compared by their paired differences. Where that interval holds 0, they are undecided.
# 5. An average hides its families, and a method's cost is part of its score.
#
# ## Quiz
#
# <details><summary>1. Why not choose the learning rate on the test split?</summary>
#
# The best of several noisy scores is too good by luck. Chosen on the test split, that luck is reported as skill.
# </details>
# <details><summary>2. The intervals of A and B overlap. Is A as good as B?</summary>
#
# That says nothing. Pair the runs by seed: the interval of the difference decides, or leaves it undecided.
# </details>
# <details><summary>3. Suppose dense LoRA lay above SPP at some sparsity. Would SPP lose there?</summary>
#
# That LoRA has refilled the zeros: its model is no longer sparse. It is a reference, not a competitor. (In this table it is
# above SPP nowhere.)
# </details>
# <details><summary>4. What would this figure look like for LLaMA-7B?</summary>
#
# We cannot say from here. The tiny model shows mechanisms; the paper reports LLaMA; `spp-lite sweep --model` measures yours.
# </details>
#
# **Next:** [09 · A real LLaMA](09_a_real_llama.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
