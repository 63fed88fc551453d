"""Memory and time by model size, from shapes alone, beside what was measured:  python -m benchmarks.scaling [--measure]

Prints the tables of docs/scaling.md. The bytes come from spp_lite/teaching/labs/real.py, the operations from here. A
model that is marked † was never run by this project: its row is extrapolated. --measure takes the measured points of
the tiny model anew, and those of SmolLM2 where it was fetched; --flops is the speed that your card reaches.
"""

import argparse
import time
import warnings

import peft
import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

import spp_lite
from spp_lite.models import embedded
from spp_lite.teaching.labs import real

from . import seconds
from .adapter import peak_bytes, training_step

MIB, GIB = 2**20, 2**30
SHAPES = {  # hidden, inner, blocks, heads, key-value heads, vocabulary
    "LLaMA-30B": (6656, 17920, 60, 52, 52, 32000),
    "LLaMA-65B": (8192, 22016, 80, 64, 64, 32000),
    "Llama-3-8B": (4096, 14336, 32, 32, 8, 128256),
    "Llama-3-70B": (8192, 28672, 80, 64, 8, 128256),
    "Llama-3.1-405B": (16384, 53248, 126, 128, 8, 128256),
}  # from the models' public configuration files, as those of real.CONFIGS
FIELDS = "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"
MODELS = (
    {"tiny": AutoConfig.from_pretrained(embedded("tiny-llama"))}
    | real.CONFIGS
    | {name: LlamaConfig(**dict(zip((*FIELDS, "vocab_size"), shape, strict=True))) for name, shape in SHAPES.items()}
)
RUN = "tiny", "SmolLM2-135M"  # all others are extrapolated
MODELS = {name: MODELS[name] for name in sorted(MODELS, key=lambda name: real.model_parameters(MODELS[name]))}
TOKENS = 128  # of a record or window of the measured points
JOBS = "prune, Wanda", "prune, SparseGPT", "train", "train, checkpointing", "merge", "score"
MEASURED = {  # MiB of tensors at the peak; float32, CPU, by the profiler's record of every allocation
    "tiny": (9.7, 10.7, 31.1, 17.7, 18.6, 15.4),
    "SmolLM2-135M": (542.4, None, 979.2, 704.0, 1380.9, 1088.8),
}
TOLERANCE = 0.1  # of the estimates, against MEASURED
GPU = {  # MiB: the largest max_memory_allocated of whole runs on one NVIDIA H200, data/results/smollm2/60-steps
    "prune and score": 1920, "SPP": 2210, "masked full fine-tuning": 3651,
}  # fmt: skip
SHARES = {  # share_reached(), beside other work
    "tiny": (0.40, 0.29, 0.22), "SmolLM2-135M": (0.88, 0.67, 0.55),
}  # fmt: skip


def parameters(config) -> int:
    """Counted on the model itself, on PyTorch's device meta."""
    with torch.device("meta"):
        return LlamaForCausalLM(config).num_parameters()


def estimates(config) -> dict[str, float]:
    """Job → MiB, for the settings of the measured points: float32, 4 windows (2 at a time) or 2 records of 128 tokens; to
    score 1 window()."""
    weights = 4 * real.model_parameters(config)
    work = [
        *(real.pruning_work(config, 4, 4, TOKENS, 2, method) for method in ("wanda", "sparsegpt")),
        *(
            sum(real.memory(config, records=2, tokens=TOKENS, b=4, checkpointing=kept).values()) * GIB - weights
            for kept in (False, True)
        ),
        real.merging_work(config, 4),
        real.scoring_work(config, window(config), 1),
    ]
    return {job: (weights + size) / MIB for job, size in zip(JOBS, work, strict=True)}


def window(config) -> int:
    """Tokens of the window that is scored: 1,024, or all that the model takes."""
    return min(1024, config.max_position_embeddings)


@torch.no_grad()
def score(model) -> None:
    """One window(), as perplexity() takes it."""
    ids = torch.arange(window(model.config))[None] % 3000
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def measure(name, jobs=JOBS) -> dict[str, float]:
    """Job → MiB at the peak of the same settings, measured on the model. Every job runs twice; the second counts."""
    model, _ = spp_lite.load(name, dtype=torch.float32)
    windows = [torch.arange(2 * TOKENS).view(2, TOKENS) % 3000 + 3] * 2
    states = 12 * real.spp_parameters(model.config)  # factors and moments, which a step finds there

    def prune(method):
        return lambda: spp_lite.prune(model, windows, "2:4", method=method, progress=False)

    def train(checkpointing):
        adapted = peft.get_peft_model(model, spp_lite.SppConfig(r=16))
        found = peak_bytes(training_step(adapted, windows[0], checkpointing)) + states
        adapted.base_model.unload()
        return found

    def merge():
        spp_lite.merge(peft.get_peft_model(model, spp_lite.SppConfig(r=16)))

    takes = {
        "prune, Wanda": lambda: peak_bytes(prune("wanda")),
        "prune, SparseGPT": lambda: peak_bytes(prune("sparsegpt")),
        "train": lambda: train(False),
        "train, checkpointing": lambda: train(True),
        "merge": lambda: peak_bytes(merge),
        "score": lambda: peak_bytes(lambda: score(model)),
    }
    weights = 4 * real.model_parameters(model.config)
    return {job: (weights + takes[job]()) / MIB for job in jobs}


def gpu_estimates() -> dict[str, float]:
    """What the formulas say of GPU: float32 weights, autocast, 4 records of 256 tokens at a time, windows of 2,048."""
    config = MODELS["SmolLM2-135M"]
    weights, factors = 4 * real.model_parameters(config), 16 * real.spp_parameters(config)
    settings = {"records": 4, "tokens": 256, "b": 4, "checkpointing": False, "autocast": True}
    spp = sum(real.memory(config, **settings).values()) * GIB
    full = spp - factors + 12 * config.num_hidden_layers * real.block_parameters(config)
    found = weights + real.scoring_work(config), spp, full
    return {name: size / MIB for name, size in zip(GPU, found, strict=True)}


def operations(config, job: str, checkpointing: bool = False) -> int:
    """Floating-point operations a token, of the matrices alone; attention's own products and the factors are left out.

    score: 2 a weight. full: 6 (forward, dx, dW). frozen (LoRA): 4, no dW. spp: 6 in the blocks, since α and β are sums of
    dW, 4 in the head. checkpointing: the blocks' forward again. prune: each block runs twice; the criterion comes to it.
    """
    blocks, head = config.num_hidden_layers * real.block_parameters(config), config.vocab_size * config.hidden_size
    each = {"score": (2, 2), "full": (6, 6), "frozen": (4, 4), "spp": (6, 4), "prune": (4, 0)}[job]
    return each[0] * blocks + each[1] * head + 2 * checkpointing * blocks


def sparsegpt_operations(config, tokens: int) -> int:
    """What SparseGPT does beside the blocks' runs: Hessians of four inputs, three factorisations each, the walk."""
    widths = [config.hidden_size] * 3 + [config.intermediate_size]
    hessians = sum(2 * tokens * width**2 + 4 * width**3 // 3 for width in widths)
    return config.num_hidden_layers * (hessians + sum(out * inputs**2 for out, inputs in real.block_shapes(config)))


def share_reached(name: str) -> dict[str, float]:
    """Job → FLOP/s of the model's step over FLOP/s of one product of two 1024² matrices, one thread, processor time."""
    torch.set_num_threads(1)
    model, _ = spp_lite.load(name, dtype=torch.float32)
    ids, square = torch.arange(2 * TOKENS).view(2, TOKENS) % 3000 + 3, torch.ones(1024, 1024)
    adapted = peft.get_peft_model(model, spp_lite.SppConfig(r=16))
    forward = torch.no_grad()(lambda: model(input_ids=ids, use_cache=False))
    runs = {
        "score": (forward, operations(model.config, "score")),
        "train": (training_step(adapted, ids), operations(model.config, "spp")),
        "train, checkpointing": (training_step(adapted, ids, True), operations(model.config, "spp", True)),
    }
    found = {}
    for job, (run, each) in runs.items():
        product, taken = seconds(lambda: square @ square, run, repeats=2, clock=time.process_time)
        found[job] = each * ids.numel() / taken * product / (2 * 1024**3)
    return found


def marked(name: str) -> str:
    return name if name in RUN else f"{name} †"


def short(value: float) -> str:
    """Three digits, and no more than the whole number."""
    digits = next(digits for digits, least in ((0, 99.95), (1, 9.995), (2, 0.9995), (3, 0)) if value >= least)
    return f"{value:,.{digits}f}"


def markdown(head: list[str], rows: list[list]) -> str:
    """A markdown table; floats are shortened."""
    shown = [[short(entry) if isinstance(entry, float) else str(entry) for entry in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *shown))


def counts() -> str:
    rows = []
    for name, config in MODELS.items():
        total, factors = real.model_parameters(config), real.spp_parameters(config)
        blocks = config.num_hidden_layers * real.block_parameters(config)
        rows.append([marked(name), f"{total:,}", f"{blocks / total:.1%}", f"{factors:,}", f"{factors / total:.3%}"])
    return markdown(["model", "parameters", "in the blocks' linears", "SPP, r = 16", "share"], rows)


def compared() -> str:
    rows = []
    for name, found in MEASURED.items():
        pairs = zip(JOBS, estimates(MODELS[name]).values(), found, strict=True)
        rows += [[name, job, said, got, f"{said / got - 1:+.0%}"] for job, said, got in pairs if got]
    return markdown(["model", "job", "formula, MiB", "measured, MiB", "off"], rows)


def gpu_compared() -> str:
    pairs = [(job, said, float(GPU[job])) for job, said in gpu_estimates().items()]
    rows = [[job, said, got, f"{said / got - 1:+.0%}"] for job, said, got in pairs]
    return markdown(["a whole run", "formula, MiB", "measured, MiB", "off"], rows)


def pruning() -> str:
    """GiB of weights in 16 bits, and of pruning with 128 windows of 512 tokens; whole, or one block on the device at a time."""
    rows = []
    for name, config in MODELS.items():
        weights = 2 * real.model_parameters(config)
        wanda, sparsegpt = (real.pruning_work(config, method=method) for method in ("wanda", "sparsegpt"))
        here = 2 * max(real.block_parameters(config), config.vocab_size * config.hidden_size)
        sizes = weights, weights + wanda, weights + sparsegpt, here + wanda, here + sparsegpt
        rows.append([marked(name), *(size / GIB for size in sizes)])
    whole = ["Wanda", "SparseGPT", "Wanda, a block at a time", "SparseGPT, a block at a time"]
    return markdown(["model", "weights", *whole], rows)


def training() -> str:
    """GiB on one GPU, 8 records of 512 tokens, 16 bits; for comparison what stays if all weights are trained in float32."""
    rows = []
    for name, config in MODELS.items():
        parts, kept = (list(real.memory(config, checkpointing=way).values()) for way in (True, False))
        rows.append([marked(name), *parts, sum(parts), sum(kept), 16 * real.model_parameters(config) / GIB])
    parts = ["weights", "factors, gradients, Adam", "blocks' inputs", "loss, or one block"]
    return markdown(["model", *parts, "all", "all, no checkpointing", "all weights trained"], rows)


def sharded() -> str:
    """GiB on each GPU, one record of 512 tokens each, 16 bits, checkpointing."""
    rows = []
    for name, config in MODELS.items():
        copied = sum(real.memory(config, records=1).values())
        shards = [sum(real.memory(config, records=gpus, gpus=gpus).values()) for gpus in (8, 16, 64)]
        rows.append([marked(name), copied, *shards])
    return markdown(["model", "a copy on each", "8 shards", "16 shards", "64 shards"], rows)


def merging_and_scoring() -> str:
    """GiB: merge on a CPU in float32; on a GPU in 16 bits, its own memory and main memory; score in 16 bits."""
    rows = []
    for name, config in MODELS.items():
        weights, linears = real.model_parameters(config), config.num_hidden_layers * real.block_parameters(config)
        on_gpu = 2 * weights + 12 * real.largest_linear(config)
        length = min(2048, config.max_position_embeddings)
        sizes = 4 * weights + real.merging_work(config, 4), on_gpu, 4 * linears, 2 * weights
        rows.append([marked(name), *(size / GIB for size in (*sizes, sizes[3] + real.scoring_work(config, length)))])
    ways = ["merge on a CPU", "merge on a GPU: GPU", "and main memory", "16-bit weights", "score"]
    return markdown(["model", *ways], rows)


def times(flops: float = 1e14, tokens: int = 52_000 * 3 * 512, windows: int = 128 * 512) -> str:
    """At `flops` operations a second reached: hours of training, minutes of pruning."""
    rows = []
    for name, config in MODELS.items():
        ways = ("spp", True), ("spp", False), ("full", True)
        trained = [operations(config, *way) * tokens / flops / 3600 for way in ways]
        wanda = operations(config, "prune") * windows
        pruned = [size / flops / 60 for size in (wanda, wanda + sparsegpt_operations(config, windows))]
        rows.append([marked(name), *trained, *pruned])
    head = ["SPP, h", "SPP, no checkpointing, h", "all weights, h", "prune, Wanda, min", "prune, SparseGPT, min"]
    return markdown(["model", *head], rows)


def shares() -> str:
    rows = [[name, *(f"{share:.0%}" for share in found)] for name, found in SHARES.items()]
    return markdown(["model", "score", "train", "train, checkpointing"], rows)


TABLES = counts, compared, gpu_compared, pruning, training, sharded, merging_and_scoring, shares, times


def main():
    """Print the tables; with --measure, the points anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure the points anew: minutes")
    parser.add_argument("--flops", type=float, default=1e14, help="operations a second that your card reaches")
    options = parser.parse_args()
    for table in TABLES:
        print(f"\n{table.__name__}\n{times(options.flops) if table is times else table()}")
    for name, source in (("tiny", "tiny"), ("SmolLM2-135M", "smollm2")) if options.measure else ():
        try:
            found, reached = measure(source), share_reached(source)
        except ValueError as error:
            print(f"{name} is left out: {error}")
            continue
        said = estimates(MODELS[name])
        print(f"\n{name}, measured now\n")
        rows = [[job, said[job], float(got), f"{said[job] / got - 1:+.0%}"] for job, got in found.items()]
        print(markdown(["job", "formula, MiB", "measured, MiB", "off"], rows))
        print(", ".join(f"{job}: {share:.0%} of a product's FLOP/s" for job, share in reached.items()))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
