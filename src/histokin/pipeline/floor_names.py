"""How the floors' stores are told from encoders', without loading a network."""

import re

from histokin.evaluate import FLOORS

STATISTIC_FLOORS = tuple(FLOORS)  # colour, histogram, texture
# Seeds that nobody names by hand: `--encoder random:ARCH` with seed 0 stays an encoder of its own.
RANDOM_SEEDS = (1001, 1002, 1003)
_RANDOM = re.compile(rf"random-[0-9a-f]{{8}}-({'|'.join(map(str, RANDOM_SEEDS))})")


def is_floor(encoder: str) -> bool:
    """Whether a store's encoder name is a floor's."""
    return encoder in STATISTIC_FLOORS or _RANDOM.fullmatch(encoder) is not None
