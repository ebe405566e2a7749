"""Named random streams: what is drawn depends on the seed and on names, never on the order of calls.

`stream(seed, "views", step, sample)` gives the same numbers on any worker, rank or restart.
"""

import hashlib

import numpy as np


def stream_key(seed: int, *names: str | int) -> int:
    """Fold a seed and names into one 128-bit key (SHA-256 of their text, so that order and type count)."""
    text = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for the thing named."""
    return np.random.Generator(np.random.PCG64(stream_key(seed, *names)))


def seed64(seed: int, *names: str | int) -> int:
    """A 63-bit seed for generators that take one integer, such as torch's."""
    return stream_key(seed, *names) & (2**63 - 1)
