"""The registry of protocols: names on the command line, in the order of the page."""

from histokin.pipeline.evaluation.protocols.describing import distance_ratio, quality, robustness
from histokin.pipeline.evaluation.protocols.fitting import MOST_FITTED, few_shots, kather, knn, linear, ridge, svm
from histokin.pipeline.evaluation.protocols.leaks import leaks
from histokin.pipeline.evaluation.protocols.protocol import Protocol
from histokin.pipeline.evaluation.protocols.searching import class_retrieval, retrieval, slide_retrieval

PROTOCOLS: dict[str, Protocol] = {
    one.name: one
    for one in (
        Protocol(
            "retrieval",
            "classification through search",
            "Do the tiles most like a tile, among those of other patients, carry its label?",
            "How well an expert would be served: labels are coarser than what a pathologist compares.",
            "classes",
            ("tile",),
            retrieval,
        ),
        Protocol(
            "slides",
            "classification through search",
            "Do the slides most like a slide, among those of other patients, carry its label?",
            "Whether the tissue that decided is the tissue that matters: a slide may be found for its background.",
            "classes",
            ("slide",),
            slide_retrieval,
        ),
        Protocol(
            "class-retrieval",
            "one class across slides",
            "How often is the nearest tile of another patient of the query's class, against the share of that class?",
            "How complete a search would be: only the first answer counts.",
            "classes",
            ("tile",),
            class_retrieval,
        ),
        Protocol(
            "linear",
            "linear probe",
            "How much of the label can a straight cut through frozen vectors tell, in patients it has not met?",
            "What fine-tuning would reach; and a site that goes with the class counts as signal.",
            "classes",
            ("tile", "slide"),
            linear,
            most_rows=MOST_FITTED,
        ),
        Protocol(
            "knn",
            "nearest-neighbour probe",
            "Do weighted neighbours among the training patients tell the label?",
            "What a fitted classifier would reach: no direction is weighed more than another.",
            "classes",
            ("tile", "slide"),
            knn,
            most_rows=MOST_FITTED,
        ),
        Protocol(
            "svm",
            "support vector machines",
            "Does a margin, straight or curved, tell the label in patients it has not met?",
            "Certainty: margins are no probabilities, so there is no calibration.",
            "classes",
            ("tile", "slide"),
            svm,
            most_rows=MOST_FITTED,
        ),
        Protocol(
            "ridge",
            "ridge regression",
            "How much of a number can be read off frozen vectors in patients, or slides, they have not met?",
            "Cause: a number that goes with the stain is read off the stain.",
            "numbers",
            ("tile", "slide"),
            ridge,
            most_rows=MOST_FITTED,
        ),
        Protocol(
            "few-shot",
            "few-shot classification",
            "What do a handful of labelled examples a class teach?",
            "What a user's own examples teach: these are drawn, not chosen.",
            "classes",
            ("tile", "slide"),
            few_shots,
            most_rows=MOST_FITTED,
        ),
        Protocol(
            "distance-ratio",
            "distance in tissue",
            "Are tiles that lie near each other more alike than tiles far apart on the same slide?",
            "Meaning: stain gradients and the slide's regions raise it too, so it chooses no model.",
            "places",
            ("tile",),
            distance_ratio,
        ),
        Protocol(
            "label-free",
            "quality without labels",
            "Are the vectors spread out, and whose tiles are neighbours?",
            "Use: a full spectrum may be full of noise.",
            "vectors",
            ("tile",),
            quality,
        ),
        Protocol(
            "robustness",
            "class against centre",
            "Do neighbours share the tissue class, or the site that prepared the slide?",
            "Anything where classes and sites go together: then compare with the null value only.",
            "classes",
            ("tile",),
            robustness,
        ),
        Protocol(
            "leaks",
            "leaks between patients",
            "Does anything stand on both sides of the figures?",
            "Leaks that leave no trace in names, pixels or vectors.",
            "vectors",
            ("tile",),
            leaks,
        ),
        Protocol(
            "kather2016",
            "the protocol of Kather-2016",
            "What do the published tile-random folds report, and what is left when whole sources are held out?",
            "New patients: who the ten sources belong to is not documented.",
            "classes",
            ("tile",),
            kather,
            most_rows=MOST_FITTED,
            is_in_all=False,
        ),
    )
}

__all__ = ["PROTOCOLS", "Protocol"]
