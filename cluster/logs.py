"""Logs: named by subject (millrace.stream, millrace.snapshots ...), as lines for people or, if asked, for machines.

MILLRACE_LOG=json makes every line of standard error one JSON object, those of libraries and of errors included:

    {"time": "2026-11-25T01:02:03.456Z", "level": "warning", "subject": "millrace.stream", "message": "...",
     "host": "node7", "pid": 4242, "run": "clicks-1", "worker": 3}

MILLRACE_LOG_LEVEL is the least level that is written: warning for people, info for machines, unless it says otherwise.
Both are read in every process of a job: the driver, and each actor (give them to a cluster's actors by the runtime
environment).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from typing import Any

from cluster.models.redaction import without_secrets

__all__ = ["JsonLines", "TextLines", "as_json", "log_context", "set_up_logs"]

_FORMAT, _LEVEL = "MILLRACE_LOG", "MILLRACE_LOG_LEVEL"
_LEVELS = ("debug", "info", "warning", "error")
_MESSAGE_CHARACTERS_MAX = 20_000
_context: dict[str, Any] = {}
_handlers: list[logging.Handler] = []


def as_json() -> bool:
    """True if lines are for machines."""
    return os.environ.get(_FORMAT, "text").lower() == "json"


def log_context(**fields: Any) -> None:
    """Fields that every further line of this process has: run, shard, worker."""
    _context.update(fields)


def set_up_logs(level: str | None = None) -> None:
    """Have this process write its log as the environment says; may be called again. `level` if it says none."""
    wanted = os.environ.get(_LEVEL, level or ("info" if as_json() else "warning")).lower()
    known = wanted if wanted in _LEVELS else "info"
    root = logging.getLogger()
    for handler in _handlers:
        root.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json() else TextLines("%(asctime)s %(levelname)s %(message)s"))
    _handlers[:] = [handler]
    root.addHandler(handler)
    # Libraries say at `info` what is of no use to whoever runs a job.
    root.setLevel(logging.WARNING)
    subjects = logging.getLogger("millrace")
    subjects.setLevel(known.upper())
    if known != wanted:
        subjects.warning(
            "expected %s to be %s, but it is %r; taking info", _LEVEL, ", ".join(_LEVELS), wanted
        )
    if (shape := os.environ.get(_FORMAT, "text").lower()) not in {"text", "json"}:
        subjects.warning("expected %s to be text or json, but it is %r; taking text", _FORMAT, shape)


def _shown(text: str) -> str:
    """What of a text may be shown."""
    return str(without_secrets(text))


class TextLines(logging.Formatter):
    """Lines for people. Secrets in URLs become ***, in errors too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and that of an error."""
        return _shown(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line; `extra={"fields": {...}}` of a call adds to it. Secrets in URLs become ***."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "subject": record.name,
            "message": _shown(record.getMessage())[:_MESSAGE_CHARACTERS_MAX],
            "host": socket.gethostname(),
            "pid": record.process,
            **_context,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = _shown(self.formatException(record.exc_info))[-_MESSAGE_CHARACTERS_MAX:]
        return json.dumps(line, default=str)
