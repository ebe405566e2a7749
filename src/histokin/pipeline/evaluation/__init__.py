"""The evaluate stage: embeddings of any origin, the labels that there are, and every protocol that they allow."""

from histokin.pipeline.evaluation.spec import EvaluationSpec
from histokin.pipeline.evaluation.stage import Assessment, evaluate_embeddings, evaluate_workspace

__all__ = ["Assessment", "EvaluationSpec", "evaluate_embeddings", "evaluate_workspace"]
