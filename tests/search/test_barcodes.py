"""Barcodes: packed counting against bits, and what the rotated code is better at."""

import numpy as np
import pytest

from histokin.search import barcodes
from histokin.search.barcodes import RotatedSign, falling, hamming, pack, rising


@pytest.mark.parametrize("n_bits", [1, 7, 8, 63, 64, 65, 200])
def test_packed_counting_equals_counting_bits_in_any_block(n_bits, monkeypatch):
    rng = np.random.default_rng(n_bits)
    first, second = rng.random((5, n_bits)) < 0.5, rng.random((37, n_bits)) < 0.5
    expected = (first[:, None] != second[None]).sum(axis=2)
    assert (hamming(pack(first), pack(second)) == expected).all()
    monkeypatch.setattr(barcodes, "_WORDS", 23)
    assert (hamming(pack(first), pack(second)) == expected).all()


def test_both_polarities_give_the_same_distances_also_for_equal_numbers():
    vectors = np.random.default_rng(0).integers(0, 4, size=(20, 33)).astype(np.float16)
    left, right = pack(falling(vectors)), pack(rising(vectors))
    assert (left.n_bits, right.n_bits) == (32, 33)
    assert (hamming(left, left) == hamming(right, right)).all()


def test_codes_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="codes of 3 and 4 bits cannot be compared"):
        hamming(pack(np.ones((1, 3), dtype=bool)), pack(np.ones((1, 4), dtype=bool)))


def test_signs_after_a_rotation_tell_the_angle_and_do_not_depend_on_the_order_of_dimensions():
    # Two tiles that share a large common part, as embeddings of tissue do.
    rng = np.random.default_rng(1)
    common = 3 * rng.normal(size=64)
    vectors = common + rng.normal(size=(300, 64))
    code = RotatedSign.of(vectors, n_bits=1024)
    centred = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = centred - centred.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    angle = np.arccos(np.clip(centred @ centred.T, -1, 1)) / np.pi
    above = np.triu_indices(300, 1)

    def correlation(bits):
        packed = pack(bits)
        return np.corrcoef(hamming(packed, packed)[above] / packed.n_bits, angle[above])[0, 1]

    assert correlation(code(vectors)) > 0.9
    assert correlation(falling(vectors)) < 0.75
    packed = pack(code(vectors))
    # An unbiased estimate of the angle: 1024 bits have a standard error of at most 1/64 a pair.
    assert np.abs(hamming(packed, packed)[above] / 1024 - angle[above]).mean() < 1 / 64


def test_a_rotated_code_does_not_depend_on_what_is_coded_beside():
    vectors = np.random.default_rng(2).normal(size=(50, 40)).astype(np.float32)
    code = RotatedSign.of(vectors, n_bits=96, seed=3)
    assert code.rotation.shape == (40, 96)
    whole = code(vectors)
    assert all((code(vectors[row : row + 1]) == whole[row]).all() for row in range(50))
    assert (RotatedSign.of(vectors, n_bits=96, seed=3)(vectors) == whole).all()
