"""`TileTable`: the only table of tiles. One row a tile, Arrow columns, Parquet on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from histokin.artefacts import FORMAT_VERSION, writing
from histokin.errors import TableError

SCHEMA = pa.schema(
    [
        ("tile_id", pa.int64()),  # row number in this table
        ("slide", pa.dictionary(pa.int32(), pa.string())),
        ("x", pa.int64()),  # top-left, level-0 px; -1 where the tile is a file of its own
        ("y", pa.int64()),
        ("w0", pa.int32()),  # side in level-0 px
        ("h0", pa.int32()),
        ("row", pa.int32()),
        ("col", pa.int32()),
        ("tissue", pa.float32()),  # share of the tile's area
        ("keep", pa.bool_()),
        ("reason", pa.dictionary(pa.int32(), pa.string())),  # why not kept
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("label_frac", pa.float32()),  # share of the tile's area that has the label
        ("patient", pa.dictionary(pa.int32(), pa.string())),
        ("region", pa.dictionary(pa.int32(), pa.string())),
        ("split", pa.dictionary(pa.int32(), pa.string())),
        ("path", pa.string()),  # tile files: relative to the cohort's root
    ]
)
ROW_GROUP = 131_072


@dataclass(frozen=True, slots=True)
class TileTable:
    """The tiles of one slide.

    Attributes:
        columns: Arrow table with at least the columns of `SCHEMA`; labels of tile sets as `label:NAME`.
        meta: slide id, spec, slide size and mpp, digests.
    """

    columns: pa.Table
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        missing = [name for name in SCHEMA.names if name not in self.columns.column_names]
        if missing:
            raise TableError(f"columns are missing: {', '.join(missing)}", str(self.meta.get("slide")), "Tile again.")

    def __len__(self) -> int:
        return self.columns.num_rows

    def numpy(self, name: str) -> NDArray[Any]:
        """One column as a numpy array; text as objects, missing text as ""."""
        column = self.columns.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        if pa.types.is_string(column.type):
            return np.array([value or "" for value in column.to_pylist()], object)
        return column.to_numpy()

    @property
    def kept(self) -> NDArray[np.int64]:
        """Row numbers of the tiles that are worked on."""
        return np.flatnonzero(self.numpy("keep")).astype(np.int64)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of labels of which there is at least one value."""
        named = [c.removeprefix("label:") for c in self.columns.column_names if c.startswith("label:")]
        return (("label",) if any(self.numpy("label")) else ()) + tuple(n for n in named if n != "label")

    def labels(self, name: str) -> NDArray[np.object_]:
        """A label column: `label`, or any further column of a tile set; "" where there is none."""
        column = f"label:{name}" if f"label:{name}" in self.columns.column_names else name
        return self.numpy(column) if column in self.columns.column_names else np.full(len(self), "", object)

    def write(self, path: Path) -> None:
        """Write as Parquet, whole or not at all; equal content gives equal bytes."""
        meta = {"format": "tiles", "format_version": FORMAT_VERSION, **self.meta}
        table = self.columns.replace_schema_metadata({"histokin": json.dumps(meta, sort_keys=True)})
        with writing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP)

    @classmethod
    def read(cls, path: Path) -> "TileTable":
        """Read a tile table.

        Raises:
            TableError: not a tile table, or of a newer format.
        """
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, FileNotFoundError) as error:
            raise TableError(f"the tile table cannot be read ({error})", path, "Run `histokin tile` again.") from error
        meta = json.loads((table.schema.metadata or {}).get(b"histokin", b"{}"))
        if meta.pop("format", None) != "tiles":
            raise TableError("this is no tile table", path, "Run `histokin tile` again.")
        if str(meta.pop("format_version")).split(".")[0] != FORMAT_VERSION.split(".")[0]:
            raise TableError("the table has another format version", path, "Open it with the version that wrote it.")
        return cls(table, meta)


def build_table(columns: dict[str, Any], meta: dict[str, Any]) -> TileTable:
    """Make a table from columns; those not given are filled with what means "nothing"."""
    n = len(columns["x"])
    empty: dict[str, Any] = {
        "tile_id": np.arange(n),
        "row": np.zeros(n, np.int32),
        "col": np.arange(n, dtype=np.int32),
        "tissue": np.ones(n, np.float32),
        "keep": np.ones(n, bool),
        "label_frac": np.ones(n, np.float32),
    }
    arrays, fields = [], []
    for field in SCHEMA:
        values = columns.get(field.name, empty.get(field.name))
        if values is None:
            values = [""] * n if not pa.types.is_integer(field.type) else np.full(n, -1)
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array([str(v) for v in values], pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(values, field.type))
        fields.append(field)
    for name in sorted(c for c in columns if c.startswith("label:")):
        arrays.append(pa.array([str(v) for v in columns[name]], pa.string()).dictionary_encode())
        fields.append(pa.field(name, arrays[-1].type))
    return TileTable(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), meta)
