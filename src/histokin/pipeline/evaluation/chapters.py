"""Chapters as files: written as plain JSON, and read back as what they were."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from histokin.report import Chapter


def read_chapter(path: Path) -> Chapter:
    """A chapter from its file; pictures are never in it."""
    return rebuilt(Chapter, json.loads(path.read_text(encoding="utf-8")))


def rebuilt(kind: Any, value: Any) -> Any:
    """A value of a type, dataclasses and containers of them, from plain data; what has no such type stays as it is."""
    if value is None:
        return math.nan if kind is float else None  # JSON has no NaN
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {field.name for field in fields(kind)}
        return kind(**{name: rebuilt(hints[name], part) for name, part in value.items() if name in known})
    origin, parts = get_origin(kind), get_args(kind)
    if origin is list:
        return [rebuilt(parts[0], part) for part in value]
    if origin in (dict, Mapping):
        return {key: rebuilt(parts[1], part) for key, part in value.items()}
    if origin is tuple:
        return tuple(rebuilt(part, one) for part, one in zip(parts, value, strict=True))
    if origin is UnionType:
        return rebuilt(next(part for part in parts if part is not type(None)), value)
    return value
