"""histokin: from a folder of whole-slide images to an encoder, a tissue search and honest figures."""

from importlib.metadata import version

__version__ = version("histokin")
