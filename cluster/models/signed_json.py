"""JSON that vouches for itself: an object with one spelling only, which holds the checksum of the rest of it.

A single changed byte is found. A checksum tells damage, not intent: whoever can rewrite the file can sign it anew.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["SignedJsonError", "parse_signed", "render_signed"]


class SignedJsonError(ValueError):
    """Values cannot be written as JSON, or bytes are not what we wrote; the message, half a sentence, says why."""


def render_signed(values: dict[str, Any]) -> bytes:
    """The one spelling of `values`, their checksum included. Raises SignedJsonError for what JSON does not have."""
    try:
        return _render(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise SignedJsonError(f"it holds a value that JSON does not have ({error})") from error


def parse_signed(raw: bytes) -> tuple[dict[str, Any], str]:
    """The values that `render_signed` wrote, and their checksum. Raises SignedJsonError for anything else."""
    try:
        values = json.loads(raw)
        claimed = {name: value for name, value in values.items() if name != "sha256"}
        intact = _render(claimed) == raw
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SignedJsonError(f"it is no JSON object as we write it ({error})") from error
    if not intact:
        raise SignedJsonError("it does not match its own checksum")
    return claimed, str(values["sha256"])


def _render(values: dict[str, Any]) -> bytes:
    body = json.dumps(values, sort_keys=True, allow_nan=False)
    signed = {**values, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return (json.dumps(signed, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
