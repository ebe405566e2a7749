"""Leaks between parts: patients, slides and tiles that stand where they let a figure flatter itself.

What leaks do is measured in the reference: with slide labels alone, search that may answer from the query's own slide
makes .95 out of no signal at all.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate.items import is_missing
from histokin.evaluate.splits.duplicates import COSINE, HAMMING, MOST_PAIRS, near_duplicates, part_codes
from histokin.evaluate.splits.table import SplitItems, coded, listed, shared_pictures, stands_in_two

Kind = Literal["patient", "slide", "picture", "group", "name", "identical", "near", "pretraining"]

_TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Finding:
    """All leaks of one kind.

    Attributes:
        kind: patient, slide, picture (of several slides) or group (in two parts); name (a patient's id read from the
            slide's name is not the one given); identical (tiles of the same pixels in two parts); near (near duplicates
            in two parts); pretraining (the encoder has seen the cohort).
        sentence: for people.
        rows: (M,) int64 offending items.
        groups: (M,) int64 0..G-1: rows of one group belong together; a near duplicate is a group of two.
        names: of the groups: patients, slides, pictures, ids, digests, cohorts; () for near duplicates.
        n_apart: groups that stand in two parts of a fold; the others are faults of the table or of the encoder.
    """

    kind: Kind
    sentence: str
    rows: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    n_apart: int

    @property
    def n_groups(self) -> int:
        """How many patients, slides, tiles or pairs."""
        return int(self.groups.max(initial=-1)) + 1


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What was looked for and what was found.

    Attributes:
        findings: at most one of each kind; none of clean data.
        skipped: by kind, why it was not looked for, or not to the end.
        n_items: looked at.
    """

    findings: tuple[Finding, ...]
    skipped: dict[str, str]
    n_items: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def is_transductive(self) -> bool:
        """Whether the encoder's pretraining has seen the cohort."""
        return self.finding("pretraining") is not None

    def finding(self, kind: Kind) -> Finding | None:
        """That of a kind, None if there is none.

        Raises:
            ValueError: unknown kind.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        return next((found for found in self.findings if found.kind == kind), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return plain(self)


def find_leaks(
    items: SplitItems,
    parts: np.ndarray,
    *,
    digests: Sequence[str | bytes | None] | None = None,
    hashes: np.ndarray | None = None,
    features: np.ndarray | None = None,
    has_tissue: np.ndarray | None = None,
    cohorts: Sequence[str] = (),
    pretraining: Sequence[str] = (),
    max_pairs: int = MOST_PAIRS,
) -> LeakReport:
    """Look for every kind of leak between the parts of a split.

    Args:
        items: N slides or tiles.
        parts: (N,) part or fold number of each, or (N, J) of J folds, as whole numbers with -1 where an item takes no
            part (`SplitTable.part_codes`: of the items, or of the tiles' slides where slides were divided), or (N,)
            texts with "" there.
        digests: (N,) SHA-256 of each tile's pixels; without them identical tiles are not looked for.
        hashes: (N,) uint64 of `dhash`, and
        features: (N, d) vectors of the tiles; without both near duplicates are not looked for.
        has_tissue: (N,) bool; tiles of little tissue are left out of both searches, since empty glass is alike
            everywhere. All are searched if None.
        cohorts: what the data are called, such as TCGA-BRCA; slides with names of TCGA add it by themselves.
        pretraining: names, or a text with names, of what the encoder was trained on (its card's `trained_on`).
        max_pairs: near-duplicate pairs reported at most; the finding says "or more" where the search ended early, and
            `skipped` says so where none was found by then.

    Returns:
        `LeakReport`.

    Raises:
        EvaluationError: vectors that are zero or not finite among the candidates.
        ValueError: columns differ in length.
    """
    codes = part_codes(parts)
    aligned = {"parts": codes, "digests": digests, "hashes": hashes, "features": features, "has_tissue": has_tissue}
    for name, column in aligned.items():
        if column is not None and len(column) != len(items):
            raise ValueError(f"{name} has {len(column)} rows for {len(items)} items")
    searched = np.ones(len(items), dtype=bool) if has_tissue is None else np.asarray(has_tissue, dtype=bool)
    found = [_in_two_parts(items, codes, "patient"), _in_two_parts(items, codes, "slide")]
    found.append(_pictured_in_two_parts(items, codes))
    if (items.group != items.patient).any():
        found.append(_in_two_parts(items, codes, "group"))
    found.append(_misnamed(items, codes))
    skipped = {}
    if digests is None:
        skipped["identical"] = "no digests of the tiles' pixels were given"
    else:
        found.append(_identical(digests, codes, searched))
    if hashes is None or features is None:
        skipped["near"] = "hashes and vectors of the tiles are both needed"
    else:
        searched_codes = np.where(searched[:, None], codes, -1)  # a tile in no part is apart from none
        pairs, is_cut = near_duplicates(hashes, features, searched_codes, max_pairs=max_pairs)
        found.append(_near(pairs, is_cut))
        if is_cut and not len(pairs):
            skipped["near"] = (
                "the search ended early: too many tiles have nearly one hash; leave out those of no tissue"
            )
    if pretraining:
        found.append(_seen(items, cohorts, pretraining))
    else:
        skipped["pretraining"] = "it is not known what the encoder was trained on"
    return LeakReport(tuple(finding for finding in found if finding is not None), skipped, len(items))


def refuse_leaks(report: LeakReport, items: SplitItems, *, allowed: Collection[Kind] = ()) -> None:
    """Stop where something stands in two parts, naming the first rows of every kind of leak.

    What no part divides is no reason to stop: patients with another id in their slides' names, and an encoder whose
    pretraining has seen the cohort, which is to be said beside every figure. Nothing is known of what the report has
    `skipped`.

    Args:
        report: of `find_leaks`.
        items: those it was made of.
        allowed: kinds that are let pass, such as slide, where patients of a tissue microarray are divided.

    Raises:
        EvaluationError: there are leaks.
        ValueError: the items are not those of the report, or an unknown kind is allowed.
    """
    if len(items) != report.n_items:
        raise ValueError(f"the report is of {report.n_items} items, got {len(items)}")
    for kind in allowed:
        report.finding(kind)
    leaks = [found for found in report.findings if found.n_apart and found.kind not in allowed]
    if leaks:
        said = [f"{found.sentence} ({_first_rows(found, items)})" for found in leaks]
        raise EvaluationError(
            "; ".join(said),
            "leak check",
            "Put what belongs together into one part, leave the rows out of the split, or allow this kind by name.",
        )


def _first_rows(found: Finding, items: SplitItems) -> str:
    """Group by group, so that a row stands beside what it repeats."""
    rows = found.rows[np.argsort(found.groups, kind="stable")]
    return listed([f"row {row}: {items.item[row]} of {items.slide[row]}" for row in rows.tolist()], 4)


def seen_cohorts(cohorts: Sequence[str], pretraining: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a cohort and a word of the pretraining's description that may mean the same slides.

    Names are compared by their runs of letters and of digits, in any case: one must begin with the whole other, so
    TCGA meets TCGA-BRCA in either role, and neither TCGA-LUAD meets TCGA-BRCA nor CAMELYON16 meets CAMELYON17.

    Args:
        cohorts: names of the data.
        pretraining: names, or texts with names.
    """
    words = [word for text in pretraining for word in re.split(r"[\s,;:+&/()]+", text) if re.search("[A-Za-z]", word)]
    found = []
    for cohort in cohorts:
        own = _runs(cohort)
        found += [(cohort, word) for word in words if own and _begins(own, _runs(word))]
    return list(dict.fromkeys(found))


def _runs(name: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]+", name.lower())


def _begins(first: list[str], second: list[str]) -> bool:
    n_shared = min(len(first), len(second))
    return first[:n_shared] == second[:n_shared]


def _in_two_parts(items: SplitItems, parts: np.ndarray, kind: Literal["patient", "slide", "group"]) -> Finding | None:
    names, codes = coded(getattr(items, kind))
    is_apart = stands_in_two(codes, parts)
    sentence = "{n} " + kind + "s stand in two parts: {names}"
    return _grouped(kind, sentence, names, codes, is_apart, is_apart)


def _pictured_in_two_parts(items: SplitItems, parts: np.ndarray) -> Finding | None:
    names, codes = shared_pictures(items)
    is_apart = stands_in_two(codes, parts)
    sentence = "{n} pictures of several slides stand in two parts: {names}"
    return _grouped("picture", sentence, names, codes, is_apart, is_apart)


def _misnamed(items: SplitItems, parts: np.ndarray) -> Finding | None:
    derived = [_tcga_patient(slide) or _tcga_patient(item) for slide, item in zip(items.slide, items.item, strict=True)]
    names, codes = coded(np.array(derived, dtype=object))
    differs = np.array([a not in ("", b.upper()) for a, b in zip(derived, items.patient, strict=True)])
    is_bad = np.zeros(len(names), dtype=bool)
    is_bad[codes[differs]] = True
    is_apart = stands_in_two(codes, parts)
    n_apart = int((is_bad & is_apart).sum())
    sentence = f"{{n}} patients named by their slides have another id in the table ({n_apart} in two parts): {{names}}"
    return _grouped("name", sentence, names, codes, is_bad, is_apart)


def _tcga_patient(name: str) -> str:
    """The first 12 characters of a TCGA barcode, "" of other names."""
    found = _TCGA.match(name.upper())
    return found.group() if found else ""


def _identical(digests: Sequence[str | bytes | None], parts: np.ndarray, searched: np.ndarray) -> Finding | None:
    texts = [value.hex() if isinstance(value, bytes) else "" if is_missing(value) else str(value) for value in digests]
    names, codes = coded(np.where(searched, np.array(texts, dtype=object), ""))
    is_apart = stands_in_two(codes, parts)
    return _grouped(
        "identical", "the pixels of {n} tiles stand in two parts: {names}", names, codes, is_apart, is_apart
    )


def _near(pairs: np.ndarray, is_cut: bool) -> Finding | None:
    if not len(pairs):
        return None
    counted = f"{len(pairs)} or more" if is_cut else str(len(pairs))
    sentence = f"{counted} pairs of near duplicates (hash within {HAMMING} bits, cosine >= {COSINE}) stand in two parts"
    groups = np.repeat(np.arange(len(pairs)), 2)
    return Finding("near", sentence, pairs.ravel(), groups, (), len(pairs))


def _seen(items: SplitItems, cohorts: Sequence[str], pretraining: Sequence[str]) -> Finding | None:
    is_tcga = np.array([bool(_tcga_patient(slide)) for slide in items.slide])
    found, rows = seen_cohorts(cohorts, pretraining), np.arange(len(items))
    if not found and not any(_runs(cohort)[:1] == ["tcga"] for cohort in cohorts):
        found, rows = seen_cohorts(["TCGA"], pretraining), np.flatnonzero(is_tcga)
    if not found or not len(rows):
        return None
    pairs = listed([f"{word} (data: {cohort})" for cohort, word in found])
    sentence = f"transductive: the encoder's pretraining may have seen these slides, since it names {pairs}"
    return Finding("pretraining", sentence, rows, np.zeros(len(rows), dtype=np.int64), (found[0][0],), 0)


def _grouped(
    kind: Kind, sentence: str, names: Sequence[str], codes: np.ndarray, is_bad: np.ndarray, is_apart: np.ndarray
) -> Finding | None:
    """The finding of bad groups among (N,) codes; `sentence` is filled with their number `n` and `names`."""
    rows = np.flatnonzero(codes >= 0)
    rows = rows[is_bad[codes[rows]]]
    if not len(rows):
        return None
    bad = np.flatnonzero(is_bad)
    own = tuple(names[i] for i in bad.tolist())
    text = sentence.format(n=len(bad), names=listed(own))
    return Finding(kind, text, rows, np.searchsorted(bad, codes[rows]), own, int((is_bad & is_apart).sum()))
