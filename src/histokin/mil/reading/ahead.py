"""Reading the next batch while this one is computed."""

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from histokin.mil.bags import PackedBags
from histokin.mil.reading.draws import Draw
from histokin.mil.reading.source import BagSource


def read_ahead(
    source: BagSource, draws: Iterable[Draw], device: torch.device
) -> Generator[tuple[Draw, PackedBags], None, None]:
    """Each draw with its bags as float32 on the device; the next is read in one background thread meanwhile.

    Results do not depend on the thread: draws are given in their order. Close the iterator to end the thread. Bags that
    are in memory anyway are read in place: handing them over took a quarter of a step of small bags.
    """
    if not isinstance(source.features, np.memmap):
        for draw in draws:
            yield draw, read_bags(source, draw, device)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="bags") as pool:
        waiting: tuple[Draw, Future[PackedBags]] | None = None
        for draw in draws:
            following = draw, pool.submit(read_bags, source, draw, device)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def read_bags(source: BagSource, draw: Draw, device: torch.device) -> PackedBags:
    """A draw's bags as float32 on the device, their scale restored."""
    bags = source.read(draw).to(device)  # as stored: half the bytes go to a GPU
    x = bags.x.float()
    if source.scale is not None:
        x = x * torch.from_numpy(source.scale).to(device)
    return PackedBags(x, bags.lengths, bags.coords)
