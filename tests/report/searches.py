"""Search documents for the tests, drawn from generated tissue: a region, a tile, a slide, a picture, hostile texts."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import simplejpeg
from report.documents import jpeg

from histokin.report import SlideCard
from histokin.report.search.document import (
    Agreement,
    Answer,
    Cutout,
    LeftOut,
    NoveltyTest,
    Pair,
    Query,
    SearchDocument,
    Searched,
)
from histokin.search.region import Box
from histokin.slides.generated import GeneratedSlideSpec, render_slide

MPP, TILE = 1.0, 112
WIDTH, HEIGHT = 1024, 768
EDGE = 1000  # white round a slide
SLIDES = {f"S{number}": f"P{number}" for number in range(1, 7)}


def pixels(slide):
    return _drawn((int(slide[1:]) - 1) % 3)  # three pictures are enough for six slides


@cache
def _drawn(number):
    spec = GeneratedSlideSpec(seed=11, width=WIDTH, height=HEIGHT, mpp=MPP, patient=number, scanner=number)
    return render_slide(spec).rgb


def cut(slide, box, px=224):
    """A JPEG of a place; beyond the slide's edge there is white."""
    wide = cv2.copyMakeBorder(pixels(slide), *[EDGE] * 4, cv2.BORDER_CONSTANT, value=(244, 243, 245))
    y, x = box.y + EDGE, box.x + EDGE
    part = wide[y : y + box.h, x : x + box.w]
    size = (px, max(1, round(px * box.h / box.w)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC if px > box.w else cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=85, colorspace="RGB")


def around(box, times=4):
    w, h = box.w * times, box.h * times
    return Box(box.x - (w - box.w) // 2, box.y - (h - box.h) // 2, w, h)


def cutout(slide, box, px=224):
    return Cutout(box, cut(slide, box, px))


@cache
def cards():
    whole = Box(0, 0, WIDTH, HEIGHT)
    return {
        slide: SlideCard(slide, patient, "ok", mpp=MPP, width=WIDTH, height=HEIGHT, thumbnail=cut(slide, whole, 512))
        for slide, patient in SLIDES.items()
    }


def tiles_of(slide, seed, n):
    rng = np.random.default_rng(seed)
    at = rng.integers([80, 60], [WIDTH - 80 - TILE, HEIGHT - 60 - TILE], (n, 2)).tolist()
    return [cutout(slide, Box(x, y, TILE, TILE)) for x, y in at]


def labels(label, site, scanner="A"):
    return {"diagnosis": label, "site": site, "scanner": scanner}


def pairs(asked, slide, seed, shares):
    met = tiles_of(slide, seed, len(shares))
    return [
        Pair(query, tile, 0.93 - 0.05 * rank, share)
        for rank, (query, tile, share) in enumerate(zip(asked, met, shares, strict=False))
    ]


def answer(rank, slide, label, box, **changes):
    given = {
        "score": 0.95 - 0.0317 * rank,
        "patient": SLIDES[slide],
        "labels": labels(label, "ABABCC"[int(slide[1]) - 1]),
        "box": box,
        "percentile": 99.97 - 0.5 * rank,
        "p": 0.512,
        "image": cut(slide, box),
        "context": cutout(slide, around(box)),
    }
    return Answer(rank, slide=slide, **(given | changes))


def searched(**changes):
    given = {
        "n_tiles": 41_238,
        "n_slides": 96,
        "n_patients": 80,
        "n_sites": 4,
        "encoder": "simclr-resnet18",
        "fingerprint": "ab12cd34",
        "mpp": MPP,
        "tile_px": TILE,
        "how": "index",
        "nprobe": 64,
        "recall": 0.971,
        "keep": {"organ": ["colon", "rectum"]},
        "left_out": [LeftOut("patient P1, whose the query is", 3, 1240)],
        "version": "ef56",
    }
    return Searched(**(given | changes))


def _document(query, level, answers, **changes):
    given = {
        "title": "Search in colon",
        "command": "histokin search work --slide S1 --box 256,192,448,336",
        "query": query,
        "searched": searched(),
        "level": level,
        "answers": answers,
        "slides": cards(),
        "by_patient": [Agreement.of(answers, "diagnosis"), Agreement.of(answers, "site")],
        "test": NoveltyTest(0.05, 80, answers[0].score if answers else None, 0.61, 0.512),
        "warnings": ["Site C is outside what the threshold was calibrated on."],
        "notes": ["Two slides of the archive state no pixel size and were not searched."],
        "created_with": {"histokin": "0.1.0"},
    }
    return SearchDocument(**(given | changes))


@cache
def region():
    box = Box(280, 190, 4 * TILE, 3 * TILE)
    grid = [Box(box.x + TILE * (i % 4), box.y + TILE * (i // 4), TILE, TILE) for i in range(12)]
    asked = [Cutout(place, cut("S1", place)) for place in grid]
    faint = [Cutout(place) for place in grid[4:]]
    answers = []
    found = [
        *[("S2", "carcinoma"), ("S3", "carcinoma"), ("S2", "carcinoma"), ("S6", "inflammation"), ("S5", "carcinoma")],
        *[("S4", ""), ("S3", "mucinous carcinoma")],
    ]
    for rank, (slide, label) in enumerate(found, start=1):
        x, y = 60 + 130 * rank % 450, 40 + 170 * rank % 340
        place = Box(x, y, box.w, box.h)
        first = pairs(asked[rank % 3 :], slide, rank, [0.31, 0.22, 0.14, 0.08])
        more = [Pair(query, Cutout(place), 0.4, 0.02) for query in faint[:5]]
        answers.append(answer(rank, slide, label, place, evidence=first + more, image=cut(slide, place, 320)))
    query = Query("region", "S1, x 280, y 190", 12, 12, "S1", "P1", box, MPP, {"site": "A"}, cut("S1", box, 640))
    return _document(replace(query, context=cutout("S1", around(box, 2), 320)), "region", answers)


@cache
def tile():
    (asked,) = tiles_of("S1", 5, 1)
    places = [(slide, tiles_of(slide, seed, 1)[0].box) for seed, slide in enumerate(["S2", "S2", "S3", "S3", "S2"])]
    names = ["carcinoma", "inflammation", "inflammation", "carcinoma", "carcinoma"]
    answers = [answer(i, slide, name, box) for i, ((slide, box), name) in enumerate(zip(places, names, strict=True), 1)]
    query = Query("tile", "tile 17 of S1", slide="S1", patient="P1", box=asked.box, mpp=MPP, image=asked.image)
    return _document(
        replace(query, context=cutout("S1", around(asked.box))),
        "tile",
        answers,
        test=NoveltyTest(0.05, 80, 0.41, 0.655, 0.0123),
        searched=searched(how="exact", nprobe=None, recall=None, left_out=[], keep={}),
    )


@cache
def slide():
    asked = tiles_of("S1", 6, 4)
    answers = [
        Answer(
            rank,
            0.9 - 0.1 * rank,
            name,
            SLIDES[name],
            labels(label, "A"),
            evidence=pairs(asked, name, rank, [0.4, 0.3]),
        )
        for rank, (name, label) in enumerate([("S2", "carcinoma"), ("S3", "inflammation")], start=1)
    ]
    query = Query("slide", "S1", 812, 64, "S1", "P1", mpp=MPP)
    return _document(query, "slide", answers, test=NoveltyTest(0.05, 12, 0.8), searched=searched(strategy="maxsim"))


@cache
def picture():
    """A picture from outside, of unknown scale, to which nothing was allowed to answer."""
    query = Query("picture", "photo.jpg", box=Box(0, 0, 300, 200), image=cut("S1", Box(100, 100, 300, 200)))
    return _document(query, "tile", [], by_patient=[], test=None, warnings=[], notes=[], slides={})


def all_kinds():
    return [region(), tile(), slide(), picture()]


def hostile(text):
    """A document in which every text that data can bring is `text`."""
    box, image = Box(1, 2, 30, 40), jpeg()
    place = Cutout(box, image)
    answers = [
        Answer(1, 0.5, text, text, {text: text}, box, 50.0, 0.5, image, place, [Pair(place, place, 0.5, 0.5)]),
        Answer(2, 0.4, f"{text}2", "", {text: ""}),
    ]
    return SearchDocument(
        text,
        text,
        Query("region", text, 2, 1, text, text, box, 0.5, {text: text, "site": text}, image, place),
        replace(
            searched(),
            encoder=text,
            fingerprint=text,
            strategy=text,
            keep={text: [text]},
            left_out=[LeftOut(text, 1, 1)],
        ),
        "region",
        answers,
        {text: SlideCard(text, text, text, text, {text: text}, 0.5, 100, 80, thumbnail=image)},
        [Agreement.of(answers, text)],
        NoveltyTest(0.05, 40, 0.5, 0.6, 0.02, text),
        [text],
        [text],
        {text: text},
    )
