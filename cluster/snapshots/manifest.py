"""SnapshotManifest: what a snapshot is, from which place in the stream, and which files it consists of.

It is written last. A folder without one was never finished; one that was changed does not match its own checksum.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cluster.models.redaction import without_secrets
from cluster.models.signed_json import SignedJsonError, parse_signed, render_signed
from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.file_entry import PartFiles
from learning.keys import SEGMENTS

__all__ = ["FORMAT", "MANIFEST", "MANIFEST_BYTES_MAX", "NUMBER_MAX", "SnapshotManifest"]

MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16 * 2**20
FORMAT = 2
NUMBER_MAX = 2**31 - 2
"""As far as a row's stamp reaches (learning/changes.py): one a second, for 68 years."""
_NOTE_BYTES_MAX = 65_536
_INT_END = 2**63

T = TypeVar("T")


@dataclass(frozen=True)
class SnapshotManifest:
    """A finished snapshot.

    Attributes:
        number: 1 and up; names the folder.
        generation: which start of the run wrote it.
        parent: the snapshot that this one is the difference to; None: a base.
        shards: how many there were; part s of `parts` is that of shard s.
        pipeline: the resolved one as plain JSON; secrets are left out when it is written.
        offsets: the next offset of each partition.
        ends: where each partition's bounded input ends; None where it does not.
        records: read so far, dead ones included.
        dead: read so far and dead.
        turns: the partition of each worker's last batch.
        metrics: those that are not finite are left out when it is written.
        parts: the files of the shards.
        job: the job's own files.
        code_version: of the code that wrote it.
        created_s: seconds since 1970.
        note: small JSON: why it was made, what it goes back to.
        parent_signature: the checksum of the parent's manifest, put in by `SnapshotStore.commit`.
        signature: its own; empty until it is written.

    """

    number: int
    generation: int
    parent: int | None
    shards: int
    pipeline: dict[str, Any]
    offsets: dict[int, int]
    ends: dict[int, int | None]
    records: int
    dead: int
    turns: dict[int, int]
    metrics: dict[str, float]
    parts: tuple[PartFiles, ...]
    job: PartFiles
    code_version: str
    created_s: float
    note: dict[str, Any] = field(default_factory=dict)
    parent_signature: str | None = None
    signature: str = field(default="", compare=False)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.number:06d}"

    def all_parts(self) -> tuple[PartFiles, ...]:
        """Those of the shards, and the job's."""
        return (*self.parts, self.job)

    def render(self) -> bytes:
        """Its file, checked as it will be when it is read. Raises SnapshotError."""
        try:
            raw = render_signed(self._as_json())
        except (SignedJsonError, TypeError, ValueError, RecursionError) as error:
            raise SnapshotError(
                f"snapshot {self.number} cannot be written: {error}; the pipeline and the note are to be plain JSON"
            ) from error
        if len(raw) > MANIFEST_BYTES_MAX:
            raise SnapshotError(
                f"the manifest of snapshot {self.number} is longer than {MANIFEST_BYTES_MAX} bytes"
            )
        SnapshotManifest.parse(raw, f"the manifest of snapshot {self.number}, which was to be written,")
        return raw

    @classmethod
    def parse(cls, raw: bytes, where: str) -> SnapshotManifest:
        """Read a file that `render` wrote; `where` names it. Raises SnapshotDamagedError."""
        try:
            values, signature = parse_signed(raw)
        except SignedJsonError as error:
            raise SnapshotDamagedError(f"{where} is not a manifest as we write it: {error}") from error
        if values.get("format") != FORMAT:
            raise SnapshotDamagedError(
                f"{where}: expected format {FORMAT}, but came {_shown(values.get('format'))}; use its code version"
            )
        try:
            manifest = cls(**_Reader(values, where).fields(), signature=signature)
        except KeyError as error:
            raise SnapshotDamagedError(f"{where} lacks {error}") from error
        _check_whole(manifest, where)
        return manifest

    def _as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "number": self.number, "generation": self.generation, "parent": self.parent,
            "parent_signature": self.parent_signature, "shards": self.shards,
            "pipeline": without_secrets(self.pipeline),
            "offsets": _with_text_keys(self.offsets), "ends": _with_text_keys(self.ends),
            "records": int(self.records), "dead": int(self.dead), "turns": _with_text_keys(self.turns),
            "metrics": {name: float(value) for name, value in self.metrics.items() if math.isfinite(value)},
            "parts": [part.as_json() for part in self.parts], "job": self.job.as_json(),
            "code_version": self.code_version, "created_s": float(self.created_s), "note": self.note,
        }  # fmt: skip


def _check_whole(manifest: SnapshotManifest, where: str) -> None:
    """What no field can say alone."""
    if manifest.parent is not None and manifest.parent >= manifest.number:
        raise SnapshotDamagedError(
            f"{where}: expected a parent older than {manifest.number}, but came {manifest.parent}"
        )
    if (manifest.parent is None) != (manifest.parent_signature is None):
        raise SnapshotDamagedError(f"{where}: expected a parent and its signature, or neither")
    if len(manifest.parts) != manifest.shards:
        raise SnapshotDamagedError(
            f"{where}: expected the parts of {manifest.shards} shards, but came {len(manifest.parts)}"
        )
    if len({part.prefix for part in manifest.all_parts()}) < manifest.shards + 1:
        raise SnapshotDamagedError(f"{where}: two parts have the same prefix")
    if any(entry.name.count(".") != 2 for part in manifest.parts for entry in part.files):
        raise SnapshotDamagedError(f"{where}: a shard's file is not called PREFIX.TABLE.FIELD")
    if len({tuple(sorted(part.tables())) for part in manifest.parts}) > 1:
        raise SnapshotDamagedError(f"{where}: the shards' parts are not of the same tables")
    if len(json.dumps(manifest.note)) > _NOTE_BYTES_MAX:
        raise SnapshotDamagedError(f"{where}: the note is longer than {_NOTE_BYTES_MAX} characters")


class _Reader:
    """Fields of a manifest, none of which is believed before its type was looked at."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def fields(self) -> dict[str, Any]:
        """Arguments of SnapshotManifest. Raises SnapshotDamagedError, or KeyError for one that is not there."""
        parent, parent_signature = self._values["parent"], self._values["parent_signature"]
        return {
            "number": self._int("number", 1, NUMBER_MAX),
            "generation": self._int("generation", 0),
            "parent": None if parent is None else self._int("parent", 1, NUMBER_MAX),
            "parent_signature": None if parent_signature is None else self._is("parent_signature", str),
            "shards": self._int("shards", 1, SEGMENTS),
            "pipeline": self._is("pipeline", dict),
            "offsets": self._numbers("offsets", _whole),
            "ends": self._numbers("ends", lambda value: value is None or _whole(value)),
            "records": self._int("records", 0),
            "dead": self._int("dead", 0),
            "turns": self._numbers("turns", _whole),
            "metrics": self._every(self._is("metrics", dict), "metrics", lambda value: type(value) is float),
            "parts": tuple(PartFiles.from_json(part, self._where) for part in self._is("parts", list)),
            "job": PartFiles.from_json(self._values["job"], self._where),
            "code_version": self._is("code_version", str),
            "created_s": self._is("created_s", float),
            "note": self._is("note", dict),
        }

    def _int(self, name: str, low: int, high: int = _INT_END - 1) -> int:
        value = self._is(name, int)
        if not low <= value <= high:
            raise self._wrong(name, f"a number from {low} to {high}", value)
        return value

    def _is(self, name: str, kind: type[T]) -> T:
        value = self._values[name]
        if type(value) is not kind:  # and not isinstance: true is no number here
            raise self._wrong(name, kind.__name__, value)
        return value

    def _numbers(self, name: str, fits: Callable[[Any], bool]) -> dict[int, Any]:
        values = self._every(self._is(name, dict), name, fits)
        for text in values:
            if not (text.isascii() and text.isdigit() and len(text) < 20 and str(int(text)) == text):
                raise self._wrong(name, "whole numbers as keys", text)
        return {int(text): value for text, value in values.items()}

    def _every(self, values: dict[str, T], name: str, fits: Callable[[T], bool]) -> dict[str, T]:
        for value in values.values():
            if not fits(value):
                raise self._wrong(name, "numbers that can be so", value)
        return values

    def _wrong(self, name: str, expected: str, value: Any) -> SnapshotDamagedError:
        return SnapshotDamagedError(f"{self._where}: expected {expected} as {name}, but came {_shown(value)}")


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INT_END


def _with_text_keys(values: Mapping[int, int | None]) -> dict[str, int | None]:
    return {str(int(key)): None if value is None else int(value) for key, value in values.items()}


def _shown(value: Any) -> str:
    """A value in an error: short, whatever a hostile file holds."""
    plain = value is None or isinstance(value, str | int | float)
    return repr(value)[:60] if plain else f"a {type(value).__name__}"
