"""Shards and coordinator on Ray, as workers and the supervisor call them; every wait has a bound."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import ray
from ray._private import state as ray_state

from actors.ports import StoreError
from learning.job_messages import Directive
from learning.wire import pack_call, unpack_answer

if TYPE_CHECKING:
    from actors.status import Status
    from learning.exchange import Moment, Pull, Push
    from learning.job_messages import Arrived, Command, Event, Reported
    from learning.questions import Question

__all__ = [
    "RayShards",
    "RemoteCoordinator",
    "answers_of",
    "death",
    "draining_nodes",
    "end_actor",
    "ended",
    "free_resources",
    "node_of",
]

_ROLES = {"ShardActor": "a shard", "WorkerActor": "a worker", "Coordinator": "the coordinator"}


class RayShards:
    """The transport of a `ShardedStore`: `handles` are the shards' Ray handles, in order."""

    def __init__(self, handles: list[Any], call_timeout_s: float) -> None:
        self._handles = handles
        self._call_timeout_s = call_timeout_s

    def __len__(self) -> int:
        return len(self._handles)

    def exchange(self, shard: int, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Any:
        """Send one shard a worker's last push and next pull."""
        return self._handles[shard].exchange_packed.remote(pack_call(worker, moment, push, pull))

    def ask(self, shard: int, question: Question) -> Any:
        """Ask one shard about its rows."""
        return self._handles[shard].ask.remote(question)

    def gather(self, references: list[Any]) -> list[Any]:
        """Wait for all answers."""
        answers: list[Any] = answers_of(references, self._call_timeout_s, "shard")
        return [unpack_answer(answer) if isinstance(answer, bytes) else answer for answer in answers]


class RemoteCoordinator:
    """Blocking calls with a bound; only `report` does not wait for its own answer.

    One report is in flight at a time. Its answer is taken when the next call is made, so a directive reaches its
    worker one report later and a batch never waits for the coordinator.
    """

    def __init__(self, handle: Any, call_timeout_s: float, moment: Moment) -> None:
        self.handle = handle
        self._call_timeout_s = call_timeout_s
        self._in_flight: Any = None
        self._directive = Directive(moment.snapshot, moment)
        self._seen = 0

    def report(self, reported: Reported) -> Directive:
        """Send figures; returns the newest directive known."""
        self._settle()
        self._in_flight = self.handle.report.remote(reported)
        return self._directive

    def arrive(self, arrived: Arrived) -> Directive:
        """Stand at a barrier, or finish."""
        self._settle()
        self._directive = self._get(self.handle.arrive.remote(arrived))
        return self._directive

    def directive(self) -> Directive:
        """The present directive."""
        self._settle()
        self._directive = self._get(self.handle.directive.remote())
        return self._directive

    def commands(self) -> list[Command]:
        """Commands that have come up since the last call."""
        commands: list[Command] = self._get(self.handle.commands.remote(self._seen))
        self._seen += len(commands)  # not before: Ctrl-C while we waited has them sent again
        return commands

    def tell(self, event: Event) -> None:
        """Something has happened, or is wanted."""
        self._get(self.handle.tell.remote(event))

    def status(self) -> Status:
        """Progress since the start."""
        ask = self.handle.status.options(
            concurrency_group="control"
        )  # a thread of its own: reports do not wait
        status: Status = self._get(ask.remote())
        return status

    def records(self) -> int:
        """Records read since the run began."""
        records: int = self._get(self.handle.records.remote())
        return records

    def _settle(self) -> None:
        if self._in_flight is not None:
            answer, self._in_flight = self._in_flight, None
            self._directive = self._get(answer)

    def _get(self, ref: Any) -> Any:
        return answers_of(ref, self._call_timeout_s, "coordinator")


def answers_of(references: Any, timeout_s: float, what: str, late: Exception | None = None) -> Any:
    """`ray.get` whose failures are sentences; `late` is raised instead of StoreError if the answers do not come."""
    try:
        return ray.get(references, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        msg = (
            f"expected the {what} to answer within {timeout_s:g} s, but it did not; look at the actors' logs, or raise "
            f"cluster.call_timeout_s"
        )
        raise late or StoreError(msg) from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        raise StoreError(death(error)) from error
    except ray.exceptions.RayError as error:  # such as an answer that was lost with the node it lay on
        reason = " ".join(str(error).split())[:400]
        raise StoreError(f"the answer of the {what} is lost: {type(error).__name__}: {reason}") from error


def ended(references: list[Any], what: str) -> list[Any]:
    """Those that have ended; returns at once, and raises what one has ended with."""
    done, _ = ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
    answers_of(done, 1.0, what)
    return done


def end_actor(actor: Any) -> None:
    """End an actor at once; one whose node is gone cannot be ended again, and its end is what was wanted."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(actor)


def free_resources() -> str:
    """What is free in the cluster, as text."""
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(ray.available_resources().items()))


def draining_nodes() -> set[str]:
    """Nodes that are about to go (`ray drain-node`, an autoscaler, the notice of a spot machine)."""
    return set(ray_state.state.get_draining_nodes())


def node_of(actor: Any) -> str:
    """The node on which an actor runs; empty while it is not known."""
    address = ray_state.actors(actor._actor_id.hex()).get("Address", {})  # noqa: SLF001 - Ray has no public way
    return str(address.get("NodeID", ""))


def death(error: ray.exceptions.RayActorError) -> str:
    """Who has died and what to do; Ray's own text is many lines long."""
    text = str(error)
    class_name, pid = (re.search(pattern, text) for pattern in (r"class_name: (\w+)", r"pid: (\d+)"))
    who = _ROLES.get(class_name[1], class_name[1]) if class_name else "an actor"
    process = f" (process {pid[1]})" if pid else ""
    return (
        f"{who}{process} has died, and what it held in memory with it: it was killed, ran out of memory, or its node "
        f"is gone; look at its logs"
    )
