"""The one artefact rule: files appear whole or not at all, and each says what it was made from.

No other module opens a file for writing (a test walks the AST). A stage's folder is a `Ledger`: each artefact has a
receipt holding the digest of its inputs and of its bytes. What has a valid receipt for the same inputs is skipped, so
resuming is no feature of a stage but how every stage works. Receipts hold no clock, host or absolute path: the same
inputs give the same bytes.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FORMAT_VERSION = "1.0"
RECEIPTS = ".receipts"
_PROCESS = secrets.token_hex(4)  # tells this process from a dead one of the same number
_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)-(?P<process>[0-9a-f]{8})[0-9a-f]{8}\.tmp(\.[^.]*)?")
_VERSIONED = (
    "histokin",
    "numpy",
    "pyarrow",
    "h5py",
    "torch",
    "timm",
    "opencv-python-headless",
    "openslide-python",
)


def plain(value: Any) -> Any:
    """Turn dataclasses, tuples, paths and numpy scalars into what JSON knows; NaN and infinities into None."""
    if type(value).__module__ == "numpy":  # scalars and arrays, without importing numpy
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, shortest round-trip floats: equal content gives equal text."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it to disk and rename it.

    The temporary name keeps the suffix, since some writers choose their format by it. Nothing is left behind when the
    block raises; what a killed process left is removed by `sweep`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{os.getpid()}-{_PROCESS}{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `\\n` line ends, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON with sorted keys; equal content gives equal bytes."""
    write_text(path, json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line to a log (the only files that grow); a last line torn by a kill makes room for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(max(0, file.tell() - 1))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write((canonical_json(value) + "\n").encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON-lines file; a last line torn by a kill is left out."""
    if not path.exists():
        return []
    # bytes: a kill can tear a character apart, and text knows line ends that JSON does not
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]


def is_temporary(path: Path) -> bool:
    """Whether a name is one that `writing` gives out."""
    return _TEMPORARY.fullmatch(path.name) is not None


def set_aside(folder: Path, mark: str) -> Path:
    """Rename a folder to NAME-MARK (with + added while there is one of that name) and return where it is."""
    aside = folder.with_name(f"{folder.name}-{mark}")
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    folder.rename(aside)
    _flush_folder(folder.parent)
    return aside


def sweep(folder: Path) -> int:
    """Remove temporary files that no living process of this machine owns; returns how many were removed."""
    n_removed = 0
    for path in folder.rglob(".*"):
        if is_temporary(path) and not _is_owner_alive(path):
            path.unlink(missing_ok=True)
            n_removed += 1
    return n_removed


def _is_owner_alive(path: Path) -> bool:
    owner = _TEMPORARY.fullmatch(path.name)
    if owner is None or int(owner["pid"]) == os.getpid():
        return owner is not None and owner["process"] == _PROCESS
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def versions() -> dict[str, str]:
    """Versions of what an artefact's bytes may depend on."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one artefact is: the digests of what went in and came out, and its state in words.

    `status` is done, empty, failed or skipped; `facts` are numbers worth keeping (tiles by status, sizes).
    """

    key: str
    file: str
    inputs: str
    digest: str
    n_bytes: int
    status: str = "done"
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The artefacts of one stage in one folder, each with its receipt.

    Args:
        folder: where the artefacts lie; receipts go to `.receipts/` inside it.
        stage: the stage's name, written into the manifest.
        spec: everything the stage's result depends on besides an artefact's own inputs (dataclass or mapping); any
            change, also a new field, invalidates every artefact of the folder.
    """

    def __init__(self, folder: Path, stage: str, spec: Any) -> None:
        self.folder, self.stage, self.spec = folder, stage, plain(spec)

    def inputs_digest(self, inputs: Any) -> str:
        """The digest under which an artefact made from `inputs` is filed."""
        return digest_of({"stage": self.stage, "spec": self.spec, "inputs": inputs, "format": FORMAT_VERSION})

    def find(self, key: str, inputs: Any) -> Receipt | None:
        """The receipt of `key` if it was made from the same inputs and its file is still whole, else None."""
        receipt = self.read(key)
        if receipt is None or receipt.inputs != self.inputs_digest(inputs):
            return None
        file = self.folder / receipt.file
        if receipt.file and (not file.exists() or file.stat().st_size != receipt.n_bytes):
            return None
        return receipt

    def forget(self, key: str) -> None:
        """Remove the receipt of an artefact that is about to be made anew.

        Else a kill between file and receipt, followed by a return to the old inputs, would serve the new file for the
        old one.
        """
        self._receipt_path(key).unlink(missing_ok=True)

    def read(self, key: str) -> Receipt | None:
        """The receipt of `key`, whatever its inputs were."""
        path = self._receipt_path(key)
        if not path.exists():
            return None
        try:
            return Receipt(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return None  # torn, or of another format version: made anew

    def commit(
        self,
        key: str,
        inputs: Any,
        file: Path | None,
        *,
        status: str = "done",
        reason: str = "",
        **facts: Any,
    ) -> Receipt:
        """File the receipt of an artefact that was just written (`file` None: there is none, `reason` says why)."""
        receipt = Receipt(
            key=key,
            file=file.relative_to(self.folder).as_posix() if file else "",
            inputs=self.inputs_digest(inputs),
            digest=digest_file(file) if file else "",
            n_bytes=file.stat().st_size if file else 0,
            status=status,
            reason=reason,
            facts=plain(facts),
        )
        write_json(self._receipt_path(key), receipt)
        return receipt

    def write_manifest(self, keys: list[str]) -> dict[str, Any]:
        """Merge the receipts of `keys` into `manifest.json`; returns what was written."""
        entries = [receipt for key in sorted(keys) if (receipt := self.read(key)) is not None]
        manifest = {
            "format": "manifest",
            "format_version": FORMAT_VERSION,
            "stage": self.stage,
            "spec": self.spec,
            "spec_digest": digest_of(self.spec),
            "versions": versions(),
            "entries": [plain(entry) for entry in entries],
        }
        write_json(self.folder / "manifest.json", manifest)
        return manifest

    def _receipt_path(self, key: str) -> Path:
        return self.folder / RECEIPTS / f"{key}.json"
