"""How many workers and shards a job has, and what a run remembers of having been scaled (RUN/sizes.json).

    {"asked": {"workers": 2, "shards": 2}, "in_force": {"workers": 8, "shards": 4}}

A job that was scaled and is started again goes on with the numbers in force, as long as the pipeline file says what it
said then (`asked`): a driver that died on its own is to come back as it was. A file that was changed since counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.requests import ACTORS_MAX
from cluster.snapshots.errors import SnapshotError
from cluster.snapshots.remote_place import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.config import Pipeline

__all__ = ["Sizes", "as_scaled", "remember", "remembered"]

_NAME = "sizes.json"
_BYTES_MAX = 10_000


class Sizes(NamedTuple):
    """Numbers of actors."""

    workers: int
    shards: int

    @classmethod
    def asked(cls, pipeline: Pipeline) -> Sizes:
        """Those that a pipeline file asks for."""
        return cls(pipeline.cluster.workers, pipeline.cluster.shards)

    def of(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with these numbers."""
        cluster = pipeline.cluster.model_copy(update=self._asdict())
        return pipeline.model_copy(update={"cluster": cluster})

    def __str__(self) -> str:
        workers, shards = (
            f"{n} {what}{'s' * (n != 1)}" for n, what in zip(self, ("worker", "shard"), strict=True)
        )
        return f"{workers} and {shards}"


def remember(run_url: str, asked: Sizes, in_force: Sizes) -> None:
    """Note that a job of the run, whose file asks for `asked`, has others. Raises SnapshotError."""
    values = {"asked": asked._asdict(), "in_force": in_force._asdict()}
    place_of(run_url).write_whole(_NAME, f"{json.dumps(values)}\n".encode())


def remembered(run_url: str, asked: Sizes) -> Sizes:
    """The numbers with which a job that asks for `asked` is to begin. Raises SnapshotError."""
    place = place_of(run_url)
    if _NAME not in place.sizes():
        return asked
    try:
        values = json.loads(place.read_bytes(_NAME, _BYTES_MAX))
        then, in_force = _sizes(values["asked"]), _sizes(values["in_force"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(
            f"{place.url}/{_NAME} does not say how many actors the run had ({error}); remove it, then the pipeline "
            "file counts"
        ) from error
    return in_force if then == asked else asked


def as_scaled(pipeline: Pipeline, run_url: str, say: Callable[[str], None]) -> Pipeline:
    """The pipeline with the numbers that are in force in the run. Raises SnapshotError."""
    asked = Sizes.asked(pipeline)
    in_force = remembered(run_url, asked)
    if in_force == asked:
        return pipeline
    say(
        f"the run was scaled to {in_force}, and goes on so; if cluster.workers and cluster.shards in the pipeline file "
        f"said anything but {asked}, that would count"
    )
    return in_force.of(pipeline)


def _sizes(values: Any) -> Sizes:
    sizes = Sizes(values["workers"], values["shards"])
    if any(type(size) is not int or not 1 <= size <= ACTORS_MAX for size in sizes):
        raise ValueError(f"expected numbers from 1 to {ACTORS_MAX}")
    return sizes
