"""python -m jobs.broker: the embedded development broker, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path
from typing import Annotated

import typer

from cluster.broker.errors import BrokerError
from cluster.broker.process import READY
from cluster.broker.server import Broker
from cluster.ending import end_with_parent
from cluster.logs import set_up_logs


def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 9092,
    data_dir: Annotated[Path, typer.Option(help="Where topics are kept.")] = Path("./broker-data"),
    topic: Annotated[
        list[str] | None, typer.Option(help="NAME:PARTITIONS, created unless it exists.")
    ] = None,
    auto_create_partitions: Annotated[int, typer.Option(min=0, help="Create missing topics; 0: never.")] = 0,
    fsync: Annotated[bool, typer.Option(help="Wait for the disk before acknowledging.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run a durable Kafka-protocol broker for development; production means Kafka or Redpanda."""
    set_up_logs("info")
    _raise_file_limit()
    ended = _signal_pipe()
    if until_stdin_closes:
        end_with_parent()
    try:
        topics = [_parse_topic(text) for text in topic or []]
        with Broker(
            data_dir, host, port, auto_create_partitions=auto_create_partitions, fsync=fsync
        ) as broker:
            for name, partitions in topics:
                broker.ensure_topic(name, partitions)
            print(
                f"{READY}{broker.bootstrap_servers} (data in {broker.data_dir}; Ctrl-C stops it)", flush=True
            )
            with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
                os.read(ended, 1)
    except BrokerError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("Stopped while starting.", err=True)


def _parse_topic(text: str) -> tuple[str, int]:
    name, colon, count = text.rpartition(":")
    if not colon or not count.isdecimal():
        raise BrokerError(f"Expected --topic NAME:PARTITIONS, for example clicks:4, got {text!r}.")
    return name, int(count)


def _signal_pipe() -> int:
    """Make SIGTERM an exception, as Ctrl-C is, and return a file that can be read once there was a signal.

    Waiting on a lock instead would miss a signal that comes just before the wait begins.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    return reading


def _raise_file_limit() -> None:
    """Each partition keeps its files open; the usual soft limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    typer.run(main)
