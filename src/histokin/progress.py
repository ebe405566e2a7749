"""Progress for people: one live line a stage on stderr, a plain line each half minute without a terminal.

Rooms take a `Reporter` and know nothing of terminals; `silent` is the default everywhere.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

PLAIN_EVERY_S = 30.0
LIVE_EVERY_S = 0.1


class Task(Protocol):
    """What a stage calls while it works."""

    def advance(self, n: float = 1, note: str = "") -> None:
        """`n` more units are done; `note` replaces the free text at the end of the line."""
        ...


class Reporter(Protocol):
    """Opens the line of one stage; `total` in units, None if unknown."""

    def __call__(self, stage: str, total: float | None, unit: str) -> AbstractContextManager[Task]: ...


class _Nothing:
    def advance(self, n: float = 1, note: str = "") -> None:
        pass


@contextmanager
def silent(stage: str, total: float | None, unit: str) -> Iterator[Task]:  # noqa: ARG001 - the Reporter's signature
    """Report nothing."""
    yield _Nothing()


def format_seconds(seconds: float) -> str:
    """Time as people say it: 42s, 3m05s, 2h10m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@dataclass
class _Line:
    """One stage's line: done of total, rate, time left, note."""

    stage: str
    total: float | None
    unit: str
    out: TextIO
    clock: Callable[[], float]
    is_live: bool
    started: float = field(init=False)
    shown: float = field(init=False)
    done: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.shown = self.started if not self.is_live else -LIVE_EVERY_S

    def advance(self, n: float = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        if self.clock() - self.shown >= (LIVE_EVERY_S if self.is_live else PLAIN_EVERY_S):
            self.show()

    def text(self) -> str:
        spent = self.clock() - self.started
        rate = self.done / spent if spent > 0 else 0.0
        parts = [f"{self.done:.0f}" + (f"/{self.total:.0f}" if self.total else "") + f" {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g}/s")
            if self.total and self.done < self.total:
                parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        # notes are names of the user's files: no line feed or escape sequence of theirs may reach a terminal
        note = "".join(c if c.isprintable() else "?" for c in self.note)
        return f"{self.stage:<10} " + "  ".join([*parts, *([note] if note else [])])

    def show(self) -> None:
        self.shown = self.clock()
        if self.is_live:
            self.out.write("\r\x1b[2K" + self.text()[: shutil.get_terminal_size().columns - 1])
        else:
            self.out.write(self.text() + "\n")
        self.out.flush()

    def close(self) -> None:
        took = format_seconds(self.clock() - self.started)
        if self.is_live:
            self.out.write("\r\x1b[2K")
        self.out.write(f"{self.text()}  in {took}\n")
        self.out.flush()


def on_stderr(out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Reporter:
    """The reporter of the command line: live on a terminal, plain lines elsewhere."""
    target = out or sys.stderr

    @contextmanager
    def report(stage: str, total: float | None, unit: str) -> Iterator[Task]:
        line = _Line(stage, total, unit, target, clock, is_live=target.isatty())
        try:
            yield line
        finally:
            line.close()

    return report
