"""How commands end: an error as one sentence with exit code 1, Ctrl-C and SIGTERM in order, children with parents."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from cluster.logs import as_json, set_up_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["end_with_parent", "ending", "uninterrupted"]

STOPPED = 130
"""Exit code of a command that Ctrl-C ended, as shells count it: 128 + SIGINT."""


@contextlib.contextmanager
def ending(*expected: type[Exception], silent: bool = False) -> Iterator[None]:
    """For the whole of a command: `expected` errors end it with their sentence and code 1, an interrupt with 130.

    SIGTERM (docker stop, systemd, kill) is the same as Ctrl-C. A child that its parent ends is `silent` about it.
    """
    set_up_logs()
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main_thread else None
    console = Console(stderr=True)
    try:
        yield
    except expected as error:
        if as_json():
            logging.getLogger("millrace.job").error("%s", error)  # noqa: TRY400 - a sentence, no traceback
        else:  # brackets in the sentence, as in topic[0]@5, are not rich's markup
            console.print(f"[bold red]error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if in_main_thread:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more would end the interpreter while it closes
        if not silent:
            console.print("stopped", highlight=False)
        raise SystemExit(STOPPED) from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """For cleaning up, which is bounded and must not be left half done: Ctrl-C and SIGTERM are not heard meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process when the one that started it has ended, kill -9 included.

    Our standard input must be a pipe whose other end only the parent holds, and into which it never writes.
    """

    def wait() -> None:
        # Not sys.stdin: at exit Python would wait for its lock, which a blocked read holds.
        while os.read(0, 1):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
