"""Reserve: the actors of a job's next generation, some of them new, which begin beside those that learn.

Processes take seconds to start, and tables as long as they are large. What can be done ahead is done here, so that the
job stands still for the last step only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from actors.ports import LaunchError
from cluster.remote import end_actor, ended, free_resources

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.config import Pipeline

__all__ = ["Reserve"]


class Reserve:
    """Actors as a generation of `pipeline` is to have them.

    `shards` and `workers` by their numbers; those that are not `old`, which learn at present, were made for it.
    """

    def __init__(
        self, pipeline: Pipeline, shards: list[Any], workers: list[Any], old: Collection[Any]
    ) -> None:
        self.shards, self.workers = shards, workers
        self.new = new = {*shards, *workers} - {*old}
        self.snapshot: int | None = None
        self._pipeline = pipeline
        self._loading = False
        begun = [shard.warm.remote() for shard in shards if shard in new]
        self._begun = begun + [worker.warm.remote(pipeline) for worker in workers if worker in new]
        config = pipeline.cluster
        self._until_s = time.monotonic() + config.actor_start_timeout_s + config.scale_up_timeout_s

    def ready(self) -> bool:
        """Whether all have done what they were asked to; returns at once. Raises StoreError, SnapshotError."""
        done = ended(self._begun, "actor")
        self._begun = [reference for reference in self._begun if reference not in done]
        if not self._begun:
            return True
        if time.monotonic() > self._until_s:
            what = "load the snapshot" if self._loading else "start"
            raise LaunchError(
                f"expected {len(self.new)} actors to {what} in time beside those that learn, but {len(self._begun)} "
                f"did not; free in the cluster: {free_resources()}; add nodes, or ask for fewer"
            )
        return False

    def preload(self, run_url: str, tables: int) -> None:
        """Have the new shards load a snapshot, beside the learning."""
        self._loading = True
        self._begun = [shard.preload.remote(run_url, tables) for shard in self.shards if shard in self.new]
        self._until_s = time.monotonic() + self._pipeline.snapshots.write_timeout_s

    def switch(self, snapshot: int) -> None:
        """The next generation is this one's: it begins at a snapshot, which the shards that learn now hold already."""
        self.snapshot = snapshot

    def discard(self) -> None:
        """End the new actors: nobody needs them."""
        for actor in self.new:
            end_actor(actor)
