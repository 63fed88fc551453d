# %% [markdown]
# # 08 · Accuracy against sparsity
# {{badge}}
#
# The headline of the paper is one figure: how much accuracy is left, method by method, as the zeros grow. Such a figure is
# easy to draw, and easy to draw unfairly. Here you write the three steps that make it fair, and then let the table say who
# wins where.
#
# > **Goals** – choose a learning rate for every method by the same rule (Ex 08a); compute a 95 % interval (Ex 08b); compare
# > two methods by their paired differences (Ex 08c); say from a table which method wins where; recompute a point.
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 04 and 05: what LoRA*, masked LoRA and SPP are. The symbols are those of
# > [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model, its world, and the short training. **Real** – the protocol: choices on a validation split, scores on a
# > test split, several seeds, every run in one table (`data/results/sweep.csv`, made by `spp-lite sweep`).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · One table, one figure
#
# A *run* prunes the dense model, retrains it with one method, and scores it on the test split. Every run is one row of a
# table, and every figure below is drawn from these rows alone. The *seed* of a run draws the calibration texts, the first
# values of the factors, and the order of the training records.
#
# | method | what it does after pruning |
# |---|---|
# | `none` | nothing |
# | `spp`, `hira` | trains factors that multiply the kept weights |
# | `direct` | the same factors as `spp` in another form, $W \odot (1 + R(\alpha))(1 + \beta)$: ours, not the paper's |
# | `masked-lora` | trains a low-rank update that is masked: zeros stay |
# | `lora*` | trains LoRA, merges it, and sets the refilled zeros back to zero |
# | `masked-full` | trains the *surviving* weights themselves |
# | `lora` | trains LoRA and merges it: the result is dense, so it is a reference and no rival |

# %%
from spp_lite.teaching.labs.results import sweep_table

table = sweep_table()  # of the tiny model, whatever SPP_MODEL names
wanda = table[table["pruner"].isin(["dense", "wanda"])]
sparsities = [name for name in wanda["sparsity"].unique() if name != "0%"]
AT, FEW = "75%", "50%"  # the two sparsities at which we look more closely
print(f"{len(table)} runs, {len(wanda)} of them with Wanda or of the dense model")
print("sparsity: seeds", wanda.groupby("sparsity")["seed"].nunique()[sparsities].to_dict())
table[["method", "pruner", "sparsity", "seed", "lr", "parameters", "accuracy"]].tail(4)

# %% [markdown]
# **Predict:** which of the methods that keep the zeros has the highest mean accuracy at 75 % zeros?

# %%
from spp_lite.teaching import Guess

options = ["spp", "direct", "hira", "masked-lora", "lora*", "masked-full"]
guess_top = Guess("Which method that keeps the zeros is highest at 75 %?", options)

# %%
from spp_lite.teaching import chance_accuracy, plot_accuracy_vs_sparsity, show

means = wanda.groupby(["sparsity", "method"])["accuracy"].mean().unstack()
sparse = means.drop(columns=["dense", "lora"])
top = sparse.loc[AT].idxmax()
bare = sparse.loc[AT, "none"]
title = f"At {AT} zeros, {top} has the highest mean; pruning alone leaves {bare:.0%}"
alt = title + ". Accuracy against sparsity, a line per method, dense model and chance as lines."
show(plot_accuracy_vs_sparsity(wanda, chance=chance_accuracy(), title=title), alt=alt)

# %%
guess_top.compare(top)
print(means.loc[AT].dropna().sort_values(ascending=False).map("{:.1%}".format).to_string())

# %% [markdown]
# So the order of the *means* is known. Whether it would stay the same with other seeds is another question, and so is whether
# every method was given a fair chance. We take these two questions in turn, the fair chance first. (The bars in the figure are
# explained in section 3.)
#
# ## 2 · The same chances for all
#
# A method is only as good as its learning rate, and a good rate for one method can ruin another. So each method chooses by the
# *same* rule. Its rates lie a factor of about 1.7 apart (but for SPP's smallest, which is LoRA's best, and LoRA's 0.014, which is SPP's best). They go past its best rate on
# both sides. The score on the **validation** split decides; the items of the test split only report.
#
# **Predict:** some methods *add* to a weight (LoRA, masked full fine-tuning), others *multiply* it (SPP, HiRA). Which of them
# want the larger rate?

# %%
options = ["those that add", "those that multiply", "there is no such rule"]
guess_rate = Guess("Which methods want the larger learning rate?", options)

# %% [markdown]
# **Ex 08a · core · difficulty ●●○ · importance ●●● · ~10 min.** You get a table with the columns `method`, `lr`, `seed` and
# `accuracy`. Return a dictionary: method → the learning rate to use. A rate is judged by its mean over the seeds. A run that
# failed has the accuracy NaN ("not a number"), and a rate with a failed run must not be chosen.


# %%
def best_rates(table):
    # BEGIN SOLUTION
    groups = table.groupby(["method", "lr"])["accuracy"]
    scores = groups.agg(lambda runs: runs.mean(skipna=False)).dropna()
    return dict(scores.groupby("method").idxmax().tolist())
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_08a(best_rates)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two steps: first one number for every pair of method and rate, then the best rate of every method. `groupby` takes a list of
# columns.
# </details>
# <details><summary>Hint 2</summary>
#
# The `mean` of pandas skips NaN, which is just what you do not want here: look at its argument `skipna`. `idxmax` returns the
# label of the largest number, and with two grouping columns that label is a pair.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
import pandas as pd

from spp_lite.teaching import embedded, yours

best_rates = yours(best_rates, checks.ex_08a)
rates = pd.read_csv(embedded("results", "rates.csv"))
rates = rates[rates["sparsity"] == AT]
best = best_rates(rates)
grid = rates.pivot_table(index="method", columns="lr", values="accuracy")  # means over seeds
print(f"{rates['seed'].nunique()} seed(s) for each rate, at {AT}")
shown = grid.map("{:.1%}".format).where(grid.notna(), "")
shown.rename(columns="{:g}".format).transpose()

# %%
from spp_lite.teaching.labs.results import plot_rates

title = f"The best of these rates is {best['spp']:g} for SPP and {best['lora']:g} for LoRA"
alt = title + ". Validation accuracy against learning rate, a line per method."
show(plot_rates(grid, title), alt=alt)

# %%
multiply, add = ["spp", "direct", "hira"], ["lora", "lora*", "masked-lora", "masked-full"]
low, high = min(best[name] for name in multiply), max(best[name] for name in add)
larger = "those that multiply: each takes a larger rate than any that adds"
guess_rate.compare(larger if low > high else "there is no such rule in this table")
print("multiply:", {name: best[name] for name in multiply})
print("add:     ", {name: best[name] for name in add})

# %% [markdown]
# What would one common rate do? The table of rates answers that, too. Each line below gives the score of a method at its own
# best rate, then at the best rate of LoRA, then at the best rate of SPP (an empty cell: this rate was not tried).
#
# **Predict:** if everyone had to use LoRA's best rate, how many points would SPP lose?

# %%
guess_common = Guess("How many points does SPP lose at LoRA's best rate?")

# %%
own = pd.Series({name: grid.loc[name, best[name]] for name in best})
common = pd.DataFrame({"own": own, "LoRA's": grid[best["lora"]], "SPP's": grid[best["spp"]]})
lost_by_spp = own["spp"] - common["LoRA's"]["spp"]
lost_by_lora = own["lora"] - common["SPP's"]["lora"]
guess_common.compare(f"{100 * lost_by_spp:.1f} points")
print(f"LoRA at SPP's best rate loses {100 * lost_by_lora:.1f} points")
common.map("{:.1%}".format).where(common.notna(), "")

# %% tags=["we-checked"]
from spp_lite.teaching import choose_rates

chosen = choose_rates(rates)
assert chosen.keys() == best.keys()
assert all(grid.loc[name, chosen[name]] == own[name] for name in best)
print("checked: the library chooses rates of the same scores")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The ring marks the best rate of each line (the smaller one where two tie). Where the rings stand at different rates, one rate for all is unfair to somebody: the
# last two columns of the table say to whom, and by how much. Whoever picks the common rate picks who loses. If the ring of a
# method lay at the edge of what was tried, its true best could lie beyond.
#
# `direct` ties: 0.007 and 0.012 have the same score (the runs of the table used 0.012). With 0.012 every method that multiplies
# would take a larger rate than any that adds; with 0.007 `direct` lies below LoRA\*. So this table leaves the rule open.
# </details>
#
# Why could a multiplying method want a larger rate? AdamW, the optimizer, changes a number by about the learning rate in a
# step. If that number is a weight, the weight moves by as much. If it is a factor of SPP, the weight moves by that times
# something of the size of the weight itself, $\lvert W \rvert$, and that is small:

# %%
from spp_lite import load
from spp_lite.teaching import block_linears

tiny, _ = load("tiny")
linears = [linear.weight.detach() for linear in block_linears(tiny).values()]
weights = sum(weight.numel() for weight in linears)
median = max(float(weight.abs().median()) for weight in linears)
print(f"{weights:,} weights in {len(linears)} linears; the largest median of |W|: {median:.3f}")

# %% [markdown]
# This is a reason to expect a larger rate, not a proof. That is why we let the validation split decide.
#
# ## 3 · Is the difference real?
#
# Run the same cell with another seed and the score moves. From $n$ runs we know their mean $\bar a$ and their standard
# deviation $d$ (which divides by $n-1$). The mean over very many seeds is not known, but we can give an interval for it that
# misses it only once in twenty times. It is the *95 % interval* of the mean:
#
# $$\bar a \pm t_n\, \frac{d}{\sqrt{n}}$$
#
# $t_n$ is Student's t, which makes up for how little a few runs tell about their own spread: 12.71 for two runs, 4.30 for
# three, 2.78 for five.
#
# **Ex 08b · core · difficulty ●●○ · importance ●●● · ~8 min.** Return half of the width of that interval, the part after ±, for
# a list of scores. `T95[n]` is Student's t for n runs.

# %%
import statistics

from spp_lite.teaching.checks.results import T95


def half_width(scores):
    # BEGIN SOLUTION
    return T95[len(scores)] * statistics.stdev(scores) / len(scores) ** 0.5
    # END SOLUTION


# %% tags=["check"]
checks.ex_08b(half_width)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The module `statistics` has two kinds of standard deviation. One divides by n, the other by n − 1, as it should for a sample.
# </details>
# <details><summary>Hint 2</summary>
#
# A mean of n runs varies less than one run does, by the square root of n. Then t makes the interval wide enough.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Predict:** are these intervals wider at 70 % zeros or at 90 %? Both have the same number of seeds.

# %%
guess_wide = Guess("Where are the intervals wider?", ["at 70 %", "at 90 %", "it varies"])

# %%
half_width = yours(half_width, checks.ex_08b)
groups = wanda[wanda["method"] != "dense"].groupby(["method", "sparsity"])["accuracy"]
half = groups.apply(lambda scores: half_width(list(scores))).unstack()
wider = int((half["90%"] > half["70%"]).sum())
guess_wide.compare(f"at 90% for {wider} of {len(half)} methods")
half[sparsities].map("± {:.1%}".format)

# %% tags=["we-checked"]
assert [T95[n] for n in (2, 3, 5)] == [12.71, 4.3, 2.78]
print("checked: the values of Student's t in the text")

# %% [markdown]
# Each of these intervals says how far *one* mean can be trusted. Whether two methods *differ* is another question, and it
# would be a mistake to answer it by looking whether two intervals overlap. With the same seed, all methods get the same
# calibration texts, hence the same mask, and the same order of records. If that draw is unlucky, it is unlucky for both. So
# take the *difference*, seed by seed: what both have in common drops out. Then look at the interval of the mean difference.
#
# **Ex 08c · core · difficulty ●●○ · importance ●●● · ~12 min.** You get the runs of one sparsity, with the columns `method`,
# `seed` and `accuracy`, and the names of two methods. Return two numbers: the mean of the differences (`method` minus `other`,
# seed by seed), and half of the width of its 95 % interval. Only seeds count for which both methods have a score that is not
# NaN. The rows stand in any order.


# %%
def paired_gain(table, method, other):
    # BEGIN SOLUTION
    scores = table.pivot(index="seed", columns="method", values="accuracy")
    gains = list((scores[method] - scores[other]).dropna())
    return statistics.mean(gains), half_width(gains)
    # END SOLUTION


# %% tags=["check"]
checks.ex_08c(paired_gain)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `pivot` makes a table with a row for each seed and a column for each method. Then pandas does the matching.
# </details>
# <details><summary>Hint 2</summary>
#
# A difference with NaN is NaN, so you can drop what is missing after subtracting. You have already written the interval.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# If the interval of the difference lies above 0, the first method is **ahead**; if it lies below 0, the first method is
# **behind**; and if it contains 0, the pair is **undecided**. Undecided is not "equal": it says that these runs do not tell.
#
# **Predict:** SPP against masked LoRA at 75 %: is SPP ahead, behind, or is it undecided?

# %%
guess_pair = Guess("SPP against masked LoRA at 75 %?", ["ahead", "behind", "undecided"])

# %%
paired_gain = yours(paired_gain, checks.ex_08c)


def verdict(mean, half):
    return "undecided" if abs(mean) <= half else "ahead" if mean > 0 else "behind"


def points(mean, half):
    return f"{100 * mean:+.1f} ± {100 * half:.1f} points"


at = wanda[wanda["sparsity"] == AT]
mean, width = paired_gain(at, "spp", "masked-lora")
guess_pair.compare(f"{verdict(mean, width)}: SPP minus masked LoRA is {points(mean, width)}")

# %%
from spp_lite.teaching.labs.results import plot_pairs

alt = f"The scores of each seed joined, and their differences: {points(mean, width)}."
show(plot_pairs(at, "spp", "masked-lora", mean, width), alt=alt)

# %%
by_seed = at.pivot(index="seed", columns="method", values="accuracy")[["spp", "masked-lora"]]
ranges = by_seed.agg(["min", "max"]).T
overlap = ranges["min"].max() <= ranges["max"].min()
seen = "overlap" if overlap else "do not overlap"
print(f"the two ranges of scores {seen}; the pairs say: {verdict(mean, width)}")
ranges.map("{:.1%}".format)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# On the left every line is a seed. Where all lines lean the same way by about as much, the pairs agree, however far apart the lines
# lie. Where some lean the other way, the differences on the right stand on both sides of 0, and the interval of their mean
# tends to contain 0. The last printed line sets the two ways of looking side by side: whether the ranges overlap, and what the
# pairs say. Only the pairs answer the question.
# </details>
#
# **Ex 08d · stretch · difficulty ●●● · importance ●●○ · ~15 min.** Student's t supposes bell-shaped differences. Here is a way
# without that: if neither method were better, every difference could as well have had the other sign. So give the n
# differences all $2^n$ combinations of signs. Return the share of them whose mean is at least as far from 0 as the real one;
# the real signs are one of the combinations.

# %%
import itertools


def flips(differences):
    # BEGIN SOLUTION
    ways = itertools.product((1, -1), repeat=len(differences))
    pairs = [zip(way, differences, strict=True) for way in ways]
    sums = [abs(sum(sign * gain for sign, gain in pair)) for pair in pairs]
    return sum(value >= sums[0] - 1e-12 for value in sums) / len(sums)
    # END SOLUTION


# %% tags=["check"]
checks.ex_08d(flips)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `itertools.product((1, -1), repeat=n)` runs through all combinations of signs. All of them have the same n, so sums do as well
# as means.
# </details>
# <details><summary>Hint 2</summary>
#
# "At least as far from 0" is about the absolute value, and equal counts. Allow for the last bit of a floating-point number.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
flips = yours(flips, checks.ex_08d)
gains = list((by_seed["spp"] - by_seed["masked-lora"]).dropna())
share = float(flips(gains))
print(f"{share:.1%} of the {2 ** len(gains)} combinations are as far from 0")
print(f"with {len(gains)} pairs this share cannot be less than {2 / 2 ** len(gains):.1%}")

# %% [markdown]
# A small share speaks against chance. But the second line shows the price of supposing nothing: with so few pairs, the share has
# a floor, and the t interval can be surer only because it supposes a bell.
#
# ## 4 · Who wins where?
#
# Now your `paired_gain` compares SPP with every other method at every sparsity.
#
# **Predict:** start with the fewest zeros. At 50 %, which of the methods are ahead of the model that was pruned and left
# alone?

# %%
options = ["all", "some", "nobody"]
guess_few = Guess("At 50 %, which are ahead of the model that was left alone?", options)

# %%
few = wanda[wanda["sparsity"] == FEW]
others = [name for name in few["method"].unique() if name != "none"]
against_none = {name: paired_gain(few, name, "none") for name in others}
for name, gain in against_none.items():
    print(f"{name:12} minus none at {FEW}: {points(*gain):18} {verdict(*gain)}")
ahead = [name for name, gain in against_none.items() if verdict(*gain) == "ahead"]
behind = [name for name, gain in against_none.items() if verdict(*gain) == "behind"]
guess_few.compare(f"ahead: {', '.join(ahead) or 'nobody'}; behind: {', '.join(behind) or 'nobody'}")

# %% [markdown]
# No method is behind here. If one were, its training would have done more harm than good. So do not suppose
# that at few zeros all methods start from the same point; look. Now for all sparsities:

# %%
rivals = wanda[~wanda["method"].isin(["dense", "spp"])]
rows = []
for (sparsity, other), _ in rivals.groupby(["sparsity", "method"], sort=False):
    gain = paired_gain(wanda[wanda["sparsity"] == sparsity], "spp", other)
    rows.append((sparsity, other, *gain, verdict(*gain)))
duels = pd.DataFrame(rows, columns=["sparsity", "against", "mean", "half", "SPP is"])
verdicts = duels.pivot(index="against", columns="sparsity", values="SPP is")[sparsities]
single = verdicts.index[verdicts.nunique(axis=1) == 1]
print("rows with the same word at every sparsity:", ", ".join(single) or "no row")
verdicts.rename_axis(index="SPP against")

# %%
for other, mine in duels.groupby("against", sort=False):
    where = {word: mine.loc[mine["SPP is"] == word, "sparsity"] for word in ("ahead", "behind")}
    told = [f"{word} at {', '.join(names) or 'no sparsity'}" for word, names in where.items()]
    undecided = int((mine["SPP is"] == "undecided").sum())
    print(f"SPP against {other:12} {'; '.join(told)}; undecided at {undecided} of {len(mine)}")

# %%
from spp_lite.teaching import plot_paired

figure = plot_paired(wanda)
ahead_of_star = duels[(duels["against"] == "lora*") & (duels["SPP is"] == "ahead")]
many = f"{len(ahead_of_star)} of {len(sparsities)}"
title = f"SPP is ahead of LoRA* at {many} sparsities (points below 0)"
figure.axes[0].set_title(title)
show(figure, alt=title + ". Each method minus SPP, paired by seed, with 95 % intervals.")

# %% [markdown]
# And who is best of all? For every sparsity, this table names the method with the highest mean among those that keep the zeros,
# and the methods that the pairs do not tell apart from it. The leader was picked by these very scores, which flatters it a
# little.

# %%
from spp_lite.teaching.labs.results import leaders

winners = leaders(wanda)
winners.set_index("sparsity")

# %%
print("highest mean:", winners["highest mean"].value_counts().to_dict())
alone = winners[winners["not told apart from it"] == "nobody"]
print("and told apart from all others at:", ", ".join(alone["sparsity"]) or "no sparsity")
missed = f"about {len(duels) / 20:.0f} would miss 0"
print(f"{len(duels)} intervals: if nobody differed from SPP, {missed}")

# %% tags=["we-checked"]
from spp_lite.teaching import paired

library = paired(wanda, against="spp").set_index(["sparsity", "method"])
mine = duels.set_index(["sparsity", "against"]).rename_axis(["sparsity", "method"])
assert (mine["mean"] + library["mean"]).abs().max() < 1e-9
assert (mine["half"] - library["half"]).abs().max() < 1e-3 and len(mine) == len(library)
print("checked: your differences and intervals are the library's, in every cell")
said = duels.set_index(["against", "sparsity"])["SPP is"]
assert "behind" not in said["lora*"].values and "ahead" not in said["direct"].values
for name in ("masked-lora", "masked-full"):
    assert {said[name, where] for where in ("80%", "90%", "2:8")} == {"behind"}
print("checked: who wins where, as the next text says it")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# SPP is never behind LoRA*, the rival of the paper, and ahead of it at most sparsities. It is never ahead of `direct`, which is as
# large. And where pruning took most (80 %, 90 %, 2:8), masked LoRA and masked full fine-tuning have overtaken it. So "better"
# needs a place: the sentence that the table supports is "ahead of this method at these sparsities". The line of `lora`
# compares SPP with a *dense* model: where SPP is behind, it has not lost to a sparse rival.
#
# This is accuracy. In *perplexity*, which asks how well the model still predicts ordinary text, SPP is ahead of masked LoRA at
# all six ratios (at the N:M patterns the two are not told apart), and behind `direct` and masked full at 2:8: the next cell
# counts. Training on records of tasks can make a model worse at other text.
# </details>
#

# %%
for other in ("masked-lora", "masked-full", "direct"):
    found = paired(wanda, "perplexity", against="spp").groupby("method").get_group(other)
    where = {word: ", ".join(here["sparsity"]) for word, here in found.groupby("verdict")}
    lower, higher = where.get("wins", "none"), where.get("loses", "none")
    print(f"perplexity, SPP against {other:12} lower at {lower}; higher at {higher}")

# %% [markdown]
# One doubt is left. The rates of all ratios were chosen at 75 %. Are they right at 90 %, too? There, five methods chose their
# rates once more, on the validation split, and ran again with five seeds:

# %%
chosen_there = pd.read_csv(embedded("results", "at-90", "sweep.csv"))
at_90 = wanda[wanda["sparsity"] == "90%"]
for other in ("masked-lora", "masked-full", "direct", "hira"):
    found = [paired_gain(rows, "spp", other) for rows in (at_90, chosen_there)]
    first, then = (f"{points(*gain):15} {verdict(*gain)}" for gain in found)
    print(f"SPP minus {other:12} {first:26} with new rates: {then}")

# %% tags=["we-checked"]
old, new = (rows.loc[rows["method"] == "spp", "lr"].unique() for rows in (at_90, chosen_there))
assert len(old) == len(new) == 1 and new[0] > 2 * old[0]
assert verdict(*paired_gain(chosen_there, "spp", "masked-lora")) == "undecided"
assert verdict(*paired_gain(chosen_there, "spp", "masked-full")) == "behind"
print("checked: the new rate of SPP is more than twice the old, and who is ahead at 90 %")

# %% [markdown]
# With its new rate, nearly three times the old, SPP is no longer behind masked LoRA at 90 %: the pair is undecided. It is still behind masked
# full fine-tuning. A table compares methods *with their rates*, and a rate that was chosen somewhere else can decide who wins.
#

# %% [markdown]
# ## 5 · What an average hides
#
# The average goes over seven families of questions, and one of them could carry it.
#
# **Predict:** which family is lowest at 75 % after pruning, and is SPP ahead of pruning alone there?

# %%
guess_family = Guess("Which family is lowest after pruning at 75 %, and is SPP ahead there?")

# %%
families = [name for name in wanda if name.startswith("tiny_")]
both = wanda[(wanda["sparsity"] == AT) | (wanda["method"] == "dense")]
by_family = both.groupby("method")[families].mean().T[["dense", "none", "spp"]]
by_family.insert(0, "chance", [chance_accuracy(name) for name in families])
gains = {name: paired_gain(at.assign(accuracy=at[name]), "spp", "none") for name in families}
lowest = by_family["none"].idxmin()
found = by_family.loc[lowest, "none"]
guess_family.compare(f"{lowest}: {found:.1%}, SPP {verdict(*gains[lowest])}")
shown = by_family.map("{:.1%}".format)
shown["SPP minus none"] = [points(*gain) for gain in gains.values()]
shown["SPP is"] = [verdict(*gain) for gain in gains.values()]
shown.rename_axis("family")

# %%
from spp_lite.teaching import plot_tasks

chosen = wanda[wanda["method"].isin(["dense", "none", "spp", "lora*", "masked-full"])]
helped = [name for name in families if verdict(*gains[name]) == "ahead"]
title = f"At {AT} zeros, SPP is ahead of pruning alone in {len(helped)} of {len(families)} families"
figure = plot_tasks(chosen, sparsity=AT)
figure.axes[0].set_title(title)
show(figure, alt=title + ". Accuracy of each family, a bar per method.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Read the first three columns first: blind guessing, the dense model, and what pruning left. In a family that pruning hardly hurt,
# no method can show much, and its share of the average is noise. Of the other families, see in the last column where SPP helped.
# `boolq` is the exception: it lost 14 points, and the pairs do not show that SPP brings any back. Its answers stand in a passage, so
# it asks for reading, not for facts that the records could repeat.
# </details>
#
# Cost is part of a score, too. SPP trains $r \cdot \mathrm{in} + \mathrm{out}$ numbers for a weight. Masked full fine-tuning is
# handed every weight, but the gradients of the zeros are masked, so it changes only the **survivors**: at 75 % zeros a quarter
# of the weights. The table counts what each method trains.

# %%
from spp_lite.teaching.labs.results import plot_trained

trained = at.groupby("method")["parameters"].first().astype(int)
trained = trained[trained > 0].to_dict()
survivors = trained["masked-full"]
ratio = trained["spp"] / survivors
print(f"masked-full: {survivors:,} survivors of {weights:,} weights; SPP {ratio:.0%} as many")
title = f"Masked full trains the {survivors:,} survivors, SPP {ratio:.0%} as many numbers"
show(plot_trained(at, trained, title), alt=title + ". Accuracy against trained numbers.")

# %% [markdown]
# Compare the points that stand side by side: they cost nearly the same. The bars are intervals of single means, so for a verdict on two
# of these points go back to the pairs of section 4.
#
# ## 6 · Recompute a point
#
# A table is worth believing when anyone can recompute its rows. Here is one of them: the same code, the same seed, with the
# settings that the row itself names.

# %%
from spp_lite.teaching import calibration_batches, default_texts, load_tokenizer, resolve

row = at[(at["method"] == "spp") & (at["seed"] == 0)].iloc[0]
texts, tokenizer = default_texts(model="tiny"), load_tokenizer(resolve("tiny"))
batches = calibration_batches(texts, tokenizer, samples=384, length=128)
row[["method", "pruner", "sparsity", "seed", "lr", "max_steps", "batch_size", "accuracy"]]

# %%
from spp_lite import load_alpaca
from spp_lite.teaching import Recipe, Run, do_run

training = {"max_steps": int(row["max_steps"]), "batch_size": int(row["batch_size"])}
recipe = Recipe("tiny", load_alpaca("tiny"), batches, training=training, progress=False)
again = do_run(recipe, Run("spp", "wanda", AT, 0, float(row["lr"])))
print(f"recomputed {again['accuracy']:.1%}, in the table {row['accuracy']:.1%}")

# %% tags=["we-checked"]
assert abs(again["accuracy"] - row["accuracy"]) < 0.03  # other machines round differently
assert again["parameters"] == row["parameters"] and again["zeros_after"] == again["zeros_before"]
print("checked: the row comes out again, with as many parameters and every zero kept")

# %% [markdown]
# ## 7 · Lab: the results explorer
#
# **Predict:** how many seeds does it take until SPP wins against LoRA* at most sparsities? **Try** the menus and the slider
# (mouse, or Tab and the arrow keys). Title and read-out count what paired differences tell apart: "wins" means ahead, "loses"
# means behind.

# %% tags=["lab"]
from spp_lite.teaching.labs.results import ResultsLab

lab = ResultsLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(pruner="wanda", method="spp", other="lora*")

# %% [markdown]
# **Explain.** (1) With one seed, at how many sparsities does anybody win, and why? (2) Swap the two methods. What happens to the
# three counts of the read-out?
#
# <details><summary>Answers</summary>
#
# (1) At none: one difference has no spread, so nobody knows how far it would move with another seed. (2) Wins and losses change
# places, and "undecided" stays as it is: if an interval contains 0, so does its mirror image. The next cell counts the wins of SPP
# against LoRA* for every number of seeds. It answers the Predict above: three seeds are the first with which SPP wins at most sparsities.
# </details>

# %%
for seeds in lab.inputs["seeds"].options:
    state = {"pruner": "wanda", "metric": "average", "seeds": seeds}
    print(lab.render(method="spp", other="lora*", **state)[1])

# %% tags=["we-checked"]
one = lab.render(**{**state, "seeds": 1}, method="spp", other="lora*")[1]
assert "wins at 0, loses at 0" in one
from spp_lite.teaching import paired

two = wanda[wanda["seed"] < 2]
won = [paired(rows).query("method == 'lora*' and verdict == 'wins'") for rows in (two, wanda)]
assert len(won[0]) <= len(sparsities) / 2 < len(won[1])
print("checked: with one seed nothing is told apart; with three SPP wins at most sparsities")

# %% [markdown]
# ## 8 · On a real LLaMA
#
# The same figure for SmolLM2-135M, pruned by Wanda; at 2:4 it was trained, 60 steps by each method. The score is the *perplexity* of
# encyclopedia prose: e to the mean loss per token, so low is good. The axis is logarithmic.

# %%
smol = pd.read_csv(embedded("results", "smollm2", "60-steps", "sweep.csv"))
smol = smol[smol["perplexity"].notna() & smol["pruner"].isin(["dense", "wanda"])]
runs = smol.groupby(["sparsity", "method"])["perplexity"].agg(["mean", "count"])
mean = runs["mean"]
bare, spp, dense = mean["2:4", "none"], mean["2:4", "spp"], mean["0%", "dense"]
title = f"SmolLM2 at 2:4: perplexity {bare:.0f} when pruned, {spp:.0f} after SPP, dense {dense:.0f}"
figure = plot_accuracy_vs_sparsity(smol, value="perplexity", title=title)
show(figure, alt=title + ". Perplexity against sparsity on a logarithmic axis.")

# %%
alone = int((runs["count"] == 1).sum())
print(f"{alone} of {len(runs)} cells have one run: no interval, and no verdict by pairs")
runs.round(1)

# %%
pairs = paired(smol, "perplexity", against="spp")
pairs = pairs[pairs["n"] > 1].set_index("method")[["n", "mean", "half", "verdict"]]
pairs.rename(columns={"n": "seeds", "verdict": "SPP"}).round(1)

# %% tags=["we-checked"]
kept = smol[~smol["method"].isin(["dense", "lora"])]
assert (kept["zeros_after"] >= kept["zeros_before"]).all()
assert dense < spp < bare
print("checked: no zero was filled; at 2:4 SPP lies between the pruned and the dense model")

# %% [markdown]
# A cell with a single run has no interval, so read large gaps and leave small ones alone. Where there are seeds, the second table has
# each method's perplexity minus that of SPP, paired by seed, and what SPP does by it. One command makes such rows, seed by
# seed, for the sparsities that it names. It takes minutes for each row, and notebook 09 says where its files come from:
#
# ```bash
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 40960 --tasks text:wiki.txt --steps 60 \
#     --batch-size 8 --cutoff 256 --bf16 --seeds 3 --methods none spp masked-lora --pruners wanda --sparsity 2:4 \
#     --rates data/results/smollm2/60-steps/rates.csv --out results
# ```
#
# ## 9 · Read an error message
#
# "The more runs, the better: let us throw in those with the other learning rates, too." This cell follows that sentence, and
# fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
from spp_lite.teaching import paired

paired(pd.concat([at, rates]), against="spp")

# %% [markdown]
# Read which run it names: one method, sparsity and seed, of which there are two. Keeping the better run would choose the
# rate on the scores that are reported. Averaging both would mix in a bad rate.
#
# ## Recap
#
# 1. Every run is one row, and every figure comes from the rows alone: anyone can recompute a point.
# 2. Every method chooses its learning rate by the same rule, on the validation split.
# 3. An interval of a mean says how far that mean can be trusted; it does not compare two methods.
# 4. Two methods are compared by their paired differences. Where that interval contains 0, the pair is undecided.
# 5. Say who wins *where*; an average hides its families, and the numbers that are trained are part of a method's cost.
#
# ## Quiz
#
# <details><summary>1. Why not choose the learning rate on the test split?</summary>
#
# The best of several noisy scores is too good by luck. Chosen on the test split, that luck is reported as skill.
# </details>
# <details><summary>2. The intervals of A and B overlap. Is A as good as B?</summary>
#
# That says nothing. Pair the runs by seed: the interval of the differences decides, or leaves the pair undecided.
# </details>
# <details><summary>3. Merged, dense LoRA is ahead of SPP at 75 %, 90 % and 2:8. Has SPP lost there?</summary>
#
# Not to a rival: LoRA has refilled the zeros, and its model is no longer sparse. It is a reference. What this table says about
# the two stands in the lines of section 4.
# </details>
# <details><summary>4. Masked full fine-tuning at 75 % zeros: how many of its weights are trained?</summary>
#
# A quarter of them, the survivors. The optimizer is handed all, but the zeros get no gradient and stay zero.
# </details>
#
# **Next:** [09 · A real LLaMA](09_a_real_llama.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
