"""The Ray that a job runs on: one that is there already, one that is joined, or a local one that is started and ended.

Without `cluster.address` and RAY_ADDRESS a local Ray is started on 127.0.0.1, with its files in a folder of its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import ray

from actors.ports import LaunchError
from cluster.loopback import stay_on_loopback

if TYPE_CHECKING:
    from cluster.config import ClusterConfig

__all__ = ["NAMESPACE", "LaunchError", "RaySession", "local_ray_options"]

NAMESPACE = "millrace"
"""Of all our actors, so that any program on the cluster finds them by name."""

INLINE_BYTES_MAX = 2 * 2**20
"""Arguments and returns below this travel inside the call; measured: 25 -> 16 ms a cycle of 100 k keys."""

_OBJECT_STORE_BYTES = 512 * 2**20


def local_ray_options(cpus: int, folder: str) -> dict[str, Any]:
    """Arguments of `ray.init` for a Ray of our own: on 127.0.0.1, with its files in `folder`, without a dashboard."""
    return {
        "address": "local",
        "num_cpus": cpus,
        "num_gpus": 0,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
        "_system_config": {"max_direct_call_object_size": INLINE_BYTES_MAX},
    }


class RaySession:
    """Joins or starts a Ray; `close` ends what was started here."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._owns_ray = False
        self._owned_folder: str | None = None

    def connect(self) -> None:
        """Join or start it. Raises LaunchError."""
        if ray.is_initialized():  # a notebook, or a test, that has joined or started a Ray of its own
            return
        self._owns_ray = True
        address = self._config.address or os.environ.get("RAY_ADDRESS")
        common: dict[str, Any] = {
            "namespace": NAMESPACE,
            "logging_level": logging.ERROR,
            "log_to_driver": True,
        }
        if address:
            _init_ray(f"the Ray at {address}", address=address, **common)
            return
        if not stay_on_loopback():
            logging.getLogger("millrace.launch").warning(
                "Ray was imported before it could be told to stay on 127.0.0.1 and listens on all interfaces; call "
                "cluster.loopback.stay_on_loopback() first, or keep this machine behind a firewall"
            )
        # Ray's sockets live in its temporary folder and have short paths at most (107 bytes on Linux).
        self._owned_folder = tempfile.mkdtemp(prefix="millrace-ray-")
        config = self._config
        options = local_ray_options(config.shards + config.workers, self._owned_folder)
        if config.gpus_per_worker:
            options["num_gpus"] = None  # those that there are
        _init_ray("a local Ray", **common, **options)

    @property
    def is_own(self) -> bool:
        """Whether it was started here, for this job alone: then it has room for whatever the machine has."""
        return self._owned_folder is not None

    def close(self) -> None:
        """Leave it, or end it if it was started here; may be called twice."""
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False
        if self._owned_folder is not None:
            shutil.rmtree(self._owned_folder, ignore_errors=True)
            self._owned_folder = None


def _init_ray(which: str, **options: Any) -> None:
    """ray.init, whose errors become sentences, and which leaves SIGTERM to whoever had it before."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:400]
        msg = f"{which} could not be started or joined: {reason}; check cluster.address and RAY_ADDRESS, or free memory"
        raise LaunchError(msg) from error
    except SystemExit:  # what Ray makes of a SIGTERM
        raise KeyboardInterrupt from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)
