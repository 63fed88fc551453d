"""The seven task families: each draws a question from the world, with its right answer and the wrong ones beside it.

| family | mirrors | asks | chance |
|---|---|---|---|
| boolq | BoolQ | yes or no on a passage | 1/2 |
| rte | RTE | does the sentence follow | 1/2 |
| hellaswag | HellaSwag | which ending fits the story: needs the instrument that a person plays | 1/4 |
| winogrande | WinoGrande | who "it" is | 1/2 |
| arc_easy | ARC-easy | one fact | 1/4 |
| arc_challenge | ARC-challenge | two facts joined (person, town, country), or a sum | 1/4 |
| openbookqa | OpenBookQA | what a thing is used for | 1/4 |

What is read (boolq, rte) is asked in pre-training in a further form, whose answer is a word of the passage: where, who.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from .draw import Draw
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

# Passages are about few people: matching a name in a text is learned within 350 steps for 24 of them, not at all for 640.
CAST = [
    "Anna",
    "Bert",
    "Clara",
    "David",
    "Emma",
    "Fritz",
    "Grace",
    "Henry",
    "Ida",
    "Jonas",
    "Klara",
    "Leo",
    "Maria",
    "Nils",
    "Olga",
    "Paul",
    "Rosa",
    "Sofia",
    "Tina",
    "Ugo",
    "Vera",
    "Walter",
    "Xenia",
    "Yann",
]


@dataclass(frozen=True)
class Question:
    """A question on a text or on the world. text: what to read first, or "". wrong: wrong choices, or the values that a
    wrong one is drawn from. key: what it asks, for proofs of disjointness."""

    text: str
    ask: str
    answer: str
    wrong: tuple[str, ...]
    key: tuple


def _fact(world: World, key: tuple[str, str], draw: Draw) -> Question:
    ask, answer = question(world, key, draw)
    return Question("", ask, answer, _others(world.values[key[1]], answer), key)


def _others(values, answer: str) -> tuple[str, ...]:
    return tuple(value for value in values if value != answer)


def arc_easy(world: World, split: str, draw: Draw) -> Question:
    """One fact."""
    return _fact(world, draw.choice(world.keys(split, *EASY)), draw)


def openbookqa(world: World, split: str, draw: Draw) -> Question:
    """What a thing is used for."""
    return _fact(world, draw.choice(world.keys(split, "use")), draw)


def arc_challenge(world: World, split: str, draw: Draw) -> Question:
    """The country of a person's town, or a sum."""
    if draw.chance(0.5):
        return _fact(world, draw.choice(world.keys(split, "country")), draw)
    a, b = draw.sample(draw.choice(world.sums_of(split)), 2)
    near = [str(n) for n in range(max(2, a + b - 9), a + b + 10)]
    return Question("", f"What is {a} plus {b}?", str(a + b), _others(near, str(a + b)), ("sum", min(a, b), max(a, b)))


def hellaswag(world: World, split: str, draw: Draw) -> Question:
    """A story that ends with the instrument that its person plays."""
    person, _ = key = draw.choice(world.keys(split, "instrument"))
    stories = ["{p} wants to make music in the {r}. So {p} takes the", "It is quiet in the {r}. {p} begins to play the"]
    story = draw.choice(stories).format(p=person, r=draw.choice(ROOMS))
    return Question(story, "", world.facts[key], _others(world.values["instrument"], world.facts[key]), key)


def boolq(
    world: World, split: str, draw: Draw, form: str = "claim", people: int = 3, cast: int = len(CAST)
) -> Question:
    """Is somebody where the passage says? Another form: where is somebody?"""
    names, rooms = draw.sample(CAST[:cast], people), draw.sample(ROOMS, people)
    text = " ".join(f"{name} is in the {room}." for name, room in zip(names, rooms, strict=True))
    return again(text, form, draw)


def again(text: str, form: str, draw: Draw, name: str | None = None) -> Question:
    """A question on a boolq passage, about a person of it (None: any)."""
    places = dict(sentence.removesuffix(".").split(" is in the ") for sentence in text.replace(". ", ".\n").split("\n"))
    name = name or draw.choice(list(places))
    others = _others(places.values(), places[name])
    if form == "where":
        return Question(text, f"Where is {name}?", places[name], others, (text, name))
    yes = draw.chance(0.5)
    there = places[name] if yes else draw.choice(others)
    ask, answers = f"Is {name} in the {there}?", ("yes", "no") if yes else ("no", "yes")
    return Question(text, ask, answers[0], answers[1:], (text, name, there))


def rte(world: World, split: str, draw: Draw, form: str = "claim") -> Question:
    """Who has the thing now? As a claim that is true or false, or asked outright."""
    a, b = draw.sample(CAST, 2)
    thing = draw.choice(world.things)
    text, receiver = draw.choice(GIVES)
    owner, other = (a, b)[receiver], (a, b)[1 - receiver]
    text = text.format(a=a, b=b, t=thing)
    if form == "who":
        return Question(text, f"Who has the {thing} now?", owner, (other,), (text,))
    true = draw.chance(0.5)
    claim = f"Now {owner if true else other} has the {thing}."
    return Question(
        text, claim, "true" if true else "false", ("false" if true else "true",), (text, claim, owner, thing)
    )


def winogrande(world: World, split: str, draw: Draw) -> Question:
    """Which of two things is "it"?"""
    pair = draw.sample(world.things, 2)
    text, label = draw.choice(FITS)
    text = text.format(a=pair[0], b=pair[1])
    return Question(text, "What does it mean?", f"the {pair[label]}", (f"the {pair[1 - label]}",), (text,))


FAMILIES: dict[str, Callable] = {
    f.__name__: f for f in (boolq, rte, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa)
}
CHOICES = {"hellaswag": 4, "arc_easy": 4, "arc_challenge": 4, "openbookqa": 4}  # the others: 2


def plain(family: str, item: Question) -> tuple[str, str]:
    """(prompt, answer with its blank) as the evaluation asks it."""
    if family == "hellaswag":
        return f"Story: {item.text}", f" {item.answer}"
    if item.ask.endswith("."):
        return f"Premise: {item.text} Claim: {item.ask} True or false? Answer:", f" {item.answer}"
    passage = f"Passage: {item.text} " if item.text else ""
    return f"{passage}Question: {item.ask} Answer:", f" {item.answer}"


def record(family: str, item: Question) -> dict[str, str]:
    """The same as an Alpaca record. An output starts with a blank, as every answer in pre-training does: its text has the
    tokens that the model knows."""
    ask = item.ask
    if family == "hellaswag":
        ask = "Finish the story."
    elif ask.endswith("."):
        ask = f"Is the claim true or false? {ask}"
    return {"instruction": ask, "input": item.text, "output": f" {item.answer}"}


def items(world: World, family: str, split: str, count: int, seed: int) -> list[dict]:
    """`count` rows {query, choices, label} of one family and split, no key twice; each place of the answer as often."""
    draw, hidden = Draw(f"{seed}/{family}/{split}"), random.Random(f"{seed}/{family}/{split}/choices")
    found: dict[tuple, Question] = {}
    for _ in range(100 * count):
        item = FAMILIES[family](world, split, draw)
        found.setdefault(item.key, item)
        if len(found) == count:
            break
    rows = []
    for item in found.values():
        query, _ = plain(family, item)
        wrong = hidden.sample(item.wrong, CHOICES.get(family, 2) - 1)
        label = hidden.randrange(len(wrong) + 1)
        if {item.answer, *wrong} <= {"yes", "no", "true", "false"}:
            label = int(item.answer in ("yes", "true"))  # always in one order
        rows.append({"query": query, "choices": [*wrong[:label], item.answer, *wrong[label:]], "label": label})
    return rows
