"""A writer that changes an index without end, and what the index holds after each of its steps."""

import itertools
import os
import shutil
import signal
from functools import partial
from pathlib import Path

from search.searcher_suite import MADE, entry

from histokin.search.index import add_slides, compact, delete_slides, retrain


def state_after(n_steps: int) -> dict:
    """The slides that are there after so many steps of `write`."""
    slides = {}
    for step in range(n_steps):
        verb, names = plan(step)
        if verb == "delete":
            slides = {name: slide for name, slide in slides.items() if name not in names}
        elif verb == "add":
            slides |= {name: entry(name, 40, f"p{name}", seed=step) for name in names}
    return slides


def plan(step: int) -> tuple[str, list[str]]:
    """What a step does: two slides come, one is replaced as another comes, one goes, then the index is tidied."""
    turn, kind = divmod(step, 5)
    first, last = f"s{turn % 9}a", f"s{turn % 9}b"
    return [
        ("add", [first, last]),
        ("add", [last, "steady"]),
        ("compact", []),
        ("delete", [first]),
        ("retrain" if turn % 6 == 5 else "compact", []),
    ][kind]


def write(folder: Path, progress: Path, step: int, last_touch: int) -> None:
    """Steps without end, killed as it touches the disk for the n-th time; steps done are the length of a file.

    Nothing is flushed: this is about the death of a process, not of the machine.
    """
    n_touches = itertools.count(1)

    def touch(call, *arguments, **named):
        if next(n_touches) == last_touch:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    os.fsync = partial(touch, lambda _: None)
    for name in ("replace", "unlink", "mkdir", "stat"):
        setattr(Path, name, partialmethod_of(getattr(Path, name), touch))
    shutil.rmtree = partial(touch, shutil.rmtree)
    while True:
        verb, names = plan(step)
        if verb == "add":
            add_slides(folder, MADE, [entry(name, 40, f"p{name}", seed=step) for name in names], segment_rows=50)
        elif verb == "delete":
            delete_slides(folder, names)
        elif verb == "retrain":
            retrain(folder)
        else:
            compact(folder, whole=True)
        step += 1
        with progress.open("ab", buffering=0) as file:
            file.write(b".")


def partialmethod_of(method, touch):
    """The method, counted."""
    return lambda self, *arguments, **named: touch(method, self, *arguments, **named)
