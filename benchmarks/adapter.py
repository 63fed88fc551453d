"""Speed and memory of SPP against LoRA, HiRA and the authors' forms:  python -m benchmarks.adapter

Forward + backward of one linear, 1024 tokens, and a training step of the embedded model, relative to PEFT's LoRA r = 8
timed in the same run. On a CUDA GPU also LLaMA-7B's shapes with 4096 tokens, and a whole 7B step with random weights.
"""

import sys

import pandas as pd
import peft
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.utils.checkpoint import checkpoint

import spp_lite
from spp_lite.adapter.kernels import row_blocks
from spp_lite.experiment.baselines import attach

from . import seconds

SHAPES = {"2048²": (2048, 2048), "5632×2048": (5632, 2048)}
SHAPES_7B = {"4096²": (4096, 4096), "11008×4096": (11008, 4096)}


class AuthorsDefault(nn.Module):
    """y = x Wᵀ + s · x [W ⊙ R(α) ⊙ β]ᵀ (Eq. 5), the second term checkpointed, as in the authors' code."""

    def __init__(self, base, r=16, scaling=2.0):
        super().__init__()
        self.base, self.scaling = base, scaling
        self.alpha = nn.Parameter(torch.randn(r, base.in_features, dtype=base.weight.dtype, device=base.weight.device))
        self.beta = nn.Parameter(torch.zeros_like(base.weight[:, :1]))
        self.block = row_blocks(base.out_features, r, base.weight.device)

    def update(self, x, alpha, beta):
        return F.linear(x, self.base.weight * alpha[self.block] * beta)

    def forward(self, x):
        update = checkpoint(self.update, x, self.alpha, self.beta, use_reentrant=False)
        return self.base(x) + self.scaling * update


class AuthorsMemory(AuthorsDefault):
    """The same in r row blocks: x ⊙ α_k first, then the block's rows of W, then β. r must divide the outputs."""

    def forward(self, x):
        blocks = self.base.weight.view(len(self.alpha), -1, self.base.in_features)
        parts = [F.linear(x * alpha, rows) for alpha, rows in zip(self.alpha, blocks, strict=True)]
        return self.base(x) + self.scaling * torch.cat(parts, dim=-1) * self.beta[:, 0]


def layers(out, inputs, dtype, device):
    """Name → one adapted linear of the same half-pruned weight."""

    def base():
        torch.manual_seed(0)
        linear = nn.Linear(inputs, out, bias=False, dtype=dtype, device=device).requires_grad_(False)
        linear.weight *= torch.rand_like(linear.weight) > 0.5
        return linear

    def adapted(config):
        return peft.get_peft_model(nn.Sequential(base()), config, autocast_adapter_dtype=False).base_model.model[0]

    target = {"target_modules": ["0"]}
    return {
        "LoRA r=8": adapted(peft.LoraConfig(r=8, **target)),
        "frozen linear": base(),
        "SPP": adapted(spp_lite.SppConfig(r=16, **target)),
        "SPP, ¼ of the tokens": adapted(spp_lite.SppConfig(r=16, token_fraction=0.25, **target)),
        "authors' memory form": AuthorsMemory(base()),
        "HiRA r=16": adapted(peft.HiraConfig(r=16, **target)),
        "authors' default form": AuthorsDefault(base()),
    }


def one_linear(out, inputs, dtype, tokens=1024, device="cpu"):
    """Name → seconds of forward + backward; the input needs its gradient, as within a model."""
    x = torch.randn(1, tokens, inputs, dtype=dtype, device=device, requires_grad=True)
    dy = torch.randn(1, tokens, out, dtype=dtype, device=device)
    found = layers(out, inputs, dtype, device)
    runs = [lambda layer=layer: layer(x).backward(dy) for layer in found.values()]
    return dict(zip(found, seconds(*runs, repeats=11), strict=True))


def training_step(model, ids, checkpointing=False):
    """A function that makes one step: forward, backward, AdamW."""
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step():
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_bytes(step):
    """The most memory that a step holds above what lives before it; on a CPU from the profiler's record."""
    step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def tiny_steps():
    """Step time and peak memory of the embedded model, batch 32 × 80 tokens, relative to LoRA."""
    ids = torch.randint(3, 3000, (32, 80), generator=torch.Generator().manual_seed(0))
    steps = {}
    for method in ("lora", "spp", "hira", "masked-lora"):
        model, _ = spp_lite.load("tiny")
        spp_lite.prune(model, None, "75%", method="magnitude", progress=False)
        steps[method] = training_step(attach(model, method), ids)
    times, peaks = seconds(*steps.values(), repeats=11), [peak_bytes(step) for step in steps.values()]
    rows = zip(steps, times, peaks, strict=True)
    return pd.DataFrame([{"method": m, "time": t / times[0], "peak memory": p / peaks[0]} for m, t, p in rows])


def llama_7b_step(method, tokens=2048):
    """Seconds and peak GiB of a training step of LLaMA-7B (random weights, bfloat16) with gradient checkpointing."""
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig())
        torch.set_default_dtype(torch.float32)
    step = training_step(attach(model, method), torch.randint(3, 3000, (1, tokens), device="cuda"), checkpointing=True)
    (taken,) = seconds(step, repeats=5)
    found = {"method": method, "seconds": taken, "peak GiB": torch.cuda.max_memory_allocated() / 2**30}
    del model, step
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return found


def linears(shapes, dtypes, **kwargs):
    """The table of one_linear over shapes and types, relative to LoRA."""
    columns = {}
    for name, (out, inputs) in shapes.items():
        for dtype in dtypes:
            taken = one_linear(out, inputs, dtype, **kwargs)
            columns[f"{name} {str(dtype)[6:]}"] = {form: value / taken["LoRA r=8"] for form, value in taken.items()}
    return pd.DataFrame(columns)


def main():
    """Print the tables."""
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, peft {peft.__version__}; relative to LoRA r = 8, medians of 11"
    )
    dtypes = [torch.float32]
    if torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        dtypes.append(torch.bfloat16)
    else:
        print(
            "bfloat16 left out: this CPU has no fast kernels for it (one x W takes twenty times as long as in float32)"
        )
    print(linears(SHAPES, dtypes).to_string(float_format="{:.2f}".format))
    print("\na training step of the embedded model")
    print(tiny_steps().to_string(index=False, float_format="{:.2f}".format))
    if torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name()}, 4096 tokens")
        table = linears(SHAPES_7B, (torch.bfloat16,), tokens=4096, device="cuda")
        print(table.to_string(float_format="{:.2f}".format))
        print("\na training step of LLaMA-7B, gradient checkpointing, 2048 tokens")
        rows = [llama_7b_step(method) for method in ("lora", "spp", "hira")]
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    sys.exit(main())
