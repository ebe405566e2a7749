"""Changes of colour as matrices, one a view."""

import numpy as np

# Haematoxylin, eosin (Ruifrok & Johnston 2001) and their residual; rows are scaled to length 1 below.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
UNSTAINING = np.linalg.inv(STAINS)

_GREY = np.full((3, 3), 1 / 3)
# Crossing with the grey axis (1, 1, 1) / sqrt(3).
_CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)


def restaining(gain: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset of each stain as one matrix and offset of optical density.

    Args:
        gain: (N, 3) factors on haematoxylin, eosin and residual.
        shift: (N, 3) of their densities, natural logarithm.

    Returns:
        (N, 3, 3) float32 for columns of density, (N, 3) float32.
    """
    # Rows of density: od @ UNSTAINING @ diag(gain) @ STAINS; transposed for columns.
    matrix = (UNSTAINING[None] * gain[:, None, :]) @ STAINS
    return matrix.transpose(0, 2, 1).astype(np.float32), (shift @ STAINS).astype(np.float32)


def recolouring(saturation: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Saturation and hue as one matrix that leaves grey, and the mean of the channels, as they are.

    With G the projection on the grey axis and R the turn about it (Rodrigues): G + saturation * (R - G).

    Args:
        saturation: (N,) factor; 0 gives the mean of the channels.
        turn: (N,) of hue, as a share of the circle.

    Returns:
        (N, 3, 3) float32 for columns of R, G, B.
    """
    angle = 2 * np.pi * turn[:, None, None]
    rotation = np.cos(angle) * (np.eye(3) - _GREY) + np.sin(angle) * _CROSS  # R - G
    return (_GREY + saturation[:, None, None] * rotation).astype(np.float32)
