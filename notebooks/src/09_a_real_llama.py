# %% [markdown]
# # 09 · A real LLaMA
# {{badge}}
#
# Everything so far ran on a tiny model. Here you learn what changes when the model is SmolLM2, TinyLlama or LLaMA-2-7B:
# memory, time, the commands, the traps.
#
# > **Goals** – know the switches and run the four commands; count what SPP trains on a model you have not loaded
# > (Ex 09a) and the memory that takes (Ex 09b); read published perplexities; know the traps.
# > **Time** – about {{minutes}} minutes to work through; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 03, 05 and 07: pruning a model, the factors, merging.
# > **Tiny** – what runs here. **Real** – the commands, the shapes, the counts. **Not done here** – a run of a 7B model: no
# > GPU was at hand. Memory and hours below are counted from shapes or estimated, and say which.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · What changes, and what stays
#
# The calls stay. What they work on is named by an option, or for all notebooks by an environment variable:
#
# | variable | option | when not set | for a real run |
# |---|---|---|---|
# | `SPP_MODEL` | `--model` | `tiny` | a folder, or a hub id such as `HuggingFaceTB/SmolLM2-135M` |
# | `SPP_DATA` | `--data` | `tiny` | an Alpaca JSON, or `tatsu-lab/alpaca` (CC BY-NC) |
# | `SPP_TASKS` | `--tasks` | our seven, or the paper's | names of lm-eval tasks |
#
# A run is four commands. Here they are on the tiny model, in this process; in a terminal, write `spp-lite` before each.
#
# **Predict:** pruned to 2:4 and merged, what share of the weights is zero in the folder that `merge` writes?

# %%
import contextlib
import io
import shlex
import tempfile
from pathlib import Path

from spp_lite.teaching import main

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)


def spp_lite(command):
    """Run one command of spp-lite, show its last line."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(shlex.split(command.format(folder=folder.as_posix()))) == 0
    print(shown.getvalue().replace(str(folder), "{folder}").splitlines()[-1])


# %%
spp_lite("prune --model tiny --sparsity 2:4 --method wanda --calibration-samples 16 --out {folder}/pruned")
spp_lite(
    "finetune --model {folder}/pruned --data tiny --output_dir {folder}/adapter --learning_rate 5e-2 --max_steps 4"
    " --gradient_checkpointing true --save_strategy no --report_to none --disable_tqdm true"
)
spp_lite("merge --model {folder}/pruned --adapter {folder}/adapter --out {folder}/merged")
spp_lite("evaluate --model {folder}/merged --tasks tiny_arc_easy --limit 20")

# %%
from transformers import AutoModelForCausalLM

from spp_lite.teaching import block_linears, measure

merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
shares = {name: measure(linear.weight) for name, linear in block_linears(merged).items()}
print(f"zeros: {min(shares.values()):.1%} to {max(shares.values()):.1%} in {len(shares)} linears")
assert all(abs(share - 0.5) < 1e-3 for share in shares.values())

# %% [markdown]
# **What you should see:** an ordinary model folder that transformers opens without spp_lite, half of it zeros. A real run
# names other things in the same places (calibration texts are C4 in the papers):
#
# ```bash
# spp-lite prune --model path/to/llama --sparsity 2:4 --method sparsegpt --calibration c4.jsonl --out pruned
# accelerate launch -m spp_lite.cli finetune --model pruned --data alpaca.json …   # the options of section 3
# spp-lite merge --model pruned --adapter adapter --out merged
# spp-lite evaluate --model merged --tasks paper --text wiki.txt
# ```
#
# ## 2 · Count before you load
#
# On PyTorch's *meta* device tensors have shapes but no memory, so any laptop can count a 7B model.
#
# **Predict:** SPP with $r = 16$ on LLaMA-2-7B: how many numbers does it train, and is that more than LoRA of rank 8?

# %%
import torch
from transformers import LlamaForCausalLM

from spp_lite.teaching import parameter_table
from spp_lite.teaching.labs.real import CONFIGS

seven = CONFIGS["LLaMA-2-7B"]
with torch.device("meta"):
    big = LlamaForCausalLM(seven)
print(f"{big.num_parameters():,} parameters")
counts = parameter_table(big, ["spp", "lora"]).set_index("method")["parameters"]
counts.map("{:,}".format)

# %%
from spp_lite.teaching.labs.real import memory

parts = memory(seven, r=16, records=8, tokens=512)
for name, size in parts.items():
    print(f"{name:25} {size:6.2f} GiB")
assert counts["spp"] < counts["lora"] and parts["weights"] > sum(parts.values()) / 2

# %% [markdown]
# **What you should see:** SPP trains fewer numbers than LoRA; frozen weights take most memory. Weights, factors, their
# gradients and Adam's two moments are counted; activations, logits and the float32 copy of one $W'$ are estimated.
#
# ## 3 · The authors' settings
#
# The SPP authors' code uses $s = 2$, $r = 16$, dropout 0.05, AdamW with weight decay, 128 records a step, three epochs,
# 512 tokens a record, and counts the prompt in the loss. The learning rate: 4e-3 for 7B and 30B, 2e-3 for 13B, 5e-4
# for 65B and 70B. `finetune` also takes every field of transformers' `TrainingArguments`.
#
# **Predict:** with 8 records at a time on each of 4 GPUs, how many times must a step accumulate gradients?

# %%
GPUS = 4
OPTIONS = """
    --model pruned --data alpaca.json --output_dir adapter --r 16 --scaling 2.0 --dropout 0.05 --cutoff 512
    --train_on_inputs true --learning_rate 4e-3 --weight_decay 1e-3 --warmup_steps 0.03 --num_train_epochs 3
    --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --seed 42
    --bf16 true --gradient_checkpointing true --save_steps 200
"""

# %%
from transformers import HfArgumentParser, TrainingArguments

from spp_lite.teaching import FinetuneArguments

parser = HfArgumentParser((FinetuneArguments, TrainingArguments))
given = parser.parse_args(shlex.split(OPTIONS))  # fails on an option that does not exist
batch = given.per_device_train_batch_size * given.gradient_accumulation_steps * GPUS
print(f"{batch} records a step, s = {given.scaling:g}, r = {given.r}, rate {given.learning_rate:g}")
assert batch == 128

# %% [markdown]
# **What you should see:** 128, so the step is the authors'. Their dropout makes `finetune` take the residual form, which is slower;
# `--dropout 0` takes the fused one. A stopped run goes on with `--resume_from_checkpoint true`.
#
# *Several GPUs:* `accelerate config` asks a few questions and writes a file; `accelerate launch` reads it. Plain data
# parallelism copies the model to each GPU. FSDP or DeepSpeed ZeRO-3 shard it, at the price of moving
# weights for every block. We have run none of this on GPUs: begin with `--max_steps 2`.
#
# ## 4 · Perplexity, and numbers to compare with
#
# Pruning papers report *perplexity*: $\exp$ of the mean negative log-likelihood per token of a text, WikiText-2, cut into
# windows of as many tokens as the model takes. Lower is better, and only equal windows and tokenizers compare. These are
# from the [README of Wanda](https://github.com/locuslab/wanda), for LLaMA-2; nothing is retrained.
#
# **Predict:** half of the weights are zero in all three patterns. Which costs least: 50 % anywhere, 4:8 or 2:4?

# %%
import pandas as pd

dense = pd.Series({"7B": 5.12, "13B": 4.57, "70B": 3.12})
published = {
    ("50%", "magnitude"): (14.89, 6.37, 4.98),
    ("50%", "sparsegpt"): (6.51, 5.63, 3.98),
    ("50%", "wanda"): (6.42, 5.56, 3.98),
    ("4:8", "magnitude"): (16.48, 6.76, 5.58),
    ("4:8", "sparsegpt"): (8.12, 6.60, 4.59),
    ("4:8", "wanda"): (7.97, 6.55, 4.47),
    ("2:4", "magnitude"): (54.59, 8.33, 6.33),
    ("2:4", "sparsegpt"): (10.17, 8.32, 5.40),
    ("2:4", "wanda"): (11.02, 8.27, 5.16),
}
table = pd.DataFrame(published, index=dense.index).T
(table / dense).round(2)  # how many times the dense model's

# %%
assert (table.loc["50%"] < table.loc["4:8"]).all(None) and (table.loc["4:8"] < table.loc["2:4"]).all(None)
assert (table.xs("wanda", level=1) < table.xs("magnitude", level=1)).all(None)

# %% [markdown]
# The same measure on our model and text, in windows of three lengths:

# %%
from spp_lite import load, perplexity
from spp_lite.teaching import default_texts

model, tokenizer = load("tiny")
text = default_texts("validation", model="tiny")
found = {length: perplexity(model, tokenizer, text, length=length) for length in (32, 128, 512)}
print({length: f"{value:.0f}" for length, value in found.items()})
assert found[512] > 2 * found[32]  # it never read a long text

# %% [markdown]
# **What you should see:** the freer the pattern, the lower the perplexity, for every method and size. Our model's number
# depends on the window more than on anything else: it learned short answers, so accuracy is its yardstick. First make your pruned LLaMA land near the published numbers; then fine-tune.
#
# ## 5 · Traps
#
# - **float16 or bfloat16.** LLaMA-2's files are float16, whose largest number is 65,504. Train with `--bf16 true`.
# - **Quantised bases.** SPP trains on one (QLoRA's way) only if its zeros are exact. Merge into the unquantised model:
#   `merge` refuses the other.
# - **Another base.** An adapter knows the mask it was trained on, and does not load on a model with other zeros.
# - **Gated models.** LLaMA-2 needs an accepted licence and a login. Offline, `load` says so at once.
#
# **Predict:** sixteen levels spread evenly from the smallest to the largest weight: is one of them exactly zero?

# %%
weight = AutoModelForCausalLM.from_pretrained(folder / "pruned").model.layers[0].mlp.up_proj.weight.detach()
largest = weight.abs().max()
grids = {
    "min to max, 16 levels": torch.linspace(weight.min(), weight.max(), 16),
    "symmetric, 15 levels": torch.arange(-7, 8) / 7 * largest,
}
for name, levels in grids.items():
    rounded = levels[(weight[..., None] - levels).abs().argmin(-1)]
    print(f"{name:22} zeros {measure(weight):.0%} → {measure(rounded):.0%}")

# %%
assert measure(grids["min to max, 16 levels"]) == 0 and measure(grids["symmetric, 15 levels"]) > 0
factor = torch.tensor(1e5)  # too large for float16
print("zero times factor, in float16:", (torch.zeros(()).half() * factor.half()).item())
print("in float32, then float16:     ", (torch.zeros(()) * factor).half().item())

# %% [markdown]
# **What you should see:** the first grid loses every zero; the second keeps all, and adds those that rounded to zero. In
# float16 the factor is infinite, and zero times infinity is not a number; so the library computes in float32 and
# rounds once.
#
# ## 6 · Lab: will it fit?
#
# **Predict:** does LLaMA-2-7B with $r = 16$ fit on one card of 16 GiB, 8 records at a time? On one of 24? **Try** the menu
# and the sliders (mouse, or Tab and the arrow keys).

# %% tags=["lab"]
from spp_lite.teaching.labs.real import CalculatorLab

lab = CalculatorLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(model="LLaMA-2-7B", r=16, records=8, gpus=1)

# %% [markdown]
# **Explain.** (1) Which part is the largest for SmolLM2-135M, and why? (2) From $r = 16$ to $256$, which parts grow?
#
# <details><summary>Answers</summary>
#
# (1) The logits: one number for each of its many tokens in the vocabulary, at every position, whatever the model's
# size. Fewer records at a time help. (2) Only the factors with their gradients and moments: about fifteen-fold.
# </details>
#
# ## 7 · Your turn
#
# **Ex 09a · core · difficulty ●○○ · ~5 min.** How many numbers does SPP train, from shapes alone? `shapes` is a list of
# (out, in), one for each linear.


# %%
def spp_count(shapes, r):
    # BEGIN SOLUTION
    return sum(r * inputs + out for out, inputs in shapes)
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_09a(spp_count)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# α has r rows of *in* numbers.
# </details>
# <details><summary>Hint 2</summary>
#
# β has one number for each output: add *out*, and add up over the shapes.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Ex 09b · core · difficulty ●●○ · ~6 min.** Bytes that stay through all of training: the `frozen` weights in bfloat16;
# for the `trainable` numbers, in float32, the factors, their gradients and Adam's two moments.


# %%
def training_bytes(frozen, trainable):
    # BEGIN SOLUTION
    return 2 * frozen + 4 * 4 * trainable
    # END SOLUTION


# %% tags=["check"]
checks.ex_09b(training_bytes)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# bfloat16 takes 2 bytes, float32 takes 4.
# </details>
# <details><summary>Hint 2</summary>
#
# Frozen weights have no gradients and no moments. Each trainable number is stored four times.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# PEFT counted the same on the meta device, and the calculator's first two bars are your bytes:

# %% tags=["check"]
shapes = [linear.weight.shape for linear in block_linears(big).values()]
assert checks.ex_09a(spp_count) and spp_count(shapes, 16) == counts["spp"]
stays = training_bytes(big.num_parameters(), spp_count(shapes, 16)) / 2**30
assert checks.ex_09b(training_bytes) and abs(stays - parts["weights"] - parts["factors, gradients, Adam"]) < 1e-6

# %% [markdown]
# **Stretch · difficulty ●●○ · ~60 min.** Online: set `SPP_MODEL=HuggingFaceTB/SmolLM2-135M` and
# `SPP_DATA=tatsu-lab/alpaca`, prune to 2:4, fine-tune for a few hundred steps, compare perplexities. Does the lab's
# memory agree with `nvidia-smi`?
#
# ## 8 · Read an error message
#
# A mistyped folder should not end in half a minute of network retries. What does this cell, which fails on purpose, say?

# %% tags=["raises-exception"]
load("./no-such-llama")

# %% [markdown]
# ## Recap
#
# 1. A real run is the same four commands; three variables move every notebook.
# 2. Shapes are enough to count: the frozen weights dominate, the factors are a few per mille.
# 3. The authors' settings are options of `finetune`; batch = records × accumulation × GPUs.
# 4. First reproduce a published perplexity of the pruned model, then fine-tune.
# 5. Zeros survive only where zero is exact: mind quantised bases and float16.
#
# ## Quiz
#
# <details><summary>1. Your pruned model is half zeros. Is its folder half as large?</summary>
#
# No: zeros are stored like any number. That takes a sparse format (notebook 07), or compression.
# </details>
# <details><summary>2. Why does SPP not need gradients of the frozen weights in memory?</summary>
#
# The gradient of one layer's W′ is computed, summed up into those of α and β, and freed before the next layer.
# </details>
# <details><summary>3. Two GPUs instead of one, everything else equal. What must change for the same batch?</summary>
#
# Half as many accumulation steps: the batch is records × accumulation × GPUs.
# </details>
# <details><summary>4. What of this suite holds for LLaMA-2-7B, and what may not?</summary>
#
# The algebra holds: masks, merging, counts. Accuracies and good learning rates are the tiny model's own; measure yours.
# </details>
#
# **Back to** [00 · Start here](00_start_here.ipynb). The paper: [SPP, arXiv 2405.16057](https://arxiv.org/abs/2405.16057),
# Eq. 5 and Figure 4.
