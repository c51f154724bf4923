"""Secrets out of what is shown, recorded or copied: pipelines, addresses and errors that quote them."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["without_secrets"]

_SECRET_WORD = re.compile(r"password|passwd|secret|token|credential", re.IGNORECASE)
_SECRET_OPTION = re.compile(_SECRET_WORD.pattern + "|key", re.IGNORECASE)
_REFERENCE = re.compile(r"(\$\{\w+\})+")
# The password of a URL (up to the last @ of its authority) and secret query values; ${NAME} may stay.
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)(?!\$\{\w+\}@)[^/\s]*@")
_URL_QUERY = re.compile(rf"([?&][\w-]*(?:{_SECRET_WORD.pattern})[\w-]*=)(?!\$\{{)[^&\s]+", re.IGNORECASE)


def without_secrets(values: Any, *, name: str = "", options: bool = False) -> Any:
    """A copy of JSON-like `values` that may be shown: passwords and the like become ***, `${NAME}` stays."""
    if isinstance(values, dict):
        inside = options or name == "options"
        return {key: without_secrets(value, name=str(key), options=inside) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_secrets(value, name=name, options=options) for value in values]
    if values is None or isinstance(values, bool):
        return values
    if (_SECRET_OPTION if options else _SECRET_WORD).search(name):
        return values if _REFERENCE.fullmatch(str(values)) else "***"
    if isinstance(values, str):
        return _URL_QUERY.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", values))
    return values
