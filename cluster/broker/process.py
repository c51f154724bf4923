"""The embedded broker as a child process, for jobs and tests that want it apart from their own work.

The child holds the reading end of a pipe whose other end only this process has. However this process ends, kill -9
included, the pipe closes and the child stops. (A parent-death signal would not do: Linux sends it when the *thread*
that started the child ends.) The child is in a session of its own, so Ctrl-C reaches it through us, after our own
clients are done.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from cluster.broker.errors import BrokerStartError

ANY_HOST: Final = "0.0.0.0"  # noqa: S104  a name, not a binding
READY: Final = "Broker ready at "
_ROOT: Final = Path(__file__).resolve().parents[2]  # where `python -m jobs.broker` can be found
_LINES_KEPT: Final = 50
_POLL_S: Final = 0.01


class BrokerProcess:
    """A broker in a child process. Use it as a context manager, or start() and stop() it.

    After kill() or stop(), start() brings it back on the same data directory and port.

    Args:
        data_dir: created if missing; one broker at a time.
        host: address to listen on.
        port: 0 takes a free one at the first start, and keeps it.
        topics: name -> partitions, created unless they exist.
        start_timeout_s: how long to wait until it answers.
        options: further options of `python -m jobs.broker`.

    Raises (start):
        BrokerStartError: with what the child said last.
    """

    def __init__(
        self,
        data_dir: str | Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        topics: dict[str, int] | None = None,
        start_timeout_s: float = 30.0,
        options: tuple[str, ...] = (),
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.host = host
        self.port = port
        self._topics = dict(topics or {})
        self._start_timeout_s = start_timeout_s
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients; the port is known after start()."""
        return f"{'127.0.0.1' if self.host == ANY_HOST else self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id, or None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def output(self) -> list[str]:
        """The last lines that the child wrote."""
        return list(self._lines)

    def start(self) -> Self:
        """Start the child and wait until it answers."""
        if self.pid is not None:
            return self
        self._ready.clear()
        self._lines.clear()
        self._process = subprocess.Popen(
            self._command(),
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the child in order; kill it if it takes longer than `timeout_s`. May be repeated."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """kill -9, as a crash would; all that was acknowledged is on the data directory. May be repeated."""
        if self._process is None:
            return
        self._process.kill()
        self._reap()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "jobs.broker", "--host", self.host, "--port", str(self.port)]
        command += ["--data-dir", os.fspath(self.data_dir), "--until-stdin-closes", *self._options]
        for name, partitions in self._topics.items():
            command += ["--topic", f"{name}:{partitions}"]
        return command

    def _read(self, output: IO[str]) -> None:
        """Keep the child's last lines (and its pipe from filling up), and take its port from the ready line."""
        for line in output:
            self._lines.append(line.rstrip("\n"))
            if line.startswith(READY) and not self._ready.is_set():
                self.port = int(line.removeprefix(READY).split()[0].rpartition(":")[2])
                self._ready.set()

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        ends_s = time.monotonic() + self._start_timeout_s
        while not self._ready.wait(_POLL_S):
            if process.poll() is not None:
                if self._reader is not None:
                    self._reader.join(1.0)
                raise BrokerStartError(
                    f"The broker ended with code {process.returncode} while starting. {self._said()}"
                )
            if time.monotonic() > ends_s:
                raise BrokerStartError(
                    f"Expected the broker to be ready within {self._start_timeout_s:g} s. {self._said()} "
                    "Give it a longer start_timeout_s if its data directory is large."
                )
        host, _, port = self.bootstrap_servers.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except OSError as error:
            raise BrokerStartError(
                f"The broker says it is ready, but {host}:{port} does not answer: {error}."
            ) from error

    def _said(self) -> str:
        return "It said: " + (" | ".join(self._lines) if self._lines else "nothing") + "."

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.wait()
        if self._reader is not None:
            self._reader.join(1.0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
