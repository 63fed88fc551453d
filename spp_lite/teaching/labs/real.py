"""Notebook 09: what fine-tuning a real LLaMA with SPP takes, from its shapes alone. Bytes and operations are counted
where they can be, and estimated where the docstring says so."""

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
    "LLaMA-2-7B": LlamaConfig(),
    "LLaMA-2-13B": LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
    ),
}  # fmt: skip
OPERATIONS = 4e14  # a second, sustained, of one large data-centre GPU in bfloat16: an assumption, not a measurement
CARDS = (8, 16, 24, 48, 80)  # GiB of memory that GPUs are sold with


def block_shapes(config: LlamaConfig) -> list[tuple[int, int]]:
    """(out, in) of the seven linears of one decoder block: q, k, v, o, gate, up, down."""
    h, inner = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * (h // config.num_attention_heads)
    return [(h, h), (kv, h), (kv, h), (h, h), (inner, h), (inner, h), (h, inner)]


def spp_parameters(config: LlamaConfig, r: int = 16) -> int:
    """Trainable numbers of SPP: r · in + out for every linear of every block."""
    return config.num_hidden_layers * sum(r * inputs + out for out, inputs in block_shapes(config))


def model_parameters(config: LlamaConfig) -> int:
    """All numbers of the model: linears, embeddings (once if tied), norms."""
    linears = sum(out * inputs for out, inputs in block_shapes(config))
    tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
    return config.num_hidden_layers * (linears + 2 * config.hidden_size) + tables + config.hidden_size


def memory(config: LlamaConfig, r: int = 16, records: int = 8, tokens: int = 512, gpus: int = 1) -> dict[str, float]:
    """GiB on each GPU by part: bfloat16 weights sharded by FSDP, gradient checkpointing, the records split.

    Weights, factors, gradients and Adam's moments are exact on one GPU (several: the factors are taken as copied to each,
    and one block's weights as gathered). Activations (the inputs of all blocks, one block computed again), logits in
    three copies and W′ (float32, while one layer is at work) are estimates.
    """
    trainable, here = spp_parameters(config, r), records / gpus * tokens
    shapes = [out * inputs for out, inputs in block_shapes(config)]
    inputs_of_blocks = 2 * here * config.hidden_size * config.num_hidden_layers
    gathered = 2 * sum(shapes) if gpus > 1 else 0
    parts = {
        "weights": 2 * model_parameters(config) / gpus + gathered,
        "factors, gradients, Adam": 16 * trainable,
        "activations": inputs_of_blocks + block_activations(config) * here,
        "logits": 10 * here * config.vocab_size,
        "W′ of one layer": 12 * max(shapes),
    }
    return {name: size / 2**30 for name, size in parts.items()}


def block_activations(config: LlamaConfig) -> int:
    """Bytes a token that one block keeps for its backward pass in bfloat16, to a few percent."""
    return 2 * (10 * config.hidden_size + 4 * config.intermediate_size)


def hours(config: LlamaConfig, records: int = 52_000, epochs: int = 3, tokens: int = 512, gpus: int = 1) -> float:
    """An estimate: four passes (forward, again for checkpointing, dx, dW) of 2 operations a weight and token."""
    return 4 * 2 * model_parameters(config) * records * epochs * tokens / OPERATIONS / gpus / 3600


class CalculatorLab(Lab):
    """Memory of each GPU by part, and hours for three epochs of Alpaca, by model, r, batch and GPUs."""

    height = 340

    def controls(self):
        return {
            "model": choice("model", list(CONFIGS), "LLaMA-2-7B"),
            "r": slider("r", [16, 256]),
            "records": slider("records at once, all GPUs", [8, 16, 32]),
            "gpus": slider("GPUs", [1, 2, 4, 8]),
        }

    def render(self, model, r, records, gpus):
        config = CONFIGS[model]
        parts = memory(config, r, records, gpus=gpus)
        total, trainable = sum(parts.values()), spp_parameters(config, r)
        fitting = [card for card in CARDS if total <= card]
        return plot_memory(parts, f"{model}, r = {r}, {records} records of 512 tokens, {gpus} GPU{'s' * (gpus > 1)}"), (
            f"{model}, r = {r}: {trainable:,} trainable numbers ({trainable / model_parameters(config):.3%}); "
            f"about {total:.1f} GiB on each of {gpus} GPU{'s' * (gpus > 1)}, most of it {max(parts, key=parts.get)}; "
            f"{f'fits a card of {fitting[0]} GiB' if fitting else 'fits no card drawn here'}. Three epochs of Alpaca: "
            f"about {hours(config, gpus=gpus):.1f} h if each GPU sustains {OPERATIONS:.0e} operations a second."
        )


def plot_memory(parts: dict[str, float], title: str) -> Figure:
    """A bar for every part, their sum, and the sizes of common cards that are near it."""
    bars = {**parts, "all together": sum(parts.values())}
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2))
        axes = figure.add_axes((0.25, 0.15, 0.73, 0.75))
        colours = [look[1] for look in LOOKS.values()]
        for number, value in enumerate(bars.values()):
            last = number == len(parts)
            axes.barh(number, value, color=colours[0 if last else number + 1])
            axes.annotate(f"{value:.2f}", (value, number), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.25 * bars["all together"])
        for card in [card for card in CARDS if card < axes.get_xlim()[1]][-1:]:
            axes.axvline(card, color="#444444", linestyle="--", linewidth=1)
            axes.annotate(f"a card of {card} GiB", (card, 4), xytext=(-5, 0), textcoords="offset points", ha="right")
        axes.set_yticks(range(len(bars)), list(bars))
        axes.invert_yaxis()
        axes.set_xlabel("GiB on each GPU")
        axes.set_title(title, fontsize=12)
    return figure
