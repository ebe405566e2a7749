import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from report import evaluations

from histokin.report import PartLine, Quantity, Value, evaluation_tables


@pytest.fixture(scope="module")
def tables():
    return evaluation_tables(evaluations.full())


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def number(cell):
    return float(cell) if cell else None


def read(line):
    return Value(number(line["value"]), number(line["low"]), number(line["high"]), line["note"])


def test_every_figure_comes_back_to_the_last_digit_with_its_place(tables):
    expected = [
        (
            c.protocol,
            c.level,
            c.column,
            m.name,
            r.name,
            r.kind,
            metric,
            value,
            m.chance.get(metric),
            c.counts["patients"],
        )
        for c in evaluations.full().chapters
        for m in c.measures
        for r in m.rows
        for metric, value in r.values.items()
    ]
    names = ("protocol", "level", "column", "measure", "row", "kind", "metric")
    found = [
        (*(line[name] for name in names), read(line), number(line["chance"]), int(line["n_patients"]))
        for line in lines(tables["figures.csv"])
    ]
    assert found == expected


def test_every_difference_comes_back_with_its_p(tables):
    expected = [
        (c.protocol, c.level, c.column, m.name, metric, r.name, other, value)
        for c in evaluations.full().chapters
        for m in c.measures
        for r in m.rows
        for metric, others in r.minus.items()
        for other, value in others.items()
    ]
    names = ("protocol", "level", "column", "measure", "metric", "row", "other")
    found = [
        (*(line[name] for name in names), replace(read(line), p=number(line["p"])))
        for line in lines(tables["differences.csv"])
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("file", "part", "field"), [("per_class.csv", "class", "per_class"), ("per_group.csv", "group", "per_group")]
)
def test_every_class_and_group_comes_back(tables, file, part, field):
    expected = [line for chapter in evaluations.full().chapters for line in getattr(chapter, field)]
    found = [
        PartLine(
            line["row"],
            line[part],
            line["metric"],
            read(line),
            int(line["n"]),
            int(line["n_patients"]) if line["n_patients"] else None,
            number(line["chance"]),
        )
        for line in lines(tables[file])
    ]
    assert expected
    assert found == expected


def test_every_quantity_comes_back(tables):
    expected = [
        (q.name, row, v, q.meaning)
        for c in evaluations.full().chapters
        for q in c.quantities
        for row, v in q.values.items()
    ]
    found = [
        (line["quantity"], line["row"], number(line["value"]), line["meaning"])
        for line in lines(tables["quantities.csv"])
    ]
    assert found == expected


def test_odd_names_survive_and_numpy_numbers_are_plain():
    name = 'a "b", c\nd;=1'
    chapter = evaluations.probe_chapter(quantities=[Quantity(name, "", {name: np.float64(0.1), "n": 5000})])
    text = evaluation_tables(evaluations.full(chapters=[chapter]))["quantities.csv"]
    assert [(line["quantity"], line["row"], line["value"]) for line in lines(text)] == [
        (name, name, "0.1"),
        (name, "n", "5000"),
    ]


def test_without_queries_counted_the_items_are_those_that_were_asked():
    chapter = evaluations.probe_chapter(counts={"tiles": 9})
    (first, *_) = lines(evaluation_tables(evaluations.full(chapters=[chapter]))["figures.csv"])
    assert (first["n_queries"], first["n_patients"]) == ("9", "")


def test_a_document_without_chapters_gives_headers_alone(tables):
    empty = evaluation_tables(evaluations.full(chapters=[]))
    assert list(empty) == list(tables)
    assert all(text.count("\n") == 1 for text in empty.values())
    assert [text.splitlines()[0] for text in empty.values()] == [text.splitlines()[0] for text in tables.values()]
