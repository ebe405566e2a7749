"""The page's colours in both themes, and the categorical palette for classes, slides and patients.

The twelve categorical colours come as pairs, one for light and one for dark, of the same hue. They were searched for
the largest smallest distance (OKLab) under normal sight and simulated protanopia, deuteranopia and tritanopia, with a
contrast of at least 3:1 on the panel they are drawn on; `tests/report/test_palette.py` computes both again.
"""

from collections.abc import Iterable, Sequence

from histokin.report.wording import UNLABELLED

CATEGORICAL: tuple[tuple[str, str], ...] = (  # (light, dark)
    ("#5a69ff", "#6987ff"),  # blue
    ("#e85000", "#ff691e"),  # orange
    ("#1b9845", "#87f0b4"),  # green
    ("#a2006c", "#ff78c3"),  # pink
    ("#0069a5", "#4bb4ff"),  # sky
    ("#4b00a5", "#9d45d8"),  # violet
    ("#875100", "#ffc300"),  # gold
    ("#245148", "#5affff"),  # teal
    ("#980030", "#dc2e12"),  # red
    ("#87635a", "#c38778"),  # brown
    ("#484008", "#96c378"),  # olive
    ("#510951", "#9669c3"),  # plum
)
NEUTRAL = ("#827c8e", "#7d778f")  # points without a class, and what is not one of several
NEUTRAL_SLOT = (len(CATEGORICAL), 0)
N_SHAPES = 4

# name: (light, dark). Text colours reach 4.5:1 on `page` and `panel`, and each `*-text` on its `*-tint`.
THEME: dict[str, tuple[str, str]] = {
    "page": ("#f6f5f9", "#131118"),
    "panel": ("#ffffff", "#1d1b24"),
    "well": ("#efedf3", "#272430"),
    "line": ("#dcd8e4", "#373342"),
    "edge": ("#8a8496", "#777188"),
    "text": ("#1b1822", "#edebf3"),
    "muted": ("#5c5669", "#aca6bb"),
    "accent": ("#5636b8", "#b6a4ff"),
    "accent-tint": ("#efebfb", "#2b2545"),
    "eosin": ("#b3206b", "#ff93c2"),
    "good-text": ("#12693b", "#6bdb9f"),
    "good-tint": ("#e3f4ea", "#17352a"),
    "bad-text": ("#a6201a", "#ff9d94"),
    "bad-tint": ("#fce8e6", "#43201f"),
    "warn-text": ("#7a4d00", "#f3c566"),
    "warn-tint": ("#fdf1d7", "#3a2e15"),
}

Slot = tuple[int, int]


def slot(index: int) -> Slot:
    """(colour, shape) of the `index`-th name: the twelve colours, then the same twelve with the next shape."""
    return index % len(CATEGORICAL), index // len(CATEGORICAL) % N_SHAPES


def assign(names: Iterable[str]) -> dict[str, Slot]:
    """Give each name its slot, in sorted order, so that a name looks the same everywhere on a page.

    Names without meaning ("" and the word for it) are neutral and take no slot.
    """
    known = sorted(set(names) - {"", UNLABELLED})
    return {name: slot(index) for index, name in enumerate(known)} | {"": NEUTRAL_SLOT, UNLABELLED: NEUTRAL_SLOT}


def theme_css() -> str:
    """The variables of both themes: by the system's preference, and by the page's own switch."""
    light, dark = (_variables(THEME, CATEGORICAL, which) for which in (0, 1))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        # Paper is white whatever the screen was.
        f"@media print{{:root,:root[data-theme=dark],:root:not([data-theme=light])"
        f"{{color-scheme:light;{light}}}}}\n"
    ) + "".join(f".k{index}{{color:var(--k{index})}}\n" for index in range(len(CATEGORICAL) + 1))


def _variables(theme: dict[str, tuple[str, str]], colours: Sequence[tuple[str, str]], which: int) -> str:
    named = {f"--{name}": pair[which] for name, pair in theme.items()}
    numbered = {f"--k{index}": pair[which] for index, pair in enumerate([*colours, NEUTRAL])}
    return ";".join(f"{name}:{value}" for name, value in (named | numbered).items())


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours (WCAG 2), 1 to 21."""
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)
