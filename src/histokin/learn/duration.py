"""Durations as people write them: `90s`, `5m`, `1h30m`."""

import re

_FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str | float) -> float:
    """Seconds of `5m`, `90s`, `1h`, `1h30m`; a bare number is seconds.

    Raises:
        ValueError: none of these, or nothing at all.
    """
    match = _FORM.fullmatch(str(text).strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total > 0:
        raise ValueError(f"'{text}' is no duration; write 90s, 5m or 1h30m")
    return total
