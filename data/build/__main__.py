"""Rebuild the embedded data from a seed:  python -m data.build [text] [pretrain] [score]  (all three when none is named).

text: records, tasks, calibration and prose, tokenizer: the same bytes every time. pretrain: train a model by the stages
that led to the one that is there, whose very weights do not come out again (data/README.md). score: print the model's
accuracy, dense and pruned, as in the data card.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

from .corpus import document, records
from .draw import Draw
from .families import FAMILIES, items
from .pretrain import train
from .tokenizer import train_tokenizer
from .world import World, statement

DATA = Path(__file__).parents[1]
SEED, VOCABULARY = 0, 3200
RECORDS, HELD_OUT = {"train": 6000, "validation": 400}, 220
TASK = """task: tiny_{family}{suffix}
custom_dataset: !function items.load
dataset_kwargs: {{family: {family}}}
output_type: multiple_choice
validation_split: validation
test_split: {split}
doc_to_text: query
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


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


def score() -> None:
    """Accuracy of the dense model and after each pruning, on the test split, as the data card prints it."""
    import pandas as pd

    from spp_lite import evaluate, load, prune
    from spp_lite.models import embedded
    from spp_lite.recover.data import calibration_batches, read_texts
    from spp_lite.recover.evaluation import average_accuracy, chance_accuracy

    columns = {}
    for sparsity in ("0%", "50%", "2:4", "60%", "70%", "75%", "2:8", "80%", "90%"):
        model, tokenizer = load("tiny")
        batches = calibration_batches(read_texts(embedded("text", "calibration.jsonl")), tokenizer, length=128)
        if sparsity != "0%":
            prune(model, batches, sparsity, method="wanda", progress=False)
        table = evaluate(model, tokenizer, "tiny", progress=False)
        columns[sparsity] = table[table["metric"] == "acc"].set_index("task")["value"]
        columns[sparsity]["average"] = average_accuracy(table)
    print((100 * pd.DataFrame(columns)).round(1).to_string())
    print(f"chance {100 * chance_accuracy():.1f}")


def main(steps: list[str]) -> None:
    """Run the named steps."""
    steps = steps or ["text", "pretrain", "score"]
    if "text" in steps:
        write_text(DATA)
    if "pretrain" in steps:
        train(World(SEED), AutoTokenizer.from_pretrained(DATA / "tiny-llama"), DATA / "tiny-llama")
    if "score" in steps:
        score()


if __name__ == "__main__":
    main(sys.argv[1:])
