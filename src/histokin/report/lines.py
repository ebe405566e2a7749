"""Text for terminals: sentences wrapped, and cells cut or filled to a width in columns."""

import textwrap
import unicodedata
from collections.abc import Iterable

WIDTH = 110


def wrapped(sentences: Iterable[str], mark: str = "") -> list[str]:
    """Lines of at most `WIDTH` columns; each sentence begins with the mark, what follows is indented as far."""
    indent = " " * len(mark)
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(" ".join(sentence.split()), WIDTH, initial_indent=mark, subsequent_indent=indent)
    ]


def columns_of(text: str) -> int:
    """Columns of a terminal: East Asian characters take two, combining ones none."""
    return sum(_width(character) for character in text)


def cut(text: str, width: int) -> str:
    """Text of at most so many columns, with a mark where something is missing; inner spaces are made single."""
    text = text[: len(text) - len(text.lstrip(" "))] + " ".join(text.split())
    if columns_of(text) <= width:
        return text
    kept, taken = "", 0
    for character in text:
        if taken + _width(character) >= width:
            break
        kept, taken = kept + character, taken + _width(character)
    return f"{kept}…"


def fitted(text: str, width: int) -> str:
    """Text cut or filled to a width, one column at least left free."""
    text = cut(text, width - 1)
    return text + " " * (width - columns_of(text))


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
