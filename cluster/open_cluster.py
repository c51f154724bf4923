"""The cluster that a job runs on: actors on Ray, or plain objects in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cluster.loopback import stay_on_loopback

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cluster.cluster_port import ClusterPort
    from cluster.config import Pipeline

__all__ = ["open_cluster"]


def open_cluster(pipeline: Pipeline, run: str, *, local: bool) -> AbstractContextManager[ClusterPort]:
    """Nothing is started before it is entered; Ray is imported only where it is used."""
    if local:
        from cluster.local import LocalCluster

        return LocalCluster(pipeline)
    if not (pipeline.cluster.address or os.environ.get("RAY_ADDRESS")):
        stay_on_loopback()
    from cluster.launch import RayCluster

    return RayCluster(pipeline, run)
