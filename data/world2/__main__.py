"""World 2, in work (README.md beside this says what is missing):  python -m data.world2 [text] [pretrain]

text: records, tasks, calibration and prose, tokenizer: the same bytes every time. pretrain: train the model.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

from data.build.__main__ import HELD_OUT, RECORDS, SEED, TASK
from data.build.tokenizer import train_tokenizer
from data.build.world import World, statement

from .corpus import document, records
from .draw import Draw
from .families import FAMILIES, items
from .pretrain import train

DATA = Path(__file__).parent
VOCABULARY = 3200


def write_text(folder: Path) -> None:
    """Everything but the model's weights."""
    world = World(SEED)
    for name in ("tiny_alpaca", "tasks", "text", "tiny-llama"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, split in {"train": "open", "validation": "validation"}.items():
        found = records(world, split, SEED, RECORDS[name])
        (folder / "tiny_alpaca" / f"{name}.json").write_text(json.dumps(found, indent=0) + "\n")
    for family in FAMILIES:
        for split, suffix in {"test": "", "validation": "_val"}.items():
            rows = [json.dumps(row) for row in items(world, family, split, HELD_OUT, SEED)]
            (folder / "tasks" / f"{family}_{split}.jsonl").write_text("\n".join(rows) + "\n")
            yaml = TASK.format(family=family, suffix=suffix, split=split)
            (folder / "tasks" / f"tiny_{family}{suffix}.yaml").write_text(yaml)
    texts, _ = held_out(world)
    (folder / "text" / "calibration.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts[:320]))
    (folder / "text" / "validation.txt").write_text("\n\n".join(texts[320:]) + "\n")
    write_tokenizer(world, folder)


def held_out(world: World) -> tuple[list[str], float]:
    """400 texts of four documents each, of the mixture that the model is trained on; the entropy of the last 80, in nats."""
    draw, texts, nats = Draw(f"{SEED}/text"), [], []
    for _ in range(400):
        texts.append("\n\n".join(document(world, draw) for _ in range(4)))
        nats.append(draw.nats)
    return texts, nats[-1] - nats[319]


def write_tokenizer(world: World, folder: Path) -> None:
    """Learned from every statement, often enough for each name to become one token, and from documents."""
    draw = Draw(SEED + 1)
    texts = [statement(world, key) for key in world.facts] * 6 + [document(world, draw) for _ in range(20000)]
    train_tokenizer(texts, VOCABULARY, folder / "tiny-llama")


def main(steps: list[str]) -> None:
    """Run the named steps."""
    steps = steps or ["text", "pretrain"]
    if "text" in steps:
        write_text(DATA)
    if "pretrain" in steps:
        train(World(SEED), AutoTokenizer.from_pretrained(DATA / "tiny-llama"), DATA / "tiny-llama")


if __name__ == "__main__":
    main(sys.argv[1:])
