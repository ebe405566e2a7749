"""The one place where faiss is called: k-means, and lists of float16 vectors in a mapped file, scanned by its kernels.

The file is faiss's own IVF format with an empty quantizer: a faiss file repeats the centroids, which for a segment of
one slide would be as large as its vectors. It is written here list by list, so that a segment never has to be in
memory; rows are numbered in the order of the lists, so that a row's vector is found without a map.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss as kernels
import numpy as np
from threadpoolctl import threadpool_limits

from histokin.artefacts import writing
from histokin.errors import IndexDamaged

_faiss: Any = kernels  # its stubs leave out what its Python side adds
_ID = 8  # bytes of a row number
_TABLE = struct.Struct("<4sQQ4sQ")  # begins the lists: "ilar", lists, bytes a vector, "full", lists
_GROUP = 8192  # rows that are read before they are written
_ITERATIONS, _POINTS = 10, 40  # of k-means: a sample of more than 40 vectors a centroid is drawn down
_REMEDY = "Build the index anew, or restore the file."


def train_centroids(sample: np.ndarray, n_lists: int, seed: int) -> np.ndarray:
    """Spherical k-means in one thread: products of matrices, and with them ties, depend on the number of threads.

    Args:
        sample: (n, d) float32 unit vectors, n >= n_lists.
        n_lists: centroids.
        seed: of the first centroids and of what is drawn.

    Returns:
        (n_lists, d) float32 unit centroids.
    """
    means = _faiss.Kmeans(
        sample.shape[1],
        n_lists,
        niter=_ITERATIONS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS,
    )
    with threadpool_limits(1):
        means.train(np.ascontiguousarray(sample, dtype=np.float32))
    return np.asarray(means.centroids, dtype=np.float32)


def write_lists(path: Path, dim: int, sizes: np.ndarray, read: Callable[[int, int], np.ndarray]) -> None:
    """Write vectors that come in the order of their lists.

    Args:
        path: the file; appears whole or not at all.
        dim: numbers a vector.
        sizes: (nlist,) rows of each list.
        read: `read(start, stop)` gives the (stop - start, dim) float16 of these rows; asked in order, a group of lists
            at a time.
    """
    ends = np.cumsum(sizes)
    with writing(path) as temporary, temporary.open("wb") as file:
        file.write(_head(dim, sizes))
        number = 0
        while number < len(sizes):
            start = int(ends[number] - sizes[number])
            after = max(number + 1, int(np.searchsorted(ends, start + _GROUP, side="right")))
            codes = np.ascontiguousarray(read(start, int(ends[after - 1])), dtype="<f2")
            for end, size in zip((ends[number:after] - start).tolist(), sizes[number:after].tolist(), strict=True):
                file.write(codes[end - size : end].data)
                file.write(np.arange(start + end - size, start + end, dtype="<i8").data)
            number = after


def _head(dim: int, sizes: np.ndarray) -> bytes:
    """All that comes before the vectors, as faiss writes it."""
    empty = _empty(dim, len(sizes))
    empty.is_trained, empty.ntotal = True, int(sizes.sum())
    head = _faiss.serialize_index(empty).tobytes()
    table = _TABLE.pack(b"ilar", len(sizes), 2 * dim, b"full", len(sizes))
    return head[: head.rindex(b"ilar")] + table + sizes.astype("<u8").tobytes()


def _empty(dim: int, n_lists: int) -> Any:
    # Without False the rows would be coded as differences from their centroid, which is another float16.
    return _faiss.IndexIVFScalarQuantizer(
        _faiss.IndexFlatIP(dim),
        dim,
        n_lists,
        _faiss.ScalarQuantizer.QT_fp16,
        _faiss.METRIC_INNER_PRODUCT,
        False,
    )


class Lists:
    """The vectors of one file, mapped; opening reads its table of lists only.

    Attributes:
        sizes: (nlist,) int64 rows of each list.
        first: (nlist + 1,) int64 first row of each list.

    Raises:
        IndexDamaged: the file's table is not what the manifest promised.
    """

    def __init__(self, path: Path, dim: int, n_lists: int, n_rows: int) -> None:
        self._code = 2 * dim
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        begin = len(self._bytes) - n_rows * (self._code + _ID)
        sizes = self._read_sizes(begin, n_lists)
        if sizes is None or sizes.sum() != n_rows:  # faiss would follow such a table out of the file
            raise IndexDamaged("its table of lists is not that of the manifest", path, _REMEDY)
        self.sizes = sizes
        self.first = np.concatenate([[0], np.cumsum(self.sizes)])
        self._starts = begin + self.first[:-1] * (self._code + _ID)
        is_mapped = os.name != "nt"
        flags = _faiss.IO_FLAG_MMAP | _faiss.IO_FLAG_READ_ONLY if is_mapped else 0
        try:
            self._index: Any = _faiss.read_index(str(path), flags)
        except RuntimeError as error:
            if not path.exists():  # removed a moment ago
                raise FileNotFoundError(2, "it is gone", str(path)) from error
            raise IndexDamaged("faiss cannot read it", path, _REMEDY) from error
        if is_mapped:
            # By default 32 threads a query touch every probed page: 77 instead of 10 ms with a narrow filter.
            _faiss.downcast_InvertedLists(self._index.invlists).prefetch_nthread = 0

    def _read_sizes(self, begin: int, n_lists: int) -> np.ndarray | None:
        at = begin - 8 * n_lists - _TABLE.size
        if at < 0:
            return None
        table = _TABLE.unpack(self._bytes[at : at + _TABLE.size].tobytes())
        if table != (b"ilar", n_lists, self._code, b"full", n_lists):
            return None
        sizes = np.frombuffer(self._bytes[at + _TABLE.size : begin].tobytes(), dtype="<u8").astype(np.int64)
        return sizes if (sizes >= 0).all() else None

    def __len__(self) -> int:
        return int(self.first[-1])

    def list_of(self, rows: np.ndarray) -> np.ndarray:
        """(m,) int64 list of each row."""
        return np.searchsorted(self.first, rows, side="right") - 1

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(m, d) float16 vectors of rows, copied from the mapped lists."""
        if not len(rows):
            return np.empty((0, self._code // 2), dtype=np.float16)
        held_by = self.list_of(rows)
        offsets = self._starts[held_by] + (rows - self.first[held_by]) * self._code
        return np.lib.stride_tricks.sliding_window_view(self._bytes, self._code)[offsets].view("<f2")

    def scan(
        self, queries: np.ndarray, lists: np.ndarray, k: int, bitmap: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows of each query in its lists.

        Args:
            queries: (Q, d) float32, contiguous.
            lists: (Q, m) int64, contiguous; -1 for none.
            k: rows a query.
            bitmap: packed bits (little-endian) of the rows that may be found; None: all.

        Returns:
            (Q, k) float32 inner products and int64 rows, -1 where there are fewer.
        """
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        unused = np.zeros(lists.shape, dtype=np.float32)  # distances of the lists
        selector = None if bitmap is None else _faiss.IDSelectorBitmap(bitmap)
        self._index.search_preassigned_c(
            len(queries),
            _faiss.swig_ptr(queries),
            k,
            _faiss.swig_ptr(lists),
            _faiss.swig_ptr(unused),
            _faiss.swig_ptr(scores),
            _faiss.swig_ptr(rows),
            False,
            _faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector),
        )
        return scores, rows
