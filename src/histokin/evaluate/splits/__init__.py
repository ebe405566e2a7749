"""Splits: who learns, who chooses and who is judged, never one patient in two roles; and the search for leaks."""

from histokin.evaluate.splits.clam import (
    ClamSplit,
    clam_split_of,
    import_clam_splits,
    parse_clam_descriptor,
    parse_clam_split,
    render_clam_descriptor,
    render_clam_split,
)
from histokin.evaluate.splits.duplicates import dhash, near_duplicates
from histokin.evaluate.splits.files import splits_csv, splits_from_csv
from histokin.evaluate.splits.leaks import Finding, LeakReport, find_leaks, refuse_leaks
from histokin.evaluate.splits.making import (
    NestedSplit,
    inner_folds,
    leave_one_out,
    monte_carlo,
    nested,
    stratified_folds,
)
from histokin.evaluate.splits.sites import SiteFolds, preserved_site_folds, preserved_sites
from histokin.evaluate.splits.table import PARTS, SplitItems, SplitTable

__all__ = [
    "PARTS",
    "ClamSplit",
    "Finding",
    "LeakReport",
    "NestedSplit",
    "SiteFolds",
    "SplitItems",
    "SplitTable",
    "clam_split_of",
    "dhash",
    "find_leaks",
    "import_clam_splits",
    "inner_folds",
    "leave_one_out",
    "monte_carlo",
    "near_duplicates",
    "nested",
    "parse_clam_descriptor",
    "parse_clam_split",
    "preserved_site_folds",
    "preserved_sites",
    "refuse_leaks",
    "render_clam_descriptor",
    "render_clam_split",
    "splits_csv",
    "splits_from_csv",
    "stratified_folds",
]
