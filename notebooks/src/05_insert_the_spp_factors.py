# %% [markdown]
# # 05 · Insert the SPP factors
# {{badge}}
#
# LoRA adds to a weight, and adding fills zeros (notebook 04). SPP *multiplies*. Here you build the method from its equation: first the matrix $R(\alpha)$, then the forward pass, then the backward
# pass by hand. Then you meet it again as a PEFT adapter.
#
# > **Goals** – build $R(\alpha)$, the heart of the equation (Ex 05a); write the forward pass in its residual form
# > (Ex 05b); derive the gradients of both factors and check them against autograd (Ex 05c); count what SPP trains
# > (Ex 05d); see what it changes at its start, what it does to zeros, and which other adapter it is a case of.
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 01 and 04: masks, and what LoRA does to them. The symbols are those of
# > [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model. **Real** – the equation, the layer, the PEFT calls: `SPP_MODEL` names another LLaMA (notebook 09).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · From adding to multiplying
#
# We prune a model to 2:4, so that two of every four neighbouring inputs are kept, and look at one corner of one weight.
# Any pruner will do, because SPP only asks where the zeros are.

# %%
from spp_lite import load, prune
from spp_lite.teaching import is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
model, tokenizer = load()
model = model.cpu().float()  # small steps: no GPU needed
up = model.model.layers[0].mlp.up_proj
dense_weight = up.weight.detach().clone()
prune(model, None, "2:4", method="magnitude", progress=False)
corner = up.weight.detach()[:12, :16]  # 12 outputs, 16 inputs

# %% [markdown]
# A weight $W$ has a row for each of its $\mathrm{out}$ outputs and a column for each of its $\mathrm{in}$ inputs. The sign
# ⊙ multiplies two matrices entry by entry. SPP gives every linear layer two *factors*, $\alpha$ and $\beta$:
#
# - $\alpha$ has $r$ rows and $\mathrm{in}$ columns. The outputs are cut into $r$ *blocks* of neighbours, and output $i$
#   belongs to block $\lfloor i \cdot r / \mathrm{out} \rfloor$ (rounded down).
# - $R(\alpha)$ has the size of $W$. Its row $i$ is the row of $\alpha$ for the block of output $i$.
# - $\beta$ has one number for each output, and $s$ is one fixed number, the *scaling*.
#
# $$W' = W \odot \bigl(1 + s\,R(\alpha)\,\beta\bigr)$$

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.equation import plot_equation

show(plot_equation(), alt="W′ = W ⊙ (1 + s R(α)β): each row of α is repeated over a block.")

# %% [markdown]
# **Predict:** for 12 outputs and $r = 3$, which row of $\alpha$ does output 7 take? We count rows from 0.

# %%
from spp_lite.teaching import Guess

guess_row = Guess("Which row of α does output 7 of 12 take, for r = 3?")

# %% [markdown]
# **Ex 05a · core · difficulty ●○○ · importance ●●● · ~7 min.** Write $R(\alpha)$: from `alpha` (r × in) and the number of
# outputs, return the matrix (out × in) whose row $i$ is the row of $\alpha$ for the block of output $i$. It has to work for
# any $r$, even one that does not divide $\mathrm{out}$. Since $\alpha$ will be trained, index `alpha` itself: do not copy
# its numbers.

# %%
import torch


def R(alpha, out):
    # BEGIN SOLUTION
    block = torch.arange(out) * len(alpha) // out
    return alpha[block]
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_05a(R)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A tensor can be indexed with a whole tensor of row numbers: the result has one row for each of these numbers.
# </details>
# <details><summary>Hint 2</summary>
#
# You need the block of every output, so start from the numbers 0, 1, …, out − 1 and apply the formula to all of them at
# once. In Python, `//` divides and rounds down.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import yours

R = yours(R, checks.ex_05a)
draw = torch.Generator().manual_seed(0)
alpha = torch.rand(3, 16, generator=draw) * 2 - 1  # r = 3
beta = torch.rand(12, generator=draw) * 2 - 1
blocks = [int((alpha == row).all(1).nonzero()) for row in R(alpha, 12)]
print("row of α for every output:", blocks)
guess_row.compare(f"row {blocks[7]}")

# %% [markdown]
# Now $\beta$ meets $R(\alpha)$. The one has the shape (out,), the other (out, in). PyTorch compares shapes from the right,
# so it would take a bare `beta` for one number per *input*. `beta[:, None]` has the shape (out, 1): a column. A side of
# length 1 is repeated as often as needed, here once for every input. This is called *broadcasting*.

# %%
for name, tensor in {"β": beta, "β as a column": beta[:, None], "R(α)": R(alpha, 12)}.items():
    print(f"{name:13} {tuple(tensor.shape)}")
multiplied = corner * (1 + 2.0 * R(alpha, 12) * beta[:, None])  # s = 2

# %%
from spp_lite.teaching.labs.factors import plot_factors

figure = plot_factors(corner, R(alpha, 12), beta, 2.0)
show(figure, alt="W, R(α) in three blocks of rows, β, and W′: the zeros of W are zeros of W′.")

# %% [markdown]
# Compare this with what LoRA does: it adds a product of two thin matrices, $W + BA$.

# %%
added = corner + torch.randn(12, 2, generator=draw) @ torch.randn(2, 16, generator=draw)
for name, changed in {"W": corner, "W + BA": added, "W′": multiplied}.items():
    print(f"{name:6} {int((changed == 0).sum()):3} zeros")

# %% tags=["we-checked"]
assert torch.equal(multiplied == 0, corner == 0) and not (added == 0).any()
print("checked: W′ has exactly the zeros of W, W + BA has none of them")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# $R(\alpha)$ comes in three stripes of four outputs, so output 7 takes row 1 of $\alpha$. $W'$ has exactly the grey cells of
# $W$. The sum $W + BA$ has lost all of them.
# </details>
#
# ## 2 · A layer in a dozen lines
#
# `torch.nn.utils.parametrize` keeps a weight, which we freeze, and computes from it the weight that the layer uses. This
# class computes $W'$, with your $R(\alpha)$. It starts with random numbers in $\alpha$ and with zeros in $\beta$, so that the
# bracket is 1 and the layer starts unchanged.

# %%
import math

from torch import nn


class Spp(nn.Module):
    def __init__(self, weight, r=16, scaling=2.0):
        super().__init__()
        out, inputs = weight.shape
        self.alpha = nn.Parameter(torch.empty(r, inputs))
        self.beta = nn.Parameter(torch.zeros(out))
        nn.init.kaiming_uniform_(self.alpha, a=math.sqrt(5))
        self.scaling = scaling

    def forward(self, weight):
        return weight * (1 + self.scaling * R(self.alpha, len(weight)) * self.beta[:, None])


# %% [markdown]
# To train the layer we need inputs. A hook (notebook 02) catches those that it meets in real texts. The goal is to give
# the outputs that the layer gave before it was pruned.

# %%
from spp_lite.teaching import calibration_batches, default_texts

ids = calibration_batches(default_texts(), tokenizer, samples=8, length=128)[0]
caught = []
hook = up.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].flatten(0, 1)))
with torch.no_grad():
    logits_before = model(input_ids=ids).logits
hook.remove()
x = caught[0]  # (tokens, in)
target = x @ dense_weight.T

# %%
import copy

from torch.nn.utils import parametrize

torch.manual_seed(0)
W = up.weight.detach()
mine = copy.deepcopy(up).requires_grad_(False)
spp = Spp(W)
parametrize.register_parametrization(mine, "weight", spp)
print("the layer starts unchanged, to the last bit:", torch.equal(mine(x), up(x)))

# %% [markdown]
# **Predict:** in the first step, which of the two factors has a gradient: $\alpha$, $\beta$, or both?

# %%
guess_gradient = Guess("Which factor has a gradient in step 1?", ["only α", "only β", "both"])


# %%
def error_of(output):
    return (output - target).square().mean() / target.var()


optimizer = torch.optim.AdamW(spp.parameters(), lr=3e-2)
errors, first = [], {}
for _ in range(60):
    optimizer.zero_grad()
    loss = error_of(mine(x))
    loss.backward()
    first = first or {name: p.grad.abs().max().item() for name, p in spp.named_parameters()}
    optimizer.step()
    errors.append(loss.item())

# %%
signs = {"alpha": "α", "beta": "β"}
moving = " and ".join(sign for name, sign in signs.items() if first[name] > 0)
guess_gradient.compare(f"{moving} alone" if len(moving) == 1 else moving)
print(f"largest gradient of α {first['alpha']:.1e}, of β {first['beta']:.1e}")
print(f"error against the dense layer: {errors[0]:.1%} → {errors[-1]:.1%}")
print(f"zeros: {int((W == 0).sum()):,} → {int((mine.weight == 0).sum()):,}")

# %% tags=["we-checked"]
assert first["alpha"] == 0 < first["beta"] and spp.alpha.grad.any()
assert torch.equal(mine.weight == 0, W == 0)
assert errors[-1] < errors[0] or not TINY
print("checked: only β has a gradient in step 1, later α has one; the error falls; all zeros stay")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In step 1 only $\beta$ has a gradient: $\alpha$ acts on the weight only through a product with $\beta$, which is still zero.
# From step 2 on both move. The error falls, but not to nothing, since the surviving weights can make up only for a part of
# what is gone. All zeros stay.
# </details>
#
# ## 3 · The forward pass as the paper writes it
#
# Eq. 5 of the paper has a *residual* form. With inputs $x$ (one row a token) and outputs $y$:
#
# $$y = x W^\top + s\,\mathrm{dropout}(x)\,\bigl[W \odot R(\alpha)\,\beta\bigr]^\top$$
#
# The first term is the frozen layer. The second is the *update*, and only its input goes through dropout, which sets a random
# part of the entries to zero while training and does nothing afterwards. Section 2 had the *merged* form, $y = x W'^\top$.
#
# **Predict:** on our layer, without dropout, how far apart will the two forms be?

# %%
guess_forms = Guess("How far apart are the two forms?", ["by rounding", "about 1 %", "about 10 %"])

# %% [markdown]
# **Ex 05b · core · difficulty ●●○ · importance ●●● · ~10 min.** Write the residual form. `x` may have any number of leading
# dimensions, and `dropout` is a function that you call on a tensor. Use your `R`.


# %%
def spp_output(x, weight, alpha, beta, scaling, dropout):
    # BEGIN SOLUTION
    update = weight * R(alpha, len(weight)) * beta[:, None]
    return x @ weight.T + scaling * (dropout(x) @ update.T)
    # END SOLUTION


# %% tags=["check"]
checks.ex_05b(spp_output)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Build the matrix in the square brackets first. It has the shape of $W$, so you can multiply by its transpose as you do by
# that of $W$.
# </details>
# <details><summary>Hint 2</summary>
#
# $\beta$ scales whole rows of the matrix. Section 1 says how a vector becomes a column. Which of the two terms sees the
# inputs as they are?
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
spp_output = yours(spp_output, checks.ex_05b)
factors = W, spp.alpha.detach(), spp.beta.detach(), 2.0
with torch.no_grad():
    merged_form = mine(x)
    distances = {
        p: float((spp_output(x, *factors, nn.Dropout(p)) - merged_form).norm() / merged_form.norm())
        for p in (0.0, 0.05)
    }
guess_forms.compare(f"by {distances[0.0]:.0e} of the outputs' size: rounding")
print(f"with a dropout of 5 %: by {distances[0.05]:.1e}")

# %% tags=["we-checked"]
assert distances[0.0] < 1e-5 and (distances[0.05] > 10 * distances[0.0])
print("checked: without dropout the two forms agree up to rounding, with dropout they do not")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Without dropout $x$ factors out: the two forms give the same numbers up to rounding, and the merged form saves one of two large products.
# That is why the library uses it wherever there is no dropout.
# </details>
#
# ## 4 · The backward pass by hand
#
# Training needs the gradients of the loss $L$ for $\alpha$ and for $\beta$. Autograd finds them, but it is worth deriving them
# once: you will see what the factors learn from, and what a layer has to remember. Call $G$ the gradient for the merged
# weight, $G_{ij} = \partial L / \partial W'_{ij}$, of the size of $W$. If a factor changes several entries of $W'$, its gradient
# is the sum over all of them (the chain rule):
#
# $$\frac{\partial L}{\partial \beta_i} = \sum_{j} G_{ij}\,\frac{\partial W'_{ij}}{\partial \beta_i}
# \qquad\quad
# \frac{\partial L}{\partial \alpha_{kj}} = \sum_{i\ \text{in block}\ k} G_{ij}\,\frac{\partial W'_{ij}}{\partial \alpha_{kj}}$$
#
# **Ex 05c · core · difficulty ●●● · importance ●●● · ~15 min.** Take a pencil and find the two derivatives of
# $W'_{ij} = W_{ij}\,(1 + s\,R(\alpha)_{ij}\,\beta_i)$. Then return $d\alpha$ (r × in) and $d\beta$ (out,), in this order. The
# check compares both with what autograd finds.


# %%
def factor_gradients(G, weight, alpha, beta, scaling):
    # BEGIN SOLUTION
    product = scaling * G * weight  # in both gradients
    dbeta = (product * R(alpha, len(weight))).sum(1)
    belongs = R(torch.eye(len(alpha)), len(weight))  # (out, r): 1 where output i is in block k
    dalpha = belongs.T @ (product * beta[:, None])
    return dalpha, dbeta
    # END SOLUTION


# %% tags=["check"]
checks.ex_05c(factor_gradients)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Both derivatives hold $s$ and $W_{ij}$. The third thing in each is the *other* factor. Begin with $d\beta$: one sum over
# the inputs.
# </details>
# <details><summary>Hint 2</summary>
#
# For $d\alpha$, add up the rows that belong to one block. A loop over the outputs does it: add row $i$ to row
# $\lfloor i \cdot r / \mathrm{out} \rfloor$ of a matrix that starts with zeros. Or use a matrix of zeros and ones that says which
# output belongs to which block: what does your `R` give for the unit matrix?
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# With your forward pass and your gradients we can write a layer that needs no autograd inside. For $y = x W'^\top$, the chain
# rule gives $G = dy^\top x$ and $dx = dy\,W'$, where $dy$ is the gradient for the outputs. The layer keeps only what it was
# given, and computes $W'$ a second time when it goes backward.

# %%
factor_gradients = yours(factor_gradients, checks.ex_05c)


class ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, alpha, beta):
        ctx.save_for_backward(x, weight, alpha, beta)
        return spp_output(x, weight, alpha, beta, 2.0, nn.Identity()).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        x, weight, alpha, beta = ctx.saved_tensors
        dx = dy @ (weight * (1 + 2.0 * R(alpha, len(weight)) * beta[:, None]))
        dalpha, dbeta = factor_gradients(dy.T @ x, weight, alpha, beta, 2.0)
        return dx, None, dalpha, dbeta


# %%
x.requires_grad_()  # as in the middle of a network
layers = {
    "parametrize": lambda: mine(x),
    "by hand": lambda: ByHand.apply(x, W, spp.alpha, spp.beta),
}
wanted = [x, spp.alpha, spp.beta]
found = {name: torch.autograd.grad(error_of(run()), wanted) for name, run in layers.items()}
for name, auto, by_hand in zip(("x", "α", "β"), *found.values(), strict=True):
    off = (auto - by_hand).norm() / auto.norm()
    print(f"d{name}: yours differs from autograd's by {off:.0e} of its size")

# %% [markdown]
# The gradients agree on a real layer, too. What is the gain? Memory. While it goes forward, autograd keeps intermediate
# results until the backward pass. `kept_for_backward` lists the shapes of those that a layer keeps beside $x$, $W$, $\alpha$
# and $\beta$.
#
# **Predict:** how many tensors of the size of $W$ does the parametrized layer of section 2 keep?

# %%
guess_kept = Guess("How many tensors of the size of W does it keep?", options=["0", "1", "2", "3"])

# %%
from spp_lite.teaching.labs.equation import kept_for_backward, plot_kept

own = [x, W, *mine.parameters()]
kept = {name: kept_for_backward(run, own) for name, run in layers.items()}
figure = plot_kept(kept, W)
show(figure, alt=f"Shapes kept for the backward pass: {kept}.")
guess_kept.compare(str(kept["parametrize"].count(tuple(W.shape))))

# %% tags=["we-checked"]
pairs = zip(*found.values(), strict=True)
assert all((auto - by_hand).norm() < 1e-3 * auto.norm() for auto, by_hand in pairs)
assert kept["parametrize"].count(tuple(W.shape)) >= 2 and not kept["by hand"]
print("checked: the same gradients; two tensors of W's size are kept by autograd, none by hand")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Autograd keeps two tensors of the size of $W$: $s\,R(\alpha)$, which it needs for $d\beta$, and $W'$, which it needs for $dx$.
# Your layer keeps none. The price is that $W'$ is computed twice. The library's layer does the same; one calls such a layer
# *fused*. It is not free: computing $G$ takes a third large product; a frozen layer needs only two. The README has measured times.
# </details>
#
# ## 5 · The whole model, by PEFT
#
# The library's layer is the same equation as a PEFT adapter, so PEFT's verbs work: `get_peft_model`, `save_pretrained`,
# `merge_and_unload`. By default every linear of the decoder blocks gets factors.

# %%
from peft import get_peft_model

from spp_lite import SppConfig

pruned = copy.deepcopy(model)
adapted = get_peft_model(model, SppConfig(r=16, scaling=2.0)).eval()
with torch.no_grad():
    same = torch.equal(adapted(input_ids=ids).logits, logits_before)
print("the whole model starts unchanged, to the last bit:", same)
layer = adapted.base_model.model.model.layers[0].mlp.up_proj
print(layer)

# %% [markdown]
# Give the library's layer the factors that you trained, and it is your layer:

# %%
with torch.no_grad():
    layer.spp_alpha["default"].copy_(spp.alpha)
    layer.spp_beta["default"].copy_(spp.beta)
    off = (layer(x) - spp_output(x, *factors, nn.Identity())).abs().max()
print(f"the library's outputs differ from yours by at most {off:.0e}")

# %% tags=["we-checked"]
assert same and off < 1e-3 and not kept_for_backward(lambda: layer(x), [x, *layer.parameters()])
print("checked: unchanged at the start, equal to your layer, and nothing of W's size is kept")

# %% [markdown]
# How much does this adapter train? LoRA of rank $\rho$ has $\rho \cdot \mathrm{in} + \rho \cdot \mathrm{out}$ numbers for each linear, and
# so has HiRA, which you meet in the next section. For SPP, look at the shapes of its two factors in section 1.
#
# **Predict:** which trains the most numbers on this model: SPP with $r = 16$, LoRA of rank 8, or HiRA of rank 16?

# %%
names = {"spp": "SPP, r = 16", "lora": "LoRA, rank 8", "hira": "HiRA, rank 16"}
guess_size = Guess("Which trains the most numbers?", options=list(names.values()))

# %% [markdown]
# **Ex 05d · core · difficulty ●○○ · importance ●●○ · ~6 min.** How many numbers does SPP train on a model?
# `block_linears(model)` returns the decoder blocks' linears by name.

# %%
from spp_lite.teaching import block_linears


def spp_parameters(model, r):
    # BEGIN SOLUTION
    shapes = [linear.weight.shape for linear in block_linears(model).values()]
    return sum(r * inputs + out for out, inputs in shapes)
    # END SOLUTION


# %% tags=["check"]
checks.ex_05d(spp_parameters)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `linear.weight.shape` is (out, in). Write down how many entries $\alpha$ has, and how many $\beta$ has.
# </details>
# <details><summary>Hint 2</summary>
#
# `block_linears(model)` is a dictionary; `.values()` gives its linears. Add up over all of them, whatever their shape.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import parameter_table

spp_parameters = yours(spp_parameters, checks.ex_05d)
counted = parameter_table(pruned, ["spp", "lora", "hira"])
print(f"by your function SPP trains {spp_parameters(pruned, 16):,} numbers")
most = counted.loc[counted["parameters"].idxmax()]
guess_size.compare(f"{names[most['method']]}, with {most['parameters']:,} numbers")
counted.round(4)

# %% tags=["we-checked"]
spp_size, lora_size, hira_size = counted["parameters"]
assert int(spp_parameters(pruned, 16)) == spp_size
assert abs(spp_size / lora_size - 1) < 0.1 and 1.8 < hira_size / spp_size < 2.2
print("checked: your count is PEFT's; SPP and LoRA differ by less than 10 %, HiRA has about twice")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# SPP has $r \cdot \mathrm{in} + \mathrm{out}$ numbers for each linear. SPP with $r = 16$ and LoRA of rank 8 train almost equally
# many, HiRA of rank 16 about twice as many. For SPP only $\alpha$ grows with $r$.
# </details>
#
# ## 6 · SPP is a HiRA adapter
#
# HiRA, which PEFT has built in, uses $W \odot (1 + BA)$ with $A$ (r × in) and $B$ (out × r). This looks much like SPP. Take
# $A = \alpha$. Is there a $B$ for which $BA$ is exactly $s\,R(\alpha)\,\beta$?
#
# **Predict:** how many entries of that $B$ are not zero?

# %%
guess_entries = Guess("How many of the out · r entries of B are not zero?")

# %% [markdown]
# **Ex 05e · stretch · difficulty ●●○ · importance ●●○ · ~10 min.** Find this $B$ and return it as a tensor (out × r), for
# given $\beta$, $r$ and $s$. HiRA has no scaling of its own.


# %%
def hira_b(beta, r, scaling):
    # BEGIN SOLUTION
    return scaling * beta[:, None] * R(torch.eye(r), len(beta))
    # END SOLUTION


# %% tags=["check"]
checks.ex_05e(hira_b)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Row $i$ of $BA$ is a sum of rows of $A$, each times an entry of row $i$ of $B$. Which rows of $A = \alpha$ should it hold?
# </details>
# <details><summary>Hint 2</summary>
#
# Row $i$ of $B$ picks one row of $\alpha$ and scales it. A row that only picks has a single 1 and zeros elsewhere: one calls it
# *one-hot*. Ex 05c needed such rows, too.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# The library's `to_hira` writes this $B$ for every layer, and stock PEFT reads it. We give all layers some factors, as if they
# were trained, and compare.

# %%
hira_b = yours(hira_b, checks.ex_05e)
with torch.no_grad():
    for name, factor in adapted.named_parameters():
        if "spp_beta" in name:
            factor.normal_(std=0.2)  # as if trained
    expected = adapted(input_ids=ids).logits

# %%
import tempfile

from peft import PeftModel
from safetensors.torch import load_file

from spp_lite import to_hira

with tempfile.TemporaryDirectory() as folder:
    to_hira(adapted, folder)
    stored = load_file(f"{folder}/adapter_model.safetensors")
    hira = PeftModel.from_pretrained(pruned, folder).eval()
with torch.no_grad():
    error = (hira(input_ids=ids).logits - expected).abs().max() / expected.abs().max()
kind = hira.peft_config["default"].peft_type.value
print(f"type {kind}; the logits differ by {error:.0e} of the largest")

# %%
from spp_lite.teaching.labs.factors import plot_one_hot

b = stored["base_model.model.model.layers.0.mlp.up_proj.hira_B"]
show(plot_one_hot(b), alt="The entries of B that are not zero: one a row, a staircase of blocks.")
entries = int((b != 0).sum())
guess_entries.compare(f"{entries} of {b.numel():,}: one for each of the {len(b)} outputs")

# %% tags=["we-checked"]
trained = layer.spp_beta["default"].detach()
assert error < 1e-4 and torch.allclose(torch.as_tensor(hira_b(trained, 16, 2.0)).float(), b)
assert (b != 0).sum(1).max() == 1 and (b != 0).sum() == len(b)
print("checked: stock PEFT gives the same logits; your B is the exported one, with one entry a row")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The logits are the same up to rounding, from an adapter that knows nothing of SPP. $B$ is a staircase with one entry in each
# row. That staircase is why SPP needs $\mathrm{out}$ numbers where HiRA needs $r \cdot \mathrm{out}$.
# </details>
#
# ## 7 · Lab: drag the factors
#
# One α and one β of the corner of section 1 are yours. **Predict:** which cells of W′ move with that α, and which with
# that β? **Try** the sliders (mouse, or Tab and the arrow keys); the boxes show the reach of each.

# %% tags=["lab"]
from spp_lite.teaching.labs.factors import FactorLab

lab = FactorLab(up.weight)
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(r=3, alpha=0.75, beta=0.75)

# %% [markdown]
# **Explain.** (1) With β at 0, can this α still change W′ anywhere? (2) Which $r$ lets each α reach a single output?
#
# <details><summary>Answers</summary>
#
# Changing α moves one input's weights in all outputs of its block (solid box). Changing β moves all weights of one output (dashed
# box). Neither moves a grey cell. (1) Yes: in the other outputs of its block, which have a β of their own. (2) $r = \mathrm{out}$, here 12:
# every block has one row.
# </details>
#
# ## 8 · Lab: what the factors cost
#
# **Predict:** a layer twice as wide has four times the weights. How many times the factors? **Try** both sliders.

# %% tags=["lab"]
from spp_lite.teaching.labs.factors import SizeLab

size_lab = SizeLab()
size_lab.show()
size_lab.selftest()

# %%
size_lab.static(r=16, width=4096)

# %% [markdown]
# **Explain.** (1) Which $r$ gives SPP exactly as many numbers as LoRA of rank 8? (2) What does doubling the width
# do to SPP's share of the survivors?
#
# <details><summary>Answers</summary>
#
# A layer twice as wide has twice the factors. (1) $r = 15$: on a square layer, 15 rows of α and one column of β are as many as
# 8 + 8. (2) It halves the share: the factors double, while the survivors become four times as many.
# </details>
#
# ## 9 · On a real LLaMA
#
# SmolLM2-135M is a pre-trained LLaMA of 30 blocks. We need no weights to count its factors: a skeleton on the device `meta`
# has shapes only. Beside it stands LLaMA-7B.

# %%
from transformers import LlamaConfig, LlamaForCausalLM

smol = LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True,
)  # fmt: skip
for name, shape in {"SmolLM2-135M": smol, "LLaMA-7B": LlamaConfig()}.items():
    with torch.device("meta"):
        skeleton = LlamaForCausalLM(shape)
    trained, every = spp_parameters(skeleton, 16), skeleton.num_parameters()
    print(f"{name}: SPP trains {trained:,} of {every:,} numbers, {trained / every:.2%}")

# %% [markdown]
# What do so few numbers bring back? This table was measured with SmolLM2 and is part of the package: the dense model, the
# model pruned to 2:4 by Wanda, and the same after a short training of SPP's factors, merged. `zeros_before` and `zeros_after`
# are shares of the decoder's linear weights, and a low perplexity is good.

# %%
import pandas as pd

from spp_lite.teaching import embedded

sweep = pd.read_csv(embedded("results", "smollm2", "sweep.csv"))
real = sweep[sweep["error"].isna() & sweep["pruner"].isin(["dense", "wanda"])]
real = real[real["method"].isin(["dense", "none", "spp"]) & real["sparsity"].isin(["0%", "2:4"])]
real[["method", "seed", "parameters", "zeros_before", "zeros_after", "perplexity"]].round(4)

# %% tags=["we-checked"]
recovered, bare, whole = (real[real["method"] == method] for method in ("spp", "none", "dense"))
assert (recovered["zeros_before"] <= recovered["zeros_after"]).all() and len(recovered)
assert whole["perplexity"].max() < recovered["perplexity"].min()
assert recovered["perplexity"].max() < bare["perplexity"].min()
with torch.device("meta"):
    assert (recovered["parameters"] == int(spp_parameters(LlamaForCausalLM(smol), 16))).all()
print("checked: your count is the trained one; no zero is filled; SPP lies between")

# %% [markdown]
# Your function counts exactly the numbers that were trained there. The zeros are not fewer after than before, and the
# perplexity falls, though not to that of the dense model. One command gives the rows (it takes minutes; notebook 09 says where
# its files come from):
#
# ```bash
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 --steps 40 \
#     --batch-size 8 --cutoff 256 --bf16 --seeds 1 --methods spp --pruners wanda --sparsity 2:4 --rates-at 2:4 \
#     --try-rates 3e-3 1e-2 3e-2 --out results
# ```
#
# ## 10 · Read an error message
#
# "β has one number for each output, so I multiply by β." This cell follows that sentence, and fails on purpose.

# %% tags=["raises-exception"]
corner * (1 + 2.0 * R(alpha, 12) * beta)

# %% [markdown]
# Read the last line: it names two sizes that do not fit, 16 and 12, which are the numbers of inputs and of outputs, so PyTorch
# has lined up β with the inputs. On a square weight both sizes agree, and the same mistake would raise no error and give a
# wrong layer; so try new code on a weight with unlike sides.

# %% tags=["we-checked"]
square = torch.ones(12, 12)
rows = R(alpha[:, :12], 12)
wrong, right = square * (1 + rows * beta), square * (1 + rows * beta[:, None])
assert wrong.shape == right.shape and not torch.allclose(wrong, right)
print("checked: on a square weight the mistake raises no error and gives other numbers")

# %% [markdown]
# ## Recap
#
# 1. Adding fills zeros; multiplying cannot: W′ = W ⊙ (1 + s R(α)β).
# 2. α has r rows, one for each block of outputs; R(α) repeats them; β has one number for each output.
# 3. β starts at zero: the model starts unchanged, to the last bit, and β moves first.
# 4. Both gradients are sums over G ⊙ W, so a layer has to keep only x, W, α and β.
# 5. A layer has r·in + out factors; SPP is HiRA with a one-hot B, and stock PEFT can read it as one.
#
# ## Quiz
#
# <details><summary>1. Why may α not start at zero too?</summary>
#
# Each factor's gradient is a multiple of the other factor. Were both zero, neither would ever move.
# </details>
# <details><summary>2. Can SPP flip the sign of a weight, or set it to zero?</summary>
#
# Yes: where s R(α)β is below −1 the sign flips, at exactly −1 the weight becomes a zero. It can make zeros, never fill one.
# </details>
# <details><summary>3. What is the rank of SPP's update W ⊙ R(α)β?</summary>
#
# R(α)β has rank at most r, but its product with W, entry by entry, can have a far higher one. LoRA's BA cannot.
# </details>
# <details><summary>4. A weight was pruned. What does the loss at this weight tell α and β?</summary>
#
# Nothing: both gradients hold G ⊙ W, and W is zero there. The factors learn from the survivors alone.
# </details>
#
# **Next:** [06 · Train on Alpaca](06_train_on_alpaca.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
