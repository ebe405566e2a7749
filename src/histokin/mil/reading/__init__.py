"""Bags from any embedding store, or from arrays: packed once, then read in batches bounded by their tiles."""

from histokin.mil.reading.ahead import read_ahead, read_bags
from histokin.mil.reading.draws import Draw, sampled_bags, whole_bags
from histokin.mil.reading.pack import open_pack, pack_stores
from histokin.mil.reading.source import BagSource

__all__ = ["BagSource", "Draw", "open_pack", "pack_stores", "read_ahead", "read_bags", "sampled_bags", "whole_bags"]
