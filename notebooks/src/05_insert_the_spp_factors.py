# %% [markdown]
# # 05 · Insert the SPP factors
# {{badge}}
#
# LoRA adds to a weight, and adding fills zeros (notebook 04). SPP *multiplies*: whatever you multiply a zero by, it stays
# zero. Here you build the method from its equation, in a dozen lines of PyTorch, and meet it again as a PEFT adapter.
#
# > **Goals** – derive W ⊙ (1 + sR(α)β) and compute with it (Ex 05a); see identity at the start and zeros that stay;
# > count its parameters (Ex 05b); see that SPP is a HiRA adapter with a one-hot B (Ex 05c).
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 01 and 04: masks, and what LoRA does to them.
# > **Tiny** – the model. **Real** – the equation, the layer, the PEFT calls: `SPP_MODEL` names another LLaMA (notebook 09).

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · From adding to multiplying
#
# We prune a model to 2:4 (two of every four neighbouring inputs are kept) and look at one corner of one weight. Any
# pruner will do: SPP only asks where the zeros are.

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
# A weight $W$ has a row for each of its *out* outputs and a column for each of its *in* inputs; ⊙ multiplies entry by
# entry. SPP gives every linear layer two *factors*:
#
# - $\alpha$ has $r$ rows and *in* columns. The outputs are cut into $r$ *blocks* of neighbours, and output $i$ belongs to
#   block $\lfloor i \cdot r / out \rfloor$ (rounded down).
# - $R(\alpha)$, of the size of $W$, repeats the rows of $\alpha$: its row $i$ is the row of $\alpha$ for the block of $i$.
# - $\beta$ has one number for each output, and $s$ is one fixed number, the *strength*.
#
# $$W' = W \odot \bigl(1 + s\,R(\alpha) \odot \beta\bigr)$$
#
# **Predict:** for 12 outputs and $r = 3$, which row of $\alpha$ does output 7 take?

# %%
import torch

from spp_lite.teaching import row_blocks

draw = torch.Generator().manual_seed(0)
alpha = torch.rand(3, 16, generator=draw) * 2 - 1  # r = 3
beta = torch.rand(12, generator=draw) * 2 - 1
block = row_blocks(12, 3)
print("block of every output:", block.tolist())
multiplied = corner * (1 + 2.0 * alpha[block] * beta[:, None])  # s = 2

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.factors import plot_factors

show(plot_factors(corner, alpha, beta, 2.0), alt="W, R(α) in three blocks of rows, β as a column, and W′: zeros agree.")

# %%
added = corner + torch.randn(12, 2, generator=draw) @ torch.randn(2, 16, generator=draw)  # LoRA's W + BA
for name, changed in {"W": corner, "W + BA": added, "W′": multiplied}.items():
    print(f"{name:6} {int((changed == 0).sum()):3} zeros")
assert torch.equal(multiplied == 0, corner == 0)  # the same zeros
assert (added == 0).sum() < (corner == 0).sum() / 2

# %% [markdown]
# **What you should see:** $R(\alpha)$ in three stripes (output 7 takes row 1 of $\alpha$, counted from 0), and $W'$ with
# exactly the grey cells of $W$. The sum $W + BA$ has lost them.
#
# ## 2 · A dozen lines of PyTorch
#
# `torch.nn.utils.parametrize` keeps a weight, here frozen, and computes from it the weight that the layer uses. $\alpha$ starts
# at random, $\beta$ at zero.
#
# **Predict:** how far is the layer's output from the old one before the first step? In that step, which of the two
# factors has a gradient: $\alpha$, $\beta$, or both?

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
        self.block, self.scaling = torch.arange(out) * r // out, scaling

    def forward(self, weight):
        return weight * (1 + self.scaling * self.alpha[self.block] * self.beta[:, None])


# %% [markdown]
# To train it we need inputs. A hook (notebook 02) catches those that the layer meets in real texts. The goal: to
# give the outputs that it gave before it was pruned.

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
mine = copy.deepcopy(up).requires_grad_(False)
before = mine(x)
spp = Spp(mine.weight)
parametrize.register_parametrization(mine, "weight", spp)
assert torch.equal(mine(x), before)  # to the last bit

# %%
optimizer = torch.optim.AdamW(spp.parameters(), lr=3e-2)
errors = []
for _ in range(60):
    loss = (mine(x) - target).square().mean() / target.var()
    optimizer.zero_grad()
    loss.backward()
    if not errors:
        print(f"step 1: largest gradient of α {spp.alpha.grad.abs().max():.1e}, of β {spp.beta.grad.abs().max():.1e}")
        assert not spp.alpha.grad.any() and spp.beta.grad.any()
    optimizer.step()
    errors.append(loss.item())

# %%
print(f"error against the dense layer: {errors[0]:.1%} → {errors[-1]:.1%}")
print(f"zeros: {int((up.weight == 0).sum()):,} → {int((mine.weight == 0).sum()):,}")
assert torch.equal(mine.weight == 0, up.weight == 0)
assert errors[-1] < errors[0] or not TINY

# %% [markdown]
# **What you should see:** the first output is the old one *to the last bit*, as $\beta = 0$ makes the bracket 1. In step 1
# only $\beta$ has a gradient, since $\alpha$'s is a multiple of $\beta$. The error falls, though not to nothing:
# the survivors can make up for a part of what is gone. All zeros stay.
#
# ## 3 · The whole model, by PEFT
#
# The library's layer is the same equation as a PEFT adapter, so PEFT's verbs work: `get_peft_model`, `save_pretrained`,
# `merge_and_unload`. By default every linear of the decoder blocks gets factors.
#
# **Predict:** which has more trainable numbers here: SPP with $r = 16$, LoRA of rank 8, or HiRA of rank 16?

# %%
from peft import get_peft_model

from spp_lite import SppConfig

pruned = copy.deepcopy(model)
adapted = get_peft_model(model, SppConfig(r=16, scaling=2.0)).eval()
with torch.no_grad():
    assert torch.equal(adapted(input_ids=ids).logits, logits_before)  # identity at the start, all layers
layer = adapted.base_model.model.model.layers[0].mlp.up_proj
print(layer)

# %% [markdown]
# Give the library's layer the factors that you trained, and it is your layer:

# %%
with torch.no_grad():
    layer.spp_alpha["default"].copy_(spp.alpha)
    layer.spp_beta["default"].copy_(spp.beta)
    assert torch.allclose(layer(x), mine(x), atol=1e-4)

# %%
from spp_lite.teaching import parameter_table

sizes = parameter_table(pruned, ["spp", "lora", "hira"])
out, inputs = up.weight.shape
print(f"SPP on this one layer: r·in + out = {16 * inputs + out:,}")
assert 16 * inputs + out == layer.spp_alpha["default"].numel() + layer.spp_beta["default"].numel()
spp_size, lora_size, hira_size = sizes["parameters"]
assert abs(spp_size / lora_size - 1) < 0.1 and 1.8 < hira_size / spp_size < 2.2
sizes.round(4)

# %% [markdown]
# **What you should see:** SPP and LoRA train almost equally many numbers, HiRA, which has $r \cdot (in + out)$, about twice
# as many. For SPP only $\alpha$ grows with $r$.
#
# ## 4 · Two forms of one equation
#
# Eq. 5 of the paper has a *residual* form. With inputs $x$ (one row a token), outputs $y$, and dropout on the second
# term while training:
#
# $$y = x W^\top + s\,\mathrm{dropout}(x)\,\bigl[W \odot R(\alpha) \odot \beta\bigr]^\top$$
#
# Without dropout, $x$ factors out and leaves the *merged* form $y = x W'^\top$: the same numbers (you show it in Ex 05a),
# one large product less. What is left is memory. For its gradients, PyTorch keeps intermediate results of your layer
# until the backward pass. The library's layer is *fused*: it keeps $x$, $W$, $\alpha$ and $\beta$, and computes $W'$ again.
#
# **Predict:** how many tensors of the size of $W$ does your layer keep? Is the fused form free, then?

# %%
x.requires_grad_()  # as in the middle of a network


def kept_for_backward(layer):
    """How many numbers autograd keeps beside the input and what the layer owns."""
    own, sizes = {part.data_ptr() for part in (x, *layer.parameters())}, {}

    def note(tensor):
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    return sum(sizes.values())


# %%
kept = {name: kept_for_backward(each) for name, each in {"yours": mine, "the library's": layer}.items()}
for name, numbers in kept.items():
    print(f"{name:13} keeps {numbers:7,} numbers more; W has {up.weight.numel():,}")
assert kept["the library's"] == 0 and kept["yours"] >= 2 * up.weight.numel()

# %% [markdown]
# **What you should see:** your layer keeps two tensors of the size of $W$ ($R(\alpha)$ and $W'$), the fused one none. It is not
# free: the factors' gradients come from the gradient of all of $W'$, a third large product where a frozen layer does with
# two. The README has measured times.
#
# ## 5 · SPP is a HiRA adapter
#
# HiRA, which PEFT has built in, uses $W \odot (1 + BA)$ with $A$ ($r \times in$) and $B$ ($out \times r$). Take $A = \alpha$. Let row $i$ of $B$
# be zero but for one entry, $s\beta_i$ in the column of block $i$: it picks one row of $\alpha$ and scales it. So $BA = s\,R(\alpha) \odot \beta$.
#
# **Predict:** how many entries of $B$ are not zero? `to_hira` writes this $B$; stock PEFT reads it.

# %%
import tempfile

from peft import PeftModel
from safetensors.torch import load_file

from spp_lite import to_hira

with torch.no_grad():
    for name, factor in adapted.named_parameters():
        if "spp_beta" in name:
            factor.normal_(std=0.2)  # as if trained
    expected = adapted(input_ids=ids).logits

# %%
with tempfile.TemporaryDirectory() as folder:
    to_hira(adapted, folder)
    stored = load_file(f"{folder}/adapter_model.safetensors")
    hira = PeftModel.from_pretrained(pruned, folder).eval()
with torch.no_grad():
    error = (hira(input_ids=ids).logits - expected).abs().max() / expected.abs().max()
print(f"adapter type {hira.peft_config['default'].peft_type.value}; logits differ by {error:.0e} of the largest")
assert error < 1e-4

# %%
from spp_lite.teaching.labs.factors import plot_one_hot

b = stored["base_model.model.model.layers.0.mlp.up_proj.hira_B"]
show(plot_one_hot(b), alt="The entries of B that are not zero: one a row, a staircase of row blocks.")
assert (b != 0).sum(1).max() == 1 and (b != 0).sum() == len(b)

# %% [markdown]
# **What you should see:** the same logits up to rounding, from an adapter that knows nothing of SPP, and a staircase: one entry
# in each row of $B$. That staircase is why SPP needs *out* numbers where HiRA needs $r \cdot out$.
#
# ## 6 · Lab: drag the factors
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
# (1) Yes: in the other outputs of its block, which have a β of their own. (2) $r = out$, here 12: every block has one row.
# </details>
#
# ## 7 · Lab: what the factors cost
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
# (1) $r = 15$: on a square layer, 15 rows of α and one column of β are as many as 8 + 8. (2) It halves the share: the
# factors double, the survivors become four times as many.
# </details>
#
# ## 8 · Your turn
#
# **Ex 05a · core · difficulty ●●○ · ~10 min.** Eq. 5 as written: the outputs in the residual form, without dropout, for
# $x$ with any number of leading dimensions, and any $r$, even one that does not divide *out*.


# %%
def spp_output(x, weight, alpha, beta, scaling):
    # BEGIN SOLUTION
    out, r = len(weight), len(alpha)
    block = torch.arange(out) * r // out
    update = weight * alpha[block] * beta[:, None]
    return x @ weight.T + scaling * (x @ update.T)
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_05a(spp_output)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `alpha[block]` with a tensor `block` of *out* row numbers is R(α); `torch.arange(out)` numbers the outputs.
# </details>
# <details><summary>Hint 2</summary>
#
# β multiplies whole rows of W: `beta[:, None]` makes it a column.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 05b · core · difficulty ●○○ · ~5 min.** How many numbers does SPP train on a model? `block_linears(model)` returns the
# decoder blocks' linears by name.

# %%
from spp_lite.teaching import block_linears


def spp_parameters(model, r):
    # BEGIN SOLUTION
    shapes = [linear.weight.shape for linear in block_linears(model).values()]
    return sum(r * inputs + out for out, inputs in shapes)
    # END SOLUTION


# %% tags=["check"]
checks.ex_05b(spp_parameters)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `linear.weight.shape` is (out, in).
# </details>
# <details><summary>Hint 2</summary>
#
# α has $r \cdot in$ entries, β has *out*: add up over all linears.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 05c · core · difficulty ●●○ · ~8 min.** HiRA's $B$ (out, r) from $\beta$, for a given $r$ and strength.


# %%
def hira_b(beta, r, scaling):
    # BEGIN SOLUTION
    out = len(beta)
    block = torch.arange(out) * r // out
    b = torch.zeros(out, r)
    b[torch.arange(out), block] = scaling * beta
    return b
    # END SOLUTION


# %% tags=["check"]
checks.ex_05c(hira_b)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Start from zeros; one entry of each row is set, in the column of the output's block.
# </details>
# <details><summary>Hint 2</summary>
#
# `b[rows, columns] = values` sets one entry for each pair. HiRA has no strength of its own: where does $s$ go?
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# The library does what you wrote: layer, table and export.

# %% tags=["check"]
factors = layer.spp_alpha["default"].detach(), layer.spp_beta["default"].detach()
assert checks.ex_05a(spp_output) and torch.allclose(spp_output(x, up.weight, *factors, 2.0), layer(x), atol=1e-3)
assert checks.ex_05b(spp_parameters) and spp_parameters(pruned, 16) == sizes["parameters"][0]
assert checks.ex_05c(hira_b) and torch.equal(hira_b(factors[1], 16, 2.0), b)

# %% [markdown]
# **Stretch · difficulty ●●● · ~20 min.** Let $G$ (out × in) be the gradient of the loss for $W'$. Derive those for $\alpha$
# and $\beta$: both are sums over $G \odot W$. Compare with autograd, then with `_factor_gradients` in `spp_lite/kernels.py`.
#
# ## 9 · Read an error message
#
# How small may $r$ be? This cell fails on purpose: which value, and which way out, does it name?

# %% tags=["raises-exception"]
SppConfig(r=0)

# %% [markdown]
# ## Recap
#
# 1. Adding fills zeros; multiplying cannot: W′ = W ⊙ (1 + sR(α)β).
# 2. α has r rows, one for each block of outputs; β has one number an output.
# 3. β starts at zero: the model starts unchanged, to the last bit, and β moves first.
# 4. r·in + out numbers a layer; residual and merged form are equal, the fused one keeps nothing of W's size.
# 5. SPP is HiRA with a one-hot B, and stock PEFT can read it as one.
#
# ## Quiz
#
# <details><summary>1. Why may α not start at zero too?</summary>
#
# Each factor's gradient is a multiple of the other factor. Were both zero, neither would ever move.
# </details>
# <details><summary>2. Can SPP flip the sign of a weight, or set it to zero?</summary>
#
# Yes: where sR(α)β is below −1 the sign flips, at exactly −1 the weight becomes a zero. It can make zeros, never fill one.
# </details>
# <details><summary>3. What is the rank of SPP's update W ⊙ R(α)β?</summary>
#
# R(α)β has rank at most r, but its product with W, entry by entry, can have a far higher one. LoRA's BA cannot.
# </details>
# <details><summary>4. What does SPP do on a dense weight?</summary>
#
# It trains well enough, but has nothing to preserve: the library warns, and LoRA or HiRA would do.
# </details>
#
# **Next:** [06 · Train on Alpaca](06_train_on_alpaca.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
