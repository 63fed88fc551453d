# %% [markdown]
# # 06 · Train on Alpaca
# {{badge}}
#
# Notebook 05 inserted the SPP factors; so far they change nothing. Here you train them: from a record to a prompt, from
# a prompt to labels, from labels to a loss that falls. One setting decides whether it works: the learning rate.
#
# > **Goals** – mask labels so that only the answer is learned (Ex 06a); build the Alpaca prompt (Ex 06b); train, read
# > the curves, and say why SPP wants a large learning rate (Ex 06c).
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 05: what $\alpha$, $\beta$, $r$ and $s$ are.
# > **Tiny** – the model, the records and the 80 steps. **Real** – the Alpaca template, the labels, `transformers.Trainer`,
# > the optimiser; `SPP_MODEL` and `SPP_DATA` put a LLaMA and the real records in their place.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · From a record to a prompt
#
# An Alpaca *record* has three texts: `instruction`, `input` (often empty) and `output`. A fixed template turns the first
# two into the *prompt*; the model learns to go on with the third. There are two templates, with and without input.

# %%
from spp_lite import load_alpaca
from spp_lite.teaching import is_tiny, prompt

TINY = is_tiny()  # False when SPP_MODEL names a real model
records = load_alpaca()
paired = next(record for record in records if record["input"])
print(prompt(paired) + paired["output"])

# %%
plain = next(record for record in records if not record["input"])
print(prompt(plain) + plain["output"])
assert "### Input:" in prompt(paired) and "### Input:" not in prompt(plain)

# %% [markdown]
# The template must be the same, to the last line break, in training and in use.
#
# ## 2 · Tokens and labels
#
# The tokenizer cuts the text into *tokens*. Each token gets a *label*: the token that the loss asks the model to
# predict there, or −100 for "skip me". We skip the prompt and learn the answer and the end mark `</s>` (EOS).
#
# **Predict:** of the record with an input, how many tokens in a hundred are learned: about 3, 30 or 90?

# %%
from spp_lite import load
from spp_lite.teaching import show, tokenize
from spp_lite.teaching.labs.training import plot_labels

pruned, tokenizer = load()  # section 3 prunes it
row = tokenize(paired, tokenizer)
tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
show(plot_labels(tokens, row["labels"]), alt="Tokens of a record; the prompt is grey, the answer and EOS are blue.")

# %%
from spp_lite.teaching import tokenize_records

CUTOFF = 256  # longest record, in tokens
parts = records.train_test_split(test_size=200, seed=0)
rows, held_out = (tokenize_records(parts[name], tokenizer, cutoff=CUTOFF) for name in ("train", "test"))
labels = [label for one in rows["labels"] for label in one]
learned = 1 - labels.count(-100) / len(labels)
print(f"{len(rows)} records to train on, {len(held_out)} held out; {learned:.1%} of the tokens are learned")
assert learned < 0.2 or not TINY

# %% [markdown]
# **What you should see:** in the picture, grey tokens are skipped and bold ones in a blue frame are learned. The short
# answers of the tiny world are a few tokens after a long prompt. (The SPP authors' code also counts the prompt:
# `train_on_inputs=True`.)
#
# A language model predicts the *next* token, so a label is compared with the prediction one place earlier. The model does
# that shift itself; labels stay in line with the ids. The *loss* is the mean of −log probability over the labels that
# count, in nats. By hand, for the record without an input:

# %%
import torch
import torch.nn.functional as F

other = tokenize(plain, tokenizer)
ids, labels = (torch.tensor([other[key]], device=pruned.device) for key in ("input_ids", "labels"))
with torch.no_grad():
    logits = pruned(input_ids=ids).logits[0]
    loss = pruned(input_ids=ids, labels=labels).loss
by_hand = F.cross_entropy(logits[:-1], labels[0, 1:], ignore_index=-100)
unshifted = F.cross_entropy(logits, labels[0], ignore_index=-100)
print(f"the model's loss {loss:.3f}, by hand {by_hand:.3f}; without the shift {unshifted:.3f}")
assert torch.isclose(loss, by_hand, rtol=1e-3)
assert unshifted > 2 * by_hand > 0 or not TINY

# %% [markdown]
# ## 3 · Train at three learning rates
#
# We prune to 75 % zeros and train fresh factors three times; only the *learning rate* changes, the size of an
# optimiser step. AdamW is the optimiser; the rate warms up over the first steps and then falls to zero in a line. The
# authors use 0.004 for LLaMA-7B, over some 1,200 steps; we have 80.
#
# **Predict:** which of 0.004, 0.05 and 0.5 ends with the lowest loss?

# %%
from spp_lite import prune
from spp_lite.teaching import calibration_batches, default_texts

batches = calibration_batches(default_texts(), tokenizer, samples=64, length=128)
prune(pruned, batches, "75%", method="wanda", progress=False)
STEPS, BATCH = (80, 16) if TINY else (8, 4)  # raise them for a real model on a GPU

# %%
import copy

from peft import get_peft_model
from transformers import set_seed

from spp_lite import SppConfig, finetune


def train(rate):
    set_seed(0)  # the same α and the same order of records for every rate
    adapted = get_peft_model(copy.deepcopy(pruned), SppConfig(r=16))
    settings = {"max_steps": STEPS, "batch_size": BATCH, "learning_rate": rate, "progress": False}
    output = finetune(adapted, rows, tokenizer, **settings)
    return adapted, [entry["loss"] for entry in output.metrics["history"] if "loss" in entry]


# %%
RATES = (0.004, 0.05, 0.5)
trained, curves = {}, {}
for rate in RATES:
    trained[rate], curves[rate] = train(rate)

# %%
from spp_lite.teaching.labs.training import plot_losses

show(plot_losses(curves, window=8), alt="Training loss against step: the middle learning rate falls lowest.")
last = {rate: sum(losses[-8:]) / len(losses[-8:]) for rate, losses in curves.items()}
assert last[0.05] < last[0.004] < curves[0.5][0] < last[0.5] or not TINY
assert len({losses[0] for losses in curves.values()}) == 1  # all start from the pruned model

# %% [markdown]
# **What you should see:** three curves from one point. At 0.004 the loss falls slowly and is still falling; at 0.05 it falls
# fast, then flattens; at 0.5 it climbs first and never comes back. Single batches are noisy, so the lines are
# means of the last eight steps.
#
# ## 4 · Why is the rate so large?
#
# LoRA recipes for LLaMA use rates of 0.0002 to 0.0003. Why does SPP want so much more? Look at the first step. With
# $G = \partial L / \partial W'$, the gradient of the loss $L$ by the effective weight $W' = W \odot (1 + s\,R(\alpha)\,\beta)$:
#
# $$\frac{\partial L}{\partial \beta_i} = s \sum_j G_{ij} W_{ij} \alpha_j, \qquad
# \frac{\partial L}{\partial \alpha_j} = s \sum_i G_{ij} W_{ij} \beta_i .$$
#
# Here $\alpha$ is the row of the block that output $i$ belongs to, and the second sum runs over that block. All $\beta$
# start at 0.
#
# **Predict:** which of the two factors moves in the first step?

# %%
from transformers import DataCollatorForSeq2Seq

collate = DataCollatorForSeq2Seq(tokenizer)  # pads ids; pads labels with −100
batch = collate([rows[i] for i in range(BATCH)]).to(pruned.device)


def first_step(config, rate=1e-3):
    set_seed(0)
    adapted = get_peft_model(copy.deepcopy(pruned), config)
    adapted(**batch).loss.backward()
    factors = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    torch.optim.Adam(factors, lr=rate).step()
    return adapted


# %%
spp = first_step(SppConfig(r=16))
gradients = {name: float(p.grad.abs().max()) for name, p in spp.named_parameters() if p.requires_grad}
alphas, betas = ([size for name, size in gradients.items() if kind in name] for kind in ("alpha", "beta"))
print(f"largest gradient of an α: {max(alphas)}, of a β: {max(betas):.1e}")
assert max(alphas) == 0 < max(betas)

# %% [markdown]
# **What you should see:** exactly 0 for $\alpha$. Adam divides a gradient by its own size, so in its first step every
# $\beta_i$ moves by the learning rate $\eta$, up or down. Hence
#
# $$\frac{|\Delta W_{ij}|}{|W_{ij}|} = \eta\, s\, |\alpha_j| .$$
#
# SPP moves a weight by a *share of itself*, and $\alpha$ is small: it starts uniform between $\pm 1/\sqrt{in}$, where
# $in$ is the number of inputs, so the root of its mean square is $1/\sqrt{3\,in}$. LoRA *adds* $s\,BA$; its $A$ starts in the
# same range, but no small $W$ scales its step down.

# %%
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer


@torch.no_grad()
def relative_changes(adapted):  # ‖ΔW‖ / ‖W‖ of every adapted layer
    layers = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    sizes = [layer.get_delta_weight("default").norm() / layer.get_base_layer().weight.norm() for layer in layers]
    return torch.tensor(sizes), torch.tensor([layer.in_features for layer in layers])


# %%
lora = first_step(LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))  # s = 16 / 8 = 2, as for SPP
(by_spp, inputs), (by_lora, _) = relative_changes(spp), relative_changes(lora)
expected = 1e-3 * 2.0 / (3 * inputs) ** 0.5
print(f"first step at rate 0.001: SPP {by_spp.mean():.1e} (expected {expected.mean():.1e}), LoRA {by_lora.mean():.1e}")
print(f"LoRA's step is {by_lora.mean() / by_spp.mean():.0f} times as large")
assert torch.allclose(by_spp, expected, rtol=0.1) or not TINY
assert by_lora.mean() > 10 * by_spp.mean() or not TINY

# %% [markdown]
# **What you should see:** the formula is right to a few percent, and at one rate LoRA takes far larger steps than SPP.
# This is a reason for rates that differ by an order of magnitude, not a law: most of LoRA's step lands on zeros, and after
# the first step $\alpha$ moves too, by up to $\eta$ a step.
#
# ## 5 · Is a lower loss a better model?
#
# The training loss looks only at records that were trained on. So we ask two more things: the loss on 200 held-out records, and
# the accuracy on the tasks. `merge` reports the change of every layer, $\|W' - W\| / \|W\|$.
#
# **Predict:** is the held-out loss far above the training loss? Every record is seen at most once.

# %%
from torch.utils.data import DataLoader

from spp_lite import evaluate, merge
from spp_lite.teaching import average_accuracy, default_tasks


@torch.no_grad()
def mean_loss(model):
    losses = [model(**batch.to(model.device)).loss for batch in DataLoader(held_out, BATCH, collate_fn=collate)]
    return float(sum(losses) / len(losses))


def accuracy(model):
    return average_accuracy(evaluate(model, tokenizer, default_tasks(), limit=40, progress=False))


# %%
import pandas as pd

table = pd.DataFrame({"pruned": [float("nan"), mean_loss(pruned), 0.0, accuracy(pruned)]})
for rate in RATES:
    model, report = merge(trained[rate])
    assert report.densification == 0  # at every rate, good or bad, every zero is still there
    table[f"{rate:g}"] = [last[rate], mean_loss(model), report.table["change"].median(), accuracy(model)]
table.index = ["training loss (last 8 steps)", "held-out loss", "median change of a layer", "accuracy"]
table.round(3)

# %%
good, wild = table["0.05"], table["0.5"]
assert (good["accuracy"] > table["0.004"]["accuracy"] and good["accuracy"] > table["pruned"]["accuracy"]) or not TINY
assert (wild["accuracy"] < table["pruned"]["accuracy"] and wild["median change of a layer"] > 1) or not TINY
assert abs(good["held-out loss"] - good["training loss (last 8 steps)"]) < 0.4 or not TINY

# %% [markdown]
# **What you should see:** the two losses of a column lie close: a batch is new when its training loss is taken.
# The good rate changes weights by a fraction of their size; the wild one replaces them, and ends below the pruned
# model with every zero in place. Keeping zeros does not protect knowledge.
#
# ## 6 · Lab: replay logged runs
#
# Sixteen runs, longer than ours (160 steps), were logged for you. The thick line is the run you choose.
#
# **Predict:** does the best rate at step 20 stay the best to the end? Does the run with the lower loss always have the
# higher accuracy? **Try** the sliders (mouse, or Tab and the arrow keys).

# %% tags=["lab"]
from spp_lite.teaching.labs.training import ReplayLab

lab = ReplayLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(lr=0.05, step=160, r=16)

# %%
end = lab.table[lab.table["step"] == 160].pivot(index="r", columns="lr", values=["loss", "accuracy"])
assert end["loss"].loc[1, 0.15] < end["loss"].loc[1, 0.004]
assert end["accuracy"].loc[1, 0.15] < end["accuracy"].loc[1, 0.004]
by_r, by_rate = end["accuracy"][0.05], end["accuracy"].loc[16]
assert by_rate.max() - by_rate.min() > 1.5 * (by_r.max() - by_r.min()) > 0.05

# %% [markdown]
# **Explain.** (1) At r = 1 and step 160, which of 0.004 and 0.15 has the lower loss, and which the higher accuracy? How
# can both be? (2) What moves the accuracy at step 160 more: the rate (at r = 16) or r (at rate 0.05)?
#
# <details><summary>Answers (the cell above asserts them)</summary>
#
# (1) 0.15 has the lower loss and the *lower* accuracy: its large steps fit the records and the form of their answers, and
# damage facts that the records do not show. (2) The rate, though r counts too. Each is one run: notebook 08 repeats runs.
# </details>
#
# ## 7 · Lab: train live
#
# **Predict:** which rate reaches the lowest loss in 20 seconds, when it stays constant instead of falling?
# **Try:** choose a rate, press the button, watch the curve grow; then another rate. **Explain:** 0.15 starts like 0.05. What
# happens after some ten steps, and why did the falling rate of section 6 soften it?

# %% tags=["lab"]
from spp_lite.teaching.labs.training import LiveLab

live_lab = LiveLab(pruned, tokenizer, rows, seconds=20, batch_size=BATCH)
live_lab.show()
live_lab.selftest()

# %% [markdown]
# Two runs of a second or so, made while this notebook was executed:

# %%
live_lab.static(lr=0.05)

# %% [markdown]
# ## 8 · Your turn
#
# **Ex 06a · core · difficulty ●●○ · ~8 min.** From the token ids of a prompt, those of its answer, and the id of EOS, return
# two lists of the same length: what the model reads, and its labels.

# %%
IGNORED = -100


def build_labels(prompt_ids, answer_ids, eos):
    # BEGIN SOLUTION
    learned = [*answer_ids, eos]
    return [*prompt_ids, *learned], [IGNORED] * len(prompt_ids) + learned
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_06a(build_labels)
whole = tokenizer(prompt(paired) + paired["output"])["input_ids"]  # as one text: cut apart, tokens may differ
border = row["labels"].count(IGNORED)
pair = build_labels(whole[:border], whole[border:], tokenizer.eos_token_id)
found = [list(map(int, part)) for part in pair]
assert found == [row["input_ids"], row["labels"]]  # as the library does

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The ids are the prompt, the answer and EOS, one after the other. The labels have one entry for each.
# </details>
# <details><summary>Hint 2</summary>
#
# −100 for every token of the prompt; then the answer and EOS as they are. Do not shift.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 06b · core · difficulty ●○○ · ~5 min.** Fill the right one of the two templates with a record.

# %%
from spp_lite.teaching import PROMPT, PROMPT_WITH_INPUT


def build_prompt(record):
    # BEGIN SOLUTION
    template = PROMPT_WITH_INPUT if record["input"] else PROMPT
    return template.format(**record)
    # END SOLUTION


# %% tags=["check"]
checks.ex_06b(build_prompt)
assert all(build_prompt(record) == prompt(record) for record in (paired, plain))  # as the library does

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `print(PROMPT_WITH_INPUT)`: names in braces are where texts go.
# </details>
# <details><summary>Hint 2</summary>
#
# `template.format(**record)` fills them; an empty string counts as false in an `if`.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 06c · core · difficulty ●●○ · ~8 min.** Before the first step every $\beta$ is 0; the step moves each by ±`lr`. By which share
# of itself does a weight change? Return one number for every entry of `alpha` (r × in).


# %%
def relative_step(alpha, lr, scaling):
    # BEGIN SOLUTION
    return lr * scaling * alpha.abs()
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import effective_weight

checks.ex_06c(relative_step)
alpha, weight = torch.tensor([[0.1, -0.2, 0.05]]), torch.tensor([[0.5, -0.3, 0.8]])
after = effective_weight(weight, [(alpha, torch.tensor([-0.05]), 2.0)])  # as training and merging do
assert torch.allclose((after - weight).abs() / weight.abs(), relative_step(alpha, 0.05, 2.0), rtol=1e-4)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down W′ − W with β = ±lr, and divide by W.
# </details>
# <details><summary>Hint 2</summary>
#
# W cancels. A size has no sign.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Stretch · difficulty ●●○ · ~15 min.** Pass `train_on_inputs=True` to `tokenize_records`, as the authors do, and train
# again at 0.05. The loss is now a mean over other tokens, so compare accuracies. Which records does it help?
#
# ## 9 · Read an error message
#
# A *cutoff* shortens long records. When it cuts every answer away there is nothing to learn, and training must not
# pretend otherwise. This cell fails on purpose: which value does the message name, and which way out?

# %% tags=["raises-exception"]
tokenize_records(records.select(range(50)), tokenizer, cutoff=16)

# %% [markdown]
# ## Recap
#
# 1. A template turns a record into a prompt; the same one in training and in use.
# 2. Labels lie in line with the ids: −100 on the prompt, the answer and EOS are learned.
# 3. SPP's step is a share of a weight, about η·s·|α|; that is why its learning rate is large.
# 4. Too small is slow, too large destroys: zeros stay, knowledge does not.
# 5. A training loss tells what is learned; a held-out loss and the tasks tell what it is worth.
#
# ## Quiz
#
# <details><summary>1. Why must EOS have a label of its own?</summary>
#
# Otherwise the model never learns to stop: it answers, and goes on talking.
# </details>
# <details><summary>2. Why is the gradient of α zero in the first step, but not in the second?</summary>
#
# It is a sum over β times other things, and β starts at zero. After the first step β is not zero any more.
# </details>
# <details><summary>3. A colleague uses LoRA's 0.0002 for SPP and finds that SPP does not learn. What do you say?</summary>
#
# At that rate a weight changes by a tiny share of itself per step. Choose a rate for every method on the validation
# split before you compare them (notebook 08).
# </details>
# <details><summary>4. Your loss is lower than mine. Is your model better?</summary>
#
# Not for sure. A loss over other labels (with the prompt, say) is another number, and a run at a large rate can fit the
# records while it loses what they do not show. Evaluate both.
# </details>
#
# **Next:** [07 · Merge and prove it](07_merge_and_prove_it.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
