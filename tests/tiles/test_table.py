import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.errors import TableError
from histokin.tiles import TileTable
from histokin.tiles.table import SCHEMA, build_table

META = {"slide": "s", "mpp": 0.5}
WORDS = st.sampled_from(["", "a", "Ä/µ", "label", "x\ny"])


@given(st.lists(st.tuples(st.integers(-1, 2**40), st.integers(-1, 2**40), st.booleans(), WORDS, WORDS), max_size=6))
def test_a_table_comes_back_from_disk(tmp_path: Path, rows: list) -> None:
    x, y, keep, label, grade = ([row[i] for row in rows] for i in range(5))
    table = build_table({"x": x, "y": y, "keep": keep, "label": label, "label:grade": grade}, META)
    table.write(tmp_path / "t.parquet")
    back = TileTable.read(tmp_path / "t.parquet")
    assert back.meta == META
    assert back.columns.schema.names == table.columns.schema.names
    for name, expected in (("x", x), ("y", y), ("keep", keep), ("label", label), ("label:grade", grade)):
        assert back.numpy(name).tolist() == expected
    assert back.labels("grade").tolist() == grade
    assert back.kept.tolist() == [i for i, k in enumerate(keep) if k]


def test_what_is_not_given_means_nothing() -> None:
    table = build_table({"x": [5, 6], "y": [7, 8]}, META)
    assert table.numpy("tile_id").tolist() == [0, 1]
    assert table.numpy("keep").tolist() == [True, True]
    assert table.numpy("tissue").tolist() == [1.0, 1.0]
    assert table.numpy("w0").tolist() == [-1, -1]
    assert table.numpy("label").tolist() == ["", ""]
    assert table.labels("unknown").tolist() == ["", ""]
    assert table.label_columns == ()
    assert table.columns.schema.field("x").type == pa.int64()
    assert [f.type for f in table.columns.schema] == [f.type for f in SCHEMA]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("1", "2"):
        build_table({"x": np.arange(9), "y": np.arange(9), "label": list("abcabcabc")}, META).write(tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_large_table_has_row_groups_of_the_format(tmp_path: Path) -> None:
    n = 131_072 + 5
    build_table({"x": np.zeros(n, int), "y": np.zeros(n, int)}, META).write(tmp_path / "t")
    assert pq.ParquetFile(tmp_path / "t").num_row_groups == 2


def test_foreign_damaged_and_newer_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with pytest.raises(TableError, match="cannot be read"):
        TileTable.read(path)
    for data in (b"", b"text", b"PAR1xxxxPAR1"):
        path.write_bytes(data)
        with pytest.raises(TableError, match="cannot be read"):
            TileTable.read(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(TableError, match="no tile table"):
        TileTable.read(path)
    meta = json.dumps({"format": "tiles", "format_version": "2.0"})
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({"histokin": meta}), path)
    with pytest.raises(TableError, match="another format version"):
        TileTable.read(path)


def test_a_table_without_its_columns_cannot_be_built() -> None:
    with pytest.raises(TableError, match="columns are missing: tile_id"):
        TileTable(pa.table({"x": [1]}), META)
