"""Keeps a local Ray on 127.0.0.1.

Ray replaces a loopback address by the machine's own and then listens on all interfaces, unless it is told that there
will be no other node. It reads that word (named after the systems where it is the default) when it is imported, so
`stay_on_loopback` has to be called before. Measured with Ray 2.60: afterwards every socket is bound to 127.0.0.1.
"""

from __future__ import annotations

import os
import sys

__all__ = ["stay_on_loopback"]

_NO_OTHER_NODES = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def stay_on_loopback() -> bool:
    """Have a Ray that this process starts listen on 127.0.0.1 only; False where Ray was imported too early for it."""
    name, value = _NO_OTHER_NODES
    if "ray" in sys.modules:
        return os.environ.get(name) == value
    os.environ[name] = value
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    return True
