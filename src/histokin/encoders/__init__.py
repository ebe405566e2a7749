"""Networks by name, their weights and cards, and running one over tiles.

Lives here: building a network (`networks`), what an encoder is (`card`), an encoder's folder on disk (`folder`) and an
encoder at work (`encoder`). Does not live here: training, and where tiles come from or vectors go to.
"""

from histokin.encoders.card import EncoderCard, fingerprint
from histokin.encoders.encoder import Encoder
from histokin.encoders.folder import load_encoder, random_encoder, read_card, save_encoder
from histokin.encoders.networks import build_network

__all__ = [
    "Encoder",
    "EncoderCard",
    "build_network",
    "fingerprint",
    "load_encoder",
    "random_encoder",
    "read_card",
    "save_encoder",
]
