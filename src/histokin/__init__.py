"""histokin: from a folder of whole-slide images to an encoder, a tissue search and honest figures.

The dozen names of the public surface, loaded when they are first used: `import histokin` loads neither torch nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histokin.cohort import Cohort as Cohort
    from histokin.cohort import take_inventory as take_inventory
    from histokin.embeddings import EmbeddingStore as EmbeddingStore
    from histokin.encoders import load_encoder as load_encoder
    from histokin.evaluate import evaluate_retrieval as evaluate_retrieval
    from histokin.learn import pretrain as pretrain
    from histokin.pipeline.comparison.plan import ComparisonPlan as ComparisonPlan
    from histokin.pipeline.comparison.running import compare as compare
    from histokin.pipeline.demo import demo as demo
    from histokin.pipeline.evaluation import EvaluationSpec as EvaluationSpec
    from histokin.pipeline.evaluation import evaluate_embeddings as evaluate_embeddings
    from histokin.pipeline.run import RunSpec as RunSpec
    from histokin.pipeline.run import run as run
    from histokin.pipeline.searching import Question as Question
    from histokin.pipeline.searching import Wish as Wish
    from histokin.pipeline.searching import search_archive as search_archive
    from histokin.search.index import Index as Index
    from histokin.slides import open_slide as open_slide
    from histokin.tiles import TileSpec as TileSpec
    from histokin.tiles import TileTable as TileTable
    from histokin.workspace import Workspace as Workspace

_HOMES = {
    "Cohort": "histokin.cohort",
    "ComparisonPlan": "histokin.pipeline.comparison.plan",
    "EmbeddingStore": "histokin.embeddings",
    "EvaluationSpec": "histokin.pipeline.evaluation",
    "Index": "histokin.search.index",
    "Question": "histokin.pipeline.searching",
    "RunSpec": "histokin.pipeline.run",
    "TileSpec": "histokin.tiles",
    "TileTable": "histokin.tiles",
    "Wish": "histokin.pipeline.searching",
    "Workspace": "histokin.workspace",
    "compare": "histokin.pipeline.comparison.running",
    "demo": "histokin.pipeline.demo",
    "evaluate_embeddings": "histokin.pipeline.evaluation",
    "evaluate_retrieval": "histokin.evaluate",
    "load_encoder": "histokin.encoders",
    "open_slide": "histokin.slides",
    "pretrain": "histokin.learn",
    "run": "histokin.pipeline.run",
    "search_archive": "histokin.pipeline.searching",
    "take_inventory": "histokin.cohort",
}

__all__ = [
    "Cohort",
    "ComparisonPlan",
    "EmbeddingStore",
    "EvaluationSpec",
    "Index",
    "Question",
    "RunSpec",
    "TileSpec",
    "TileTable",
    "Wish",
    "Workspace",
    "compare",
    "demo",
    "evaluate_embeddings",
    "evaluate_retrieval",
    "load_encoder",
    "open_slide",
    "pretrain",
    "run",
    "search_archive",
    "take_inventory",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("histokin")
    if name not in _HOMES:
        raise AttributeError(f"histokin has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
