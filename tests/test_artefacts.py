import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.artefacts import (
    Ledger,
    append_line,
    canonical_json,
    digest_file,
    digest_of,
    is_temporary,
    plain,
    read_lines,
    sweep,
    write_bytes,
    write_json,
    write_text,
    writing,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@dataclass(frozen=True)
class Spec:
    mpp: float = 0.5
    name: str = "a"


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """The number of a process that has ended."""
    return int(
        subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True).stdout
    )


# --- values ---------------------------------------------------------------------------------------------------------


@given(JSON)
def test_plain_leaves_plain_values_as_they_are(value: Any) -> None:
    assert plain(value) == value
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5))
def test_the_order_of_keys_does_not_change_a_digest(value: dict) -> None:
    assert digest_of(dict(reversed(value.items()))) == digest_of(value)


def test_numpy_paths_dataclasses_and_nan_become_plain() -> None:
    value = {1: np.float32(0.5), "a": np.arange(2), "p": Path("a/b"), "s": Spec(), "t": (np.True_, float("nan"))}
    assert plain(value) == {"1": 0.5, "a": [0, 1], "p": "a/b", "s": {"mpp": 0.5, "name": "a"}, "t": [True, None]}


def test_a_digest_sees_every_field_and_the_type_of_a_number_in_text() -> None:
    digests = [digest_of(v) for v in (Spec(), Spec(mpp=0.50001), Spec(name="b"), 1, "1", [1], None, {})]
    assert len(set(digests)) == len(digests)


def test_a_digest_never_changes_between_versions() -> None:
    golden = "f186fbe4f2ad032ec30010c9246bb74d2be0a7d66d82282662b96485f613c573"
    assert digest_of({"b": [1, 0.1, None], "a": "µ"}) == golden
    assert canonical_json({"b": [1, 0.1, None], "a": "µ"}) == '{"a":"µ","b":[1,0.1,null]}'


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="in the middle"), writing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError("in the middle")
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_nothing_is_left_when_a_first_write_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "a.bin") as temporary:  # noqa: PT012
        temporary.write_bytes(b"x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(FileNotFoundError, match="tmp"), writing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("name", ["a.parquet", "a", "a.tar.gz", ".hidden", "ä ö.h5", "x.tmp", "a.tmp.b"])
def test_the_temporary_name_keeps_the_ending_and_is_known_as_temporary(name: str, tmp_path: Path) -> None:
    with writing(tmp_path / name) as temporary:
        temporary.write_bytes(b"1")
        assert temporary.parent == tmp_path
        assert temporary.suffix == (Path(name).suffix or ".tmp")
        assert is_temporary(temporary)
        assert not is_temporary(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"1"


def test_a_reader_of_the_old_file_keeps_it_while_it_is_replaced(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with (tmp_path / "a").open("rb") as reader:
        write_bytes(tmp_path / "a", b"new")
        assert reader.read() == b"old"


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": (1, 2), "a": np.float64(0.1)})
    write_json(tmp_path / "b", {"a": 0.1, "b": [1, 2]})
    assert digest_file(tmp_path / "a") == digest_file(tmp_path / "b")


# --- logs -----------------------------------------------------------------------------------------------------------


@given(st.lists(JSON, max_size=5))
def test_lines_come_back_as_they_were_written(tmp_path: Path, values: list) -> None:
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    for value in values:
        append_line(path, {"v": value})
    assert read_lines(path) == [{"v": value} for value in values]


def test_characters_that_text_takes_for_line_ends_stay_inside_a_line(tmp_path: Path) -> None:
    append_line(tmp_path / "l", {"slide": "a\u2028b\x85c\x0cd\ne"})
    assert read_lines(tmp_path / "l") == [{"slide": "a\u2028b\x85c\x0cd\ne"}]


@pytest.mark.parametrize("n_bytes", range(1, 12))
def test_a_line_torn_anywhere_is_left_out_and_makes_room_for_the_next(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "l"
    append_line(path, {"n": 1})
    append_line(path, {"µ": "ü"})
    path.write_bytes(path.read_bytes()[:-n_bytes])
    assert read_lines(path) == [{"n": 1}]
    append_line(path, {"n": 2})
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none") == []


# --- sweep ----------------------------------------------------------------------------------------------------------


def test_sweep_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path, dead_pid: int) -> None:
    inner = tmp_path / "tiles" / "spec"
    inner.mkdir(parents=True)
    dead = [f".a.parquet.{dead_pid}-0123456789abcdef.tmp.parquet", f".b.{dead_pid}-0123456789abcdef.tmp"]
    kept = [
        f".a.parquet.{os.getppid()}-0123456789abcdef.tmp.parquet",  # a living process
        f".a.tmp.x.{os.getppid()}-0123456789abcdef.tmp.x",  # its slide has an odd name
        ".notes.tmp",  # somebody else's
        ".vacation.2024-1.tmp.jpg",
        f"a.{dead_pid}-0123456789abcdef.tmp",  # not hidden: not ours
        "a.tmp",
        "a.parquet",
    ]
    for name in (*dead, *kept):
        (inner / name).write_text("")
    assert sweep(tmp_path) == 2
    assert sorted(p.name for p in inner.iterdir()) == sorted(kept)


def test_sweep_spares_what_this_very_process_is_writing(tmp_path: Path) -> None:
    with writing(tmp_path / "a.h5") as temporary:
        temporary.write_bytes(b"1")
        assert sweep(tmp_path) == 0
    assert (tmp_path / "a.h5").exists()


def test_sweep_removes_what_a_dead_process_of_the_same_number_left(tmp_path: Path) -> None:
    (tmp_path / f".a.h5.{os.getpid()}-0123456789abcdef.tmp.h5").write_text("")  # as after a container's restart
    assert sweep(tmp_path) == 1


# --- ledger ---------------------------------------------------------------------------------------------------------


def make(folder: Path, key: str = "a", spec: Any = Spec(), inputs: Any = 1) -> Ledger:
    ledger = Ledger(folder, "stage", spec)
    write_text(folder / f"{key}.txt", "content")
    ledger.commit(key, inputs, folder / f"{key}.txt", status="done", n=np.int64(3))
    return ledger


def test_a_receipt_is_found_for_the_same_inputs_only(tmp_path: Path) -> None:
    make(tmp_path)
    found = Ledger(tmp_path, "stage", Spec()).find("a", 1)
    assert found is not None
    assert (found.file, found.n_bytes, found.facts, found.status) == ("a.txt", 7, {"n": 3}, "done")
    assert Ledger(tmp_path, "stage", Spec()).find("a", 2) is None
    assert Ledger(tmp_path, "other", Spec()).find("a", 1) is None
    assert Ledger(tmp_path, "stage", Spec(mpp=1.0)).find("a", 1) is None
    assert Ledger(tmp_path, "stage", Spec()).find("b", 1) is None


def test_a_new_field_of_the_spec_invalidates(tmp_path: Path) -> None:
    make(tmp_path, spec={"mpp": 0.5})
    assert Ledger(tmp_path, "stage", {"mpp": 0.5, "blur": None}).find("a", 1) is None


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_text("conten"), lambda p: p.write_text("")])
def test_a_missing_or_truncated_artefact_has_no_receipt(damage: Any, tmp_path: Path) -> None:
    ledger = make(tmp_path)
    damage(tmp_path / "a.txt")
    assert ledger.find("a", 1) is None


@pytest.mark.parametrize("torn", [b"", b"{", b'{"key": "a"}', b"null", b"[]", b"\xff\xfe", b'{"key": 1, "other": 2}'])
def test_a_torn_or_foreign_receipt_counts_as_none(torn: bytes, tmp_path: Path) -> None:
    ledger = make(tmp_path)
    (tmp_path / ".receipts" / "a.json").write_bytes(torn)
    assert ledger.find("a", 1) is None
    assert ledger.read("a") is None


def test_an_artefact_may_be_no_file_but_a_reason(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "stage", Spec())
    ledger.commit("a", 1, None, status="skipped", reason="no label")
    found = ledger.find("a", 1)
    assert found is not None
    assert (found.status, found.reason, found.file) == ("skipped", "no label", "")


def test_the_manifest_is_sorted_and_the_same_whatever_the_order(tmp_path: Path) -> None:
    for key in ("b", "a"):
        ledger = make(tmp_path, key)
    first = ledger.write_manifest(["b", "a", "gone"])
    data = (tmp_path / "manifest.json").read_bytes()
    ledger.write_manifest(["a", "b"])
    assert (tmp_path / "manifest.json").read_bytes() == data
    assert [entry["key"] for entry in first["entries"]] == ["a", "b"]
    assert first["spec"] == {"mpp": 0.5, "name": "a"}
    assert not any(text in data.decode() for text in (str(tmp_path), str(os.getpid())))
