"""Notebook 09: what pruning, training, merging and scoring a real LLaMA take, from its shapes alone.

Parameters are counted; memory is estimated from what is alive at the busiest moment; time is estimated from operations
and an assumed speed. The docstrings say which.
"""

from matplotlib import rc_context
from matplotlib.figure import Figure
from transformers import LlamaConfig

from ...experiment.plotting import LOOKS, STYLE
from ..widgets import Lab, choice, slider

CONFIGS = {  # from the models' public configuration files
    "SmolLM2-135M": LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True,
    ),
    "TinyLlama-1.1B": LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
        vocab_size=32000,
    ),
    "Llama-3.2-1B": LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, tie_word_embeddings=True,
    ),
    "LLaMA-2-7B": LlamaConfig(),
    "LLaMA-2-13B": LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
    ),
}  # fmt: skip
CARDS = {"T4": (16, 65), "RTX 3090": (24, 71), "A100": (80, 312), "H100": (80, 989)}  # GiB; 16-bit peak in TFLOP/s
SHARE = 0.4  # of the makers' peak that training sustains: an assumption, not a measurement
SPARE = 1.0  # GiB of a card that the driver and the libraries take: an assumption
MARGIN = 1.25  # times what the formulas say: on the one GPU that was measured they were up to a fifth too low


def block_shapes(config: LlamaConfig) -> list[tuple[int, int]]:
    """(out, in) of the seven linears of one decoder block: q, k, v, o, gate, up, down."""
    h, inner = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * (h // config.num_attention_heads)
    return [(h, h), (kv, h), (kv, h), (h, h), (inner, h), (inner, h), (h, inner)]


def spp_parameters(config: LlamaConfig, r: int = 16) -> int:
    """Trainable numbers of SPP: r · in + out for every linear of every block."""
    return config.num_hidden_layers * sum(r * inputs + out for out, inputs in block_shapes(config))


def block_parameters(config: LlamaConfig) -> int:
    """Numbers of the seven linears of one block."""
    return sum(out * inputs for out, inputs in block_shapes(config))


def model_parameters(config: LlamaConfig) -> int:
    """All numbers of the model: linears, embeddings (once if tied), norms."""
    tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    return config.num_hidden_layers * block_parameters(config) + tables + norms


def block_activations(config: LlamaConfig, b: int = 2, autocast: bool = False) -> int:
    """Bytes a token that one block keeps for its backward pass, b bytes a number; the norms keep float32.

    autocast: float32 weights, computing in b = 2 bytes; q, k, v, and gate, up, each keep a 16-bit copy of their one input.
    """
    h, inner = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * (h // config.num_attention_heads)
    return b * (4 * h + 2 * kv + 4 * inner) + (8 + 6 * autocast) * h


def largest_linear(config: LlamaConfig) -> int:
    """Numbers of the largest linear of a block."""
    return max(out * inputs for out, inputs in block_shapes(config))


def memory(
    config: LlamaConfig, r: int = 16, records: int = 8, tokens: int = 512, gpus: int = 1, b: int = 2,
    checkpointing: bool = True, autocast: bool = False,
) -> dict[str, float]:  # fmt: skip
    """GiB that training takes on each GPU, by part: weights of b bytes a number, all of it sharded by FSDP.

    Weights, factors, gradients and Adam's moments are counted; of several GPUs each gathers the weights of one block
    whole. What grows with the records is estimated: every block's input, and the larger of two moments, the loss
    (logits, and two float32 copies) and one block at work (its activations, and W′ of its largest linear in float32).
    Without checkpointing all blocks keep their activations. autocast: float32 weights, computing in 16 bits.
    """
    here, work = records / gpus * tokens, 2 if autocast else b
    gathered = b * block_parameters(config) if gpus > 1 else 0
    loss, matrix = (work + 8) * here * config.vocab_size, 12 * largest_linear(config)
    activations, layers = block_activations(config, work, autocast) * here, config.num_hidden_layers
    parts = {
        "weights": b * model_parameters(config) / gpus + gathered,
        "factors, gradients, Adam": 16 * spp_parameters(config, r) / gpus,
    }
    if checkpointing:
        parts["inputs of all blocks"] = b * here * config.hidden_size * layers
        parts["the loss, or one block"] = max(loss, activations + matrix)
    else:
        parts["activations of all blocks"] = activations * layers
        parts["the loss, or one block"] = max(loss, matrix)
    return {name: size / 2**30 for name, size in parts.items()}


def pruning_work(
    config: LlamaConfig, b: int = 2, samples: int = 128, length: int = 512, together: int = 8, method: str = "sparsegpt"
) -> int:
    """Bytes of pruning beside the weights: hidden states of all windows, 256 rows of every input in float32, and the larger of
    two moments: one block at work on `together` windows, or the criterion, which takes five matrices in × in and five of
    the largest linear (SparseGPT), or 35 bytes a weight of the largest linear (others)."""
    h, inner, largest = config.hidden_size, config.intermediate_size, largest_linear(config)
    kept = samples * length * b * h + 1024 * (3 * h + inner)
    running, criterion = together * length * block_activations(config, b), 35 * largest
    if method == "sparsegpt":
        running, criterion = running + 4 * (3 * h**2 + inner**2), 20 * (inner**2 + largest)
    return kept + max(running, criterion)


def merging_work(config: LlamaConfig, b: int = 2, r: int = 16) -> int:
    """Bytes of merging beside the weights: two copies of the linears, the factors, the largest linear three times in
    float64, logits of 32 probe tokens twice in float64. Where the model is on a GPU, the copies are in main memory."""
    copies = 2 * b * config.num_hidden_layers * block_parameters(config)
    return copies + 4 * spp_parameters(config, r) + 24 * largest_linear(config) + 16 * 32 * config.vocab_size


def scoring_work(config: LlamaConfig, length: int = 2048, windows: int = 0) -> int:
    """Bytes of scoring beside the weights: three float32 copies of the logits. windows: 0 for as many as perplexity() takes."""
    windows = windows or max(1, min(8, 2**27 // (length * config.vocab_size)))
    return 12 * windows * length * config.vocab_size


def jobs(config: LlamaConfig, b: int = 2, samples: int = 128, length: int = 512) -> dict[str, float]:
    """GiB of tensors that each of the four commands takes on one device, estimated, b bytes a number.

    prune: the weights and pruning_work(), by SparseGPT. finetune: memory() of 8 records of 512 tokens. merge: the weights
    and merging_work(). evaluate: the weights, and scoring_work() of windows of 2,048 tokens, or what the model takes.
    """
    weights = b * model_parameters(config)
    needs = {
        "prune": weights + pruning_work(config, b, samples, length),
        "finetune": sum(memory(config, b=b).values()) * 2**30,
        "merge": weights + merging_work(config, b),
        "evaluate": weights + scoring_work(config, min(2048, config.max_position_embeddings)),
    }
    return {job: size / 2**30 for job, size in needs.items()}


def hours(
    config: LlamaConfig, card: str, records: int = 52_000, epochs: int = 3, tokens: int = 512, gpus: int = 1
) -> float:
    """An estimate: four passes (forward, again for checkpointing, dx, dW) of 2 operations a weight and token, at SHARE of
    the card's peak."""
    operations = 4 * 2 * model_parameters(config) * records * epochs * tokens
    return operations / (SHARE * CARDS[card][1] * 1e12) / gpus / 3600


class CalculatorLab(Lab):
    """Memory of each GPU by part, and hours for three epochs of Alpaca, by model, r, batch, card and GPUs under FSDP."""

    height = 340

    def controls(self):
        return {
            "model": choice("model", list(CONFIGS), "LLaMA-2-7B"),
            "r": slider("r", [16, 256]),
            "records": slider("records at once, all GPUs", [1, 2, 4, 8, 16, 32], 8),
            "card": choice("card", list(CARDS), "RTX 3090"),
            "gpus": slider("GPUs (FSDP)", [1, 2, 4, 8]),
        }

    def render(self, model, r, records, card, gpus):
        config, room = CONFIGS[model], CARDS[card][0]
        parts = memory(config, r, records, gpus=gpus)
        total, trainable = sum(parts.values()), spp_parameters(config, r)
        fits = MARGIN * total + SPARE <= room
        many = f"{gpus} GPUs under FSDP" if gpus > 1 else "one GPU"
        verdict = "fits" if fits else "does not fit"
        title = f"{model}, r = {r}, {records} records of 512 tokens: {verdict} {card} ({room} GiB), {many}"
        return plot_memory(parts, title, room), (
            f"{model}, r = {r}: {trainable:,} trainable numbers ({trainable / model_parameters(config):.3%}); about "
            f"{total:.1f} GiB on each GPU ({many}), most of it {max(parts, key=parts.get)}; with a quarter more, and {SPARE:g} "
            f"for the driver, it {verdict} {room} GiB. Three epochs of Alpaca: about {hours(config, card, gpus=gpus):,.1f} h, if "
            f"each GPU sustains {SHARE:.0%} of its {CARDS[card][1]} TFLOP/s."
        )


def plot_memory(parts: dict[str, float], title: str, room: float) -> Figure:
    """A bar for every part, their sum, and a line where the card ends."""
    bars = {**parts, "all together": sum(parts.values())}
    colours = [LOOKS[name][1] for name in ("spp", "lora*", "hira", "masked-full", "dense")]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.add_subplot()
        for number, (value, colour) in enumerate(zip(bars.values(), colours, strict=True)):
            axes.barh(number, value, color=colour, height=0.6)
            axes.annotate(f"{value:.2f}", (value, number), xytext=(4, 0), textcoords="offset points", va="center")
        axes.axvline(room, color="#444444", linestyle="--", linewidth=1.5)
        axes.annotate(f"the card: {room} GiB", (room, -0.62), xytext=(-4, 0), textcoords="offset points", ha="right")
        axes.set_xlim(0, 1.15 * max(bars["all together"], room))
        axes.set_ylim(len(bars) - 0.5, -1)
        axes.set_yticks(range(len(bars)), list(bars))
        axes.set_xlabel("GiB on each GPU")
        axes.set_title(title, fontsize=12)
    return figure
