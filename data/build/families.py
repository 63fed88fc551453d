"""The seven task families: each draws an item (prompt, choices, index of the right one) from the world.

| family | mirrors | asks | chance |
|---|---|---|---|
| boolq | BoolQ | yes or no on a passage | 1/2 |
| rte | RTE | does the sentence follow | 1/2 |
| hellaswag | HellaSwag | which ending fits the story: needs the instrument that a person plays | 1/4 |
| winogrande | WinoGrande | who "it" is | 1/2 |
| arc_easy | ARC-easy | one fact | 1/4 |
| arc_challenge | ARC-challenge | two facts joined (person, town, country), or a sum | 1/4 |
| openbookqa | OpenBookQA | what a thing is used for | 1/4 |
"""

import random
from dataclasses import dataclass

from .world import EASY, ROOMS, World, question

FITS = [  # (sentence, which of the two "it" is)
    ("The {a} does not fit into the {b} because it is too big.", 0),
    ("The {a} does not fit into the {b} because it is too small.", 1),
    ("The {a} fell through the {b} because it was too weak.", 1),
    ("The {a} fell through the {b} because it was too heavy.", 0),
    ("The {a} could not hold the {b} because it was too large.", 1),
    ("The {a} could not hold the {b} because it was too thin.", 0),
]
GIVES = [("{a} gave the {t} to {b}.", 1), ("{a} took the {t} from {b}.", 0), ("{a} sold the {t} to {b}.", 1)]


@dataclass(frozen=True)
class Item:
    """A multiple-choice question. key: what it asks, for proofs of disjointness."""

    prompt: str
    choices: tuple[str, ...]
    label: int
    key: tuple

    @property
    def answer(self) -> str:
        """The right choice."""
        return self.choices[self.label]


def _among(world: World, relation: str, answer: str, draw: random.Random) -> tuple[tuple[str, ...], int]:
    others = draw.sample([value for value in world.values[relation] if value != answer], 3)
    label = draw.randrange(4)
    return (*others[:label], answer, *others[label:]), label


def _fact(world: World, key: tuple[str, str], draw: random.Random) -> Item:
    text, answer = question(world, key, draw)
    choices, label = _among(world, key[1], answer, draw)
    return Item(f"Question: {text} Answer:", choices, label, key)


def arc_easy(world, split, draw):
    """One fact."""
    return _fact(world, draw.choice(world.keys(split, *EASY)), draw)


def openbookqa(world, split, draw):
    """What a thing is used for."""
    return _fact(world, draw.choice(world.keys(split, "use")), draw)


def arc_challenge(world, split, draw):
    """The country of a person's town, or a sum."""
    if draw.random() < 0.5:
        return _fact(world, draw.choice(world.keys(split, "country")), draw)
    a, b = draw.sample(draw.choice(world.sums_of(split)), 2)
    others = draw.sample([n for n in range(max(2, a + b - 9), a + b + 10) if n != a + b], 3)
    label = draw.randrange(4)
    choices = tuple(str(n) for n in [*others[:label], a + b, *others[label:]])
    return Item(f"Question: What is {a} plus {b}? Answer:", choices, label, ("sum", min(a, b), max(a, b)))


def hellaswag(world, split, draw):
    """A story that ends with the instrument that its person plays."""
    person, _ = key = draw.choice(world.keys(split, "instrument"))
    room = draw.choice(ROOMS)
    choices, label = _among(world, "instrument", world.facts[key], draw)
    text = draw.choice(
        ["{p} wants to make music in the {r}. So {p} takes the", "It is quiet in the {r}. {p} begins to play the"]
    )
    return Item("Story: " + text.format(p=person, r=room), choices, label, key)


def boolq(world, split, draw):
    """Is somebody where the passage says?"""
    people, rooms = draw.sample(world.people, 3), draw.sample(ROOMS, 3)
    passage = " ".join(f"{person} is in the {room}." for person, room in zip(people, rooms, strict=True))
    who, yes = draw.randrange(3), draw.random() < 0.5
    room = rooms[who] if yes else rooms[(who + draw.choice([1, 2])) % 3]
    text = f"Passage: {passage} Question: Is {people[who]} in the {room}? Answer:"
    return Item(text, ("no", "yes"), int(yes), (*people, *rooms, who, room))


def rte(world, split, draw):
    """Who has the thing now?"""
    a, b = draw.sample(world.people, 2)
    thing = draw.choice(world.things)
    text, receiver = draw.choice(GIVES)
    true = draw.random() < 0.5
    owner = (a, b)[receiver if true else 1 - receiver]
    text = f"Premise: {text.format(a=a, b=b, t=thing)} Claim: Now {owner} has the {thing}. True or false? Answer:"
    return Item(text, ("false", "true"), int(true), (a, b, thing, text))


def winogrande(world, split, draw):
    """Which of two things is "it"?"""
    pair = draw.sample(world.things, 2)
    text, label = draw.choice(FITS)
    text = text.format(a=pair[0], b=pair[1])
    order = draw.random() < 0.5
    choices = tuple(pair[::-1] if order else pair)
    return Item(
        f"{text} Question: What does it mean? Answer: the", choices, 1 - label if order else label, (*pair, text)
    )


FAMILIES = {f.__name__: f for f in (boolq, rte, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa)}


def items(world: World, family: str, split: str, count: int, seed: int) -> list[Item]:
    """`count` items of one family and split, no key twice."""
    draw = random.Random(f"{seed}/{family}/{split}")
    found: dict[tuple, Item] = {}
    for _ in range(100 * count):
        item = FAMILIES[family](world, split, draw)
        found.setdefault(item.key, item)
        if len(found) == count:
            break
    return list(found.values())
