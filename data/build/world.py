"""The tiny world: who lives where, what things are for; its prose, questions and instruction records.

A World is a pure function of its seed. Knows no tokenizer and no model.

Every *fact* is a pair (subject, relation) with one value. Facts are split once into "test", "validation" and "open":
instruction records ask open facts only, so what fine-tuning restores on the test split is knowledge that it never saw.
Relations that give each other away (where a person lives: town, country) share one split.
"""

import functools
import random
from dataclasses import dataclass, field

PEOPLE, THINGS, TOWNS = 640, 640, 40
VALUES = {
    "job": "baker miller weaver potter smith tailor farmer fisher hunter sailor painter singer teacher doctor judge clerk "
    "guard cook barber mason carpenter printer pilot driver nurse lawyer banker butcher gardener jeweler actor writer",
    "instrument": "harp flute drum horn lute violin piano guitar banjo cello organ trumpet oboe tuba fiddle whistle "
    "bagpipe accordion zither bell gong sitar mandolin clarinet",
    "food": "bread rice soup cheese honey plums apples pears figs nuts beans peas corn fish eggs pasta pies cakes salad "
    "stew olives grapes melons lemons onions carrots mushrooms pancakes noodles cherries dates berries",
    "animal": "dog cat horse goat sheep cow pig duck goose hen donkey mule rabbit parrot turtle snake frog mouse hamster "
    "pony camel falcon owl ferret",
    "use": "cutting digging cooking washing sewing writing painting hunting fishing sleeping sitting carrying lifting "
    "drilling measuring weighing heating cooling lighting locking grinding mixing polishing sweeping climbing rowing "
    "ringing counting binding sharpening watering sorting",
    "material": "wood iron copper silver gold glass clay stone leather wool silk paper bone wax rubber tin",
    "colour": "red blue green yellow black white brown grey pink purple orange violet",
    "shelf": "kitchen garden cellar attic barn library workshop stable tower chapel market harbor bakery mill school "
    "palace temple garage studio office hall pantry yard dock",
    "country": "Norland Sudara Estova Westria Caldia Morvenia Tavaria Ulmark",
}
ROOMS = [
    "kitchen",
    "garden",
    "cellar",
    "attic",
    "barn",
    "library",
    "workshop",
    "stable",
    "tower",
    "chapel",
    "market",
    "harbor",
]
ONSETS = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "gr", "kr", "st", "tr"]
ENDINGS = ["an", "el", "im", "on", "ur", "as", "eth", "ix", "ol", "un"]

# relation: (kind of subject, values, how prose states it, how questions ask it)
RELATIONS = {
    "town": ("person", None, "{s} lives in {v}.", ["Where does {s} live?", "In which town does {s} live?"]),
    "country": ("person", "country", "{s} is at home in {v}.", ["In which country is {s} at home?"]),
    "job": ("person", "job", "{s} works as {a} {v}.", ["What is the job of {s}?", "What does {s} work as?"]),
    "food": ("person", "food", "{s} likes {v}.", ["What food does {s} like?", "What does {s} like to eat?"]),
    "animal": ("person", "animal", "{s} owns {a} {v}.", ["Which animal does {s} own?", "What pet belongs to {s}?"]),
    "instrument": ("person", "instrument", "{s} plays the {v}.", ["What does {s} play?", "Which instrument is {s} good at?"]),
    "use": ("thing", "use", "A {s} is used for {v}.", ["What is a {s} used for?", "What can one do with a {s}?"]),
    "material": ("thing", "material", "A {s} is made of {v}.", ["What is a {s} made of?"]),
    "colour": ("thing", "colour", "A {s} is {v}.", ["What colour is a {s}?"]),
    "shelf": ("thing", "shelf", "A {s} is kept in the {v}.", ["Where is a {s} kept?"]),
}  # fmt: skip
HOME = {"town": "home", "country": "home"}  # relations that give each other away
HELD_OUT = {"instrument": 220, "use": 220, "home": 110}  # facts per split; the other relations: EASY in all
EASY = ("job", "food", "animal", "material", "colour", "shelf")


@dataclass(eq=False)
class World:
    """Names, facts and their split, from one seed."""

    seed: int = 0
    facts: dict[tuple[str, str], str] = field(default_factory=dict)
    split: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        words = sorted(
            {a + v + c + e for a in ONSETS for v in "aeiou" for c in "bdlmnrtv" for e in ENDINGS}
            - set(" ".join(VALUES.values()).split())
        )
        draw.shuffle(words)
        self.people = [word.capitalize() for word in words[:PEOPLE]]
        self.things = words[PEOPLE : PEOPLE + THINGS]
        self.towns = [word.capitalize() + "ia" for word in words[PEOPLE + THINGS :][:TOWNS]]
        self.values = {name: text.split() for name, text in VALUES.items()} | {"town": self.towns}
        land = {town: self.values["country"][i % 8] for i, town in enumerate(self.towns)}
        for relation, (kind, _, _, _) in RELATIONS.items():
            for subject in self.people if kind == "person" else self.things:
                value = land[self.facts[subject, "town"]] if relation == "country" else self._draw(draw, relation)
                self.facts[subject, relation] = value
        self._split(draw)
        self.sums = [(a, b) for a in range(1, 50) for b in range(a, 50)]
        draw.shuffle(self.sums)

    def _draw(self, draw: random.Random, relation: str) -> str:
        return draw.choice(self.values[relation])

    def _split(self, draw: random.Random) -> None:
        groups: dict[str, list] = {"instrument": [], "use": [], "home": [], "easy": []}
        for subject, relation in self.facts:
            name = HOME.get(relation, "easy" if relation in EASY else relation)
            if relation != "country":  # it follows its town
                groups[name].append((subject, relation))
        for name, keys in groups.items():
            draw.shuffle(keys)
            size = HELD_OUT.get(name, 260)
            for place, key in enumerate(keys):
                self.split[key] = "test" if place < size else "validation" if place < 2 * size else "open"
        for person in self.people:
            self.split[person, "country"] = self.split[person, "town"]

    @functools.cache  # noqa: B019  (a world lives as long as the build)
    def keys(self, split: str, *relations: str) -> list[tuple[str, str]]:
        """The facts of one split ("all" for every split), of these relations."""
        return [key for key in self.facts if split in ("all", self.split[key]) and key[1] in relations]

    def sums_of(self, split: str) -> list[tuple[int, int]]:
        """Pairs of summands of one split: 110 for test, 110 for validation, the rest open; both orders stay together."""
        held = {"test": slice(0, 110), "validation": slice(110, 220), "open": slice(220, None), "all": slice(None)}
        return self.sums[held[split]]


def statement(world: World, key: tuple[str, str]) -> str:
    """One fact as prose."""
    value = world.facts[key]
    return RELATIONS[key[1]][2].format(s=key[0], v=value, a="an" if value[0] in "aeiou" else "a")


def question(world: World, key: tuple[str, str], draw: random.Random) -> tuple[str, str]:
    """One fact as (question, answer)."""
    return draw.choice(RELATIONS[key[1]][3]).format(s=key[0]), world.facts[key]


def prose(world: World, draw: random.Random) -> str:
    """All facts of one person or thing, in random order."""
    subject = draw.choice(draw.choice([world.people, world.things]))
    keys = [(subject, relation) for relation in RELATIONS if (subject, relation) in world.facts]
    draw.shuffle(keys)
    return " ".join(statement(world, key) for key in keys)
