"""What the model is trained on: prose and questions as (context, answer) pairs, and sequences to copy.

Instruction records and pre-training questions are the same families in two dresses: the plain one of the evaluation
tasks, and the Alpaca prompt.
"""

import random

from spp_lite.recover.data import prompt

from .families import FAMILIES, Item
from .world import EASY, World, prose, question, statement

MIX = {"arc_easy": 34, "openbookqa": 10, "hellaswag": 10, "arc_challenge": 18, "boolq": 6, "rte": 5, "winogrande": 4}
KINDS = {  # kind of batch: (weight, rows): about 4,500 tokens each, documents of like length together
    "short": (10, 256),
    "read": (3, 128),
    "prose": (4, 112),
    "alpaca": (3, 64),
}
READ = ("boolq", "rte", "winogrande")


def batch(world: World, draw: random.Random) -> list[tuple[str, str]]:
    """(context, answer) pairs of one kind: the loss counts the answer; prose is all answer."""
    kind = draw.choices(list(KINDS), weights=[weight for weight, _ in KINDS.values()])[0]
    return [document(world, kind, draw) for _ in range(KINDS[kind][1])]


def document(world: World, kind: str, draw: random.Random) -> tuple[str, str]:
    """One (context, answer) of a kind in KINDS."""
    if kind == "prose":
        return "", prose(world, draw)
    if kind == "alpaca" and draw.random() < 0.15:
        key = draw.choice(list(world.facts))
        return prompt({"instruction": f"Tell me something about {key[0]}.", "input": ""}), statement(world, key)
    weights = {name: weight for name, weight in MIX.items() if kind == "alpaca" or (name in READ) == (kind == "read")}
    item = FAMILIES[draw.choices(list(weights), weights=list(weights.values()))[0]](world, "all", draw)
    return (prompt(record(item, draw)), item.answer) if kind == "alpaca" else (item.prompt, item.answer)


def record(item: Item, draw: random.Random) -> dict[str, str]:
    """An item as an Alpaca record."""
    head, _, rest = item.prompt.partition(" Question: ")
    if head.startswith("Passage: "):
        return {
            "instruction": rest.removesuffix(" Answer:"),
            "input": head.removeprefix("Passage: "),
            "output": item.answer,
        }
    if item.prompt.startswith("Premise: "):
        premise, claim = item.prompt.removeprefix("Premise: ").removesuffix(" True or false? Answer:").split(" Claim: ")
        return {"instruction": f"Is the claim true or false? {claim}", "input": premise, "output": item.answer}
    if item.prompt.startswith("Story: "):
        story = item.prompt.removeprefix("Story: ")
        return {"instruction": "Finish the story.", "input": story, "output": item.answer}
    if rest:
        return {"instruction": "What does it mean?", "input": head, "output": item.answer}
    ask = item.prompt.removeprefix("Question: ").removesuffix(" Answer:")
    return {"instruction": draw.choice(["", "", "Answer with one word. "]) + ask, "input": "", "output": item.answer}


def records(world: World, split: str, seed: int, count: int) -> list[dict[str, str]]:
    """Instruction records over the facts of one split, none twice.

    An output starts with the blank that pre-training puts before every answer (encode in pretrain.py tokenizes answers
    apart, and the tokenizer starts a text with one), so that its text has the tokens that the model knows.
    """
    draw, found = random.Random(f"{seed}/records/{split}"), {}
    open_keys = {relation: world.keys(split, relation) for relation in (*EASY, "town", "use", "instrument")}
    while len(found) < count:
        if draw.random() < 0.15:  # not all instructions are questions
            key = draw.choice(open_keys[draw.choice(list(open_keys))])
            made = {"instruction": f"Tell me something about {key[0]}.", "input": "", "output": statement(world, key)}
        elif draw.random() < 0.08:
            text, answer = question(world, draw.choice(open_keys["town"]), draw)
            made = {"instruction": text, "input": "", "output": answer}
        else:
            family = draw.choices(list(MIX), weights=list(MIX.values()))[0]
            made = record(FAMILIES[family](world, split, draw), draw)
        found.setdefault(tuple(made.values()), made)
    return [{**made, "output": f" {made['output']}"} for made in found.values()]


def copy_sequence(size: int, draw: random.Random) -> list[int]:
    """Random tokens repeated three times: learning to copy them is what later lets the model read a passage."""
    return 3 * [draw.randrange(259, size) for _ in range(draw.randrange(4, 13))]
