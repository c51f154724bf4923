"""The pipeline's `cluster` section: how many actors, what each needs of its node, and on which Ray."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from cluster.config_learners import Section

__all__ = ["ClusterConfig"]

_OWN_KEYS = {
    "CPU": "every actor takes one",
    "GPU": "say cluster.gpus_per_worker",
    "memory": "say cluster.shard_memory_bytes",
    "object_store_memory": "it cannot be asked for",
}
_Resources = dict[str, Annotated[float, Field(gt=0)]]


class ClusterConfig(Section):
    """How many actors, and on which Ray; `address` None starts a local Ray on 127.0.0.1 only (or uses RAY_ADDRESS)."""

    shards: Annotated[int, Field(ge=1, le=1024)] = 2
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    shard_memory_bytes: PositiveInt | None = None
    """Memory that a shard reserves on its node, so that Ray puts no more shards there than it can hold."""
    shard_resources: _Resources = Field(default_factory=dict)
    """Ray's custom resources of each shard: {shard: 1} keeps them on nodes that offer `shard`."""
    worker_resources: _Resources = Field(default_factory=dict)
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs that a worker reserves; 0.5: two workers share one."""
    pulls_in_flight_max: Annotated[int, Field(ge=1, le=2)] = 2
    """2: a worker pulls its next batch before it has learnt this one, so that it does not wait for the shards."""
    staleness_examples_max: Annotated[int, Field(ge=0)] | None = None
    """Records that other workers may push between a worker's pull and its push; who would exceed it waits."""
    staleness_share_max: Annotated[float, Field(gt=0)] | None = 0.1
    """Nor may they push more than this share of all records pushed so far: workers begin in turns."""
    address: str | None = None
    actor_start_timeout_s: PositiveFloat = 120.0
    scale_up_timeout_s: Annotated[float, Field(ge=0)] = 0.0
    """How long an autoscaler is given to bring nodes for actors that have no room; 0: there is none."""
    call_timeout_s: PositiveFloat = 60.0

    @field_validator("shard_resources", "worker_resources")
    @classmethod
    def _custom_only(cls, resources: dict[str, float]) -> dict[str, float]:
        for name, amount in resources.items():
            if name in _OWN_KEYS:
                msg = f"{name} is no custom resource: {_OWN_KEYS[name]}"
                raise ValueError(msg)
            if amount > 1 and amount % 1:
                msg = f"{name} {amount:g} is above 1 and no whole number, which Ray does not take"
                raise ValueError(msg)
        return resources

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus % 1:
            msg = "more than one GPU can only be whole ones"
            raise ValueError(msg)
        return gpus
