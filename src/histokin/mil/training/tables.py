"""Tables for people and programs: the same columns as CSV and as Parquet."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import write_text, writing

Columns = Mapping[str, NDArray[Any]]


def write_columns(path: Path, columns: Columns) -> None:
    """Write PATH.csv and PATH.parquet; equal columns give equal bytes.

    Args:
        path: without suffix.
        columns: by name, of one length; texts as objects.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: _values(column) for name, column in columns.items()})
    parquet, text = path.with_name(path.name + ".parquet"), path.with_name(path.name + ".csv")
    with writing(parquet) as temporary:
        pq.write_table(table, temporary)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_values(column) for column in columns.values()), strict=True))
    write_text(text, buffer.getvalue())


def _values(column: NDArray[Any]) -> list[Any]:
    """Python's own values: floats are written in the fewest digits that give them back; NaN is left empty."""
    return [None if isinstance(value, float) and np.isnan(value) else value for value in column.tolist()]
