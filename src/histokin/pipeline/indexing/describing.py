"""What an index holds, for people."""

from typing import Any

from histokin.errors import SearchError
from histokin.pipeline.indexing.archive import PICTURE, SOURCE
from histokin.pipeline.indexing.build import is_index
from histokin.pipeline.indexing.check import Checked
from histokin.pipeline.searching.archive import Place, lags
from histokin.search.index import Index


def describe_index(place: Place, *, verify: bool = False) -> dict[str, Any]:
    """Facts by name; with `verify` every file is read and compared with its digest.

    Raises:
        IndexDamaged: a file is missing or not what was written.
        SearchError: there is no index.
    """
    if not is_index(place.index):
        raise SearchError("there is no index", place.index, "Build it with `histokin index build`.")
    index = Index(place.index)
    if verify:
        index.verify()
    version = index.pinned()
    manifest, checked = version.manifest, Checked.of(version)
    return {
        "index": place.index.name,
        "version": manifest.number,
        "encoder": manifest.made.encoder,
        "fingerprint": manifest.made.fingerprint,
        "tiles": len(version),
        "mosaic tiles": version.n_mosaic,
        "slides": len(version.slides),
        "patients": len(set(version.slides.patient.tolist())),
        "columns": ", ".join(name for name in version.slides.columns if name not in (SOURCE, PICTURE)),
        "dimensions": manifest.made.dim,
        "bytes": sum(facts.n_bytes for facts in manifest.files().values()),
        "segments": len(manifest.segments),
        "lists": len(version.list_sizes()),
        "nprobe": manifest.nprobe["tiles"],
        "recall": "not checked" if checked.recall is None else round(checked.recall, 4),
        "files": "as they were written" if verify else "not read",
        "up to date": "; ".join(lags(place.source, version)) or "yes",
    }
