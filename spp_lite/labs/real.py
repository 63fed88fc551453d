"""Notebook 09: what fine-tuning a real LLaMA with SPP takes, from its shapes alone. Bytes and operations are counted
where they can be, and estimated where the docstring says so."""

from matplotlib import rc_context
from matplotlib.figure import Figure
from transformers import LlamaConfig

from ..plotting import LOOKS, STYLE
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

    Weights, factors, gradients and Adam's moments are exact. Activations (the inputs of all blocks, one block
    computed again, logits in three copies) and W′ (float32, while one layer is at work) are estimates.
    """
    trainable, here = spp_parameters(config, r), records / gpus * tokens
    largest = max(out * inputs for out, inputs in block_shapes(config))
    h, inner, gib = config.hidden_size, config.intermediate_size, 2**30
    block = 2 * here * (10 * h + 4 * inner)
    return {
        "weights": 2 * model_parameters(config) / gpus / gib,
        "factors, gradients, Adam": 16 * trainable / gib,
        "activations": (2 * here * h * config.num_hidden_layers + block) / gib,
        "logits": 10 * here * config.vocab_size / gib,
        "W' of one layer": 12 * largest / gib,
    }


def hours(config: LlamaConfig, records: int = 52_000, epochs: int = 3, tokens: int = 512, gpus: int = 1) -> float:
    """An estimate: four passes (forward, again for checkpointing, dx, dW) of 2 operations a weight and token."""
    return 4 * 2 * model_parameters(config) * records * epochs * tokens / OPERATIONS / gpus / 3600


class CalculatorLab(Lab):
    """Memory of each GPU by part, and hours for three epochs of Alpaca, by model, r, batch and GPUs."""

    def controls(self):
        return {
            "model": choice("model", list(CONFIGS), "LLaMA-2-7B"),
            "r": slider("r", [1, 4, 16, 64, 256], 16),
            "records": slider("records a step", [1, 2, 4, 8, 16, 32], 8),
            "gpus": slider("GPUs", [1, 2, 4, 8]),
        }

    def render(self, model, r, records, gpus):
        config = CONFIGS[model]
        parts = memory(config, r, max(records, gpus), gpus=gpus)
        with rc_context(STYLE):
            figure = Figure(figsize=(8.5, 4.2), layout="constrained")
            axes = figure.add_subplot()
            colours = [look[1] for look in list(LOOKS.values())[1:]]
            for number, (name, value) in enumerate(parts.items()):
                axes.barh(number, value, color=colours[number])
                axes.annotate(f"{value:.2f}", (value, number), xytext=(4, 0), textcoords="offset points", va="center")
            axes.set_yticks(range(len(parts)), list(parts))
            axes.invert_yaxis()
            axes.margins(x=0.12)
            axes.set_xlabel("GiB on each GPU (512 tokens a record)")
            axes.set_title(model)
        return figure, (
            f"{model}, r = {r}: {spp_parameters(config, r):,} trainable numbers "
            f"({spp_parameters(config, r) / model_parameters(config):.3%}); about {sum(parts.values()):.1f} GiB on each "
            f"of {gpus} GPU{'s' if gpus > 1 else ''}; three epochs of Alpaca in about {hours(config, gpus=gpus):.1f} h."
        )
