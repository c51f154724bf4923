"""The status document: what a job says of itself, in RUN/status.json; docs/status.md explains each field to readers.

It is written by the job's driver and read by `jobs.status` and by other programs. `format` counts changes that would
break a reader; new fields do not. What is unknown or undefined (a freshness without production times) is null.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cluster.snapshots.errors import SnapshotDamagedError, SnapshotError
from cluster.snapshots.places import Place

__all__ = [
    "BYTES_MAX",
    "ENDED",
    "FORMAT",
    "STATUS_FILE",
    "Event",
    "Freshness",
    "Job",
    "Partition",
    "Point",
    "Quality",
    "Shard",
    "Snapshots",
    "StatusDocument",
    "Worker",
    "read_status",
]

FORMAT = 1
STATUS_FILE = "status.json"
BYTES_MAX = 16 * 2**20

State = Literal["starting", "learning", "recovering", "ending", "finished", "stopped", "failed"]
ENDED = frozenset({"finished", "stopped", "failed"})
"""States of a job that does not run any more: at the input's end, when asked to stop, by an error."""


def _known(value: Any) -> Any:
    """JSON has no NaN: what is undefined is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_known)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Job(_Part):
    """Which job it is. `place` is `Ray` or `this process`; times are seconds since 1970."""

    run: str
    pipeline: str
    source: str
    learner: str
    place: str
    host: str
    pid: int
    run_url: str
    mlflow_run: str | None
    started_s: float


class Freshness(_Part):
    """Seconds from produced to learnt, over the window."""

    p50_s: Figure
    p99_s: Figure


class Quality(_Part):
    """One metric of the predictions, made before their labels were learnt."""

    window: Figure
    since_start: Figure


class Partition(_Part):
    """Its next offset, the messages behind that which are there, and the messages learnt a second in the window."""

    partition: int
    worker: int
    offset: int | None
    lag: int | None
    per_s: Figure


class Worker(_Part):
    """What a worker has learnt in this generation, and in the window."""

    worker: int
    partitions: list[int]
    records: int
    dead: int
    lag: int
    records_per_s: Figure
    finished: bool


class Shard(_Part):
    """What a shard holds over all its tables; `load` is the filled share of its fullest index."""

    shard: int
    rows: int
    bytes: int
    load: Figure
    pushes: int | None = None
    moved_rows: int | None = None
    waits: int | None = None


class Snapshots(_Part):
    """The last snapshot that is whole (number 0: none yet), and how long workers stood still for snapshots."""

    number: int
    created_s: float | None = None
    records: int | None = None
    size_bytes: int | None = None
    write_s: float | None = None
    pause_p50_s: Figure = None
    pause_p99_s: Figure = None


class Event(_Part):
    """Something that people want to know of: `kind` is one word (drift, rollback, said)."""

    time_s: float
    records: int
    kind: str
    sentence: str


class Point(_Part):
    """The past, for a small chart: rate and first metric in the window that ended `seconds` after the start."""

    seconds: float
    records: int
    records_per_s: Figure
    quality: Figure


class StatusDocument(_Part):
    """All of it. Figures are of `seen_s`; the file is written anew every `interval_s`, also if nothing has changed."""

    format: int = FORMAT
    state: State
    reason: str | None = None
    written_s: float
    interval_s: float
    job: Job
    seen_s: float | None = None
    seconds: float = 0.0
    window_s: float = 0.0
    generation: int = 0
    recoveries: int = 0
    records: int = 0
    records_total: int | None = None
    dead: int = 0
    lag: int | None = None
    records_per_s: Figure = None
    freshness: Freshness = Freshness(p50_s=None, p99_s=None)
    staleness: dict[str, Figure] = Field(default_factory=dict)
    quality: dict[str, Quality] = Field(default_factory=dict)
    snapshots: Snapshots = Snapshots(number=0)
    partitions: list[Partition] = Field(default_factory=list)
    workers: list[Worker] = Field(default_factory=list)
    shards: list[Shard] = Field(default_factory=list)
    tables: dict[str, dict[str, Figure]] = Field(default_factory=dict)
    groups: dict[str, dict[str, dict[str, Figure]]] = Field(default_factory=dict)
    events: list[Event] = Field(default_factory=list)
    history: list[Point] = Field(default_factory=list)

    @property
    def ended(self) -> bool:
        """True once the job does not run any more, by its own word."""
        return self.state in ENDED


def read_status(place: Place) -> StatusDocument | None:
    """The document in a run's folder; None if there is none. Raises SnapshotError if it cannot be read or believed."""
    where = f"{place.url}/{STATUS_FILE}"
    try:
        raw = place.read_bytes(STATUS_FILE, BYTES_MAX)
    except SnapshotDamagedError as error:
        if STATUS_FILE not in place.sizes():
            return None
        raise SnapshotError(str(error)) from error
    try:
        found = StatusDocument.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SnapshotError(
            f"{where} is not as we write it: {at}: {first['msg']}; it is written anew while the job runs, "
            "and may be removed"
        ) from error
    if found.format != FORMAT:
        raise SnapshotError(
            f"{where} has format {found.format}, and this code reads {FORMAT}: look with the code that the job runs"
        )
    return found
