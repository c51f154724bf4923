"""Text that came with a stream, made fit for people's screens: short, and without characters that do something."""

from __future__ import annotations

__all__ = ["CHARACTERS_MAX", "plain"]

CHARACTERS_MAX = 80

_MORE = "..."


def plain(text: str) -> str:
    r"""At most CHARACTERS_MAX characters; those that cannot be printed as Python writes them, such as \x1b.

    What is plain already stays as it is.
    """
    head = text[:CHARACTERS_MAX]  # an escape is never shorter than what it stands for
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head)
    if len(text) <= CHARACTERS_MAX and len(shown) <= CHARACTERS_MAX:
        return shown
    return shown[: CHARACTERS_MAX - len(_MORE)] + _MORE
