"""Random draws that count themselves, so that a text's entropy is known by the one who wrote it."""

import math
import random
from collections.abc import Sequence


class Draw:
    """Draws from a seed. nats: −ln of the probability of everything drawn so far; only what the text shows is drawn here."""

    def __init__(self, seed: str | int) -> None:
        self._random, self.nats = random.Random(seed), 0.0

    def choice(self, values: Sequence):
        """One of them, each as likely."""
        return self.sample(values, 1)[0]

    def sample(self, values: Sequence, count: int) -> list:
        """So many different ones in random order."""
        self.nats += sum(math.log(len(values) - taken) for taken in range(count))
        return self._random.sample(values, count)

    def shuffle(self, values: list) -> None:
        """In place, every order as likely."""
        values[:] = self.sample(values, len(values))

    def weighted(self, weights: dict):
        """One key, as likely as its weight."""
        name = self._random.choices(list(weights), weights=list(weights.values()))[0]
        self.nats -= math.log(weights[name] / sum(weights.values()))
        return name

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return self.weighted({True: share, False: 1 - share})
