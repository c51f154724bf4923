"""The demo: embedded broker, a real stream at a steady rate, two shards, two workers, a run in MLflow."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.broker.process import BrokerProcess
from cluster.config import load_pipeline
from cluster.ending import uninterrupted
from cluster.job import JobError, JobResult, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

__all__ = ["next_commands", "run_demo"]

STREAM, RECORDS, PARTITIONS = "river:Shuttle", 49_097, 4
_STOP_TIMEOUT_S = 5.0


def run_demo(pipeline_file: Path, console: Console, *, rate: int) -> JobResult:
    """Produce river's Shuttle stream at `rate` records per second and learn it while it comes in.

    Raises:
        JobError, PipelineError, BrokerStartError: with what to do.

    """
    with _cleaned_up() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-demo-"))
        with console.status("starting the development broker"):
            broker = stack.enter_context(
                BrokerProcess(Path(folder) / "broker", topics={"shuttle": PARTITIONS})
            )
        console.print(
            f"broker at {broker.bootstrap_servers}: topic shuttle, {PARTITIONS} partitions", highlight=False
        )
        overrides = [f"source.bootstrap_servers={broker.bootstrap_servers}", f"records_max={RECORDS}"]
        pipeline = load_pipeline(pipeline_file, overrides)
        producing: list[subprocess.Popen[bytes]] = []
        log = Path(folder) / "producer.log"

        def produce() -> None:
            """Start to produce when the workers stand, so that freshness is not the start-up's."""
            producing.append(stack.enter_context(_producer(broker.bootstrap_servers, rate, log)))
            console.print(
                f"producing {RECORDS:,} records at {rate:,}/s, learning as they come", highlight=False
            )

        def watch() -> None:
            """A stream that nobody feeds any more would be waited for in vain."""
            for process in producing:
                if process.poll():
                    said = log.read_text(errors="replace").split("\n")
                    msg = f"the producer ended with code {process.returncode}: {' '.join(said[-3:]).strip()}"
                    raise JobError(msg)

        return run_job(pipeline, console, on_ready=produce, watch=watch)


@contextlib.contextmanager
def _cleaned_up() -> Iterator[contextlib.ExitStack]:
    """A stack that is unwound to its end even if Ctrl-C is pressed again meanwhile."""
    stack = contextlib.ExitStack()
    try:
        yield stack
    finally:
        with uninterrupted():
            stack.close()


@contextlib.contextmanager
def _producer(bootstrap_servers: str, rate: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m jobs.produce` as a child that is ended with the block, or with us: it watches its standard input."""
    command = [
        sys.executable,
        "-m",
        "jobs.produce",
        STREAM,
        "shuttle",
        "--bootstrap-servers",
        bootstrap_servers,
        "--until-stdin-closes",
    ]
    with log.open("wb") as output:  # not the terminal: its progress line would be drawn over ours
        process = subprocess.Popen(  # noqa: S603 - our own job
            [*command, "--rate", str(rate)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal is for us; we end it
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def next_commands(result: JobResult) -> list[tuple[str, str]]:
    """Three things to try, each a sentence and a command that works as it stands."""
    python = shlex.quote(str(Path(sys.executable).parent / "python"))
    if Path(python).is_relative_to(Path.cwd()):
        python = str(Path(python).relative_to(Path.cwd()))
    mlflow = python.removesuffix("python") + "mlflow"
    return [
        ("look at the run", f"{mlflow} ui --backend-store-uri sqlite:///mlruns/mlflow.db --port 5000"),
        ("try it on your own data", f"{python} -m jobs.evaluate YOUR_FILE.csv --label YOUR_LABEL"),
        (
            "learn from your own topic",
            f"{python} -m jobs.train jobs/pipelines/shuttle.yaml --set source.topic=TOPIC",
        ),
    ]
