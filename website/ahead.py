"""A lab's states, rendered ahead: pictures as WebP, what its controls offer, and what it reads out, as JSON.

Runs in the notebook's own kernel, right after the cell that shows the lab. Knows no page.
"""

import hashlib
import itertools
import json
import math
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from spp_lite.teaching.widgets import Lab

MOST_STATES, MOST_BYTES, LIVE_STEPS = 300, 5_000_000, 12
STOPS = {  # lab: control: the stops that the site keeps, where all of them together would be too many
    "BudgetLab": {
        "q_proj": (0.5, 0.6, 0.7), "k_proj": (0.5, 0.7, 0.9), "v_proj": (0.5, 0.7), "o_proj": (0.5, 0.7),
        "gate_proj": (0.7, 0.9), "up_proj": (0.7, 0.8), "down_proj": (0.7, 0.8),
    },
    "FactorLab": {"r": (1, 3, 5, 12), "alpha": (-1.0, -0.5, 0.0, 0.5, 0.75, 1.0), "beta": (-1.0, -0.5, 0.0, 0.5, 0.75, 1.0)},
    "CorruptionLab": {"layer": tuple(f"model.layers.{i}.{name}" for i, name in (
        (0, "self_attn.q_proj"), (0, "self_attn.k_proj"), (0, "mlp.gate_proj"), (0, "mlp.down_proj"), (3, "self_attn.q_proj"),
        (3, "mlp.down_proj"),
    ))},
    "ResultsLab": {
        "method": ("spp", "lora*", "masked-lora"), "other": ("none", "spp", "lora*", "masked-lora"),
        "metric": ("average", "hellaswag"), "seeds": (1, 3, 5),
    },
    "CalculatorLab": {"records": (1, 8, 32), "card": ("T4", "RTX 3090", "A100"), "gpus": (1, 8)},
}  # fmt: skip


def save(lab: Lab, folder: str) -> None:
    """Render every state of a lab into a new folder: lab.json and the pictures, equal ones once.

    Raises ValueError where there are more than MOST_STATES states or MOST_BYTES bytes: name coarser stops in STOPS.
    """
    name, notes = type(lab).__name__, []
    if hasattr(lab, "train_live"):
        notes.append(train_ahead(lab))
    controls = [describe(control, STOPS.get(name, {}).get(key)) for key, control in lab.inputs.items()]
    if coarse := [each["label"] for each in controls if each["left_out"]]:
        notes.append(f"Here these controls have fewer stops than in the notebook: {', '.join(coarse)}.")
    values = [each.pop("values") for each in controls]
    if math.prod(map(len, values)) > MOST_STATES:
        raise ValueError(f"{name} has {math.prod(map(len, values))} states, at most {MOST_STATES}: add coarser STOPS")
    target = Path(folder)
    target.mkdir(parents=True)
    pictures, texts, sizes = [], [], []
    for state in itertools.product(*values):
        figure, text = lab.render(**dict(zip(lab.inputs, state, strict=True)))
        pictures.append(picture(figure, target))
        sizes.append([round(100 * side) for side in figure.get_size_inches()])
        texts.append(text)
    size = [max(side) for side in zip(*sizes, strict=True)]
    moving = [each for each in controls if len(each["options"]) > 1]  # one that cannot move counts no states
    found = {"name": name, "size": size, "controls": moving, "pictures": pictures, "texts": texts, "notes": notes}
    (target / "lab.json").write_text(json.dumps(found, ensure_ascii=False))
    if (total := sum(path.stat().st_size for path in target.iterdir())) > MOST_BYTES:
        raise ValueError(f"{name} takes {total:,} bytes, at most {MOST_BYTES:,}: add coarser STOPS")


def describe(control: widgets.Widget, stops: tuple | None) -> dict:
    """Label, kind, the options' words, where the control starts, and the values, of which the page needs none."""
    pairs = [option if isinstance(option, tuple) else (str(option), option) for option in control.options]
    kept = [place for place, (_, value) in enumerate(pairs) if stops is None or value in stops]
    return {
        "label": control.description,
        "kind": "range" if isinstance(control, widgets.SelectionSlider) else "select",
        "options": [pairs[place][0] for place in kept],
        "values": [pairs[place][1] for place in kept],
        "start": kept.index(control.index),
        "left_out": len(pairs) - len(kept),
    }


def picture(figure: Figure, folder: Path) -> str:
    """Draw a figure into a folder as WebP, 100 dots an inch; returns the file's name."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    few = colours.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")
    name = f"{hashlib.sha256(few.tobytes()).hexdigest()[:12]}.webp"
    if not (folder / name).exists():
        few.save(folder / name, lossless=True, method=4)
    return name


def train_ahead(lab: Lab) -> str:
    """Train a lab that trains live for a few steps at each of its rates; returns what the page says about it."""
    for _, rate in lab.inputs["lr"].options:
        lab.inputs["lr"].value = rate
        lab.train_live(math.inf, LIVE_STEPS)
    lab.inputs["lr"].value = 5e-2
    if lab.errors:
        raise lab.errors[0]
    return f"Nothing trains on this page: it was trained for {LIVE_STEPS} steps at each rate when the page was made."
