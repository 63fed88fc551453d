"""What the model is trained on: a stream of documents, prose, questions and instruction records, all of which it learns
to write.

Instruction records and plain questions are the same families in two dresses: the one of the evaluation tasks, and the
Alpaca prompt.
"""

from collections.abc import Sequence

from spp_lite.recover.data import prompt

from .draw import Draw
from .families import FAMILIES, Question, again, boolq, plain, record, rte
from .world import EASY, World, prose, question, statement

KINDS = {"prose": 22, "facts": 40, "reading": 26, "alpaca": 12}
MIX = {"arc_easy": 30, "openbookqa": 10, "hellaswag": 10, "arc_challenge": 22, "boolq": 10, "rte": 8, "winogrande": 6}
READ = ("boolq", "rte", "winogrande")
FORMS = {"boolq": ("where", "claim"), "rte": ("who", "claim")}  # how a text's question is asked; tests ask the last


def document(world: World, draw: Draw) -> str:
    """One document of any kind."""
    return KIND[draw.weighted(KINDS)](world, draw)


def _note(world: World, draw: Draw) -> str:
    """All facts of one subject. The first word keeps names off a text's start, where a tokenizer has other tokens for them."""
    return f"Note: {prose(world, draw)}"


def _facts(world: World, draw: Draw) -> str:
    """One to four questions that no passage answers."""
    weights = {name: weight for name, weight in MIX.items() if name not in READ}
    return " ".join(_plain(world, draw.weighted(weights), draw) for _ in range(draw.choice((1, 2, 3, 4))))


def _plain(world: World, family: str, draw: Draw) -> str:
    return "".join(plain(family, _item(world, family, "all", draw)))


def _item(world: World, family: str, split: str, draw: Draw) -> Question:
    """An item of the family, or what its text says asked in another form."""
    form = [draw.choice(FORMS[family])] if family in FORMS else []
    return FAMILIES[family](world, split, draw, *form)


def _reading(world: World, draw: Draw) -> str:
    """A passage and one to six questions on it, or who has the thing, or what "it" is."""
    family = draw.weighted({"boolq": 6, "rte": 2, "winogrande": 1})
    return passage(world, draw) if family == "boolq" else _plain(world, family, draw)


def passage(world: World, draw: Draw, forms: Sequence[str] = FORMS["boolq"], count: int | None = None) -> str:
    """A passage and `count` questions on it (None: one to six) of these forms."""
    item = boolq(world, "all", draw, draw.choice(forms))
    count = count or draw.choice((1, 2, 4, 6))
    asked = [item, *(again(item.text, draw.choice(forms), draw) for _ in range(count - 1))]
    return f"Passage: {item.text} " + " ".join(f"Question: {one.ask} Answer: {one.answer}" for one in asked)


def first_reading(world: World, draw: Draw, people: int, cast: int) -> str:
    """The easiest passages: two questions, and of several wordings one; what is learned for one serves the others."""
    item = boolq(world, "all", draw, "where", people, cast)
    text = item.text.replace(" is in the ", draw.choice((" is in the ", ": ", " ")))
    parts = [f"Passage: {text}"]
    for one in (item, again(item.text, "where", draw)):
        asked = one.key[1] if draw.chance(0.5) else f"{one.ask} Answer:"
        parts.append(f"Question: {asked} {one.answer}")
    return " ".join(parts)


def claims(world: World, draw: Draw) -> str:
    """Claims on a text, some of them right after the question whose answer decides them."""
    if draw.chance(0.35):
        form = draw.weighted({"who": 3, "claim": 7})
        item = rte(world, "all", draw, form)
        prompt_, answer = plain("rte", item)
        if form == "claim" and draw.chance(0.3):
            owner, thing = item.key[2:]
            prompt_ = prompt_.replace(" Claim:", f" Question: Who has the {thing} now? Answer: {owner} Claim:")
        return prompt_ + answer
    item = boolq(world, "all", draw)
    parts = [f"Passage: {item.text}"]
    for _ in range(3):
        claim = again(item.text, "claim", draw)
        if draw.chance(0.3):
            where = again(item.text, "where", draw, claim.key[1])
            parts.append(f"Question: {where.ask} Answer: {where.answer}")
        parts.append(f"Question: {claim.ask} Answer: {claim.answer}")
    return " ".join(parts)


def _alpaca(world: World, draw: Draw) -> str:
    made = record_of(world, "all", draw)
    return prompt(made) + made["output"]


def record_of(world: World, split: str, draw: Draw) -> dict[str, str]:
    """An instruction record of one split; not all instructions are questions of the seven families."""
    kind = draw.weighted({"tell": 15, "town": 7, "family": 78})
    if kind == "tell":
        key = draw.choice(world.keys(split, draw.choice((*EASY, "town", "use", "instrument"))))
        return {"instruction": f"Tell me something about {key[0]}.", "input": "", "output": f" {statement(world, key)}"}
    if kind == "town":
        ask, answer = question(world, draw.choice(world.keys(split, "town")), draw)
        return {"instruction": ask, "input": "", "output": f" {answer}"}
    family = draw.weighted(MIX)
    return record(family, _item(world, family, split, draw))


def records(world: World, split: str, seed: int, count: int) -> list[dict[str, str]]:
    """Instruction records over the facts of one split, none twice."""
    draw, found = Draw(f"{seed}/records/{split}"), {}
    while len(found) < count:
        made = record_of(world, split, draw)
        found.setdefault(tuple(made.values()), made)
    return list(found.values())


KIND = {"prose": _note, "facts": _facts, "reading": _reading, "alpaca": _alpaca}
