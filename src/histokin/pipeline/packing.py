"""Fill the tile cache that training reads from."""

from histokin.artefacts import Receipt
from histokin.errors import SlideError, TrainingError
from histokin.progress import Reporter, silent
from histokin.tiles import PackedTiles, Tiling, open_tiles, pack_ledger, write_pack
from histokin.workspace import Workspace


def pack_cohort(work: Workspace, tiling: Tiling, report: Reporter = silent) -> PackedTiles:
    """Pack every slide's tiles; what is packed already is skipped, what cannot be read is left out.

    Raises:
        TrainingError: no tile could be read.
    """
    folder = work.cache / "packs" / tiling.spec.spec_id
    ledger = pack_ledger(folder, tiling.spec)
    receipts: list[Receipt] = []
    with report("cache", tiling.n_tiles, "tiles") as task:
        for record in tiling.records:
            table_receipt = tiling.receipts[record.slide]
            inputs = {"table": table_receipt.digest}
            receipt = ledger.find(record.file_name, inputs)
            if receipt is None or not (folder / f"{record.file_name}.npy").exists():
                ledger.forget(record.file_name)
                source = open_tiles(tiling.cohort, record, tiling.table(record), tiling.spec)
                try:
                    receipt = write_pack(folder, record.file_name, source, tiling.spec, inputs)
                except SlideError:
                    continue  # the embed stage reads it again and gives the slide its state
            receipts.append(receipt)
            task.advance(table_receipt.facts["n_kept"])
    ledger.write_manifest([r.key for r in receipts])
    if not any(r.facts["n_tiles"] for r in receipts):
        raise TrainingError("not one tile could be read", work.root, "See the states of `histokin info`.")
    return PackedTiles(folder, tiling.spec, receipts)
