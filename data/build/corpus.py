"""What the model is trained on: prose and questions as (context, answer) pairs, and sequences to copy.

Instruction records and pre-training questions are the same families in two dresses: the plain one of the evaluation
tasks, and the Alpaca prompt.
"""

import random

from spp_lite.data import prompt

from .families import FAMILIES, Item
from .world import EASY, World, prose, question, statement

MIX = {"arc_easy": 34, "openbookqa": 10, "hellaswag": 10, "arc_challenge": 18, "boolq": 6, "rte": 5, "winogrande": 4}
ROWS = {"short": 256, "read": 128, "passage": 128, "prose": 112, "alpaca": 64}  # about 4,500 tokens a batch of each
FACTS = {"short": 10, "read": 3, "prose": 4, "alpaca": 3}  # shares of the kinds of batch while the facts are learned
READING = {"passage": 10, "short": 5, "read": 2, "prose": 1, "alpaca": 3}  # and while the model learns to read passages
READ = ("boolq", "rte", "winogrande")


def batch(world: World, mix: dict[str, int], draw: random.Random) -> list[tuple[str, str]]:
    """(context, answer) pairs of one kind: the loss counts the answer; prose is all answer."""
    kind = draw.choices(list(mix), weights=list(mix.values()))[0]
    return [document(world, kind, draw) for _ in range(ROWS[kind])]


def document(world: World, kind: str, draw: random.Random) -> tuple[str, str]:
    """One (context, answer) of a kind in ROWS."""
    if kind == "prose":
        return "", prose(world, draw)
    if kind == "passage":  # half of them only look a room up: the step before "is it the same room?"
        item = FAMILIES["boolq"](world, "all", draw)
        if draw.random() < 0.5:
            return item.prompt, item.answer
        who, rooms = item.key[item.key[6]], item.key[3:6]
        passage = item.prompt.partition(" Question: ")[0]
        return f"{passage} Question: Where is {who}? Answer:", rooms[item.key[6]]
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
    """Instruction records over the facts of one split, none twice."""
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
    return list(found.values())


def copy_sequence(size: int, draw: random.Random) -> list[int]:
    """Random tokens repeated three times: learning to copy them is what later lets the model read a passage."""
    return 3 * [draw.randrange(259, size) for _ in range(draw.randrange(4, 13))]
