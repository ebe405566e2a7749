"""Slides: opening a file by any reader, its pixels at a level, its pixel size; and generated slides.

Knows nothing of tissue or tiles.
"""

from histokin.slides.info import Level, SlideInfo
from histokin.slides.readers import is_pyramid, picture_size
from histokin.slides.slide import Slide, content_key, open_slide

__all__ = ["Level", "Slide", "SlideInfo", "content_key", "is_pyramid", "open_slide", "picture_size"]
