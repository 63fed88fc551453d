# %% [markdown]
# # 09 · A real LLaMA
# {{badge}}
#
# Everything so far ran on a tiny model. Here you take the same four commands to real ones: first to SmolLM2-135M on two CPU
# cores, with no account and no hub, then to a Colab GPU and to LLaMA-2-7B. Before a long run you will know what it needs,
# because you write the estimate yourself and compare it with a measured run.
#
# > **Goals** – run prune, finetune, merge and evaluate on a model of your choice; count the bytes that stay through training
# > (Ex 09a) and those that grow with the records (Ex 09b), and check both against a measurement; say how many GPUs a model needs
# > (Ex 09c); compare perplexities only where they can be compared; know the traps.
# > **Time** – about {{minutes}} minutes to work through, without the stretch exercises; all cells ran in {{seconds}} s on 2 CPU cores.
# > **You need** – notebooks 03, 05 and 07: pruning a model, the factors, merging. The symbols are those of
# > [notebook 00](00_start_here.ipynb).
# > **Tiny** – the model that runs here. **Real** – the commands, the shapes, the measured rows of SmolLM2-135M. **Not run by
# > us** – any model above SmolLM2, a T4, several GPUs. Section 4 has a table of it.

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · What changes, and what stays
#
# The calls stay. What they work on is named by an option, or by a variable of the environment:
#
# | variable | option | when not set | for a real run |
# |---|---|---|---|
# | `SPP_MODEL` | `--model` | `tiny` | `smollm2`, a folder, a GGUF file, or a hub id such as `meta-llama/Llama-3.2-1B` |
# | `SPP_DATA` | `--data` | `tiny` | a file in the Alpaca schema, or `tatsu-lab/alpaca` (CC BY-NC) |
# | `SPP_TASKS` | `--tasks` | our seven, or the paper's | names of lm-eval's tasks |
#
# The variables reach the notebooks that load a model, 00 to 07. Notebook 08 reads a table that was measured on the tiny model,
# and this one says itself which model it is about, so they change nothing there.
#
# A run is four commands. Here they are on the tiny model, in this process. In a terminal, write `spp-lite` before each.

# %%
import contextlib
import io
import shlex
import tempfile
from pathlib import Path

from spp_lite.teaching import Guess, main

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)


def spp_lite(command):
    """Run one command of spp-lite, show its last line."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        status = main(shlex.split(command.format(folder=folder.as_posix())))
    said = shown.getvalue().replace(str(folder), "{folder}").splitlines()
    print(said[-1] if said else f"exit status {status}")


# %% [markdown]
# **Predict:** pruned to 2:4, trained and merged: what share of a linear's weights is zero in the folder that `merge` writes?

# %%
guess_zeros = Guess("What share is zero after merging?", ["none", "a quarter", "half"])

# %%
spp_lite("prune --model tiny --data tiny --sparsity 2:4 --method wanda --out {folder}/pruned")
spp_lite(
    "finetune --model {folder}/pruned --data tiny --output_dir {folder}/adapter --max_steps 4"
    " --learning_rate 5e-2 --gradient_checkpointing true"
    " --save_strategy no --report_to none --disable_tqdm true"
)
spp_lite("merge --model {folder}/pruned --adapter {folder}/adapter --out {folder}/merged")
spp_lite("evaluate --model {folder}/merged --tasks tiny_arc_easy --limit 20")

# %%
from transformers import AutoModelForCausalLM

from spp_lite.teaching import block_linears, measure

merged = AutoModelForCausalLM.from_pretrained(folder / "merged")  # no spp_lite is needed for this
shares = {name: measure(linear.weight) for name, linear in block_linears(merged).items()}
least, largest = min(shares.values()), max(shares.values())
guess_zeros.compare(f"{least:.1%} to {largest:.1%} in {len(shares)} linears")

# %% tags=["we-checked"]
assert all(abs(share - 0.5) < 1e-3 for share in shares.values())
print("checked: every linear of the merged folder is half zeros")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Half. The merged folder is an ordinary model that transformers opens without spp_lite, and training filled no zero.
# </details>
#
# ## 2 · SmolLM2-135M, step by step
#
# SmolLM2-135M-Instruct is a real pre-trained LLaMA of 30 blocks. A package of 93 MB on the package index carries it, so you need
# no hub and no account. You bring three files: records in the Alpaca schema, texts to calibrate on, and a text for the
# perplexity (section 4 says where they come from). Then, in a terminal:
#
# ```bash
# spp-lite fetch smollm2
# spp-lite prune --model smollm2 --sparsity 2:4 --method wanda \
#     --calibration c4.jsonl --calibration-samples 32 --calibration-length 512 --out pruned
# spp-lite finetune --model pruned --data alpaca.json --output_dir adapter \
#     --max_steps 40 --learning_rate 3e-2 \
#     --per_device_train_batch_size 4 --gradient_accumulation_steps 2 --cutoff 256 --weight_decay 1e-3 \
#     --warmup_steps 0.03 --bf16 true --use_cpu true --save_strategy no --report_to none
# spp-lite merge --model pruned --adapter adapter --out merged
# spp-lite evaluate --model merged --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120
# ```
#
# One command does the same and scores the model before, between and after:
#
# ```bash
# spp-lite demo --model smollm2 --sparsity 2:4 --data alpaca.json --calibration c4.jsonl \
#     --calibration-samples 32 --calibration-length 512 --steps 40 --batch-size 8 --cutoff 256 --bf16 \
#     --learning-rate 3e-2 --text wiki.txt --text-tokens 10240 --tasks text:wiki.txt --limit 120 --out results/real
# ```
#
# Those are the settings of a measurement whose rows are part of this package: two CPU cores that were busy with other work too.
#
# **Predict:** 2:4 by Wanda sets half of the weights to zero. By which factor does the perplexity rise before any training?

# %%
guess_rise = Guess("By which factor does it rise?", ["below 2", "2 to 5", "5 to 20", "above 20"])

# %%
import pandas as pd

from spp_lite.teaching import embedded

sweep = pd.read_csv(embedded("results", "smollm2", "sweep.csv"))
cell = sweep["sparsity"].eq("2:4") & sweep["pruner"].eq("wanda") | sweep["method"].eq("dense")
cell &= sweep["error"].isna() & sweep["max_steps"].fillna(40).eq(40)
rows = sweep[cell].groupby("method")
path = {
    "dense": "load, score", "none": "load, prune, score", "spp": "load, prune, train, merge, score"
}  # fmt: skip
real = rows[["perplexity", "accuracy", "zeros_after"]].mean().loc[list(path)]
real["minutes"] = (rows["seconds"].mean() / 60).round(1)
real["peak_gib"] = (rows["peak_mib"].max() / 1024).round(1)
real.insert(0, "what a row does", pd.Series(path))
real.insert(1, "runs", rows.size())
real.round(4)

# %%
from spp_lite.teaching import show
from spp_lite.teaching.labs.shards import plot_before_after

rise = real["perplexity"]["none"] / real["perplexity"]["dense"]
back = real["perplexity"]["none"] / real["perplexity"]["spp"]
title = f"SmolLM2, 2:4: pruning multiplies perplexity by {rise:.0f}, SPP divides it by {back:.1f}"
show(plot_before_after(real, title), alt=title)
guess_rise.compare(f"{rise:.1f} times the dense model's")

# %% tags=["we-checked"]
assert rise > 5 and back > 2 and real["perplexity"]["dense"] < real["perplexity"]["spp"]
assert real["zeros_after"]["spp"] >= real["zeros_after"]["none"] - 1e-9
print("checked: in the rows SPP lies between pruned and dense, and has no fewer zeros than pruned")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The perplexity rises many-fold, and 40 steps of SPP bring back a good part of it, but not all. The accuracy is that of
# 120 items "which continuation is the real one?", where guessing gives a quarter: it tells far less apart than the perplexity.
# </details>
#
# How to read the two last columns. *Minutes* hold everything that the row names, so training and merging took about
# the difference between the third row and the second. *Peak* is the memory of the whole process. Some rows, the dense one among them, were
# measured with an allocator that was told to keep freed memory: there the peak is more than is needed. Section 3 finds out what
# is needed. `docs/results-smollm2.md` holds the whole protocol, and says which rows these are.
#
# ## 3 · Will it fit? Estimate, then measure
#
# On PyTorch's device *meta* tensors have shapes but no memory, so any laptop can count a model of seven billion weights. You
# wrote the count of SPP's factors in notebook 05. What we need now are bytes. Some of them **stay** through all of training:
#
# - the frozen weights, $b$ bytes a number: 4 in float32, 2 in bfloat16 and float16;
# - the factors $\alpha$ and $\beta$, which SPP keeps in float32 whatever $b$ is; a gradient for each of their numbers, and the two
#   moments that Adam keeps for each of them, all in float32.
#
# **Ex 09a · core · difficulty ●○○ · importance ●●● · ~6 min.** How many bytes stay, for `frozen` and `trained` numbers?


# %%
def stays(frozen, trained, b):
    # BEGIN SOLUTION
    return b * frozen + (4 + 4 + 8) * trained
    # END SOLUTION


# %% tags=["check"]
from spp_lite.teaching import checks

checks.ex_09a(stays)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Ask of each kind of number: is there a gradient for it? Does Adam look after it?
# </details>
# <details><summary>Hint 2</summary>
#
# Count how often every trained number is stored, as itself and as what goes with it. float32 takes 4 bytes.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# **Predict:** LLaMA-2-7B in bfloat16 with $r = 16$: what share of the bytes that stay belongs to SPP's factors, gradients and
# moments?

# %%
guess_share = Guess("Which share is SPP's?", ["under 5 %", "5 to 20 %", "20 to 50 %", "over 50 %"])

# %%
from spp_lite.teaching import yours
from spp_lite.teaching.labs.real import CONFIGS, model_parameters, spp_parameters

stays = yours(stays, checks.ex_09a)
seven = CONFIGS["LLaMA-2-7B"]
frozen, trained = model_parameters(seven), spp_parameters(seven, r=16)
ours = stays(0, trained, 2) / stays(frozen, trained, 2)
guess_share.compare(f"{ours:.1%} of {stays(frozen, trained, 2) / 2**30:.2f} GiB")
print(f"all weights trained, in float32: {stays(0, frozen, 4) / 2**30:.0f} GiB")

# %% [markdown]
# The last line is why adapters exist: the frozen weights need neither gradients nor moments.
#
# Other bytes **grow** with the number of tokens that go through the model at once. With *gradient checkpointing* a block keeps
# only its input and computes the rest again when its turn comes in the backward pass. At the end of the model stand the
# *logits*: at every token one number for each entry of the vocabulary. The loss works in float32, so beside the logits
# themselves there are two float32 copies: the log-probabilities, and their gradient.
#
# **Ex 09b · core · difficulty ●●○ · importance ●●● · ~10 min.** How many bytes grow? There are `blocks` blocks whose inputs have
# `hidden` numbers a token, and `vocabulary` logits a token. Inputs and logits take `b` bytes a number.


# %%
def grows(tokens, hidden, blocks, vocabulary, b):
    # BEGIN SOLUTION
    inputs = b * tokens * hidden * blocks
    logits = (b + 4 + 4) * tokens * vocabulary
    return inputs + logits
    # END SOLUTION


# %% tags=["check"]
checks.ex_09b(grows)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# There are two sums. One is over the blocks, the other happens once, at the end.
# </details>
# <details><summary>Hint 2</summary>
#
# Three tensors of the same shape stand at the end: one of them takes b bytes a number, the two others always four.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# Now the measurement. The helper `training_peak` runs two real steps of AdamW on the pruned tiny model and watches every tensor:
# when it is made, and when it is freed. What it returns is the most that was alive at once, in the second step.
#
# **Predict:** how far will your estimate be from the measurement?

# %%
guess_off = Guess("How far is the estimate off?", ["within 5 %", "5 to 30 %", "more"])

# %%
from peft import get_peft_model

from spp_lite import SppConfig, load
from spp_lite.teaching.labs.live import training_peak

grows = yours(grows, checks.ex_09b)
small, _ = load(folder / "pruned", dtype="float32")
shape, b = small.config, 4
adapted = get_peft_model(small, SppConfig(r=16))
trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
frozen = sum(p.numel() for p in adapted.parameters()) - trained

# %%
compared = []
for records in (2, 8, 32):
    tokens = 128 * records
    parts = (shape.hidden_size, shape.num_hidden_layers, shape.vocab_size, b)
    estimate = stays(frozen, trained, b) + grows(tokens, *parts)
    compared.append((records, estimate / 2**20, training_peak(adapted, records, 128) / 2**20))
table = pd.DataFrame(compared, columns=["records of 128 tokens", "estimate, MiB", "measured, MiB"])
table["measured / estimate"] = table["measured, MiB"] / table["estimate, MiB"]
off = (table["measured / estimate"] - 1).abs()
guess_off.compare(f"at most {off.max():.1%} off, for 2, 8 and 32 records")
table.round(2)

# %% tags=["we-checked"]
assert off.max() < 0.1
print("checked: estimate and measurement agree to a tenth, from 2 to 32 records")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# They are close, since this model is at its peak when it computes the loss: its vocabulary is large for its width. A wide model
# with a small vocabulary is at its peak while one block is at work, so the lab below takes the larger of the two moments.
# </details>
#
# Two things are not in it. A process also holds Python, PyTorch and its libraries, hundreds of MiB, and an allocator keeps
# some of what was freed. So leave room: the rows of section 2 have the memory of whole processes. And on the one GPU that we
# measured (an H200, SmolLM2, bfloat16 under autocast) a formula like yours was too low by up to a fifth. So from here on we
# **add a quarter** to what it says.
#
# ## 4 · From SmolLM2 to LLaMA-2-7B
#
# Here is what each of the four commands takes for larger models, from formulas like yours (`jobs` in
# `spp_lite/teaching/labs/real.py` says which), before the quarter is added. Training takes 8 records of 512 tokens at once, calibration 128 windows of 512.

# %%
from spp_lite.teaching.labs.real import jobs

models = ["SmolLM2-135M", "TinyLlama-1.1B", "Llama-3.2-1B", "LLaMA-2-7B"]
kinds = {"float32": 4, "16 bits": 2}
needs = {(name, kind): jobs(CONFIGS[name], kinds[kind]) for name in models for kind in kinds}
pd.DataFrame(needs).T.rename_axis(["GiB of tensors", "weights in"]).round(1)

# %% tags=["we-checked"]
assert max(max(needs[name, "float32"].values()) for name in models[:3]) < 15
assert max(needs["LLaMA-2-7B", "16 bits"][job] for job in ("prune", "finetune", "evaluate")) < 23
assert needs["Llama-3.2-1B", "16 bits"]["finetune"] > needs["TinyLlama-1.1B", "16 bits"]["finetune"]
print("checked: up to 1B in float32 below 15 GiB; 7B in 16 bits below 23 GiB, but for merge")

# %% [markdown]
# Two remarks. `merge` keeps the old weights beside the new ones until all is proved; where the model is on a GPU these copies
# lie in main memory. And Llama-3.2-1B needs more for training than TinyLlama, although they are equally large: its vocabulary has
# 128,256 entries, so its logits take four times the memory (Ex 09b).
#
# **The files.** All three come from the hub, and their licences differ: C4 is under ODC-BY, WikiText-2 under CC BY-SA, Alpaca under
# CC BY-NC. One file of C4 has 356,317 documents; two thousand are plenty.
#
# ```bash
# H=https://huggingface.co/datasets
# curl -L $H/allenai/c4/resolve/main/en/c4-train.00000-of-01024.json.gz | zcat | head -n 2000 > c4.jsonl
# curl -LO https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json
# python -c "from datasets import load_dataset as load
# load('Salesforce/wikitext', 'wikitext-2-raw-v1', split='test').to_json('wikitext2.jsonl')"
# ```
#
# **A Colab T4** has 16 GiB and no units for bfloat16. So keep the *base* in float32 up to 1B parameters, or in float16; compute
# in float16 (`--fp16 true`); the *factors* are float32 in any case, because small steps would be lost in 16 bits. A model whose files
# are bfloat16 is converted once, before it is pruned:
#
# ```bash
# python -c "from spp_lite import load; from spp_lite.models import save
# model, tokenizer = load('TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T', dtype='float32')
# save(model, tokenizer, 'base')"
# spp-lite prune --model base --sparsity 2:4 --method sparsegpt \
#     --calibration c4.jsonl --calibration-samples 128 --out pruned
# spp-lite finetune --model pruned --data alpaca_data.json --output_dir adapter --max_steps 1000 \
#     --learning_rate 4e-3 --per_device_train_batch_size 4 --gradient_accumulation_steps 4 \
#     --fp16 true --gradient_checkpointing true --weight_decay 1e-3 --warmup_steps 0.03 \
#     --save_steps 200 --report_to none
# spp-lite merge --model pruned --adapter adapter --out merged
# spp-lite evaluate --model merged --text wikitext2.jsonl --tasks paper --out scores.csv
# ```
#
# For SmolLM2 run `spp-lite fetch smollm2` instead of the first command, and write `--model smollm2`. For **Llama-3.2-1B** write `meta-llama/Llama-3.2-1B`, accept
# its licence on the hub, log in once with `hf auth login`, and take 2 records at a time with 8 accumulation steps.
#
# **LLaMA-2-7B** needs a card of 24 GiB or more, with bfloat16, and about 25 GiB of main memory for `merge`. These are the settings of
# the SPP authors' code, but for their dropout of 0.05, which makes training slower here. Their learning rate is 4e-3 for 7B and 30B,
# 2e-3 for 13B, 5e-4 for 65B and 70B.
#
# ```bash
# spp-lite prune --model meta-llama/Llama-2-7b-hf --sparsity 2:4 --method sparsegpt \
#     --calibration c4.jsonl --calibration-samples 128 --calibration-length 2048 --out pruned
# accelerate launch --num_processes 1 -m spp_lite finetune --model pruned --data alpaca_data.json \
#     --output_dir adapter --r 16 --scaling 2.0 --cutoff 512 --train_on_inputs true --learning_rate 4e-3 \
#     --weight_decay 1e-3 --warmup_steps 0.03 --num_train_epochs 3 --per_device_train_batch_size 8 \
#     --gradient_accumulation_steps 16 --bf16 true --gradient_checkpointing true --save_steps 200 --seed 42
# spp-lite merge --model pruned --adapter adapter --out merged
# spp-lite evaluate --model merged --tasks paper --out scores.csv
# ```
#
# A stopped run goes on with `--resume_from_checkpoint true`. Begin every new machine with `--max_steps 2`.
#
# | what | run by us? |
# |---|---|
# | the tiny model, all commands, CPU | yes: every notebook |
# | SmolLM2-135M, float32 weights, bfloat16 training, CPU | yes: the rows of section 2, by `spp-lite sweep`; the four commands too, with one step |
# | SmolLM2-135M, the same on one H200 | yes: the learning rates and the pruned rows of `data/results/smollm2/60-steps` |
# | SmolLM2, TinyLlama, Llama-3.2-1B on a T4, `--fp16 true` | no |
# | LLaMA-2-7B and 13B | no: only counted from their shapes |
# | several GPUs, data parallel or FSDP | no; two CPU processes with the tiny model: yes |
# | the downloads from the hub | no: SmolLM2 came from the package index, our texts were files at hand |
#
# ## 5 · Several GPUs
#
# `accelerate launch --num_processes 4 -m spp_lite finetune …` is **data parallel**: every GPU holds a copy of the whole model
# and works on its own records; the gradients of the factors are averaged. That is fast, but each GPU needs room for all the
# weights. **FSDP** (*fully sharded data parallel*) splits the weights, too:

# %%
from spp_lite.teaching.labs.shards import draw_fsdp

alt = "Four GPUs, each with a quarter of every block; the block at work is whole on all of them."
show(draw_fsdp(), alt=alt)

# %% [markdown]
# Each GPU keeps one share of what stays, and has its own share of the records, so what grows is divided as well. When the turn of
# a block comes, the GPUs send one another their shares, each has the block whole for a moment, and drops it again. The price is
# that traffic, for every block, in every step.
#
# **Ex 09c · core · difficulty ●●○ · importance ●●○ · ~10 min.** How many GPUs does FSDP need, at least? Try 1, 2, 4, … 64 in turn
# and return the first number with which each GPU has room, or 0 if not even 64 are enough. All four are in GiB: `staying` and
# `growing` of the whole model and batch, one whole `block`, and a `card`. What just fits, fits. A single GPU gathers nothing, since
# the block is there already.


# %%
def fewest_gpus(staying, block, growing, card):
    # BEGIN SOLUTION
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        gathered = block if gpus > 1 else 0
        if (staying + growing) / gpus + gathered <= card:
            return gpus
    return 0
    # END SOLUTION


# %% tags=["check"]
checks.ex_09c(fewest_gpus)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down what one of four GPUs holds in the picture above. Which part is not divided by four?
# </details>
# <details><summary>Hint 2</summary>
#
# A loop over the numbers, a `return` inside it, and another one after it.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %%
from spp_lite.teaching.labs.real import CARDS, block_parameters

fewest_gpus = yours(fewest_gpus, checks.ex_09c)
gib, counts = 2**30, {}
for name in ("LLaMA-2-7B", "LLaMA-2-13B"):
    config = CONFIGS[name]
    size, factors = model_parameters(config), spp_parameters(config, 16)
    layers = (config.hidden_size, config.num_hidden_layers, config.vocab_size)
    room = stays(size, factors, 2) / gib, 2 * block_parameters(config) / gib
    more = grows(8 * 512, *layers, 2) / gib
    cards = {card: (has - 1) / 1.25 for card, (has, _) in CARDS.items()}
    counts[name] = {card: fewest_gpus(*room, more, has) for card, has in cards.items()}
pd.DataFrame(counts).T.rename_axis("GPUs needed, a quarter and 1 GiB to spare")

# %% tags=["we-checked"]
assert counts["LLaMA-2-7B"]["RTX 3090"] == 1 and counts["LLaMA-2-13B"]["RTX 3090"] == 2
print("checked: by this estimate 7B fits a card of 24 GiB, and 13B two of them")

# %% [markdown]
# Several GPUs also change the batch. The authors train on 128 records a step. A GPU takes 8 at a time and *accumulates* the
# gradients of several such portions before the optimizer steps.
#
# **Predict:** how many portions must a step accumulate on each of 4 GPUs, so that it has the authors' 128 records?

# %%
guess_times = Guess("How many portions does a step accumulate?")

# %%
portions = 128 // (8 * 4)
guess_times.compare(f"{portions}: 8 records × {portions} portions × 4 GPUs = {8 * portions * 4}")

# %% [markdown]
# So `--gradient_accumulation_steps` is 16 on one GPU, as in section 4, and 4 on four. The command that asks for FSDP (we ran
# it on two CPU processes, with the tiny model, never on GPUs):
#
# ```bash
# accelerate launch --num_processes 4 --use_fsdp --fsdp_version 2 \
#     --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP -m spp_lite finetune --model pruned --data alpaca_data.json --output_dir adapter --max_steps 2 \
#     --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --bf16 true
# ```
#
# ## 6 · Perplexity, and numbers to compare with
#
# Pruning papers report the *perplexity* of WikiText-2: $\exp$ of the mean negative log-likelihood per token of a text that is cut into
# windows. Only equal texts, tokenizers and **windows** compare. The numbers below are from the
# [README of Wanda](https://github.com/locuslab/wanda), for LLaMA-2, not retrained. Their windows have **4,096** tokens, all that
# LLaMA-2 takes, as the authors say in [issue 47](https://github.com/locuslab/wanda/issues/47); with 2,048 the dense 7B
# is near 5.5 instead of 5.12.
#
# **Predict:** half of the weights are zero in all three patterns. Which costs least: 50 % anywhere, 4:8 or 2:4?

# %%
guess_pattern = Guess("Which pattern costs least?", ["50 % anywhere", "4:8", "2:4"])

# %%
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
cheapest = table.groupby(level=0).mean().mean(axis=1).idxmin()
guess_pattern.compare(f"{cheapest}, the freest one")
(table / dense).round(2)  # how many times the dense model's

# %% tags=["we-checked"]
free, wide, narrow = table.loc["50%"], table.loc["4:8"], table.loc["2:4"]
assert (free < wide).all(None) and (wide < narrow).all(None)
assert (table.xs("wanda", level=1) < table.xs("magnitude", level=1)).all(None)
print("checked: the freer pattern is ahead in every row and size; Wanda is ahead of magnitude")

# %% [markdown]
# Our rows of SmolLM2 are another text (10,240 tokens of encyclopedia prose) in windows of 2,048, so they can be compared
# only with each other. To compare with Wanda's numbers, give the length yourself; the command takes 2,048 by default:
#
# ```bash
# spp-lite evaluate --model meta-llama/Llama-2-7b-hf --tasks none --text wikitext2.jsonl --text-window 4096
# ```
#
# **Ex 09d · stretch · difficulty ●●○ · importance ●●○ · ~8 min.** From every window we have its mean loss per token (in nats)
# and the number of its tokens that were scored. The last window is shorter. What is the perplexity of the whole text?


# %%
import math


def joined_perplexity(losses, counts):
    # BEGIN SOLUTION
    total = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    return math.exp(total / sum(counts))
    # END SOLUTION


# %% tags=["check"]
checks.ex_09d(joined_perplexity)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Every token counts the same, in whichever window it stands. What is the summed loss of a window?
# </details>
# <details><summary>Hint 2</summary>
#
# First the mean loss over all tokens of all windows, then the exponential, once.
# </details>

# %% [markdown] tags=["solution"]
# filled in the exercise edition

# %% [markdown]
# How much does the window matter? We score the tiny model on one text, in windows of three lengths up to all that it takes:

# %%
import torch

from spp_lite import perplexity
from spp_lite.teaching import default_texts

joined_perplexity = yours(joined_perplexity, checks.ex_09d)
model, tokenizer = load("tiny", dtype=torch.float32)
texts = default_texts("validation", model="tiny")
ids = torch.tensor(tokenizer("\n\n".join(texts), verbose=False)["input_ids"])


@torch.no_grad()
def by_windows(length):
    windows = [w.to(model.device) for w in ids.split(length) if len(w) > 1]
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return joined_perplexity(losses, [len(w) - 1 for w in windows])


# %%
most = min(model.config.max_position_embeddings, 256)
lengths = (most // 8, most // 2, most)
found = {n: (by_windows(n), perplexity(model, tokenizer, texts, length=n)) for n in lengths}
by_both = pd.DataFrame(found, index=["by your formula", "by the library"])
by_both.rename_axis(columns="window").round(2)

# %% tags=["we-checked"]
assert all(abs(mine / library - 1) < 1e-3 for mine, library in found.values())
values = [library for _, library in found.values()]
assert max(values) > 1.02 * min(values)
print("checked: both ways agree, and the window alone changes the number")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# One model, one text, three numbers. A longer window gives more context to look back on, which helps a model that was trained on
# texts of that length and may harm one that was not. First make your pruned LLaMA land near a published number in the
# same windows; only then fine-tune.
# </details>
#
# ## 7 · Traps
#
# - **float16 or bfloat16.** The largest number of float16 is 65,504. Where the card has bfloat16, train with `--bf16 true`.
# - **Quantised bases.** SPP trains on one (QLoRA's way) only if its zeros are exact. Merge into the unquantised model: `merge`
#   refuses the other.
# - **Another base.** An adapter knows the mask that it was trained on, and does not load on a model with other zeros.
# - **Gated models.** LLaMA-2 and Llama-3.2 need an accepted licence and a login. Offline, `load` says so at once.
#
# **Predict:** a quantised weight takes one of sixteen levels. Spread them evenly from the smallest to the largest weight: what
# happens to the zeros?

# %%
guess_grid = Guess("What happens to the zeros?", ["all stay", "some stay", "none stays"])

# %%
pruned = AutoModelForCausalLM.from_pretrained(folder / "pruned", dtype=torch.float32)
weight = pruned.model.layers[0].mlp.up_proj.weight.detach()
grids = {
    "min to max, 16 levels": torch.linspace(weight.min(), weight.max(), 16),
    "symmetric, 15 levels": torch.arange(-7, 8) / 7 * weight.abs().max(),
}
after = {}
for name, levels in grids.items():
    nearest = (weight[..., None] - levels).abs().argmin(-1)
    rounded = after[name] = levels[nearest]
    print(f"{name:22} zeros {measure(weight):.0%} → {measure(rounded):.0%}")
left = {name: float((rounded[weight == 0] == 0).float().mean()) for name, rounded in after.items()}
guess_grid.compare(", ".join(f"{name}: {share:.0%} stay" for name, share in left.items()))

# %% [markdown]
# The first grid has no level at zero, so every zero becomes some small number. The second has one, keeps all zeros, and adds those
# weights that round to zero. And a second trap, of float16:

# %%
factor = torch.tensor(1e5)  # too large for float16
in_half = torch.zeros(()).half() * factor.half()
in_single = (torch.zeros(()) * factor).half()
print("zero times factor, in float16:", in_half.item())
print("in float32, then float16:     ", in_single.item())

# %% tags=["we-checked"]
assert list(left.values()) == [0, 1] and in_half.isnan() and in_single == 0
print("checked: the first grid loses every zero, the second none; 0 · inf is not a number")

# %% [markdown]
# In float16 the factor is infinite, and zero times infinity is not a number. So the library computes in float32 and rounds
# once.
#
# ## 8 · Lab: will it fit?
#
# **Predict:** with how many records of 512 tokens at a time does Llama-3.2-1B with $r = 16$ still fit a T4 of 16 GiB: 2, 8 or 32? And
# TinyLlama, of the same size? **Try** the
# menus and the sliders (mouse, or Tab and the arrow keys). Several GPUs work under FSDP, and the weights have 16 bits. Before it says
# "fits", the lab adds a quarter to the formula (section 3) and 1 GiB for the driver. A card sustains less than its maker's
# peak: the lab assumes 40 % of it. The GiB and the 40 % are assumptions, not measurements.

# %% tags=["lab"]
from spp_lite.teaching.labs.real import CalculatorLab

lab = CalculatorLab()
lab.show()
lab.selftest()

# %% [markdown]
# The same picture without widgets:

# %%
lab.static(model="LLaMA-2-7B", r=16, records=8, card="RTX 3090", gpus=1)

# %% [markdown]
# **Explain.** (1) Which part is the largest for SmolLM2-135M, and why? (2) From $r = 16$ to $256$, which part grows? (3) Three epochs
# of Alpaca with 7B: how do an RTX 3090 and an H100 compare, and what is that number worth?
#
# <details><summary>Answers</summary>
#
# (1) The loss: there is one logit for each entry of a large vocabulary at every position, whatever the model's size. Fewer records
# at a time help. (2) Only the factors with their gradients and moments, about fifteen-fold. And the Predict: Llama-3.2-1B fits with
# 8 records, not with 16, TinyLlama with all 32: its vocabulary has a quarter of the entries. (3) The H100 is about fourteen times as fast,
# the ratio of the peaks. That is no more than the makers' data sheets and an assumed share: measure a hundred steps of your own.
# </details>
#
# ## 9 · Read an error message
#
# "The published windows have 4,096 tokens, so I take windows that long for my model, too." This cell follows that sentence with a model
# that takes fewer, and fails on purpose.

# %% tags=["raises-exception"]
# %xmode Minimal
perplexity(model, tokenizer, texts, length=4096)

# %% [markdown]
# Look for the number of tokens that the model takes: beyond it, it has never seen a position, and its answers there would be
# a number without a meaning. The way out is a shorter window, and then a comparison with numbers of that window only.
#
# ## Recap
#
# 1. A real run is the same four commands; on SmolLM2-135M they take minutes on two CPU cores, with no hub.
# 2. Bytes stay (weights, and 16 for every trained number) or grow (blocks' inputs, logits); your estimate met a measurement.
# 3. Data parallel copies the model to every GPU; FSDP splits it and gathers one block at a time.
# 4. Perplexities compare only with the same text, tokenizer and windows: first reproduce a published one, then fine-tune.
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
# The algebra holds: masks, merging, counts. Accuracies, good learning rates and the order of the criteria are those of the models
# that we measured; measure yours.
# </details>
#
# **Back to** [00 · Start here](00_start_here.ipynb). The paper: [SPP, arXiv 2405.16057](https://arxiv.org/abs/2405.16057),
# Eq. 5 and Figure 4.
