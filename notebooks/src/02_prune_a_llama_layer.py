# %% [markdown]
# # 02 · Prune a LLaMA layer
# {{badge}}
#
# In notebook 01 every input was alike. In a language model some inputs are far larger than others, and a small weight on
# a large input can matter more than a large weight on a small one. Two criteria look at the inputs: Wanda and SparseGPT.
# You build both, from the hook that sees the inputs to the column that makes up for an error.
#
# > **Goals** – measure the inputs of a linear with a hook (Ex 02a); write Wanda's mask (Ex 02b); remove one weight and let
# > the others make up for it (Ex 02c); prune one column as SparseGPT does (Ex 02d), and walk over a whole weight with it.
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 01: masks, and the output error. The symbols are those of [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model and its texts. **Real** – hooks, criteria and errors are computed as for any LLaMA, and section 7
# > shows a real one. `SPP_MODEL` and `SPP_DATA` take another model and other texts.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Size alone misleads
#
# This is the model whose first block we shall look into. Its MLP has three linears:

# %%
from spp_lite import load
from spp_lite.teaching import is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
print(model.model.layers[0].mlp)

# %% [markdown]
# A linear layer with the weight $W$, of shape $(\mathrm{out}, \mathrm{in})$, gets an input vector $x$ for every token. Its
# output $i$ is $\sum_j W_{ij} x_j$. Set $W_{ij}$ to zero, and the output loses $W_{ij}\,x_j$: the weight *times its
# input*. Magnitude pruning looks at $|W_{ij}|$ only.
#
# Take a layer with one output and two inputs. Its weights are 1 and 0.1; the inputs have sizes of about 0.05 and about 5.
# One weight must go.
#
# **Predict:** which share of the output (of its sum of squares) is lost if the smaller weight goes?

# %%
from spp_lite.teaching import Guess

guess = Guess("The smaller weight goes. Which share of the output is lost?")

# %%
import torch

torch.manual_seed(0)
x = torch.randn(1000, 2) * torch.tensor([0.05, 5.0])  # 1000 tokens, two inputs
w = torch.tensor([1.0, 0.1])
lost = {}
for name, goes in {"smaller": torch.tensor([0.0, 1.0]), "larger": torch.tensor([1.0, 0.0])}.items():
    lost[name] = float((x @ (w * goes)).square().sum() / (x @ w).square().sum())
guess.compare(f"{lost['smaller']:.1%}; if the larger weight goes, {lost['larger']:.1%}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# To drop the smaller weight costs nearly everything, because its input is a hundred times larger. Magnitude would do
# just that.
# </details>

# %% tags=["we-checked"]
assert lost["larger"] < 0.1 < 0.9 < lost["smaller"]
print("checked: the smaller weight carries more than nine tenths of this output")

# %% [markdown]
# ## 2 · Look at the inputs with a hook
#
# Is a real layer like that? To find out we must see its inputs while the model runs. PyTorch calls a **forward pre-hook**
# just before a module runs, and hands it the module and its arguments.

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.boxes import plot_hook

show(plot_hook(), alt="An input goes into a linear; a hook is called with it first.")

# %% [markdown]
# There are three steps: *register* the hook and keep the handle, *run* the model, *remove* the hook. One that is forgotten
# goes on noting things in every later run. Here is a hook that only prints what it is given:

# %%
from spp_lite.teaching import block_linears

linears = block_linears(model)
DOWN, QUERY = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"
tokens = torch.randint(3, 100, (2, 7), device=model.device)  # two texts of seven tokens

spy = linears[DOWN].register_forward_pre_hook(lambda module, args: print(tuple(args[0].shape)))
model(tokens)
spy.remove()

# %% [markdown]
# The input has the shape (batch, length, in). To a linear every token is a row of its own, so batch and length may be
# flattened to (tokens, in). The **size** of input $j$ is its root mean square over all $n$ tokens $t$:
#
# $$\lVert x_j \rVert = \sqrt{\textstyle\frac1n \sum_t x_{tj}^2}.$$
#
# What we run are the *calibration* batches, a few texts as token numbers, (batch, length):

# %%
from spp_lite.teaching import calibration_batches, default_texts

batches = calibration_batches(default_texts(), tokenizer, samples=64, length=128)
held_out = calibration_batches(default_texts("validation"), tokenizer, samples=64, length=128)
print(f"{len(batches)} batches of {tuple(batches[0].shape)} tokens")


def run(batches):
    with torch.no_grad():
        for batch in batches:
            model(batch.to(model.device))


# %% [markdown]
# **Ex 02a · core · difficulty ●●○ · importance ●●● · ~10 min.** Measure the sizes of all inputs of a linear. To keep the
# inputs themselves would take gigabytes in a real model, so do not keep them: add up squares and count tokens. Calling
# `run()` runs the model on all batches; they may differ in length. Return the sizes, (in,), and leave no hook behind.


# %%
def input_norm(linear, run):
    # BEGIN SOLUTION
    total, tokens = 0.0, 0

    def add(module, args):
        nonlocal total, tokens
        flat = args[0].reshape(-1, args[0].shape[-1]).float()
        total, tokens = total + flat.square().sum(dim=0), tokens + len(flat)

    handle = linear.register_forward_pre_hook(add)
    run()
    handle.remove()
    return (total / tokens).sqrt()
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_02a(input_norm)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The hook is a function inside your function. `nonlocal` lets it change a sum and a count of the outer one.
# </details>
# <details><summary>Hint 2</summary>
#
# Batches may differ in tokens. So divide the sum of all squares by the count of all tokens, once, after the run. The root
# comes last.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# We compare two linears of the first block: `down_proj`, which closes the MLP, and `q_proj`, which makes the queries of
# attention.
#
# **Predict:** the inputs of `q_proj` come out of a normalisation. Those of `down_proj` are products of two numbers, gate
# and up. Which sizes are more uneven?

# %%
guess = Guess("Whose largest input stands out more?", ["q_proj", "down_proj", "about alike"])

# %%
from spp_lite.teaching import yours

input_norm = yours(input_norm, checks.ex_02a)
norms = {name: input_norm(linears[name], lambda: run(batches)) for name in (DOWN, QUERY)}
spread = {name: float(norm.max() / norm.median()) for name, norm in norms.items()}
told = [f"{name.split('.')[-1]} {value:.1f}" for name, value in spread.items()]
guess.compare(f"the largest input over the median: {', '.join(told)}")

# %%
from spp_lite.teaching.labs.layer import plot_norms

most = max(spread, key=spread.get)
title = f"The largest input of {most.split('.')[-1]} is {spread[most]:.0f} times its median"
show(plot_norms(norms, title), alt=f"Input sizes of two linears, sorted. {title}.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A steep line and a flatter one. A few inputs of `down_proj` tower over the rest; they are called *outliers*. A product of
# two numbers is large where both are, so it spreads more widely than either. The inputs of `q_proj` are more alike. (That is
# the tiny model. In another LLaMA the outliers may be elsewhere, so look before you believe it.)
# </details>

# %% tags=["we-checked"]
from spp_lite.teaching import walk

assert spread[DOWN] > spread[QUERY] or not TINY
assert not linears[DOWN]._forward_pre_hooks  # no hook was left behind
theirs = next(walk(model, batches)).statistics()[DOWN].squares.sqrt()  # of the first block
assert torch.allclose(norms[DOWN], theirs, rtol=1e-3)
also = "; down_proj is the more uneven one" if TINY else ""
print(f"checked: the library finds your sizes; no hook is left{also}")

# %% [markdown]
# ## 3 · Wanda: weight times input
#
# Wanda (Sun et al., 2023, Eq. 1) gives each weight the score that section 1 suggests:
#
# $$S_{ij} = |W_{ij}| \cdot \lVert x_j \rVert,$$
#
# and in every row the weights with the lowest scores go. (Its authors take the root of the *sum* of squares; that is
# $\sqrt n$ times ours for every input, so the order is the same.) No gradient is needed and no training, only one pass
# over a few texts.
#
# **Ex 02b · core · difficulty ●●○ · importance ●●● · ~6 min.** Write Wanda's mask. `weight` is (out, in), `norm` is
# (in,). In every row, the $\lfloor \mathrm{ratio} \cdot \mathrm{in} \rfloor$ weights with the lowest scores become zero. Return True where a weight stays.


# %%
def wanda_mask(weight, norm, ratio):
    # BEGIN SOLUTION
    scores = weight.abs() * norm
    lowest = scores.argsort(dim=1, stable=True)[:, : int(ratio * weight.shape[1])]
    return torch.ones_like(weight, dtype=torch.bool).scatter(1, lowest, False)
    # END SOLUTION


# %% tags=["check"]
checks.ex_02b(wanda_mask)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Where shapes (out, in) and (in,) meet, PyTorch repeats the shorter one for every row. Is that the factor you want?
# </details>
# <details><summary>Hint 2</summary>
#
# `argsort(dim=1)` gives for every row the places of its scores, the lowest first; `scatter` writes False at places.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Predict:** on `down_proj`, a quarter of all weights may stay. Call the largest twentieth of the inputs outliers. What
# share of the weights on outliers will Wanda keep?

# %%
guess = Guess("Which share of the outliers' weights stays, in percent?")

# %%
from spp_lite import Sparsity

wanda_mask = yours(wanda_mask, checks.ex_02b)
weights = {name: linears[name].weight.detach().float() for name in (DOWN, QUERY)}
weight, norm = weights[DOWN], norms[DOWN]
keeps = {
    "magnitude": Sparsity.parse("75%").mask(weight.abs()),  # notebook 01's magnitude_mask
    "wanda": wanda_mask(weight, norm, 0.75),
}

# %%
outliers = norm.topk(max(1, len(norm) // 20)).indices
kept = {name: float(keep[:, outliers].float().mean()) for name, keep in keeps.items()}
guess.compare(f"Wanda keeps {kept['wanda']:.0%} of them, magnitude {kept['magnitude']:.0%}")

# %%
from spp_lite.teaching.labs.layer import plot_kept

title = f"On outliers Wanda keeps {kept['wanda']:.0%}, magnitude {kept['magnitude']:.0%}"
show(plot_kept(norm, keeps, title), alt=f"Weights kept against input size. {title}.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Wanda keeps more the larger an input is, and pays for it with the weights on the smallest inputs. Magnitude cannot see the
# inputs. Where its points rise or fall all the same, large inputs happen to meet larger or smaller weights.
# </details>

# %% tags=["we-checked"]
import copy

from spp_lite import prune

assert kept["wanda"] > kept["magnitude"] + 0.1 or not TINY
assert len(keeps["wanda"].sum(dim=1).unique()) == 1  # every row keeps the same number
pruned = copy.deepcopy(model)
prune(pruned, batches, "75%", method="wanda", only=[DOWN], progress=False)
differ = int((keeps["wanda"] != (block_linears(pruned)[DOWN].weight != 0)).sum())
assert differ <= weight.numel() // 1000  # rounding may decide a near tie
print(f"checked: prune() makes your mask, up to {differ} of {weight.numel():,} weights")

# %% [markdown]
# ## 4 · Count the damage
#
# Let $\Delta W$ be the weight after pruning minus the weight before, and let $X$ hold the inputs, one token in a row. The **output
# error** of notebook 01 is
#
# $$\frac{\lVert X\,\Delta W^\top \rVert^2}{\lVert X W^\top \rVert^2},$$
#
# now on real inputs. We take those of *new* texts, which no criterion has seen: a criterion that had merely learnt its
# calibration texts by heart would be found out.


# %%
def inputs_of(name, batches):
    """All inputs of one linear, (tokens, in). Small enough to keep here."""
    found = []
    handle = linears[name].register_forward_pre_hook(lambda module, args: found.append(args[0]))
    run(batches)
    handle.remove()
    return torch.cat(found).flatten(0, 1).float()


new_rows = {name: inputs_of(name, held_out) for name in (DOWN, QUERY)}


def lost_on_new_texts(name, new):
    X, W = new_rows[name], weights[name]
    return float((X @ (new - W).T).square().sum() / (X @ W.T).square().sum())


# %% [markdown]
# **Predict:** at 75 % zeros, by which factor is magnitude's error on `down_proj` larger than Wanda's?

# %%
options = ["about 1: no difference", "about 1.5", "about 2", "3 or more"]
guess = Guess("Magnitude's error over Wanda's?", options)

# %% [markdown]
# The library's three criteria, at five ratios. The third one is SparseGPT, which section 5 opens.

# %%
import pandas as pd

from spp_lite.teaching.labs.layer import plot_errors, prune_by

rows = inputs_of(DOWN, batches)
table = pd.DataFrame(index=(0.3, 0.45, 0.6, 0.75, 0.9), columns=["magnitude", "wanda", "sparsegpt"])
for ratio in table.index:
    for name in table:
        table.loc[ratio, name] = lost_on_new_texts(DOWN, prune_by(name, weight, rows, ratio))
table = table.astype(float)
table.map("{:.2%}".format)

# %%
factor = table.loc[0.75, "magnitude"] / table.loc[0.75, "wanda"]
guess.compare(f"{factor:.1f}; and Wanda's is {table.loc[0.75, 'wanda']:.1%}")
title = f"down_proj at 75 % zeros: magnitude loses {factor:.1f} times as much as Wanda"
show(plot_errors(table, title), alt=f"Output error against zeros, three criteria. {title}.")

# %% [markdown]
# (At 30 and 45 % Wanda and SparseGPT both lose less than a hundredth of a percent. Which of the two is lower there does not matter.)
#
# Does Wanda always win? As published it differs from magnitude in *two* things: in the score, and in where scores are
# compared, within a row or over the whole matrix. Take the two apart, on both linears.
#
# **Predict:** on `q_proj`, with Wanda's score: is the error lower if rows are compared, or the whole matrix?

# %%
guess = Guess("Lower error on q_proj?", options=["within each row", "over the whole matrix"])

# %%
found = {}
for name in (DOWN, QUERY):
    scores = {"magnitude": weights[name].abs(), "wanda": weights[name].abs() * norms[name]}
    for label, score in scores.items():
        for group, per_row in {"whole matrix": False, "each row": True}.items():
            new = weights[name] * Sparsity.parse("75%").mask(score, per_row=per_row)
            found[name.split(".")[-1], label, group] = lost_on_new_texts(name, new)
errors = pd.Series(found).unstack()
errors.map("{:.1%}".format)

# %%
q = errors.loc["q_proj"]
better = q.loc["wanda"].idxmin()
published = f"{q.loc['wanda', 'each row']:.1%} and {q.loc['magnitude', 'whole matrix']:.1%}"
guess.compare(f"{better}; as published, Wanda and magnitude lose {published}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Compare the *scores* first: magnitude with wanda, in the same column. On `down_proj`, which has outliers, the score
# helps a great deal; on `q_proj`, whose inputs are more alike, it changes less.
#
# Then compare the *groups*: the two columns of a line. If every row must lose the same share, rows with large weights lose
# large weights, which a comparison over the whole matrix would spare. So what looks like "Wanda against magnitude" can be "rows against the
# whole matrix". Then why rows? The error of one layer is not the quality of the model: Wanda's authors found rows better
# for LLaMA. Notebook 03 measures whole models.
# </details>

# %% tags=["we-checked"]
by_score = errors.unstack(level=0)
gain = by_score.loc["magnitude"] / by_score.loc["wanda"]  # by group and linear
assert (gain.unstack()["down_proj"] > 1).all() or not TINY  # it helps where there are outliers
assert (gain.unstack()["down_proj"] > gain.unstack()["q_proj"]).all() or not TINY  # and more there
assert table.loc[0.75, "wanda"] < table.loc[0.75, "magnitude"] or not TINY
told = "Wanda's score helps on down_proj, in both groups, and there more than on q_proj"
print(f"checked: {told if TINY else 'nothing, the claims are about the tiny model'}")

# %% [markdown]
# ## 5 · SparseGPT: let the others make up for it
#
# SparseGPT (Frantar and Alistarh, 2023) also changes the weights that stay. Begin with one row $w$ of $W$, and let
# $\delta$ be its change. What it costs is a quadratic function of $\delta$:
#
# $$\lVert X\delta\rVert^2 = \tfrac12\,\delta^\top H\,\delta \quad\text{with the } \textit{Hessian}\ H = 2X^\top X.$$
#
# One weight $w_q$ must become zero. Among all $\delta$ that achieve it, the cheapest is the step of the *optimal brain
# surgeon* (Hassibi and Stork, 1993); it follows with a Lagrange multiplier:
#
# $$\delta = -\frac{w_q}{[H^{-1}]_{qq}}\,H^{-1}_{:,q}, \qquad \text{cost}\ \frac{w_q^2}{2\,[H^{-1}]_{qq}}.$$
#
# Entry $q$ of $\delta$ is $-w_q$, so that weight goes; the other entries make up for it.
#
# **Ex 02c · core · difficulty ●●○ · importance ●●○ · ~8 min.** Take this step. `row` is (in,), `H` is (in, in), `q` a
# number from 0. Return the row after the step: weight q is zero, and the others have changed.


# %%
def obs_step(row, H, q):
    # BEGIN SOLUTION
    inverse = H.inverse()
    new = row - row[q] / inverse[q, q] * inverse[:, q]
    new[q] = 0.0  # rounding may leave a last bit
    return new
    # END SOLUTION


# %% tags=["check"]
checks.ex_02c(obs_step)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Invert H once. The formula uses one of its columns, and one entry of that column.
# </details>
# <details><summary>Hint 2</summary>
#
# The formula gives the *change* of the row. Check yourself: after the step, entry q is zero without your help, but for
# rounding.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Four inputs that vary together, 200 tokens, and a row of four weights. The first weight must go.
#
# **Predict:** compare the error of zeroing it with the error after the surgeon's step. Which share of the error do the
# other three weights take away?

# %%
guess = Guess("Which share of the error is taken away, in percent?")

# %%
obs_step = yours(obs_step, checks.ex_02c)
torch.manual_seed(0)
X = (torch.randn(200, 1) + torch.randn(200, 4)).double()  # one column is shared by all
row = torch.tensor([0.8, 1.0, -0.9, 1.2]).double()
H, q = 2 * X.T @ X, 0
ways = {"zeroed": row * (torch.arange(4) != q), "surgeon": obs_step(row, H, q)}
cost = {way: float((X @ (new - row)).square().sum()) for way, new in ways.items()}
for way, new in ways.items():
    print(f"{way:8} {[round(value, 2) for value in new.tolist()]}, error {cost[way]:.1f}")
guess.compare(f"{1 - cost['surgeon'] / cost['zeroed']:.0%}")

# %% [markdown]
# Is that the best that the three can do? The obvious reference: leave input $q$ out, and fit the other weights to the old
# outputs by least squares.

# %%
refit = torch.linalg.lstsq(X[:, 1:], X @ row).solution
print("least squares", refit.numpy().round(4), "surgeon", ways["surgeon"][1:].numpy().round(4))

# %% tags=["we-checked"]
assert cost["surgeon"] < 0.9 * cost["zeroed"]
assert torch.allclose(ways["surgeon"][1:].double(), refit, atol=1e-4)
assert abs(cost["surgeon"] / float(row[q] ** 2 / 2 / H.inverse()[q, q]) - 1) < 1e-4
print("checked: the surgeon's step is the least-squares fit, and costs what the formula says")

# %% [markdown]
# The trouble is the price. Each row drops other weights, so after a few steps each row would need an inverse of its own.
# SparseGPT avoids that with one rule: walk over the columns from left to right, and let only those *to the right* make up
# for an error.

# %%
from spp_lite.teaching.labs.boxes import plot_column_walk

show(plot_column_walk(), alt="Columns on the left are done, those on the right make up for j.")

# %% [markdown]
# With this rule all rows share one matrix. Write $H^{-1} = U^\top U$ with an upper triangular $U$ (a *Cholesky factor*). If
# the columns left of $j$ are fixed, the surgeon's step for what is left needs only row $j$ of $U$. In every row of $W$ in
# which weight $w_j$ goes, with $e = w_j / U_{jj}$:
#
# $$w_k \leftarrow w_k - e\,U_{jk} \quad\text{for all } k \ge j.$$
#
# For $k = j$ this gives zero. The columns on the left do not change.
#
# **Ex 02d · core · difficulty ●●○ · importance ●●● · ~10 min.** Prune one column. `weight` is (out, in), `U` is (in, in), `j` the
# column, and `drop`, (out,), is True in the rows whose weight in column j goes. Return the new weight; rows in which
# nothing goes stay as they are.


# %%
def prune_column(weight, U, j, drop):
    # BEGIN SOLUTION
    new = weight.clone()
    error = weight[:, j] * drop / U[j, j]  # (out,), zero where the weight stays
    new[:, j:] -= error[:, None] * U[j, j:]
    new[drop, j] = 0.0
    return new
    # END SOLUTION


# %% tags=["check"]
checks.ex_02d(prune_column)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compute the errors e of all rows at once, as a vector (out,). It is zero where the weight stays; `drop` counts as 0 or 1.
# </details>
# <details><summary>Hint 2</summary>
#
# Every row of W loses its own e times the same row of U. That is a column times a row: (out, 1) times (in − j,).
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Now walk, with a 2:4 pattern. At the beginning of every group of four columns, the surgeon's cost (for what is left, it
# is $w_j^2 / U_{jj}^2$, up to a factor of 2) decides which two of the four stay, from the weights *as they are by then*.

# %%
prune_column = yours(prune_column, checks.ex_02d)
two_of_four = Sparsity.parse("2:4")


def walk_columns(weight, U):
    new = weight.clone()
    for j in range(weight.shape[1]):
        if j % 4 == 0:
            group = slice(j, j + 4)
            keep = two_of_four.mask(new[:, group] ** 2 / U.diagonal()[group] ** 2)
        new = prune_column(new, U, j, ~keep[:, j % 4])
    return new


# %% [markdown]
# `inverse_factor` makes $U$. It adds a hundredth of the mean of $H$'s diagonal to the diagonal first, so that the inverse
# exists, and returns, as `dead`, which inputs are always zero. We take the first 64 rows of `down_proj`: rows do not touch each
# other.
#
# **Predict:** on these rows, Wanda's 2:4 mask leaves some error. Does your SparseGPT leave less than half of it?

# %%
options = ["more than Wanda", "about the same", "between half and all of it", "less than half"]
guess = Guess("SparseGPT's error, compared with Wanda's?", options)

# %%
from spp_lite.teaching import inverse_factor, sparsegpt

U, dead = inverse_factor(2 * rows.T @ rows / len(rows))
some = weight[:64] * ~dead
new = {
    "magnitude": some * two_of_four.mask(some.abs()),
    "wanda": some * two_of_four.mask(some.abs() * norm),
    "sparsegpt": walk_columns(some, U),  # yours
}

# %%
X = new_rows[DOWN]
left = {}
for name, after in new.items():
    left[name] = float((X @ (after - some).T).square().sum() / (X @ some.T).square().sum())
    print(f"{name:9} 2:4 loses {left[name]:.2%} of the output on new texts")
guess.compare(f"{left['sparsegpt'] / left['wanda']:.2f} times Wanda's")

# %%
theirs = sparsegpt(some, U, dead, two_of_four)
same = torch.isclose(new["sparsegpt"], theirs, rtol=1e-2, atol=1e-5).float().mean()
stays = theirs != 0
moved = float((new["sparsegpt"] - some)[stays].norm() / some[stays].norm())
print(f"yours and the library's: {same:.2%} of the weights agree")
print(f"the weights that stay have moved by {moved:.0%} of their size")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# SparseGPT loses less than Wanda, because the inputs of this layer vary together and the weights that stay make up for those
# that went. They have *moved*: a model pruned by SparseGPT is not the dense model with holes. Mask and weights are both new.
# SPP starts from these new weights $W$ and keeps their zeros.
# </details>

# %% tags=["we-checked"]
assert same > (0.999 if TINY else 0.95)  # where two weights of a group nearly tie, rounding decides
assert (left["sparsegpt"] < left["wanda"] < left["magnitude"]) or not TINY
assert moved > 0.02 or not TINY
also = "; it loses less than Wanda, Wanda less than magnitude" if TINY else ""
print(f"checked: your walk is the library's{also}")

# %% [markdown]
# ## 6 · Lab: outliers, and inputs that vary together
#
# A made-up layer, 64 × 64. Four of its inputs are larger than the others, by a factor that you set, and you set how much
# all inputs vary together. The three criteria stand side by side.
#
# **Predict:** without outliers (1 ×) and with inputs that do *not* vary together, how far apart are the three? **Try** all
# three controls (with the mouse, or with Tab and the arrow keys), and watch the errors.

# %% tags=["lab"]
from spp_lite.teaching.labs.layer import OutlierLab

lab = OutlierLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(size=10, ratio=0.75, together="strongly")

# %% [markdown]
# **Explain.** (1) Stay at 1 × and 75 %, and let the inputs vary together strongly. Only one of the three gains. Which, and
# why? (2) Now go from 1 × to 30 × at 90 % zeros. Wanda's error falls to almost nothing. Why does magnitude's not?
#
# <details><summary>Answers</summary>
#
# The prediction: within two points of each other. With like inputs Wanda is magnitude within rows, and with independent
# inputs SparseGPT has nothing that could stand in for what goes.
#
# (1) SparseGPT. If inputs vary together, the weights that stay can stand in for those that went; the two others only choose
# and change nothing. (2) At 30 × the four outliers make nearly all of the output. Magnitude does not see them: it keeps
# the same weights at every factor, and drops most of the outliers' weights like all others. Wanda keeps nearly all of them.
# </details>

# %% tags=["we-checked"]
alike = lab.outcome(1, 0.75, "not at all")[1].values()
together = lab.outcome(1, 0.75, "strongly")[1]
far = lab.outcome(30, 0.9, "strongly")[1]
assert max(alike) - min(alike) < 0.02 and together["sparsegpt"] < 0.85 * together["wanda"]
assert far["wanda"] < 0.05 < 0.5 < far["magnitude"]
print("checked: the lab's answers, from the lab's own numbers")

# %% [markdown]
# ### For those who want more: a whole row, without the walk
#
# **Ex 02e · stretch · difficulty ●●● · importance ●○○ · ~20 min.** What does the rule "only to the right" cost? Prune one
# row without it: take the surgeon's step `count` times, each time at the weight that is cheapest *by then*, and let all
# weights that are left make up for it, on both sides. (SparseGPT also chooses all zeros of a block at once; you choose one
# by one.) Careful: a weight that has gone must not come back.


# %%
def prune_row(row, H, count):
    # BEGIN SOLUTION
    new, stays = row.clone(), torch.arange(len(row))  # the places that are left
    for _ in range(count):
        part = H[stays][:, stays]  # the Hessian of what is left
        q = int((new[stays] ** 2 / part.inverse().diagonal()).argmin())
        new[stays] = obs_step(new[stays], part, q)
        stays = stays[torch.arange(len(stays)) != q]
    return new
    # END SOLUTION


# %% tags=["check"]
checks.ex_02e(prune_row)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Keep a list of the places that are left. `H[stays][:, stays]` is the Hessian of those alone, and its inverse gives their
# costs and their step.
# </details>
# <details><summary>Hint 2</summary>
#
# `obs_step` works on a shorter row too: hand it the weights that are left, and write its answer back to their places.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
prune_row = yours(prune_row, checks.ex_02e)
torch.manual_seed(3)
X = (torch.randn(400, 1) + torch.randn(400, 32)).double()
row, H = torch.randn(32).double(), 2 * X.T @ X
U, dead = inverse_factor(H, damping=0.0)
ways = {
    "SparseGPT": sparsegpt(row[None], U, dead, Sparsity.parse("50%"))[0].double(),
    "the surgeon": prune_row(row, H, 16),
}
for way, after in ways.items():
    loss = float((X @ (after - row)).square().sum() / (X @ row).square().sum())
    print(f"{way:11} loses {loss:.1%} of the output with half of 32 weights")

# %% [markdown]
# ## 7 · On a real LLaMA
#
# Section 2 looked at the inputs of two linears. SmolLM2-135M is a pre-trained LLaMA of 30 blocks: does it have outliers,
# and where? The figure shows the largest input over the median, block by block, in the model of this notebook and in
# SmolLM2. (A block has four different inputs: q, k and v get the same one, and so do gate and up.)

# %%
from spp_lite.teaching import embedded
from spp_lite.teaching.labs.tails import by_kind, inputs_of, plot_input_tails

layers = pd.read_csv(embedded("results", "smollm2", "layers.csv"), index_col="linear")
both = {"The tiny model" if TINY else "This model": inputs_of(model, batches)}
both["SmolLM2-135M"] = layers

# %%
mine, its = (table["largest"].median() for table in both.values())
found = f"{mine:.1f} times the median here, {its:.0f} in SmolLM2"
title = f"In half of the linears the largest input is over {found}"
show(plot_input_tails(both, title), alt=f"Largest input by block, two models, log scale. {title}.")

# %% [markdown]
# What do outliers do to a mask? Take half of every row, by $|W|$ and by Wanda's score, and count, for every kind of
# linear (the median over its blocks):
#
# - `top`: of the sum of all $\lVert x_j \rVert^2$, the share that the largest hundredth of the inputs holds;
# - `moved`: of the weights that Wanda keeps, the share that magnitude drops;
# - `times`: magnitude's error over Wanda's, if the inputs varied independently of each other. (The error is then the
#   sum of $W_{ij}^2 \lVert x_j \rVert^2$ over the weights that go.)

# %%
columns = ["top", "moved", "times"]
pd.concat({name: by_kind(table)[columns] for name, table in both.items()}, axis=1).round(2)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# SmolLM2 has outliers in front of every linear. In half of its blocks the largest input of q, k and v is over thirty times
# the median, and a hundredth of the inputs holds more than half of all squares. One input of `down_proj`, in block 11, is
# over eight hundred times the median.
#
# Even so, few weights change places: fewer than one in eight, for every kind. But those that do meet large inputs.
# Magnitude loses more than 1.5 times as much as Wanda for every kind, and more than three times for queries and keys.
# </details>

# %% tags=["we-checked"]
kinds, far = by_kind(layers), layers["largest"]
assert far.min() > 3 and far.idxmax() == "model.layers.11.mlp.down_proj" and far.max() > 800
assert kinds.loc["q_proj", "largest"] > 30 and kinds.loc["q_proj", "top"] > 0.5
assert kinds["moved"].max() < 1 / 8 and kinds["times"].min() > 1.5
assert kinds.loc[["q_proj", "k_proj"], "times"].min() > 3
told = f"an input is over {far.min():.1f} times the median"
print(f"checked: in all {len(far)} linears of SmolLM2 {told}")

# %% [markdown]
# That was one linear at a time. Now all linears of SmolLM2 are pruned by each of the three criteria, and nothing is
# trained afterwards. **Perplexity** says how well the model reads: roughly, between how many words it hesitates at every
# step. Lower is better.

# %%
results = pd.read_csv(embedded("results", "smollm2", "sweep.csv"))
dense = float(results.loc[results["method"] == "dense", "perplexity"].iloc[0])
results = results[(results["method"] == "none") & results["sparsity"].str.endswith("%")]
real = results.pivot_table(index="sparsity", columns="pruner", values="perplexity")
real = real[["magnitude", "wanda", "sparsegpt"]].dropna()  # where all three were measured
real.round(1)

# %%
from spp_lite.teaching.labs.matrix import plot_perplexity

times = real.loc["50%", "magnitude"] / real.loc["50%", "wanda"]
title = f"SmolLM2-135M at 50 % zeros: magnitude has {times:.0f} times Wanda's perplexity"
figure = plot_perplexity(real, dense, title, "zeros in the decoder's linear weights")
show(figure, alt=f"Perplexity against zeros, three criteria. {title}.")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# At every sparsity magnitude is the worst by far. From 60 % on Wanda is next, and SparseGPT the best. Each cell is one run, so
# read the factors, not the digits: at 50 % Wanda and SparseGPT are too close to be told apart.
# </details>
#
# To see a real model's own inputs, set `SPP_MODEL=smollm2` (after `spp-lite fetch smollm2`) and run this notebook again:
# sections 2 to 5 then show its outliers and its errors (allow a quarter of an hour). The numbers above come from these
# commands, the first in a checkout of the repository; [the page of results](../docs/results-smollm2.md) names the texts.
#
# ```bash
# python -m data.build.layers --calibration c4.jsonl  # the inputs
#
# spp-lite sweep --model smollm2 --methods none --pruners magnitude wanda sparsegpt --sparsity 50% 60% 70% --seeds 1 \
#     --data alpaca.json --calibration c4.jsonl --calibration-samples 32 --calibration-length 512 \
#     --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 --out my-results
# ```

# %% tags=["we-checked"]
assert (real.diff(axis=1).iloc[:, 1:] < 0).all(axis=None)  # one order in every line
close = real.loc["50%", "wanda"] / real.loc["50%", "sparsegpt"]
assert times > 5 and close < 1.1 and (real["wanda"] / real["sparsegpt"]).iloc[1:].min() > 1.3
print("checked: the order of the criteria in every line of the table; close at 50 %, apart beyond")

# %% [markdown]
# ## 8 · Read an error message
#
# Somebody wants Wanda's scores and measures the sizes of the *outputs*. This cell fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
outputs = new_rows[DOWN] @ weights[DOWN].T
weights[DOWN].abs() * outputs.square().mean(dim=0).sqrt()

# %% [markdown]
# The message names two lengths that do not fit: the weight has so many *inputs* in a row, the sizes are so many *outputs*.
# Where a linear is square, as `q_proj` often is, nothing would have complained, and the wrong sizes would have been used in
# silence.
#
# ## Recap
#
# 1. Zeroing a weight loses the weight *times its input*, and inputs differ in size.
# 2. A hook sees a layer's inputs: register, run, remove.
# 3. Wanda scores |W| · ‖x‖ and compares within each row; it needs a few texts and no gradient.
# 4. SparseGPT also changes the weights that stay: from left to right, each column's error goes to the columns on its right.
# 5. Where a criterion wins, ask for which reason: the score, the comparison group, or the update.
#
# ## Quiz
#
# <details><summary>1. All inputs have the same size. What is Wanda then?</summary>
#
# Magnitude, compared within each row: every score is multiplied by the same number.
# </details>
# <details><summary>2. Would Wanda's mask change if the calibration texts were twice as long?</summary>
#
# Only as far as the new tokens change the sizes of inputs relative to each other. Twice the same tokens gives the same mask.
# </details>
# <details><summary>3. When does the surgeon's step change nothing but the weight that goes?</summary>
#
# When inputs do not vary together: then $H$ and its inverse are diagonal, and column q of the inverse is zero except at q.
# </details>
# <details><summary>4. You forget handle.remove(), and measure again with other texts. What goes wrong?</summary>
#
# The old hook still runs: it goes on adding to the old sums or filling the old list, so old and new inputs mix there, and
# a list grows without end.
# </details>
#
# **Next:** [03 · Prune the whole model](03_prune_the_whole_model.ipynb). The papers: [Wanda, arXiv
# 2306.11695](https://arxiv.org/abs/2306.11695), Eq. 1; [SparseGPT, arXiv 2301.00774](https://arxiv.org/abs/2301.00774),
# Algorithm 1; [SPP, arXiv 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5: the $W$ that it fine-tunes was pruned by
# one of these two.
