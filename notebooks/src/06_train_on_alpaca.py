# %% [markdown]
# # 06 · Train on Alpaca
# {{badge}}
#
# Notebook 05 inserted the SPP factors; so far they change nothing. Here you train them: from a record to a prompt, from
# a prompt to labels, from labels to a loss that falls. You write each of these steps, and then the training runs on what you
# wrote. One setting decides whether it works: the learning rate.
#
# > **Goals** – build the Alpaca prompt (Ex 06a); mask labels so that only the answer is learned (Ex 06b); compute the loss by
# > hand (Ex 06c); say how far one step of SPP moves a weight, and what that does and does not tell about the learning rate
# > (Ex 06d).
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebook 05: what $\alpha$, $\beta$, $r$ and $s$ are. Symbols: the table in
# > [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model, the records and the 80 steps. **Real** – the Alpaca template, the labels, `transformers.Trainer`,
# > the optimiser; `SPP_MODEL` and `SPP_DATA` put a LLaMA and the real records in their place.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · From a record to a prompt
#
# An Alpaca *record* has three texts: an `instruction`, an `input` that is often empty, and the `output` that the model should
# learn to give. We take one record with an input and one without.

# %%
from spp_lite import load_alpaca
from spp_lite.teaching import is_tiny

TINY = is_tiny()  # False when SPP_MODEL names a real model
records = load_alpaca()
paired = next(record for record in records if record["input"])
plain = next(record for record in records if not record["input"])
print(paired, plain, sep="\n\n")

# %% [markdown]
# A fixed *template* turns instruction and input into the *prompt*; the model learns to go on with the output. Alpaca has
# two templates, and the words in braces are where a record's texts go.

# %%
from spp_lite.teaching import PROMPT, PROMPT_WITH_INPUT

print(PROMPT, PROMPT_WITH_INPUT, sep="\n==========\n")

# %% [markdown]
# **Ex 06a · core · difficulty ●○○ · importance ●●● · ~6 min.** Choose the right template for a record and fill it. Return the prompt:
# it ends where the output starts.


# %%
def build_prompt(record):
    # BEGIN SOLUTION
    template = PROMPT_WITH_INPUT if record["input"] else PROMPT
    return template.format(**record)
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_06a(build_prompt)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# An empty string counts as false in an `if`.
# </details>
# <details><summary>Hint 2</summary>
#
# A string has a method that replaces its words in braces by keyword arguments; `**` turns a dictionary into keyword arguments.
# Fill only once: a record's own text may contain braces.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching import yours

build_prompt = yours(build_prompt, checks.ex_06a)
print(build_prompt(paired) + paired["output"])

# %% [markdown]
# The template must be the same, to the last line break, in training and in use. A model that was trained on one form and is
# asked in another may answer worse, and nothing warns you.
#
# ## 2 · Tokens and labels
#
# The tokenizer cuts the text into *tokens* and gives each of them a number. Each token also gets a *label*: the token that the
# loss asks the model to predict there, or −100 for "skip me". We want the model to learn the answer, and to stop after it.
# So the labels skip the prompt; the answer counts, and so does the end mark `</s>` (EOS) behind it.
#
# **Predict:** of the record with an input, how many tokens in a hundred are learned?

# %%
from spp_lite.teaching import Guess

learned_guess = Guess("How many tokens in a hundred are learned?", options=["3", "30", "90"])

# %% [markdown]
# **Ex 06b · core · difficulty ●●○ · importance ●●● · ~8 min.** From the token numbers of a prompt, those of its answer, and the number of
# EOS, return two lists of the same length: what the model reads, and its labels.

# %%
IGNORED = -100


def build_labels(prompt_ids, answer_ids, eos):
    # BEGIN SOLUTION
    learned = [*answer_ids, eos]
    return [*prompt_ids, *learned], [IGNORED] * len(prompt_ids) + learned
    # END SOLUTION


# %% tags=["check"]
checks.ex_06b(build_labels)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The model reads everything: the prompt, the answer and EOS, one after the other. There is one label for each of these tokens.
# </details>
# <details><summary>Hint 2</summary>
#
# Go by the place of a token, not by its number: a token of the prompt may come up again in the answer. Do not shift anything; that
# comes later.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite import load
from spp_lite.teaching import show
from spp_lite.teaching.labs.alpaca import cut_record
from spp_lite.teaching.labs.training import plot_labels

build_labels = yours(build_labels, checks.ex_06b)
pruned, tokenizer = load()  # section 3 prunes it
prompt_ids, answer_ids = cut_record(paired, tokenizer, build_prompt)
ids, labels = build_labels(prompt_ids, answer_ids, tokenizer.eos_token_id)
tokens = tokenizer.convert_ids_to_tokens([int(token) for token in ids])
show(plot_labels(tokens, labels), alt="Tokens of a record; the prompt is grey, the answer is blue.")

# %%
share = sum(int(label) != IGNORED for label in labels) / len(labels)
learned_guess.compare(f"{share:.0%} of the {len(labels)} tokens of this record")

# %% [markdown]
# Now your two functions make the training data. `rows_of` calls them for every record and cuts off what exceeds `CUTOFF` tokens.
# We hold 200 records out, to judge the training by them later.

# %%
from spp_lite.teaching.labs.alpaca import rows_of

CUTOFF = 256  # longest record, in tokens
parts = records.train_test_split(test_size=200, seed=0)
both = (build_prompt, build_labels)
rows, held_out = (rows_of(parts[n], tokenizer, *both, cutoff=CUTOFF) for n in ("train", "test"))
every = [label for one in rows["labels"] for label in one]
share = 1 - every.count(IGNORED) / len(every)
print(f"{len(rows)} records to train on, {len(held_out)} held out; {share:.1%} of tokens learned")

# %% tags=["we-checked"]
from spp_lite.teaching import tokenize

sample = [tokenize(one, tokenizer, cutoff=CUTOFF) for one in parts["test"].select(range(50))]
assert list(held_out.select(range(50))) == sample or not TINY
assert share < 0.2 or not TINY
print("checked: these are the rows that the library makes; few tokens are learned")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In the picture, grey tokens are skipped, and bold ones in a blue frame are learned. The answers of the tiny world are a few
# tokens after a long prompt, so only a small part of what the model reads is learned. (The authors of SPP count the prompt, too:
# that is `train_on_inputs=True` in `finetune`.)
# </details>
#
# A cutoff saves time and memory, but it has a trap. The answer stands at the end of a record, and the end is what a cutoff takes
# first. The next cell stops **on purpose**: somebody set the cutoff far too low.

# %% tags=["raises-exception"]
# %xmode Minimal
from spp_lite.teaching import tokenize_records

tokenize_records(records.select(range(50)), tokenizer, cutoff=16)

# %% [markdown]
# The message names the value that is at fault, and in brackets how long the longest prompt is. With a cutoff that spares only
# some prompts, the library warns you and leaves the others out, so read warnings about the number of records, too.
#
# ### The loss
#
# A language model predicts the *next* token. Its output at token $t$ is one number (a *logit*) for every token of the vocabulary, and
# the softmax of these numbers is its probability $p$ for what stands at $t + 1$. The *loss* is the mean of $-\log p$ over all
# labels that count, with the natural logarithm; its unit is the nat.
#
# **Ex 06c · core · difficulty ●●○ · importance ●●● · ~10 min.** Compute it. `logits` has a row for every token and a column for every entry of the
# vocabulary; `labels` has one number for every token, in line with the tokens. Each label is judged by the prediction one
# place earlier, and a label of −100 does not count.

# %%
import torch
import torch.nn.functional as F


def answer_loss(logits, labels):
    # BEGIN SOLUTION
    counts = labels[1:] != IGNORED
    named = labels[1:][counts]
    logs = logits[:-1][counts].log_softmax(-1)
    return -logs.gather(1, named[:, None]).mean()
    # END SOLUTION


# %% tags=["check"]
checks.ex_06c(answer_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The last row of `logits` predicts a token that does not exist, and nothing predicts the first label. Cut both away, and the
# two are in line.
# </details>
# <details><summary>Hint 2</summary>
#
# `log_softmax` turns logits into logarithms of probabilities. Divide by the number of labels that count, not by the
# number of tokens. PyTorch also has a function that does all of this but the cutting.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# In training, the model makes the shift itself, which is why the labels of Ex 06b stay in line with the tokens. Your loss
# and the model's should agree:

# %%
answer_loss = yours(answer_loss, checks.ex_06c)
ids, labels = build_labels(*cut_record(plain, tokenizer, build_prompt), tokenizer.eos_token_id)
ids, labels = (torch.tensor([list(map(int, part))], device=pruned.device) for part in (ids, labels))
with torch.no_grad():
    out = pruned(input_ids=ids, labels=labels)
mine, unshifted = answer_loss(out.logits[0], labels[0]), F.cross_entropy(out.logits[0], labels[0])
print(f"the model's loss {out.loss:.3f}, yours {mine:.3f}; without the shift {unshifted:.3f}")

# %% tags=["we-checked"]
assert abs(float(out.loss) - float(mine)) < 1e-3 * max(1.0, float(mine))
assert unshifted > 2 * float(mine) > 0 or not TINY
print("checked: both losses are the same, and a forgotten shift would more than double this one")

# %% [markdown]
# ## 3 · Train at three learning rates
#
# We prune to 75 % zeros and train fresh factors three times. Only the *learning rate* changes: the size of a step of the
# optimiser, which is AdamW here. The rate warms up over the first steps and then falls to zero in a line. The
# authors use 0.004 for LLaMA-7B, over some 1,200 steps; we have 80.
#
# **Predict:** which of 0.004, 0.05 and 0.5 ends with the lowest loss?

# %%
rate_guess = Guess("Which rate ends with the lowest loss?", options=["0.004", "0.05", "0.5"])

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
    return adapted, [entry for entry in output.metrics["history"] if "loss" in entry]


# %%
RATES = (0.004, 0.05, 0.5)
trained, curves, logs = {}, {}, {}
for rate in RATES:
    trained[rate], logs[rate] = train(rate)
    curves[rate] = [entry["loss"] for entry in logs[rate]]

# %%
from spp_lite.teaching.labs.training import plot_losses

last = {rate: sum(losses[-8:]) / len(losses[-8:]) for rate, losses in curves.items()}
rate_guess.compare(", ".join(f"{rate:g} ends at {loss:.2f}" for rate, loss in last.items()))
show(plot_losses(curves, window=8), alt="Training loss against step, one curve for each rate.")

# %% tags=["we-checked"]
assert 2 * last[0.05] < last[0.004] < last[0.5] / 2 or not TINY
assert len({losses[0] for losses in curves.values()}) == 1
print("checked: one start; 0.05 ends lowest, and 0.5 far above the other two")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Three curves from one point, since all factors start by changing nothing. At 0.004 the loss falls slowly; at 0.05 it falls
# fast, then flattens; at 0.5 it soon climbs, and it ends far above the other two. Single batches are noisy, so the
# lines are means of the last eight steps.
# </details>
#
# ## 4 · How far does one step go?
#
# LoRA recipes for LLaMA use rates of 0.0002 to 0.0003. The authors of SPP use more than ten times as much, and we just
# used more than a hundred times as much. Part of the reason can be computed: the size of the first step. With
# $G = \partial L / \partial W'$, the gradient of the loss $L$ by the effective weight $W' = W \odot (1 + s\,R(\alpha)\,\beta)$:
#
# $$\frac{\partial L}{\partial \beta_i} = s \sum_j G_{ij} W_{ij} \alpha_j, \qquad
# \frac{\partial L}{\partial \alpha_j} = s \sum_i G_{ij} W_{ij} \beta_i .$$
#
# Here $\alpha$ is the row of the block that output $i$ belongs to, and the second sum runs over the outputs of that block. All
# $\beta$ start at 0.
#
# **Predict:** which of the two factors moves in the first step?

# %%
move_guess = Guess("Which factor moves in the first step?", options=["only α", "only β", "both"])

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
slopes = {name: float(p.grad.abs().max()) for name, p in spp.named_parameters() if p.requires_grad}
alphas, betas = ([s for name, s in slopes.items() if kind in name] for kind in ("alpha", "beta"))
move_guess.compare(f"largest gradient of an α: {max(alphas)}, of a β: {max(betas):.1e}")

# %% tags=["we-checked"]
assert max(alphas) == 0 < max(betas)
print("checked: the gradient of every α is exactly 0 in the first step, that of β is not")

# %% [markdown]
# So only $\beta$ moves. Adam divides a gradient by its own size, and therefore in its first step it moves every $\beta_i$ by
# just the learning rate, up or down.
#
# **Ex 06d · core · difficulty ●●○ · importance ●●○ · ~8 min.** Before the step every $\beta$ is 0, and the step moves each of them by
# `+lr` or `-lr`. By which share of itself does a weight change, $|W' - W| / |W|$? Return one number for every entry of `alpha`
# ($r \times \mathrm{in}$); `scaling` is $s$.


# %%
def relative_step(alpha, lr, scaling):
    # BEGIN SOLUTION
    return lr * scaling * alpha.abs()
    # END SOLUTION


# %% tags=["check"]
checks.ex_06d(relative_step)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down $W'$ for one weight, with its $\beta$ at `lr`. Subtract $W$, and divide by $W$.
# </details>
# <details><summary>Hint 2</summary>
#
# $W$ cancels, and so does the 1. A size has no sign.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# So SPP moves a weight by a *share of itself*, and the share is small, since $\alpha$ starts uniform between
# $\pm 1/\sqrt{\mathrm{in}}$. LoRA *adds* $s\,BA$; its $A$ starts in the same range, but there is no small $W$ to scale the step
# down. We measure the change $\|\Delta W\| / \|W\|$ of every layer after one step of each, and compare SPP's with your formula.

# %%
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer


@torch.no_grad()
def changes(adapted):
    sizes = []
    for layer in adapted.modules():
        if isinstance(layer, BaseTunerLayer):
            change, weight = layer.get_delta_weight("default"), layer.get_base_layer().weight
            sizes.append(float(change.norm() / weight.norm()))
    return torch.tensor(sizes)


# %%
relative_step = yours(relative_step, checks.ex_06d)
shares = []
for name, parameter in spp.named_parameters():
    if "alpha" in name:
        share = torch.as_tensor(relative_step(parameter.detach().cpu().float(), 1e-3, 2.0))
        shares.append(float(share.square().mean().sqrt()))
expected = torch.tensor(shares)  # one root of the mean square a layer

# %%
lora = first_step(LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))  # s = 2, as for SPP
by_spp, by_lora = changes(spp), changes(lora)
first = float(by_lora.mean() / by_spp.mean())
print(f"SPP's first step: {by_spp.mean():.1e} of a weight; by your formula {expected.mean():.1e}")
print(f"LoRA's, at the same rate: {by_lora.mean():.1e}, {first:.0f} times as much")

# %% [markdown]
# Does that decide which learning rate is best? If it did, SPP's best rate would be larger than LoRA's by the same factor. The
# logged table of rates knows better: each method was trained at several rates, and scored on the validation split.

# %%
import pandas as pd

from spp_lite.teaching import choose_rates, embedded

best = choose_rates(pd.read_csv(embedded("results", "rates.csv")), "75%")  # of the tiny model
ratio = best["spp"] / best["lora"]
print(f"best rates: SPP {best['spp']:g}, LoRA {best['lora']:g}, a factor of {ratio:.0f};")
print(f"their first steps, at one rate, differ by a factor of {first:.0f}")

# %% tags=["we-checked"]
assert torch.allclose(by_spp, expected, rtol=0.15) or not TINY
assert 1 < ratio < first / 2 or not TINY
print("checked: the formula holds in every layer; the first step is no measure of the best rate")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Your formula agrees with what comes out, in every layer. At one rate, SPP's first step is far smaller than LoRA's, and SPP's best rate is larger
# than LoRA's: the *direction* is as expected. The *size* is not: the best rates differ by much less than the first steps do. After the
# first step $\alpha$ moves, too, and the formula no longer describes what happens. So take from this section that LoRA's usual
# rate starts SPP slowly, and choose the rate by trying.
# </details>
#
# ## 5 · Is a lower loss a better model?
#
# The training loss looks only at records that were trained on. So we ask two more things: the loss on the records that we held
# out, and the accuracy on the tasks. `merge` reports how much it changed every layer, $\|W' - W\| / \|W\|$.
#
# **Predict:** every record is seen at most once. Is the held-out loss at 0.05 far above the training loss?

# %%
held_guess = Guess(
    "How large is the gap between held-out and training loss, as a share of the fall of the loss?",
    options=["less than a tenth", "about a half", "most of it"],
)

# %%
from torch.utils.data import DataLoader

from spp_lite import evaluate, merge
from spp_lite.teaching import average_accuracy, default_tasks


@torch.no_grad()
def mean_loss(model):
    parts = DataLoader(held_out, BATCH, collate_fn=collate)
    losses = [model(**part.to(model.device)).loss for part in parts]
    return float(sum(losses) / len(losses))


def accuracy(model):
    return average_accuracy(evaluate(model, tokenizer, default_tasks(), limit=40, progress=False))


# %%
table = pd.DataFrame({"pruned": [float("nan"), mean_loss(pruned), 0.0, accuracy(pruned)]})
filled = []
for rate in RATES:
    model, report = merge(trained[rate])
    filled.append(report.densification)
    change = report.table["change"].median()
    table[f"{rate:g}"] = [last[rate], mean_loss(model), change, accuracy(model)]
table.index = ["training loss (last 8)", "held-out loss", "median change of a layer", "accuracy"]
table.round(3)

# %%
good, wild = table["0.05"], table["0.5"]
way = table.loc["held-out loss", "pruned"] - good["held-out loss"]
gap = good["held-out loss"] - good["training loss (last 8)"]
held_guess.compare(f"the loss came down by {way:.2f}, the gap is {gap:.2f}: {gap / way:.0%} of it")
print(f"zeros filled, at every rate: {max(filled):.0%}")

# %% tags=["we-checked"]
assert max(filled) == 0  # at every rate, good or bad
assert abs(gap) < 0.25 * way or not TINY
assert good["accuracy"] > max(table["0.004"]["accuracy"], table["pruned"]["accuracy"]) or not TINY
assert wild["accuracy"] < table["pruned"]["accuracy"] or not TINY
assert wild["median change of a layer"] > 1 > good["median change of a layer"] or not TINY
print("checked: the gap is under a quarter of the way; 0.05 helps, 0.5 harms, no zero is filled")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# No: at the good rate the held-out loss is even a little lower, and the gap is small compared with how far the loss has come down.
# What was learned holds for records that were never seen. (A batch is new to the model when its training loss is taken, so the training loss is
# nearly a held-out loss itself.)
#
# The good rate changes weights by a fraction of their size. The rate 0.5 changes them by more than their size, and ends below the
# pruned model with every zero in place: keeping zeros does not protect knowledge.
# </details>
#
# ## 6 · Lab: replay logged runs
#
# Sixteen runs, longer than ours (160 steps), were logged for you. The thick line is the run that you choose.
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

# %% tags=["we-checked"]
end = lab.table[lab.table["step"] == 160].pivot(index="r", columns="lr")
assert end["loss"].loc[1, 0.15] < end["loss"].loc[1, 0.004]
assert end["accuracy"].loc[1, 0.15] < end["accuracy"].loc[1, 0.004]
early = lab.table[lab.table["step"] == 20].pivot(index="r", columns="lr")
assert (early["loss"].idxmin(axis=1) == 0.05).all()
assert (early["accuracy"].idxmax(axis=1) == 0.05).all()
by_r, by_rate = end["accuracy"][0.05], end["accuracy"].loc[16]
assert by_rate.max() - by_rate.min() > 5 * (by_r.max() - by_r.min()) > 0
assert (end["loss"].idxmin(axis=1) == 0.05).all()
assert set(end["accuracy"].idxmax(axis=1)) == {0.012, 0.05}
print("checked: at step 160, 0.05 has the lowest loss at every r, not always the best accuracy")

# %% [markdown]
# **Explain.** (1) At r = 1 and step 160, which of 0.004 and 0.15 has the lower loss, and which the higher accuracy? How
# can both be? (2) What moves the accuracy at step 160 more: the rate (at r = 16) or r (at rate 0.05)? (3) And the Predict: is
# the best rate of step 20 still the best at step 160?
#
# <details><summary>Answers</summary>
#
# (1) 0.15 has the lower loss and the *lower* accuracy, below even the pruned model's. A likely reason: its large steps fit the
# records and the form of their answers, and damage facts that the records do not show. The table does not test that.
#
# (2) The rate, by far.
#
# (3) By the loss, yes: 0.05 has the lowest at step 20 and at step 160, for every r. By accuracy, not always: 0.05 is the best at
# step 20 for every r, and at r = 4 and r = 64 it ends below 0.012. So the lower loss is not always the higher accuracy. Each of
# these is one run: notebook 08 repeats runs.
# </details>
#
# ## 7 · Lab: train live
#
# Here the rate stays constant instead of falling, and you choose it. **Predict:** which rate reaches the lowest loss in 20
# seconds? **Try:** choose a rate, press the button, watch the curve grow; then take another rate.

# %% tags=["lab"]
from spp_lite.teaching.labs.training import LiveLab

live_lab = LiveLab(pruned, tokenizer, rows, seconds=20, batch_size=BATCH)
live_lab.show()
live_lab.selftest()  # twelve steps at two rates

# %% [markdown]
# The same picture without widgets, after twelve steps at each of two rates:

# %%
live_lab.static(lr=0.05)

# %% tags=["we-checked"]
slow, fast = live_lab.runs[0.001], live_lab.runs[0.05]
assert slow[0] == fast[0] and (sum(fast[-4:]) < sum(slow[-4:]) or not TINY)
print("checked: both runs begin with the same loss, and 0.05 is below 0.001 after twelve steps")

# %% [markdown]
# **Explain.** (1) Why does every run begin with exactly the same loss, whatever its rate? (2) After twelve steps 0.05 is below 0.001.
# Is it therefore the better rate for 1,000 steps? (3) And the Predict: which rate is the lowest after 20 seconds?
#
# <details><summary>Answers</summary>
#
# (1) The first loss is taken before the first step. There $\beta = 0$, so the model is the pruned one, and every run starts with
# the same batch.
#
# (2) That does not follow. A small rate may catch up when there is time, and a large constant rate may begin to jump about: the
# authors' 0.004 belongs to a longer training. A rate has to be chosen for the number of steps that one means to take.
#
# (3) It depends on how many steps your machine takes in 20 seconds. When we trained it in this way, one run for
# each rate, 0.05 was the lowest for the first forty steps. After sixty steps 0.012 had passed it, and after 160 steps 0.004
# had, too. With fewer than forty steps you should find 0.05, with more than sixty 0.012.
# </details>
#
# ## 8 · The rate of every step
#
# We said that the rate warms up and then falls in a line. The trainer logged the rate that it used in every step, so you can check
# whether you know exactly what it did.
#
# **Ex 06e · stretch · difficulty ●●○ · importance ●○○ · ~12 min.** Return the learning rate of a step. Steps are counted from 0. The
# rate rises in a line from 0, at step 0, to `peak`, at step `warmup`; from there it falls in a line, and it would reach 0 at step number
# `steps`, one after the last. `warmup` may be 0.


# %%
def rate_at(step, steps, peak, warmup):
    # BEGIN SOLUTION
    if step < warmup:
        return peak * step / warmup
    return peak * (steps - step) / (steps - warmup)
    # END SOLUTION


# %% tags=["check"]
checks.ex_06e(rate_at)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two lines, two cases. On the way up, which share of the warm-up is over at this step?
# </details>
# <details><summary>Hint 2</summary>
#
# On the way down, `steps - step` steps are left, of how many in all? Put in the two ends, `warmup` and `steps`, to check.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
import math

from spp_lite.teaching.labs.alpaca import plot_schedule

rate_at = yours(rate_at, checks.ex_06e)
logged = [entry["learning_rate"] for entry in logs[0.05]]
warmup = math.ceil(0.03 * STEPS)  # three steps in a hundred
mine = [rate_at(step, STEPS, 0.05, warmup) for step in range(STEPS)]
show(plot_schedule(mine, logged), alt="The rate of every step: a short way up, a long line down.")

# %% tags=["we-checked"]
assert torch.allclose(torch.tensor(logged), torch.tensor(mine), atol=1e-8)
print("checked: the trainer used exactly these rates")

# %% [markdown]
# ## 9 · On a real LLaMA
#
# SmolLM2-135M is a pre-trained LLaMA of 30 blocks. SPP was trained on it at eight rates, each about twice the one before, and judged
# by records that were held out.

# %%
from spp_lite.teaching.labs.alpaca import plot_real_rates
from spp_lite.teaching.labs.lora_runs import smollm2

tried = smollm2("60-steps/rates.csv")
show(plot_real_rates(tried), alt="SmolLM2-135M: held-out loss against SPP's rate.")

# %%
real = smollm2()
cell = real[(real["sparsity"] == "2:4") & (real["pruner"] == "wanda")]
scores = cell.groupby("method")["alpaca_perplexity"].mean()
dense = real.loc[real["method"] == "dense", "alpaca_perplexity"].mean()
print(f"perplexity of held-out answers: dense {dense:.1f}, pruned {scores['none']:.1f},", end=" ")
print(f"with SPP {scores['spp']:.1f}, after {cell['max_steps'].max():.0f} steps")

# %% tags=["we-checked"]
losses = tried.query("method == 'spp' and sparsity == '2:4'").groupby("lr")["alpaca_loss"].mean()
assert 0.01 < losses.idxmin() < losses.index.max() and dense < scores["spp"] < scores["none"] / 2
print("checked: there, too, SPP's best rate is above 0.01, and no edge; SPP halves the perplexity")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# On a real LLaMA, too, the best of the rates that were tried lies far above LoRA's usual 0.0002. It is no edge: on both sides of it
# the loss is higher. It is one seed, and the records chose the rate, so the loss itself is a little flattered.
# </details>
#
# The command, with your own text files (`docs/results-smollm2.md` says which were used here):
#
# ```bash
# spp-lite fetch smollm2
# spp-lite sweep --model smollm2 --data alpaca.json --calibration c4.jsonl --calibration-samples 32 \
#     --calibration-length 512 --text wiki.txt --text-tokens 40960 --tasks text:wiki.txt \
#     --steps 60 --batch-size 8 --cutoff 256 --bf16 --rates-at 2:4 --seeds 3 --out results/smollm2 \
#     --methods spp --pruners wanda --sparsity 2:4 --try-rates 2e-3 4e-3 8e-3 1.6e-2 3.2e-2 6.4e-2 1.28e-1 2.56e-1
# ```
#
# ## Recap
#
# 1. A template turns a record into a prompt; it must be the same one in training and in use.
# 2. Labels lie in line with the tokens: −100 on the prompt; the answer and EOS are learned.
# 3. SPP's first step moves a weight by the share lr · s · |α| of itself, much less than LoRA's step at the same rate lr. That says why LoRA's
#    rate starts SPP slowly; which rate is best has to be tried. In the replayed runs 0.012 and 0.05 were best.
# 4. Too small a rate is slow, too large a rate destroys: zeros stay, knowledge does not.
# 5. A training loss tells what is learned; a held-out loss and the tasks tell what it is worth.
#
# ## Quiz
#
# <details><summary>1. Why must EOS have a label of its own?</summary>
#
# Otherwise the model never learns to stop: it answers, and goes on talking.
# </details>
# <details><summary>2. Section 4 takes one step without a warm-up. Why is α's gradient zero in that step, but not in the next?</summary>
#
# It is a sum over β times other things, and β starts at zero. After that step β is not zero any more. (With the warm-up of
# section 8 the rate of step 0 is 0, so that β starts to move one step later.)
# </details>
# <details><summary>3. A colleague uses LoRA's 0.0002 for SPP and finds that SPP does not learn. What do you say?</summary>
#
# At that rate a weight changes by a tiny share of itself per step, so the start is slow. Choose a rate for every method on the
# validation split before you compare them (notebook 08).
# </details>
# <details><summary>4. Your loss is lower than mine. Is your model better?</summary>
#
# Not for sure. A loss over other labels (with the prompt, say) is another number, and a run at a large rate can fit the
# records while it loses what they do not show. Evaluate both.
# </details>
#
# **Next:** [07 · Merge and prove it](07_merge_and_prove_it.ipynb). The paper: [SPP, arXiv
# 2405.16057](https://arxiv.org/abs/2405.16057), Eq. 5 and Figure 4.
