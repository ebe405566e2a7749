"""The search for leaks: planted ones of every kind are found, clean data give none."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.errors import EvaluationError
from histokin.evaluate.splits import (
    SplitItems,
    SplitTable,
    dhash,
    find_leaks,
    near_duplicates,
    refuse_leaks,
    stratified_folds,
)
from histokin.evaluate.splits.duplicates import _close, hash_bits
from histokin.evaluate.splits.leaks import seen_cohorts

NEAR = "histokin.evaluate.splits.duplicates."

N = 60
PARTS = np.repeat([0, 1, 2], 20)  # train, val, test: five patients of two slides of two tiles each


def clean() -> tuple[SplitItems, dict]:
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (N, 18, 18, 3), dtype=np.uint8)
    items = SplitItems.of(
        item=[f"t{i:02d}" for i in range(N)],
        slide=[f"TCGA-AA-{i // 4:04d}-01Z-00-DX{i // 2 % 2}.{i // 2:04X}" for i in range(N)],
        patient=[f"TCGA-AA-{i // 4:04d}" for i in range(N)],
        label=["a"] * N,
    )
    looked_at = {
        "digests": [f"{i:064x}" for i in range(N)],
        "hashes": dhash(tiles),
        "features": rng.standard_normal((N, 16)).astype(np.float32),
        "pretraining": ["CAMELYON16, PAIP"],
        "cohorts": ["TCGA-COAD"],
    }
    return items, looked_at


def put(column: np.ndarray, rows: list[int], value: str) -> np.ndarray:
    changed = column.copy()
    changed[rows] = value
    return changed


def test_clean_data_give_no_finding():
    items, looked_at = clean()
    report = find_leaks(items, PARTS, **looked_at)
    assert report.is_clean
    assert not report.is_transductive
    assert (report.findings, report.skipped, report.n_items) == ((), {}, N)


def test_what_was_not_looked_for_is_said():
    report = find_leaks(clean()[0], PARTS)
    assert report.is_clean
    assert set(report.skipped) == {"identical", "near", "pretraining"}


@pytest.mark.parametrize("parts", [PARTS, np.array(["train", "val", "test"], dtype=object)[PARTS], PARTS[:, None]])
def test_a_patient_in_two_parts_is_found_with_all_its_rows(parts):
    items, looked_at = clean()
    name = items.patient[0]
    items = replace(items, patient=put(items.patient, [30, 31], name), group=put(items.group, [30, 31], name))
    items = replace(items, slide=put(items.slide, [30, 31], f"{name}-01Z-00-DX9"))
    report = find_leaks(items, parts, **looked_at)
    found = report.finding("patient")
    assert (found.rows.tolist(), found.groups.tolist()) == ([0, 1, 2, 3, 30, 31], [0] * 6)
    assert (found.names, found.n_groups, found.n_apart) == ((name,), 1, 1)
    assert found.sentence == f"1 patients stand in two parts: {name}"
    assert [finding.kind for finding in report.findings] == ["patient"]


def test_a_slide_in_two_parts_is_found():
    items, looked_at = clean()
    items = replace(items, slide=put(items.slide, [40], items.slide[2]))
    report = find_leaks(items, PARTS, **looked_at)
    assert report.finding("slide").rows.tolist() == [2, 3, 40]
    assert report.finding("patient") is None


def test_a_picture_of_several_slides_in_two_parts_is_found():
    items, looked_at = clean()
    picture = put(items.picture, [2, 3], "x")  # in one part
    picture = put(picture, [8, 9, 50, 51], "y")
    report = find_leaks(replace(items, picture=picture), PARTS, **looked_at)
    assert [finding.kind for finding in report.findings] == ["picture"]
    found = report.finding("picture")
    assert (found.rows.tolist(), found.groups.tolist(), found.names) == ([8, 9, 50, 51], [0] * 4, ("y",))
    assert found.sentence == "1 pictures of several slides stand in two parts: y"
    torn = np.where(np.arange(N) == 0, 2, PARTS)  # tiles of one slide: a slide, not a picture of several
    assert find_leaks(items, torn, **looked_at).finding("picture") is None


def test_a_group_of_twins_in_two_parts_is_found():
    items, looked_at = clean()
    report = find_leaks(replace(items, group=put(items.group, [8, 50], "twins")), PARTS, **looked_at)
    assert [finding.kind for finding in report.findings] == ["group"]
    assert report.finding("group").rows.tolist() == [8, 50]


def test_a_patient_read_from_the_name_that_differs_from_the_one_given_is_found():
    items, looked_at = clean()
    other = put(items.patient, [0, 1], "patient 7")  # stays in one part with the rest of the true patient
    report = find_leaks(replace(items, patient=other, group=other), PARTS, **looked_at)
    found = report.finding("name")
    assert [finding.kind for finding in report.findings] == ["name"]
    assert (found.rows.tolist(), found.names, found.n_apart) == ([0, 1, 2, 3], ("TCGA-AA-0000",), 0)
    lower = np.array([name.lower() for name in items.patient], dtype=object)
    assert find_leaks(replace(items, patient=lower, group=lower), PARTS, **looked_at).is_clean
    torn = put(items.slide, [45], "tcga-aa-0000-01Z-00-DX3")  # a slide of that patient under another's name
    report = find_leaks(replace(items, slide=torn), PARTS, **looked_at)
    assert report.finding("name").n_apart == 1
    assert "(1 in two parts): TCGA-AA-0000" in report.finding("name").sentence
    assert report.finding("patient") is None


@pytest.mark.parametrize("slide", ["TCGA-AA-00091-01Z", "xTCGA-AA-0009-01Z", "TCGA-A-0001", "camelyon_001"])
def test_names_that_are_no_barcode_tell_nothing(slide):
    items, looked_at = clean()
    assert find_leaks(replace(items, slide=put(items.slide, [0, 1], slide)), PARTS, **looked_at).is_clean


def test_identical_pixels_in_two_parts_are_found_but_not_within_one():
    items, looked_at = clean()
    digests = list(looked_at["digests"])
    digests[5] = digests[25] = digests[45] = "same"
    digests[10] = digests[11] = "in one part"
    digests[12] = digests[52] = None
    report = find_leaks(items, PARTS, **looked_at | {"digests": digests})
    found = report.finding("identical")
    assert (found.rows.tolist(), found.names) == ([5, 25, 45], ("same",))
    raw = [bytes.fromhex(f"{i % 40:064x}") for i in range(N)]
    assert find_leaks(items, PARTS, **looked_at | {"digests": raw}).finding("identical").n_groups == 20


def test_near_duplicates_in_two_parts_are_found_and_need_both_signs():
    items, looked_at = clean()
    hashes, features = looked_at["hashes"].copy(), looked_at["features"].copy()
    hashes[33] = hashes[3] ^ np.uint64(1 << 5 | 1 << 60)
    features[33] = features[3] * 7 + 0.01
    hashes[34], features[35] = hashes[4], features[5]  # one sign each
    hashes[36], features[36] = hashes[6] ^ np.uint64(7), features[6]  # three bits
    hashes[8], features[8] = hashes[7], features[7]  # in one part
    report = find_leaks(items, PARTS, **looked_at | {"hashes": hashes, "features": features})
    found = report.finding("near")
    assert (found.rows.tolist(), found.groups.tolist(), found.n_apart) == ([3, 33], [0, 0], 1)
    assert found.sentence.startswith("1 pairs of near duplicates")


def test_tiles_of_little_tissue_are_left_out_of_both_searches():
    items, looked_at = clean()
    glass = np.isin(np.arange(N), [0, 20, 40])
    digests = ["white" if mark else text for mark, text in zip(glass, looked_at["digests"], strict=True)]
    hashes = np.where(glass, np.uint64(0), looked_at["hashes"])
    features = np.where(glass[:, None], 1.0, looked_at["features"])
    planted = looked_at | {"digests": digests, "hashes": hashes, "features": features}
    found = {finding.kind: finding.n_apart for finding in find_leaks(items, PARTS, **planted).findings}
    assert found == {"identical": 1, "near": 3}
    assert find_leaks(items, PARTS, has_tissue=~glass, **planted).is_clean


@pytest.mark.parametrize(
    ("cohorts", "pretraining", "is_seen"),
    [
        (["TCGA-BRCA"], ["TCGA and PAIP"], True),
        (["tcga_brca"], ["57 data sets, TCGA among them"], True),
        (["TCGA"], ["TCGA-LUAD"], True),
        (["TCGA-BRCA"], ["TCGA-LUAD"], False),
        (["Camelyon 16"], ["PAIP/CAMELYON16"], True),
        (["CAMELYON17"], ["CAMELYON16"], False),
        (["16"], ["16 slides"], False),
        (["own"], ["ImageNet"], False),
        (["own"], ["Owner's slides"], False),
        ([""], ["TCGA"], False),
    ],
)
def test_cohorts_that_the_encoder_has_seen_are_flagged(cohorts, pretraining, is_seen):
    assert bool(seen_cohorts(cohorts, pretraining)) == is_seen
    items = replace(clean()[0], slide=np.array([f"s{i}" for i in range(N)], dtype=object))
    report = find_leaks(items, PARTS, cohorts=cohorts, pretraining=pretraining)
    assert report.is_transductive == is_seen
    assert "pretraining" not in report.skipped
    if is_seen:
        assert len(report.finding("pretraining").rows) == N
        assert report.finding("pretraining").n_apart == 0


def test_slides_of_tcga_are_known_by_their_names():
    items, _ = clean()
    mixed = replace(items, slide=put(items.slide, list(range(10)), "own_01"))
    mixed = replace(mixed, patient=put(items.patient, [8, 9], "TCGA-AA-0002"))
    found = find_leaks(mixed, PARTS, cohorts=["mine"], pretraining=["TCGA"]).finding("pretraining")
    assert found.rows.tolist() == list(range(10, N))
    assert find_leaks(items, PARTS, cohorts=["TCGA-COAD"], pretraining=["TCGA-BRCA"]).is_clean


def test_every_fold_of_a_table_is_looked_at():
    items, looked_at = clean()
    table = stratified_folds(replace(items, label=put(items.label, list(range(0, N, 8)), "b")), 3)
    digests = list(looked_at["digests"])
    tested = [table.item[table.rows(0, fold, "test")] for fold in range(3)]
    one, other = int(tested[0][0][1:]), int(tested[1][0][1:])
    digests[one] = digests[other] = "same"
    codes = table.part_codes(items.item)
    assert codes.shape == (N, 3)
    found = find_leaks(items, codes, **looked_at | {"digests": digests})
    assert [finding.kind for finding in found.findings] == ["identical"]
    assert find_leaks(items, codes[:, [2]], **looked_at | {"digests": digests}).is_clean  # both train there


def test_a_leaking_report_is_refused_with_the_rows_of_every_kind():
    items, looked_at = clean()
    hashes, features, digests = looked_at["hashes"].copy(), looked_at["features"].copy(), list(looked_at["digests"])
    hashes[33], features[33] = hashes[3], features[3]
    digests[5] = digests[45] = "same"
    report = find_leaks(items, PARTS, **looked_at | {"hashes": hashes, "features": features, "digests": digests})
    slides = items.slide
    pairs = "pairs of near duplicates .* stand in two parts"
    with pytest.raises(
        EvaluationError,
        match=rf"leak check: the pixels of 1 tiles stand in two parts: same \(row 5: t05 of {slides[5]}, "
        rf"row 45: t45 of {slides[45]}\); 1 {pairs} \(row 3: t03 of {slides[3]}, row 33: t33 of {slides[33]}\)\. Put",
    ):
        refuse_leaks(report, items)
    with pytest.raises(EvaluationError, match=f"leak check: 1 {pairs}"):
        refuse_leaks(report, items, allowed=["identical"])
    refuse_leaks(report, items, allowed=["identical", "near"])
    with pytest.raises(ValueError, match="kind must be one of"):
        refuse_leaks(report, items, allowed=["duplicates"])
    with pytest.raises(ValueError, match="report is of 60 items, got 30"):
        refuse_leaks(report, items.take(np.arange(30)))


def test_faults_that_no_part_divides_are_reported_and_not_refused():
    items, looked_at = clean()
    other = put(items.patient, [0, 1], "patient 7")
    items = replace(items, patient=other, group=other)
    report = find_leaks(items, PARTS, **looked_at | {"pretraining": ["TCGA"]})
    assert [finding.kind for finding in report.findings] == ["name", "pretraining"]
    refuse_leaks(report, items)
    torn = replace(items, slide=put(items.slide, [45], "tcga-aa-0000-01Z-00-DX3"))
    with pytest.raises(EvaluationError, match=r"\(1 in two parts\): TCGA-AA-0000"):
        refuse_leaks(find_leaks(torn, PARTS, **looked_at), torn)


def test_near_tiles_of_a_split_of_slides_are_refused_through_their_slides():
    tiles, looked_at = clean()
    names, first = np.unique(tiles.slide, return_index=True)
    slides = SplitItems.of(slide=names, patient=tiles.patient[first])
    table = SplitTable.of_parts(slides, {(0, 0): np.array(["train", "val", "test"], dtype=object)[PARTS[first]]})
    codes = table.part_codes(tiles.slide)
    assert (codes[:, 0] == PARTS).all()
    refuse_leaks(find_leaks(tiles, codes, **looked_at), tiles)
    hashes, features = looked_at["hashes"].copy(), looked_at["features"].copy()
    hashes[33], features[33] = hashes[3], features[3]
    report = find_leaks(tiles, codes, **looked_at | {"hashes": hashes, "features": features})
    with pytest.raises(EvaluationError, match=r"row 3: t03 of .*, row 33: t33 of "):
        refuse_leaks(report, tiles)


def test_items_in_no_part_leak_nothing():
    items, looked_at = clean()
    items = replace(items, slide=put(items.slide, [40], items.slide[2]))
    absent = PARTS.copy()
    absent[40] = -1
    assert find_leaks(items, absent, **looked_at).finding("slide") is None


def test_the_report_is_plain_data():
    items, looked_at = clean()
    items = replace(items, slide=put(items.slide, [40], items.slide[2]))
    report = find_leaks(items, PARTS, **looked_at)
    told = json.loads(json.dumps(report.to_json()))
    assert told["findings"][0]["kind"] == "slide"
    assert told["findings"][0]["rows"] == [2, 3, 40]
    with pytest.raises(ValueError, match="kind must be one of"):
        report.finding("twin")


def test_columns_of_another_length_are_refused():
    items, looked_at = clean()
    for name in ("digests", "hashes", "features"):
        with pytest.raises(ValueError, match=f"{name} has 59 rows for 60 items"):
            find_leaks(items, PARTS, **looked_at | {name: looked_at[name][:59]})
    with pytest.raises(ValueError, match="parts has 59 rows"):
        find_leaks(items, PARTS[:59])


def golden_grey() -> tuple[np.ndarray, np.ndarray]:
    """Both images of the golden case `dhash`."""
    r, c = np.mgrid[:8, :9]
    first = (7 * r + 5 * c * c + 3 * r * c) % 17
    second = first.copy()
    second[2, 3] += 20
    return first, second


def test_dhash_meets_the_golden_hashes(golden):
    grey, case = np.stack(golden_grey()), golden["dhash"]["expected"]
    expected = [int(case[name], 16) for name in ("hash_a", "hash_b")]
    assert hash_bits(grey).tolist() == expected
    tiles = np.repeat(grey[..., None], 3, axis=3).astype(np.uint8)
    assert dhash(tiles).tolist() == expected
    assert dhash(tiles.repeat(9, axis=1).repeat(8, axis=2)).tolist() == expected  # (n, 72, 72, 3)
    assert (expected[0] ^ expected[1]).bit_count() == case["hamming"]


def area_averaged(grey: np.ndarray, n_rows: int, n_columns: int) -> np.ndarray:
    """By repeating every pixel until rows and columns divide."""
    fine = grey.repeat(n_rows, axis=0).repeat(n_columns, axis=1)
    height, width = grey.shape
    return fine.reshape(n_rows, height, n_columns, width).mean(axis=(1, 3))


@pytest.mark.parametrize("shape", [(18, 18), (7, 5), (1, 1), (33, 40)])
def test_dhash_averages_by_area_at_any_size(shape):
    tiles = np.random.default_rng(1).integers(0, 256, (20, *shape, 3), dtype=np.uint8)
    grey = tiles.astype(int) @ np.array([299, 587, 114])
    for tile, got in zip(grey, dhash(tiles), strict=True):
        averaged = np.round(area_averaged(tile.astype(float), 8, 9), 6)
        bits = averaged[:, 1:] > averaged[:, :-1]
        assert int(got) == sum(1 << i for i, bit in enumerate(bits.ravel()) if bit)


def test_an_empty_tile_has_no_bit_whatever_its_size():
    for side in (8, 50, 224, 257):
        flat = np.full((2, side, side, 3), 243, dtype=np.uint8)
        flat[1] = (181, 77, 203)
        assert dhash(flat).tolist() == [0, 0]


def test_dhash_forgives_brightness_and_scale_and_sees_another_picture():
    rng = np.random.default_rng(2)
    coarse = rng.integers(40, 160, (2, 8, 9, 3)).astype(np.uint8)
    small, large = (coarse.repeat(k, axis=1).repeat(k, axis=2) for k in (2, 5))
    first, second = (int(value) for value in dhash(small))
    assert dhash(large).tolist() == [first, second]
    assert dhash(small + np.uint8(60)).tolist() == [first, second]
    assert (first ^ second).bit_count() > 10


@pytest.mark.parametrize(
    "tiles", [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((2, 0, 8, 3), np.uint8)]
)
def test_what_is_no_tile_is_refused(tiles):
    with pytest.raises(ValueError, match=r"tiles must be \(n, h, w, 3\) uint8"):
        dhash(tiles)


def all_pairs(hashes: np.ndarray, features: np.ndarray, parts: np.ndarray, max_hamming: int) -> list[list[int]]:
    found = []
    for i in range(len(hashes)):
        for j in range(i + 1, len(hashes)):
            bits = (int(hashes[i]) ^ int(hashes[j])).bit_count()
            cosine = features[i] @ features[j] / np.sqrt((features[i] @ features[i]) * (features[j] @ features[j]))
            is_apart = any(a != b and a >= 0 and b >= 0 for a, b in zip(parts[i], parts[j], strict=True))
            if bits <= max_hamming and cosine >= 0.99 and is_apart:
                found.append([i, j])
    return found


@given(
    st.integers(0, 2**30),
    st.integers(2, 50),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(1, 3),
)
def test_banded_search_equals_comparing_all_pairs(seed, n, n_roots, n_flips, max_hamming, n_folds):
    rng = np.random.default_rng(seed)
    roots = rng.integers(0, 2**64, n_roots, dtype=np.uint64)
    hashes = roots[rng.integers(0, n_roots, n)]
    for _ in range(n_flips):  # bits anywhere, so that every band is hit alone and with another
        flipped = rng.random(n) < 0.4
        hashes[flipped] ^= np.uint64(1) << rng.integers(0, 64, flipped.sum()).astype(np.uint64)
    features = np.array([[1.0, 0.0], [0.0, 1.0]])[rng.integers(0, 2, n)] + rng.normal(0, 0.05, (n, 2))
    parts = rng.integers(-1, 3, (n, n_folds))
    pairs, is_cut = near_duplicates(hashes, features, parts, max_hamming=max_hamming)
    assert pairs.tolist() == all_pairs(hashes, features, parts, max_hamming)
    assert not is_cut


def test_many_equal_hashes_are_paired_block_by_block(monkeypatch):
    rng = np.random.default_rng(3)
    hashes = np.array([0, 1, 2**40, 2**40 + 3], dtype=np.uint64)[rng.integers(0, 4, 90)]
    features, parts = rng.normal(1, 0.08, (90, 3)), rng.integers(0, 2, (90, 1))
    expected = all_pairs(hashes, features, parts, 2)
    assert 100 < len(expected) < 90 * 89 / 2
    monkeypatch.setattr(NEAR + "_PAIRS", 7)
    assert near_duplicates(hashes, features, parts)[0].tolist() == expected


@given(
    st.integers(0, 2**30),
    st.integers(2, 50),
    st.sampled_from([2, 4, 8, 40]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from([(1, 1), (1, 3), (4, 2), (64, 1024)]),
    st.sampled_from([3, 2**17]),
)
def test_crowded_hashes_are_compared_as_all_pairs(seed, n, n_free, max_hamming, n_folds, sizes, n_at_once):
    rng = np.random.default_rng(seed)
    free = np.uint64(1) << rng.permutation(64)[:n_free].astype(np.uint64)
    hashes = (rng.random((n, n_free)) < rng.choice([0.05, 0.3])).astype(np.uint64) @ free  # other bands are equal
    angles = np.arccos(0.99) * rng.integers(0, 3, n) + 1e-9 * rng.permutation(n)  # beside the limit, for float32 at it
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 10.0 ** rng.integers(-3, 4, (n, 1))
    parts = rng.integers(-1, 3, (n, n_folds))
    with pytest.MonkeyPatch.context() as patch:  # blocks so small that few tiles make many
        for name, value in zip(("_FEW", "_SIDE", "_PAIRS"), (*sizes, n_at_once), strict=True):
            patch.setattr(NEAR + name, value)
        pairs, is_cut = near_duplicates(hashes, features, parts, max_hamming=max_hamming)
    assert pairs.tolist() == all_pairs(hashes, features, parts, max_hamming)
    assert not is_cut


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosines_beyond_the_reach_of_float32_are_decided(dtype):
    rng = np.random.default_rng(8)
    n, d = 150, 384
    one, other = rng.standard_normal((2, n, d))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other -= (one * other).sum(axis=1, keepdims=True) * one
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    cosine = 0.99 + rng.choice([-1e-9, 1e-9], n)[:, None]
    features = np.concatenate([one, cosine * one + np.sqrt(1 - cosine**2) * other]).astype(dtype)
    pairs, _ = near_duplicates(np.zeros(2 * n, np.uint64), features, np.arange(2 * n) // n)
    wide = features.astype(np.float64)
    product, squares = wide[:n] @ wide[n:].T, (wide**2).sum(axis=1)
    i, j = np.nonzero(product >= 0.99 * np.sqrt(squares[:n, None] * squares[n:]))
    assert pairs.tolist() == np.stack([i, n + j], axis=1).tolist()
    assert 0.3 * n < len(pairs) < 0.7 * n


@pytest.mark.parametrize(("max_hamming", "n_neighbours"), [(0, 0), (1, 10), (2, 10 + 45)])
def test_every_pair_of_a_full_cube_of_hashes_is_found_once(max_hamming, n_neighbours):
    free = np.uint64(1) << np.array([0, 1, 2, 3, 4, 17, 31, 32, 62, 63], dtype=np.uint64)
    hashes = np.unique((np.arange(2**10)[:, None] >> np.arange(10) & 1).astype(np.uint64) @ free)
    pairs = [(i, j) for block in _close(hashes, max_hamming) for i, j in block.tolist()]
    assert len(pairs) == len(set(pairs)) == 2**10 * n_neighbours / 2
    assert all(i < j and (int(hashes[i]) ^ int(hashes[j])).bit_count() <= max_hamming for i, j in pairs)


def test_many_tiles_with_a_flat_half_are_searched():
    rng = np.random.default_rng(5)
    n = 60_000  # 1.8e9 pairs agree in two bands of 16 bits
    hashes, features = rng.integers(0, 2**32, n, dtype=np.uint64), rng.standard_normal((n, 24), dtype=np.float32)
    hashes[n // 2 : n // 2 + 9] = hashes[:9] ^ np.uint64(1 << 31 | 1)
    features[n // 2 : n // 2 + 9] = features[:9]
    pairs, is_cut = near_duplicates(hashes, features, np.arange(n) // (n // 2))
    assert pairs.tolist() == [[i, n // 2 + i] for i in range(9)]
    assert not is_cut


class Counted:
    """Vectors that count how many of them are read."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.shape, self.n_read = vectors, vectors.shape, 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.n_read += len(rows)
        return self.vectors[rows]


def test_unlike_vectors_of_one_hash_are_not_read_pair_by_pair():
    n = 6_000  # 9e6 pairs
    features = Counted(np.random.default_rng(6).standard_normal((n, 64), dtype=np.float32))
    pairs, is_cut = near_duplicates(np.zeros(n, np.uint64), features, np.arange(n) % 2)
    assert (len(pairs), is_cut) == (0, False)
    assert features.n_read == n


def test_alike_vectors_of_one_hash_are_read_until_there_are_pairs_enough():
    n = 6_000
    features = Counted(np.ones((n, 2)))
    pairs, is_cut = near_duplicates(np.zeros(n, np.uint64), features, np.arange(n) % 2, max_pairs=10)
    assert (len(pairs), is_cut) == (10, True)
    assert features.n_read < 3 * 2**17


def test_the_search_ends_after_the_work_allowed_and_largest_groups_come_last(monkeypatch):
    for name, value in {"_FEW": 16, "_SIDE": 4, "MOST_WORK": 40_000}.items():
        monkeypatch.setattr(NEAR + name, value)
    items, looked_at = clean()
    hashes = np.zeros(N, np.uint64)
    hashes[[3, 33]] = 2**40 - 1, 2**40 - 2
    white = looked_at | {"hashes": hashes}
    report = find_leaks(items, PARTS, **white)
    assert report.is_clean
    assert report.skipped["near"].startswith("the search ended early")
    white["features"][33] = white["features"][3]
    report = find_leaks(items, PARTS, **white)
    assert report.finding("near").rows.tolist() == [3, 33]
    assert report.finding("near").sentence.startswith("1 or more pairs")
    assert report.skipped == {}
    monkeypatch.setattr(NEAR + "MOST_WORK", 2**33)
    assert find_leaks(items, PARTS, **white).finding("near").sentence.startswith("1 pairs")


@pytest.mark.parametrize(("work", "is_cut"), [(60_000, False), (1_000, True)])
def test_tiles_compared_one_by_one_are_work_as_well(work, is_cut, monkeypatch):
    monkeypatch.setattr(NEAR + "_PAIRS", 30)
    monkeypatch.setattr(NEAR + "MOST_WORK", work)
    hashes, features = np.repeat(np.arange(40, dtype=np.uint64) * 31**7, 3), np.eye(120)
    assert near_duplicates(hashes, features, np.arange(120) % 3)[1] == is_cut


def test_the_search_ends_at_the_number_of_pairs_asked_for():
    hashes, features, parts = np.zeros(40, np.uint64), np.ones((40, 2)), np.arange(40) % 2
    pairs, is_cut = near_duplicates(hashes, features, parts, max_pairs=25)
    assert is_cut
    assert len(pairs) == 25
    assert (parts[pairs[:, 0]] != parts[pairs[:, 1]]).all()
    items, _ = clean()
    found = find_leaks(items, PARTS, hashes=np.zeros(N, np.uint64), features=np.ones((N, 2)), max_pairs=9)
    assert found.finding("near").sentence.startswith("9 or more pairs")


def test_memory_does_not_grow_with_the_number_of_pairs():
    import tracemalloc

    rng = np.random.default_rng(4)
    n = 4_000
    hashes = rng.integers(0, 2**63, n, dtype=np.uint64)
    hashes[: n // 2] &= np.uint64(2**32 - 1)  # each half agrees in two bands: 4e6 pairs are looked at
    hashes[n // 2 :] = hashes[: n // 2] ^ np.uint64(1 << 63)
    features, parts = rng.standard_normal((n, 4)), rng.integers(0, 3, n)
    tracemalloc.start()
    pairs, _ = near_duplicates(hashes, features, parts, min_cosine=-1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    apart = parts[: n // 2] != parts[n // 2 :]
    assert {tuple(pair) for pair in pairs.tolist()} >= {(i, i + n // 2) for i in np.flatnonzero(apart).tolist()}
    assert peak < 8 * 2**20  # the hashes of those pairs would be 32 MB


@pytest.mark.parametrize("n_few", [1, 64])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vectors_without_direction_are_refused_by_row(value, n_few, monkeypatch):
    monkeypatch.setattr(NEAR + "_FEW", n_few)
    features = np.ones((4, 2))
    features[2] = value
    with pytest.raises(EvaluationError, match="vectors of rows 2 are zero or not finite"):
        near_duplicates(np.zeros(4, np.uint64), features, np.array([0, 0, 1, 1]))


@pytest.mark.parametrize("n_few", [1, 64])
def test_a_vector_without_direction_is_let_be_where_it_is_apart_from_none(n_few, monkeypatch):
    monkeypatch.setattr(NEAR + "_FEW", n_few)
    features, parts = np.array([[0.0], [1.0], [1.0]]), np.array([[0, -1], [-1, 0], [-1, 1]])
    assert near_duplicates(np.zeros(3, np.uint64), features, parts)[0].tolist() == [[1, 2]]


def test_a_distance_that_the_bands_cannot_promise_is_refused():
    with pytest.raises(ValueError, match="max_hamming must be 0, 1 or 2"):
        near_duplicates(np.zeros(2, np.uint64), np.ones((2, 1)), np.array([0, 1]), max_hamming=3)


def test_no_tiles_give_no_pairs():
    pairs, is_cut = near_duplicates(np.zeros(3, np.uint64), np.ones((3, 2)), np.full(3, -1))
    assert pairs.shape == (0, 2)
    assert not is_cut
