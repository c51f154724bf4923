"""Commands as a person starts them: their output, their signals, and whatever they leave behind.

Every command gets a marked environment, which all its descendants inherit (broker, producer, Ray's own processes), so
what is left of it is found by the mark alone, and nobody else's process is ever touched. Its temporary folder is one
of its own, so what is left there is found as well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MARK = "MILLRACE_TEST_MARK"
_POLL_S = 0.05


class Command:
    """`python -m MODULE ARGUMENTS` in a session of its own, so that a signal to its group never reaches pytest."""

    def __init__(self, module: str, *arguments: object, cwd: Path, environment: dict[str, str] | None = None):
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))  # Ray's socket paths must be short
        self._output, self._errors = self.folder / "stdout", self.folder / "stderr"
        self.scratch = self.folder / "t"
        self.scratch.mkdir()
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))},
            "PYTHONPATH": str(ROOT), "TMPDIR": str(self.scratch), "COLUMNS": "200", _MARK: self.mark,
            **(environment or {}),
        }  # fmt: skip
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                start_new_session=True,
            )  # fmt: skip

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._output.read_text(errors="replace")

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._errors.read_text(errors="replace")

    def wait(self, timeout_s: float) -> int:
        """The exit code; a command that takes longer fails the test with what it has said."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {timeout_s:g} s\n{self.out}\n{self.err}\n{self.left()}"
            ) from None

    def wait_for(self, happened: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait until something is so; the command must not have ended meanwhile."""
        ends_s = time.monotonic() + timeout_s
        while not happened():
            assert self.process.poll() is None, f"ended before {what}:\n{self.out}\n{self.err}"
            assert time.monotonic() < ends_s, f"no {what} within {timeout_s:g} s:\n{self.out}\n{self.err}"
            time.sleep(_POLL_S)

    def interrupt(self) -> None:
        """Ctrl-C: a terminal sends SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> dict[int, str]:
        """Process id and command line of everything that carries the mark, zombies left out."""
        found = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if folder.name.isdecimal() and self.mark.encode() in (folder / "environ").read_bytes():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(folder.name)] = line.strip()
        return found

    def pids_of(self, word: str) -> list[int]:
        """Ids of the command's processes whose command line holds `word`, in ascending order."""
        return sorted(pid for pid, line in self.processes().items() if word in line)

    def left(self) -> list[str]:
        """Processes that still run and millrace-* folders that still are, one line each."""
        processes = [f"{pid} {line[:150]}" for pid, line in self.processes().items()]
        return processes + [str(path) for path in self.scratch.glob("millrace-*")]

    def gone_within(self, timeout_s: float, *, folders: bool = True) -> None:
        """Fail unless nothing is left within `timeout_s`."""
        ends_s = time.monotonic() + timeout_s
        while (left := self.left() if folders else list(self.processes().values())) != []:
            assert time.monotonic() < ends_s, f"left after {timeout_s:g} s: {left}\n{self.out}\n{self.err}"
            time.sleep(_POLL_S)

    def clean_up(self) -> None:
        """End what a failed test has left, by id, and remove the folder."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def started(
    module: str, *arguments: object, cwd: Path, environment: dict[str, str] | None = None
) -> Iterator[Command]:
    """A running command, cleaned up after the block."""
    command = Command(module, *arguments, cwd=cwd, environment=environment)
    try:
        yield command
    finally:
        command.clean_up()


def run(
    module: str,
    *arguments: object,
    cwd: Path,
    environment: dict[str, str] | None = None,
    timeout_s: float = 60.0,
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that must leave nothing behind."""
    with started(module, *arguments, cwd=cwd, environment=environment) as command:
        code = command.wait(timeout_s)
        command.gone_within(5.0)
        return code, command.out, command.err
