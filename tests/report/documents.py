"""Report documents for the tests: a full one with everything in it, and hostile texts."""

import io

import numpy as np
from PIL import Image

from histokin.report import (
    CohortSection,
    EvaluationSection,
    Example,
    MapSection,
    Measure,
    MetricRow,
    MetricTable,
    Picture,
    ReportDocument,
    SearchSection,
    SlideCard,
    TrainingSection,
    Value,
)


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def cohort(n: int = 5, **changes) -> CohortSection:
    slides = [
        SlideCard(f"slide-{i}", f"P{i // 2}", "ok", "", {"tissue": "tumour"}, 0.25, 4000, 3000, 12.5, 10, jpeg(i))
        for i in range(n - 2)
    ]
    slides.append(SlideCard("grey", "P9", "no_mpp", "the file states no pixel size"))
    slides.append(SlideCard("torn", "P9", "unreadable", "the first tile is cut off"))
    given = {"n_slides": n, "n_usable": n - 2, "n_patients": 3, "n_tiles": 1234, "slides": slides} | changes
    return CohortSection(kind="slides", tile="256 px at 1.0 µm/px", **given)


def training(**changes) -> TrainingSection:
    given = {
        "recipe": {"loss": {"temperature": 0.2}, "method": "simclr"},
        "curve": [{"step": s, "loss": 5 - s / 100, "lr": 0.1} for s in range(0, 300, 10)],
        "monitors": [
            {"step": s, "feature_std": 0.04, "rank": 200.0, "alignment": 0.5, "uniformity": -3.0} for s in (0, 100, 200)
        ],
        "verdict": "The encoder did not collapse.",
        "is_collapsed": False,
    } | changes
    return TrainingSection("SimCLR", "resnet18", 7, 300, 64, 125.0, embed_dim=512, **given)


def table(**changes) -> MetricTable:
    given = {
        "rows": [
            MetricRow(
                "ours", "encoder", {"mmv_at_5": Value(0.8123456, 0.75, 0.87), "acc_at_1": Value(0.77, 0.7, 0.83)}
            ),
            MetricRow("colour", "floor", {"mmv_at_5": Value(0.6021, 0.54, 0.66)}, Value(0.21, 0.14, 0.28), 0.0002),
            MetricRow("histogram", "floor", {"mmv_at_5": Value(0.6612, 0.6, 0.72)}, Value(0.151, 0.09, 0.21), 0.012),
        ],
        "per_class": [MetricRow("tumour", "class", {"mmv_at_5": Value(0.9, 0.8, 0.95)})],
        "title": "Tile retrieval, leave one patient out",
    } | changes
    return MetricTable(
        protocol="Tiles of other patients answer; ties go to the nearest.",
        level="tile",
        n_queries=2000,
        n_patients=18,
        prevalence={"tumour": 0.7, "stroma": 0.3},
        chance={"mmv_at_5": 0.58},
        **given,
    )


def evaluation() -> EvaluationSection:
    return EvaluationSection(
        [table()], [Measure("effective rank", 168.2, "dimensions in use")], ["Shuffled labels fall to chance: 0.57."]
    )


def search() -> SearchSection:
    def picture(seed, label, score=None, is_right=None):
        return Picture(jpeg(seed), f"slide-{seed}", f"P{seed}", label, score, is_right, "x 1, y 2")

    hits = [picture(1, "tumour", 0.97, is_right=True), picture(2, "stroma", 0.91, is_right=False)]
    return SearchSection([Example("tile", picture(0, "tumour"), hits)])


def embedding_map(n: int = 40) -> MapSection:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, n)).tolist()
    classes = [("tumour", "stroma", "")[i % 3] for i in range(n)]
    return MapSection("PCA", x, y, classes, [f"slide-{i % 5}" for i in range(n)], [f"P{i % 3}" for i in range(n)])


def full(**changes) -> ReportDocument:
    given = {
        "title": "Colon",
        "subtitle": "a test",
        "command": "histokin run slides --out work",
        "created_with": {"histokin": "0.1.0", "numpy": "2.0"},
        "cohort": cohort(),
        "training": training(),
        "evaluation": evaluation(),
        "search": search(),
        "embedding_map": embedding_map(),
        "notes": ["A short run."],
        "digests": {"encoder": "ab12"},
    } | changes
    return ReportDocument(**given)


def hostile(text: str) -> ReportDocument:
    """A document in which every text that data can bring is `text`."""
    slide = SlideCard(text, text, text, text, {text: text}, thumbnail=jpeg())
    picture = Picture(jpeg(), text, text, text, 0.5, is_right=True, caption=text)
    value = Value(None, note=text)
    rows = [MetricRow(text, "encoder", {text: Value(0.5)}), MetricRow(text, "floor", {text: value}, value)]
    return ReportDocument(
        title=text,
        subtitle=text,
        command=text,
        created_with={text: text},
        cohort=CohortSection("tiles", 1, 0, 1, 0, text, [slide]),
        training=TrainingSection(
            text, text, 0, 1, 1, None, {text: {text: [text]}}, [{"step": 1, "loss": 1.0}], [], 8, text
        ),
        evaluation=EvaluationSection(
            [
                MetricTable(
                    text, text, text, 1, 1, {text: 1.0}, {text: 0.1}, rows, [MetricRow(text, "class", {text: value})]
                )
            ],
            [Measure(text, None, text)],
            [text],
            text,
        ),
        search=SearchSection([Example("slide", picture, [picture])], text),
        embedding_map=MapSection("UMAP", [0.0], [0.0], [text], [text], [text], [jpeg()], text),
        notes=[text],
        digests={text: text},
    )
