"""Networks by name, their weights and cards, and running one over tiles.

Lives here: building a network (`networks`), what an encoder is (`card`), an encoder's folder on disk (`folder`),
published encoders (`published`), finding the one that is meant (`loading`) and an encoder at work (`encoder`). Does
not live here: training, and where tiles come from or vectors go to.
"""

from histokin.encoders.card import EncoderCard, fingerprint
from histokin.encoders.encoder import Encoder
from histokin.encoders.folder import read_card, save_encoder
from histokin.encoders.loading import load_encoder, random_encoder
from histokin.encoders.networks import HeadedEncoder, build_network, head_of, with_head
from histokin.encoders.published import PUBLISHED, PublishedEncoder

__all__ = [
    "PUBLISHED",
    "Encoder",
    "EncoderCard",
    "HeadedEncoder",
    "PublishedEncoder",
    "build_network",
    "fingerprint",
    "head_of",
    "load_encoder",
    "random_encoder",
    "read_card",
    "save_encoder",
    "with_head",
]
