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


def block_activations(config: LlamaConfig, b: int = 2) -> int:
    """Bytes a token that one block keeps for its backward pass, b bytes a number, to a fifth."""
    return b * (10 * config.hidden_size + 4 * config.intermediate_size)


def memory(
    config: LlamaConfig, r: int = 16, records: int = 8, tokens: int = 512, gpus: int = 1, b: int = 2
) -> dict[str, float]:
    """GiB that training takes on each GPU, by part: weights of b bytes a number, all of it sharded by FSDP, gradient checkpointing.

    Weights, factors, gradients and Adam's moments are counted; of several GPUs each gathers the weights of one block
    whole. What grows with the records is estimated: every block's input, and the larger of two moments, the loss
    (logits, and two float32 copies) and one block at work (its activations, and W′ of its largest linear in float32).
    """
    here = records / gpus * tokens
    gathered = b * block_parameters(config) if gpus > 1 else 0
    loss = (b + 8) * here * config.vocab_size
    largest = max(out * inputs for out, inputs in block_shapes(config))
    parts = {
        "weights": b * model_parameters(config) / gpus + gathered,
        "factors, gradients, Adam": 16 * spp_parameters(config, r) / gpus,
        "inputs of all blocks": b * here * config.hidden_size * config.num_hidden_layers,
        "the loss, or one block": max(loss, block_activations(config, b) * here + 12 * largest),
    }
    return {name: size / 2**30 for name, size in parts.items()}


def jobs(config: LlamaConfig, b: int = 2, samples: int = 128, length: int = 512) -> dict[str, float]:
    """GiB of tensors that each of the four commands takes on one device, estimated, b bytes a number.

    prune: the weights, the hidden states of all calibration windows, one block at work on 8 of them, and three matrices
    in × in of SparseGPT in float32. finetune: memory() of 8 records of 512 tokens. merge: the weights, and two copies of the
    linears (in main memory where the model is on a GPU). evaluate: the weights, and the logits of as many windows
    of 2,048 tokens as perplexity() takes at a time, with float32 copies.
    """
    weights, linears = b * model_parameters(config), b * config.num_hidden_layers * block_parameters(config)
    states = samples * length * config.hidden_size * b + block_activations(config, b) * 8 * length
    windows = max(1, min(8, 2**27 // (2048 * config.vocab_size)))
    needs = {
        "prune": weights + states + 12 * config.intermediate_size**2,
        "finetune": sum(memory(config, b=b).values()) * 2**30,
        "merge": weights + 2 * linears,
        "evaluate": weights + (b + 8) * windows * 2048 * config.vocab_size,
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
        fits = total + SPARE <= room
        many = f"{gpus} GPUs under FSDP" if gpus > 1 else "one GPU"
        verdict = "fits" if fits else "does not fit"
        title = f"{model}, r = {r}, {records} records of 512 tokens: {verdict} {card} ({room} GiB), {many}"
        return plot_memory(parts, title, room), (
            f"{model}, r = {r}: {trainable:,} trainable numbers ({trainable / model_parameters(config):.3%}); about "
            f"{total:.1f} GiB on each GPU ({many}), most of it {max(parts, key=parts.get)}; {verdict} {room} GiB, of which "
            f"{SPARE:g} is left to the driver. Three epochs of Alpaca: about {hours(config, card, gpus=gpus):,.1f} h, if "
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
