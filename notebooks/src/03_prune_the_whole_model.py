# %% [markdown]
# # 03 · Prune the whole model
# {{badge}}
#
# You can prune one matrix and one layer. A model has dozens of matrices, they feed each other, and they do not bear
# pruning equally well. Here you prune all of them, find out which ones hurt, and spend the same number of zeros where
# they hurt least.
#
# > **Goals** – measure how much pruning changed (Ex 03a); prune a whole model block by block (Ex 03b); find the price of
# > the next zero in every kind of linear (Ex 03c); work out the ratio that a budget leaves to the other layers (Ex 03d).
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 01 and 02: masks, and the scores of magnitude pruning, Wanda and SparseGPT. The names and
# > symbols are in the [table of notebook 00](00_start_here.ipynb).
# > **Tiny** – the model, its texts and its tasks; which kind of linear is sensitive is a finding about *this* model.
# > **Real** – the walk through the blocks, the scan and the budget: the same calls take a LLaMA folder (`SPP_MODEL`).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Two yardsticks
#
# Before we prune, we need a number that says how good a model is. The usual first one is *perplexity*. The model reads a
# text; at every token it gives the token that really comes next some probability $P$. Perplexity is
#
# $$\exp\Bigl(\text{mean over all tokens of } -\log P\Bigr).$$
#
# Lower is better. A model that is always certain and always right has perplexity 1; a model that hesitates between ten
# equally likely tokens has perplexity 10.
#
# Long texts are joined and cut into windows, and the model sees nothing from before its window. In a longer window most
# tokens have more text before them.
#
# **Predict:** what happens to perplexity when the windows get longer?

# %%
from spp_lite import load, perplexity
from spp_lite.teaching import Guess, default_texts, is_tiny

guess_window = Guess(
    "What happens to perplexity when windows get longer?",
    ["it falls to the end", "it falls, then it rises", "it rises from the start"],
)
TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
dense_weights = {name: value.clone() for name, value in model.state_dict().items()}
texts = default_texts("validation")[:40]

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.model import plot_windows

most = min(256, model.config.max_position_embeddings)
lengths = [length for length in (16, 32, 64, 128, 256) if length <= most]
by_length = {length: perplexity(model, tokenizer, texts, length=length) for length in lengths}
LENGTH = min(by_length, key=by_length.get)  # where the dense model does best
show(
    plot_windows(by_length),
    alt=f"Perplexity against the window's length, lowest at {LENGTH} tokens.",
)

# %%
shape = {min(by_length): "it rises from the start", max(by_length): "it falls to the end"}
shape = shape.get(LENGTH, "it falls, then it rises")
guess_window.compare(f"{shape}: {by_length[LENGTH]:.1f} is the lowest, at {LENGTH} tokens")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# More text before a token helps a model that has learned to use it, so the curve falls. The tiny model was trained on
# windows of 256 tokens and takes no longer ones. A model that is given longer windows than it read in training is lost
# there, and the curve rises again. So a perplexity without its window length says little, and two perplexities may be
# compared only at the same length. From here on we use the length at which the dense model does best.
# </details>
#
# The second yardstick does not ask how good the model is, but how much pruning *changed* it. Let $p_t$ be the
# probabilities that the dense model gives to all tokens of the vocabulary at place $t$, and $q_t$ those of the pruned
# model. How far $q_t$ is from $p_t$ is told by their Kullback–Leibler divergence. Its mean over the $T$ tokens of some
# texts is our **damage**:
#
# $$D = \frac1T\sum_{t=1}^{T}\;\sum_v p_t(v)\,\bigl(\log p_t(v) - \log q_t(v)\bigr),$$
#
# where $v$ runs over the vocabulary. The damage is 0 when nothing changed, it is never negative, and its unit is the nat
# per token. It needs no right answers, only some texts.
#
# **Ex 03a · core · difficulty ●●○ · importance ●●● · ~8 min.** Write the damage. A model returns *logits*, of shape
# (batch, length, vocabulary); softmax over the vocabulary makes probabilities of them. Texts differ in length, so the
# shorter ones are padded. `real`, of shape (batch, length), is True at real tokens: only those count. Return one number.


# %%
def damage(dense_logits, pruned_logits, real):
    # BEGIN SOLUTION
    log_p = dense_logits.float().log_softmax(dim=-1)
    log_q = pruned_logits.float().log_softmax(dim=-1)
    per_token = (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # (batch, length)
    return per_token[real].mean().item()
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_03a(damage)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `log_softmax(dim=-1)` gives the logarithms of probabilities, and `.exp()` takes you from there to probabilities.
# </details>
# <details><summary>Hint 2</summary>
#
# First make one number for each place, of shape (batch, length): a sum over the last dimension. A bool tensor of the same
# shape picks the places that count.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# From here on your function is used. We measure damage on sixteen texts, cut to at most 64 tokens each.

# %%
import torch

from spp_lite.teaching import yours

damage = yours(damage, checks.ex_03a)
short = {"truncation": True, "max_length": 64, "padding": True, "return_tensors": "pt"}
inputs = tokenizer(texts[:16], **short).to(model.device)
real = inputs["attention_mask"].bool()


@torch.no_grad()
def logits_of(model):
    return model(**inputs).logits.float()


# %%
dense_logits = logits_of(model)


def damage_now():
    """How far the model is, as it stands, from the dense one."""
    return float(damage(dense_logits, logits_of(model), real))


print(f"{int(real.sum())} real tokens; damage before pruning: {damage_now():.6f}")

# %% tags=["we-checked"]
assert abs(damage_now()) < 1e-5
print("checked: nothing is pruned yet, and the damage is 0")

# %% [markdown]
# ## 2 · Block by block
#
# A LLaMA is a pile of equal decoder blocks. Each holds seven linears, and those are what we prune. Everything else, the
# norms, the embedding and the output head, stays as it is.

# %%
from spp_lite.teaching import block_linears
from spp_lite.teaching.labs.blocks import draw_block, draw_walk

linears = block_linears(model)  # name → linear
shapes = {name: tuple(linear.weight.shape) for name, linear in linears.items()}
show(
    draw_block({name.split(".")[-1]: shape for name, shape in shapes.items()}),
    alt="A decoder block: q, k, v feed attention, o closes it; gate and up feed down.",
)

# %% [markdown]
# Wanda needs the inputs of every linear. Where do we get them? The inputs of block 1 are the outputs of block 0. Once
# block 0 is pruned its outputs differ, and it is those that block 1 will really get. So pruning *walks* through the
# blocks in order, and does three things at each.

# %%
show(
    draw_walk(),
    alt="Calibrate: note a block's inputs. Prune it. Feed its new outputs to the next block.",
)

# %% [markdown]
# The library's `walk(model, batches)` takes care of steps 1 and 3. It hands you one block after the other:
#
# ```python
# for here in walk(model, batches):
#     here.linears        # name → linear, the seven of this block
#     here.statistics()   # name → what was seen of its inputs; .squares, (in,), is the mean of x² over all tokens
# ```
#
# It runs the block on its inputs, as the block then is, when the loop asks for the next one. Only one block's
# statistics are in memory at a time, so this works for large models, too.
#
# **Ex 03b · core · difficulty ●●○ · importance ●●● · ~12 min.** Prune the whole model by Wanda. For every linear of every
# block, score the weights by $S_{ij} = |W_{ij}|\,\lVert x_j\rVert$ with $\lVert x_j\rVert$ the root of the mean square, and
# set the lowest share `ratio` *of each row* to zero, in place. Return how many weights you set to zero in all.
# `Sparsity(ratio).mask(scores, per_row=True)` is notebook 01's mask: True where a weight stays. To change a weight in place
# without asking for gradients, write to `linear.weight.data`.

# %%
from spp_lite import Sparsity
from spp_lite.teaching import calibration_batches, walk


def prune_blocks(blocks, ratio):
    # BEGIN SOLUTION
    zeros = 0
    for here in blocks:
        seen = here.statistics()  # once, before the first linear of the block changes
        for name, linear in here.linears.items():
            scores = linear.weight.abs() * seen[name].squares.sqrt()
            keep = Sparsity(ratio).mask(scores, per_row=True)
            linear.weight.data *= keep
            zeros += int((~keep).sum())
    return zeros
    # END SOLUTION


# %% tags=["check"]
checks.ex_03b(prune_blocks)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two loops: over the blocks, and over the linears of a block. Ask for the statistics between the two.
# </details>
# <details><summary>Hint 2</summary>
#
# A weight times its mask, entry by entry, is the pruned weight. `~keep` is True where a weight went.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
prune_blocks = yours(prune_blocks, checks.ex_03b)
batches = calibration_batches(default_texts(), tokenizer, samples=32, length=128)
zeros = prune_blocks(walk(model, batches), 0.5)
weights = {name: linear.weight for name, linear in linears.items()}
total = sum(weight.numel() for weight in weights.values())
print(f"{zeros:,} of {total:,} weights are zero now; damage {damage_now():.3f} nats per token")

# %% [markdown]
# The library's `prune` does the same walk. It also reports, for every linear, the **output error** of notebook 02:
# $\lVert \Delta W\,x\rVert^2 / \lVert W x\rVert^2$, where $x$ are the inputs that this linear got and $\Delta W$ is what
# pruning changed.

# %%
from spp_lite import prune
from spp_lite.teaching.labs.model import plot_errors

yours_is_zero = {name: weight == 0 for name, weight in weights.items()}
model.load_state_dict(dense_weights)
report = prune(model, batches, "50%", method="wanda", progress=False)
show(
    plot_errors(report.table),
    alt="Relative output error of every linear, in the order of the model, a colour for each kind.",
)

# %% tags=["we-checked"]
differ = sum(int((yours_is_zero[name] != (weight == 0)).sum()) for name, weight in weights.items())
assert differ <= (0 if TINY else total // 1000)  # in a large weight, rounding may decide a near tie
print(f"checked: same zeros as prune() makes, in all {len(weights)} linears")

# %% [markdown]
# These are the errors of single linears, each measured on the inputs that it got. What about the model as a whole? We
# walk through the dense and the pruned model side by side and compare the outputs of their blocks.
#
# **Predict:** the output of the last block, compared with the dense model's: how wrong is it, compared with the error of
# one of its own linears?

# %%
guess_drift = Guess(
    "How wrong is the last block's output, compared with one of its linears?",
    ["less", "about as much", "two to three times", "more than three times"],
)
dense, _ = load()
drift = []
with torch.no_grad():
    for before, after in zip(walk(dense, batches[:1]), walk(model, batches[:1]), strict=True):
        right, found = before.output(0), after.output(0)
        drift.append(((found - right).square().sum() / right.square().sum()).item())

# %%
from spp_lite.teaching.labs.model import plot_drift

blocks = report.table["layer"].str.extract(r"\.(\d+)\.")[0].astype(int)  # model.layers.3.… → 3
errors = report.table["error"].groupby(blocks).mean().tolist()
show(
    plot_drift(errors, drift),
    alt=f"At the last block: linears' errors {errors[-1]:.3f}, output's error {drift[-1]:.3f}.",
)
guess_drift.compare(f"{drift[-1] / errors[-1]:.1f} times as wrong")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The dashed line holds errors that are made *inside* a block, on the inputs that it got. The solid line holds everything
# that went wrong up to there: the block's own errors, and the wrong inputs that all blocks before it left behind. Here it lies
# above. It need not rise: here it falls in the last block. (If the last block adds a large output that is nearly
# right, the relative error falls; we did not test this.) You cannot compute one line from the other, and no table of layer errors can
# replace a test of the model.
# </details>
#
# ## 3 · How far can you go?
#
# Now all three criteria, at three ratios. A fair comparison has the same number of zeros. Wanda rounds down in every row,
# so "70%" can mean a little less; `allocation={"*": 0.7}` makes it exact to the weight.
#
# To damage and perplexity we add a third yardstick, the accuracy of notebook 00's seven tasks, scored on the test split.
# Forty questions of each and one draw of calibration texts are only a quick look. `docs/results.md` compares the criteria over
# three to five seeds.
#
# **Predict:** SparseGPT also corrects the weights that stay. Which criterion changes the model least at 80 %?

# %%
from spp_lite import evaluate
from spp_lite.teaching import average_accuracy, default_tasks

CRITERIA = ("magnitude", "wanda", "sparsegpt")
guess_criterion = Guess("Which criterion does the least damage at 80 % zeros?", CRITERIA)


def pruned(ratio, method="wanda", batches=batches, **options):
    """Put the dense weights back, and prune them."""
    model.load_state_dict(dense_weights)
    return prune(model, batches, ratio, method, progress=False, **options)


def accuracy(model):
    return average_accuracy(evaluate(model, tokenizer, default_tasks(), limit=40, progress=False))


# %%
import pandas as pd

rows = []
for method in CRITERIA:
    for ratio in (0.5, 0.7, 0.8):
        report = pruned(ratio, method, allocation={"*": ratio})
        scores = damage_now(), perplexity(model, tokenizer, texts, length=LENGTH), accuracy(model)
        rows.append((method, ratio, report.sparsity, *scores))
yardsticks = ["damage", "perplexity", "accuracy"]
methods = pd.DataFrame(rows, columns=["method", "ratio", "zeros", *yardsticks])
methods.round(3)

# %%
from spp_lite.teaching.labs.model import best_by, plot_methods

unpruned = {"damage": 0.0, "perplexity": by_length[LENGTH], "accuracy": accuracy(dense)}
show(
    plot_methods(methods, unpruned),
    alt="Damage, perplexity and accuracy against zeros, a line for each pruning criterion.",
)
first_by = {name: best_by(methods, name, 0.8) for name in yardsticks}
print("first at 80 %:", ", ".join(f"{method} by {name}" for name, method in first_by.items()))
guess_criterion.compare(first_by["damage"])

# %% tags=["we-checked"]
assert (methods.groupby("ratio")["zeros"].agg(lambda found: found.max() - found.min()) < 1e-6).all()
print("checked: at every ratio the three criteria have the same number of zeros")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The line above names the first by each yardstick. They need not agree. In the large table, at 90 % zeros, magnitude is ahead of
# SparseGPT in accuracy by 1.1 ± 0.6 points, although its perplexity is 172 against 20. Here, with forty questions of each
# task, a difference of two points means nothing. Damage asks for closeness to the dense
# model at every token. Perplexity asks what the texts say, also where nobody could know it, and a model that has
# become less sure loses less there. Tasks ask only for what was to be learned. So we use damage to *look for* sensitive
# layers, because it is quick and needs no right answers, and tasks to *decide*.
# </details>
#
# Notebook 02 compared Wanda with magnitude on single linears. What makes the difference in the whole model? Wanda differs
# from magnitude in two things: its score multiplies by the input's size, and it compares scores within each row instead
# of over the whole matrix. It also depends on the calibration texts. We test all three at 70 % zeros.
#
# **Predict:** of the first two, which makes the larger difference to the damage, the score or the comparison group?

# %%
FACTORS = ["the score", "the comparison group"]
guess_factor = Guess("Which makes the larger difference to the damage?", FACTORS)


def pruned_by(by_inputs, per_row, batches):
    """Prune to 70 % with one score and one comparison group; returns the damage."""
    model.load_state_dict(dense_weights)
    for here in walk(model, batches):
        seen = here.statistics()
        for name, linear in here.linears.items():
            sizes = seen[name].squares.sqrt() if by_inputs else 1.0
            scores = linear.weight.abs() * sizes
            keep = Sparsity(0.7).mask(scores, per_row=per_row, exact_total=True)
            linear.weight.data *= keep
    return damage_now()


# %% [markdown]
# We repeat it with four samples of calibration texts, and with four samples of random tokens in their place. Magnitude uses neither.

# %%
GROUPS = {"whole matrix": False, "each row": True}
rows = []
for seed in range(4):
    other = calibration_batches(default_texts(), tokenizer, samples=32, length=128, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    noise = [torch.randint(3, len(tokenizer), batch.shape, generator=draw) for batch in other]
    for group, per_row in GROUPS.items():
        rows.append((f"|W|, {group}", seed, pruned_by(False, per_row, other[:1])))
        rows.append((f"|W|·‖x‖, {group}", seed, pruned_by(True, per_row, other)))
        rows.append((f"|W|·‖x‖, {group}, random tokens", seed, pruned_by(True, per_row, noise)))
factors = pd.DataFrame(rows, columns=["method", "seed", "damage"])
factors.groupby("method")["damage"].mean().round(3).to_frame()

# %% [markdown]
# The draws differ, so we compare *within* each draw: the difference to plain magnitude (|W|, whole matrix), its mean over
# the draws, and half the width of its 95 % interval. Where mean ± half does not contain 0, the draws alone are
# an unlikely explanation. (|W| looks at no texts, so its four rows are one number repeated, and its interval has no width.)

# %%
from spp_lite.teaching import paired

against = paired(factors.assign(pruner="-", sparsity="70%"), "damage", against="|W|, whole matrix")
against[["method", "mean", "half"]].round(3)

# %%
mean = factors.groupby("method")["damage"].mean()
whole, rows = (mean[[f"|W|, {group}", f"|W|·‖x‖, {group}"]].to_numpy() for group in GROUPS)
score = ((whole[1] - whole[0]) + (rows[1] - rows[0])) / 2
group = (rows - whole).mean()
noise = mean["|W|·‖x‖, each row, random tokens"] - mean["|W|·‖x‖, each row"]
print(f"multiplying by the inputs' sizes changes the damage by {score:+.2f} (mean of both groups)")
print(f"comparing within rows changes it by {group:+.2f} (mean of both scores)")
print(f"calibrating on random tokens instead of texts changes Wanda's by {noise:+.2f}")
larger = FACTORS[0] if abs(score) > abs(group) else FACTORS[1]
guess_factor.compare(f"{larger} ({score:+.2f} against {group:+.2f})")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# "Wanda or magnitude?" is three questions in one, and the three printed lines answer them one by one for this model. A
# plus sign means more damage. Comparing within rows raises the damage in every draw. The inputs' sizes change it little: within
# rows they help a little, over whole matrices the draws leave it open. For Wanda real texts matter more than either; over whole
# matrices random tokens cost about a seventh of what they cost within rows. So on this model Wanda as published loses to magnitude, by its comparison
# group. Section 8 shows a real LLaMA, where the question has another answer, and a clear one.
# </details>
#
# ## 4 · What is sensitive?
#
# Does it matter *where* the zeros are? A *sensitivity scan* prunes one kind of linear in all blocks and leaves the six
# other kinds dense. Seven kinds, four ratios.
#
# **Predict:** pruned alone to 90 %, which kind does the most damage?

# %%
from spp_lite.teaching.labs.model import KINDS

guess_kind = Guess("Which kind does the most damage, pruned alone to 90 %?", KINDS)

# %%
rows = []
for kind in KINDS:
    for ratio in (0.5, 0.7, 0.8, 0.9):
        report = pruned(ratio, only=[f"*.{kind}"], allocation={"*": ratio})
        zeros = round(report.sparsity * report.pruned)
        rows.append((kind, ratio, zeros, damage_now()))
scan = pd.DataFrame(rows, columns=["kind", "ratio", "zeros", "damage"])
scan.pivot(index="kind", columns="ratio", values="damage").loc[list(KINDS)].round(3)

# %%
alone = scan[scan["ratio"] == 0.9].set_index("kind")["damage"]
guess_kind.compare(f"{alone.idxmax()} ({alone.max():.2f} nats per token), least {alone.idxmin()}")

# %% [markdown]
# This table does not say yet where to save. Kinds differ in size: `k_proj` and `v_proj` serve several query heads each,
# so they are small, and the three MLP matrices are large. At the same ratio a large kind has lost more weights, and yet its
# damage may be the smaller one. So divide damage by zeros, and you have the *average price* of a zero.
#
# But a budget asks another question. All kinds are pruned already, and some kind must give one more. What does the
# **next** zero cost? Where damage grows faster and faster, it costs more than the ones before. Between two neighbouring
# ratios of the scan, its price is the damage that was added, divided by the zeros that were added:
#
# $$\text{price of the next zero} = \frac{D_{\text{here}} - D_{\text{before}}}{\text{zeros}_{\text{here}} -
# \text{zeros}_{\text{before}}}.$$
#
# **Ex 03c · core · difficulty ●●○ · importance ●●● · ~10 min.** `scan` has the columns `kind`, `ratio`, `zeros` and
# `damage`. For every row, return the price of the zeros that were added since the same kind's ratio before. Before its first
# ratio a kind has no zeros and no damage. The rows of one kind come in order, but rows of other kinds may stand between
# them. Return one price a row, in the order of the rows.


# %%
def marginal_prices(scan):
    # BEGIN SOLUTION
    kinds = scan.groupby("kind")
    damage_added = scan["damage"] - kinds["damage"].shift(fill_value=0)
    zeros_added = scan["zeros"] - kinds["zeros"].shift(fill_value=0)
    return damage_added / zeros_added
    # END SOLUTION


# %% tags=["check"]
checks.ex_03c(marginal_prices)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# You need, for every row, the row before it *of the same kind*. `scan.groupby("kind")` keeps kinds apart.
# </details>
# <details><summary>Hint 2</summary>
#
# On a column of such groups, `.shift()` moves values down by one row, and its argument `fill_value` says what
# stands in the first one.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Now all kinds stand at 70 %, and the budget asks for a little more.
#
# **Predict:** in which kind is the next zero cheapest?

# %%
guess_cheapest = Guess("At 70 % everywhere, in which kind is the next zero cheapest?", KINDS)

# %%
marginal_prices = yours(marginal_prices, checks.ex_03c)
scan["price"] = marginal_prices(scan)
at_70, to_80 = (scan[scan["ratio"] == ratio].set_index("kind") for ratio in (0.7, 0.8))
average = at_70["damage"] / at_70["zeros"]
prices = pd.DataFrame({"average to 70 %": average, "next, 70 % to 80 %": to_80["price"]})
(1e6 * prices).round(2)  # nats per token, for a million zeros

# %%
from spp_lite.teaching.labs.model import plot_scan

show(
    plot_scan(scan),
    alt="Left: damage against zeros, each kind alone. Right: the price of the next zero.",
)
order = prices["next, 70 % to 80 %"].sort_values().index
guess_cheapest.compare(f"{order[0]}; then {', '.join(order[1:])}")
times = (prices.iloc[:, 1] / prices.iloc[:, 0]).median()
print(f"the next zero costs {times:.1f} times the average one (median of the kinds)")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The right panel ranks kinds by what a budget needs, and its order may differ from the left panel's: a kind that does much
# damage in all may do little per zero, because it has so many. Where a curve rises to the right, each further zero costs
# more than the last, and the average price, which is dragged down by the first cheap zeros, says too little.
# </details>
#
# ## 5 · Spend a budget
#
# Let linear $l$ have $n_l$ weights, of which the share $z_l$ is zero. A *budget* $Z$ fixes the share over all weights:
#
# $$\sum_l z_l\, n_l = Z \sum_l n_l .$$
#
# If some linears get fewer zeros, the others must take more.
#
# **Ex 03d · core · difficulty ●●○ · importance ●●○ · ~8 min.** `sizes` maps each layer's name to its number of weights;
# `given` maps some of the names to a ratio; `target` is the ratio over all weights. Return the one ratio that all *other*
# layers must take.


# %%
def rest_ratio(sizes, given, target):
    # BEGIN SOLUTION
    missing = target * sum(sizes.values()) - sum(given[name] * sizes[name] for name in given)
    return missing / sum(size for name, size in sizes.items() if name not in given)
    # END SOLUTION


# %% tags=["check"]
checks.ex_03d(rest_ratio)

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
# To see whether the place matters, compare like with like: move the *same number* of zeros once out of attention and once
# into it. "Spare attention" takes every attention matrix from 70 % to 50 %; your function says what the MLP must take.
# "Spare MLP" is its mirror image: attention goes to 90 %.

# %%
rest_ratio = yours(rest_ratio, checks.ex_03d)
TARGET = 0.7
sizes = {name: weight.numel() for name, weight in weights.items()}
allocations = {"uniform": {"*": TARGET}, "OWL": "owl"}
for label, ratio in {"spare attention": 0.5, "spare MLP": 0.9}.items():
    given = {name: ratio for name in sizes if ".self_attn." in name}
    mlp = float(rest_ratio(sizes, given, TARGET))
    allocations[label] = {"*.self_attn.*": ratio, "*.mlp.*": mlp}
    moved = abs(ratio - TARGET) * sum(sizes[name] for name in given)
    print(f"{label}: attention {ratio:.0%}, MLP {mlp:.1%}; {moved:,.0f} zeros were moved")

# %% tags=["we-checked"]
from spp_lite.teaching import budget

library = budget({"*.self_attn.*": 0.5}, sizes, TARGET)  # what prune() uses
assert abs(library["model.layers.0.mlp.up_proj"] - allocations["spare attention"]["*.mlp.*"]) < 1e-9
print("checked: prune() leaves the same ratio to the MLP as your function")

# %% [markdown]
# The fourth way is OWL (Yin et al., 2023): it knows nothing of kinds, and spares the *blocks* in which many scores
# stand out.
#
# **Predict:** which of the four ways does the least damage?

# %%
guess_way = Guess("Which way to spend the zeros does the least damage?", list(allocations))

# %%
rows = []
for seed in range(5):
    other = calibration_batches(default_texts(), tokenizer, samples=32, length=128, seed=seed)
    for name, allocation in allocations.items():
        report = pruned(TARGET, batches=other, allocation=allocation)
        rows.append((name, seed, report.sparsity, damage_now()))
spent = pd.DataFrame(rows, columns=["method", "seed", "zeros", "damage"])
spent.pivot(index="method", columns="seed", values="damage").loc[list(allocations)].round(3)

# %% [markdown]
# A column is one draw of calibration texts. As before we compare within each draw, now with "uniform".

# %%
from spp_lite.teaching.labs.model import plot_allocations

gains = paired(spent.assign(pruner="wanda", sparsity="70%"), "damage", against="uniform")
show(
    plot_allocations(gains),
    alt="Damage minus that of the uniform allocation, with 95 % intervals over five draws.",
)
average = spent.groupby("method")["damage"].mean().sort_values()
guess_way.compare(" < ".join(f"{name} {value:.2f}" for name, value in average.items()))

# %% tags=["we-checked"]
assert (spent["zeros"] - TARGET).abs().max() * total < 1.01
print("checked: all ways have the same number of zeros, to the weight")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Every row of the figure has the same number of zeros; only their places differ. An interval that does not contain 0 says that
# chance alone is an unlikely explanation. The two "spare" rows moved the same number of zeros, in opposite directions, so they may be compared with
# each other. This order belongs to this model: on another one, scan first.
# </details>
#
# ## 6 · Lab: one budget, seven sliders
#
# Now spend the zeros yourself. Each kind of linear has a slider. The lab reads the damage of each kind from the scan of
# section 4 and *adds the seven up*.
#
# **Predict:** at a budget of 70 %, how far below uniform can you push the predicted damage? **Try** the sliders (mouse, or
# Tab and the arrow keys): first break the budget, then meet it again.

# %% tags=["lab"]
from spp_lite.teaching.labs.budget import BudgetLab

lab = BudgetLab(scan, target=TARGET)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(q_proj=0.6)

# %% [markdown]
# **Explain.** (1) All sliders stand at 70 %, and the budget is met. You take `q_proj` down by ten points. By how many points
# must `k_proj` go up to meet the budget again, and why? (2) The next cell shows, for 70 % everywhere, what the lab
# predicts and what we measure. Why need the two not agree?
#
# <details><summary>Answers</summary>
#
# (1) By twenty points: set `k_proj` to 90 % and read the budget. On this model `k_proj` has half as many weights as `q_proj`, because two
# query heads share one key head; so ten points of `q_proj` are as many zeros as twenty of `k_proj`. (2) The scan pruned one
# kind at a time, with the six others dense. When all are pruned, every linear gets inputs that the others have already
# spoiled. The damages are not independent, so they need not add up.
# </details>

# %%
everywhere = dict.fromkeys(KINDS, TARGET)
best = lab.cheapest()
print("the lab's own best:", ", ".join(f"{kind} {ratio:.0%}" for kind, ratio in best.items()))
rows = []
for name, ratios in {"uniform": everywhere, "the lab's best": best}.items():
    report = pruned(lab.reached(ratios), allocation=lab.allocation(ratios))
    rows.append((name, report.sparsity, lab.damage(ratios), damage_now(), accuracy(model)))
tried = pd.DataFrame(rows, columns=["allocation", "zeros", "predicted", "measured", "accuracy"])
tried.round(3)

# %% tags=["we-checked"]
assert abs(lab.sizes["q_proj"] / lab.sizes["k_proj"] - 2) < 1e-3 or not TINY
assert abs(lab.reached({**everywhere, "q_proj": 0.6, "k_proj": 0.9}) - TARGET) < 1e-4 or not TINY
assert lab.damage(best) <= lab.damage(everywhere) + 1e-9 and lab.reached(best) >= TARGET - 1e-4
print("checked: q_proj is twice as large as k_proj; the lab's best meets the budget")

# %% [markdown]
# This answers the Predict: no position of the sliders is predicted to do less than the lab's best, a third below uniform. Compare
# the columns "predicted" and "measured": both measured damages are more than twice as large, in the same order. A prediction finds the region in which it is worth looking. How good a
# place in it really is, only measuring tells.
#
# ## 7 · Stretch: let the prices spend
#
# The lab tried every position of seven sliders. With the prices of section 4 there is a direct way: start with no zeros,
# and always take the step that is cheapest next, until the budget is reached.
#
# **Ex 03e · stretch · difficulty ●●● · importance ●○○ · ~15 min.** `scan` is as in Ex 03c. Every kind starts at ratio 0. Its
# next step leads to its next ratio in the scan. Among the next steps of all kinds take the one with the lowest price,
# and repeat. Of the last step take only as many zeros as are still missing to `target` of all weights. Return a dictionary,
# kind → ratio. A kind has zeros / ratio weights.


# %%
def spend(scan, target):
    # BEGIN SOLUTION
    steps = scan.assign(price=marginal_prices(scan)).sort_values(["kind", "ratio"])
    sizes = (steps["zeros"] / steps["ratio"]).groupby(steps["kind"]).first()
    taken, missing = dict.fromkeys(sizes.index, 0.0), target * sizes.sum()
    while missing > 1e-6:
        open_steps = steps[steps["zeros"] > steps["kind"].map(taken) + 1e-6]
        ahead = open_steps.groupby("kind").first()
        kind = ahead["price"].idxmin()
        more = min(ahead.loc[kind, "zeros"] - taken[kind], missing)
        taken[kind] += more
        missing -= more
    return {kind: taken[kind] / sizes[kind] for kind in taken}
    # END SOLUTION


# %% tags=["check"]
checks.ex_03e(spend)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep two things: the number of zeros that each kind has, and the number that is still missing. Count in zeros all the
# way, since ratios are rounded, and make ratios of them at the end.
# </details>
# <details><summary>Hint 2</summary>
#
# In each round, the rows that have more zeros than their kind has are still open. The first open row of each kind is its
# next step.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
spend = yours(spend, checks.ex_03e)
greedy = {kind: float(ratio) for kind, ratio in dict(spend(scan, TARGET)).items()}
print(", ".join(f"{kind} {ratio:.0%}" for kind, ratio in greedy.items()))
report = pruned(TARGET, allocation=lab.allocation(greedy))
predicted = lab.damage(greedy)
print(f"{report.sparsity:.1%} zeros: predicted {predicted:.3f}, measured {damage_now():.3f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# With the tiny model, the prices arrive where the lab's best stood in section 6, without trying every position. The measured
# damage differs a little all the same. The ratios of a scan are rounded, so your ratios and the lab's differ after the fifth
# decimal; so some rows get one zero more or fewer, and fewer than one zero in a hundred stands in another place. This is
# how far the last digit of a measured damage can be trusted.
# </details>
#
# ## 8 · On a real LLaMA
#
# The tiny model is no proof for a large one. SmolLM2-135M has the same architecture, 30 blocks deep, and was trained on
# real text. Pruning it by the three criteria takes minutes for each row, so we read the rows that we measured: perplexity of
# encyclopedia prose in windows of 2,048 tokens, one draw of calibration texts from C4.

# %%
from spp_lite.teaching import embedded
from spp_lite.teaching.labs.model import plot_two_models

sweep = pd.read_csv(embedded("results") / "smollm2" / "sweep.csv")
dense_smollm2 = sweep.loc[sweep["method"] == "dense", "perplexity"].mean()
rows = sweep[(sweep["method"] == "none") & sweep["sparsity"].str.endswith("%")]
rows = rows.assign(ratio=rows["sparsity"].str.rstrip("%").astype(float) / 100)
smollm2 = rows.groupby(["pruner", "ratio"], sort=False)["perplexity"].mean().reset_index()
smollm2 = smollm2.rename(columns={"pruner": "method"})
smollm2.pivot(index="ratio", columns="method", values="perplexity").round(1)

# %%
here = "The tiny model" if TINY else "This model"
pair = {here: (methods, unpruned["perplexity"]), "SmolLM2-135M": (smollm2, dense_smollm2)}
show(
    plot_two_models(pair),
    alt="Perplexity against zeros for three criteria; on SmolLM2-135M magnitude collapses.",
)

# %% tags=["we-checked"]
real_rows = smollm2.pivot(index="ratio", columns="method", values="perplexity").dropna()
assert (real_rows["magnitude"] > 5 * real_rows["wanda"]).all()
assert real_rows.loc[0.5, "magnitude"] > 20 * dense_smollm2
assert (real_rows.loc[0.6:, "wanda"] > 1.3 * real_rows.loc[0.6:, "sparsegpt"]).all()
print("checked: the two sentences below, against the rows of the table")

# %% [markdown]
# On SmolLM2 magnitude collapses: with half of the weights gone, its perplexity is more than twenty times the dense
# model's, and at every ratio where all three were measured it is more than five times Wanda's. From 60 % on, SparseGPT is
# clearly ahead of Wanda. These rows are of one draw each, so they carry no interval; at 50 % Wanda and SparseGPT are too
# close to be told apart.
#
# One command measures such rows (records, C4 and prose are yours to fetch: notebook 09):
#
# ```bash
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 \
#     --methods none --pruners magnitude wanda sparsegpt --sparsity 50% 60% 70% --seeds 1 --out smollm2
# ```
#
# ## 9 · Read an error message
#
# Generous to the MLP: "its matrices are the largest, I leave 80 % of them in place and take the zeros from attention."
# This cell fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
prune(dense, batches, TARGET, allocation={"*.mlp.*": 0.2}, progress=False)

# %% [markdown]
# The message gives the ratio that would be left to the other layers: more than all of their weights would have to go. The
# mistake is in the idea, not in the call: attention does not have as many weights as the budget wants zeros, so whoever
# spares the large kinds must first ask how much room the small ones have.
#
# ## Recap
#
# 1. `prune` walks block by block: each block is pruned for the inputs that the pruned blocks before it deliver.
# 2. Each linear errs on its own, and works on what the blocks before it left: test the model, not its layers.
# 3. Damage, perplexity and accuracy can disagree: look with the quick ones, decide with tasks.
# 4. A budget asks for the price of the *next* zero: damage added over zeros added.
# 5. The same zeros in other places do more or less damage: compare like with like, over several draws, and measure.
#
# ## Quiz
#
# <details><summary>1. Why not gather all statistics from the dense model once, and then prune every block?</summary>
#
# Then block 3 would be pruned for inputs that it never gets: those that a dense block 2 delivers.
# </details>
# <details><summary>2. A pruned model has a lower perplexity than the dense one. Is it better?</summary>
#
# Not by that alone. A model that is less sure loses less where the text cannot be known. Ask tasks that need what was
# learned, and compare perplexities only at the same window length.
# </details>
# <details><summary>3. Attention holds a quarter of the weights and goes from 70 % to 50 %. What must the rest take?</summary>
#
# A quarter times 20 points are 5 points of all weights. The other three quarters take 5 / 0.75 = 6.7 points more: 76.7 %.
# </details>
# <details><summary>4. Kind A has cost 0.2 nats for its first 100 zeros and 0.4 for its next 100; kind B 0.5 and 0.3. Both stand
# at 200 zeros, and the next zeros cost as much as the last. Where do you take them?</summary>
#
# From B: its last hundred cost 0.3, A's cost 0.4. By the average price A looks cheaper (0.6 against 0.8 for 200 zeros), and
# that would be the wrong choice.
# </details>
#
# **Next:** [04 · Why not just LoRA?](04_why_not_just_lora.ipynb): the zeros are placed, now retrain without losing them.
# The papers: [SPP, arXiv 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5, whose pruned models come from SparseGPT and
# Wanda, block by block; [OWL, arXiv 2310.05175](https://arxiv.org/abs/2310.05175).
