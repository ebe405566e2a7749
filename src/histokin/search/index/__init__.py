"""The index on disk: float16 vectors in lists, in immutable segments, version by version.

    INDEX/
      CURRENT                 names the manifest in force, by atomic rename
      MANIFEST-000042.json    encoder, segments, deleted slides, size and SHA-256 of every file
      coarse-HASH.npy         the centroids of the lists, shared by all segments
      seg-000017/             tiles of some slides; never changed, only replaced
      LOCK                    one writer; readers take no lock

Knows vectors, slides and filters; nothing of how slides are ranked.
"""

from histokin.search.index.check import NprobeCheck, NprobeRow, measure_nprobe
from histokin.search.index.compaction import Compacted, compact, retrain
from histokin.search.index.manifest import Manifest
from histokin.search.index.reader import Index, Version
from histokin.search.index.writing import (
    Written,
    add_slides,
    create_index,
    delete_slides,
    set_calibration,
    set_nprobe,
)

__all__ = [
    "Compacted",
    "Index",
    "Manifest",
    "NprobeCheck",
    "NprobeRow",
    "Version",
    "Written",
    "add_slides",
    "compact",
    "create_index",
    "delete_slides",
    "measure_nprobe",
    "retrain",
    "set_calibration",
    "set_nprobe",
]
