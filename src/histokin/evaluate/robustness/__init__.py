"""Whether embeddings follow the tissue or the centre that prepared it: robustness index and clustering score.

Both as PathoROB (arXiv 2507.17845) defines them, but for the patient, who is left out and resampled here. They need
every class from several centres; what follows from the make-up of a cohort alone is printed beside them.
"""

from histokin.evaluate.robustness.clustering import (
    CLUSTERS,
    MAX_CLUSTERED,
    N_RUNS,
    Clustering,
    agreement,
    clustering_score,
)
from histokin.evaluate.robustness.comparison import RobustnessComparison, compare_robustness
from histokin.evaluate.robustness.index import ASSOCIATED, K_GRID, ChosenK, Robustness, choose_k, robustness_index

__all__ = [
    "ASSOCIATED",
    "CLUSTERS",
    "K_GRID",
    "MAX_CLUSTERED",
    "N_RUNS",
    "ChosenK",
    "Clustering",
    "Robustness",
    "RobustnessComparison",
    "agreement",
    "choose_k",
    "clustering_score",
    "compare_robustness",
    "robustness_index",
]
