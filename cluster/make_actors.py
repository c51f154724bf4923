"""Turns plain classes into Ray actors, named and where they belong: the only place that does.

The coordinator is called `RUN/coordinator`, the others `RUN/shard-3` or `RUN/worker-1`, in the namespace `millrace`, so
that any program on the cluster finds them. The second one that a job makes of the same place, after a death or while
the first one still learns, is `RUN/shard-3.2`. A second job of the same run waits (bounded) until the names of the
first are free.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.ports import LaunchError
from cluster.placement import Demand, Node, demand_of, place, shortage, sums
from cluster.ray_session import NAMESPACE
from cluster.remote import draining_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.config import ClusterConfig

__all__ = ["ActorMaker", "Slot"]

_GROUPS = {"control": 1, "snapshots": 1}
"""Threads beside the one that answers workers: for pings and counters, and for writing."""
_NAME_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Slot:
    """An actor of the job: who it is, what it is made of, and its handle, None where it has to be made."""

    role: str
    number: int | None
    plain: type
    arguments: tuple[object, ...]
    handle: Any = None

    @property
    def name(self) -> str:
        """Its name within the run."""
        return self.role if self.number is None else f"{self.role}-{self.number}"


class ActorMaker:
    """Makes the actors of one job; `run` None leaves them without names.

    `on_own_ray`: the Ray was started for this job alone, so its actors ask for no room: what keeps them apart on a
    cluster is no hindrance on one machine, and who scales may want more of them than there are CPUs.
    """

    def __init__(self, config: ClusterConfig, run: str | None) -> None:
        self._config = config
        self._run = run
        self.on_own_ray = False
        self._made: Counter[str] = Counter()
        self._places: dict[Any, tuple[Demand, str | None]] = {}
        self._demands: list[Demand] = []

    def fill(self, slots: Sequence[Slot], beside: Collection[Any] = ()) -> list[Any]:
        """The handles of all slots, in order; those without one are made. Returns before they stand.

        Args:
            slots: the actors of a generation.
            beside: actors of the one before, which live on for now.

        Raises:
            LaunchError: the nodes that there are cannot hold the job, and no autoscaler is waited for; or another job
                holds the names.

        """
        nodes = self._nodes()
        kept = {slot.handle for slot in slots}
        held = [(actor, *known) for actor, known in self._places.items() if actor in beside or actor in kept]
        others = [(demand, node) for actor, demand, node in held if actor not in kept]
        demands = [self._demand(slot.role) for slot in slots]
        self._demands = [*demands, *(demand for demand, _ in others)]
        self._check_room(nodes)
        known = [self._places[slot.handle][1] if slot.handle in self._places else None for slot in slots]
        places = place(nodes, self._demands, [*known, *(node for _, node in others)])
        handles = [
            slot.handle or self._make(slot, demand, node)
            for slot, demand, node in zip(slots, demands, places, strict=False)
        ]
        self._places = {actor: (demand, node) for actor, demand, node in held} | {
            actor: (demand, node) for actor, demand, node in zip(handles, demands, places, strict=False)
        }
        return handles

    def _check_room(self, nodes: list[Node]) -> None:
        short = shortage(nodes, self._demands)
        if short and not self._config.scale_up_timeout_s:
            raise LaunchError(
                f"the cluster of {len(nodes)} node(s) cannot hold the job, even if nothing else ran: {short}; ask for "
                "fewer (cluster.shards, cluster.workers) or for less of each (cluster.shard_memory_bytes, "
                "cluster.shard_resources, cluster.worker_resources, cluster.gpus_per_worker), add nodes, or set "
                "cluster.scale_up_timeout_s if an autoscaler brings them"
            )

    def _demand(self, role: str) -> Demand:
        demand = demand_of(role, self._config)
        if self.on_own_ray:
            return Demand(role, {name: some for name, some in demand.resources.items() if name == "GPU"})
        return demand

    def _nodes(self) -> list[Node]:
        """Living nodes that are not about to go."""
        leaving = draining_nodes()
        return [
            Node(node["NodeID"], node["Resources"])
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] not in leaving
        ]

    def room(self) -> str:
        """What the actors ask for, what there is, and what of it is free, for an error."""
        return sums(self._nodes(), self._demands, ray.available_resources())

    def _name(self, slot: Slot) -> str:
        """A coordinator's name is always the same: there is never a second one."""
        self._made[slot.name] += 1
        again = self._made[slot.name] > 1 and slot.number is not None
        return f"{self._run}/{slot.name}{f'.{self._made[slot.name]}' * again}"

    def _make(self, slot: Slot, demand: Demand, node: str | None) -> Any:
        options: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "concurrency_groups": _GROUPS,
            **_resource_options(demand),
            "scheduling_strategy": _strategy(slot, node),
        }
        remote: Any = ray.remote(**options)(slot.plain)
        if self._run is None:
            return remote.remote(*slot.arguments)
        name = self._name(slot)
        ends_s = time.monotonic() + self._config.actor_start_timeout_s
        while True:
            try:
                return remote.options(name=name, namespace=NAMESPACE).remote(*slot.arguments)
            except ray.exceptions.ActorAlreadyExistsError as error:
                if time.monotonic() > ends_s:
                    raise LaunchError(
                        f"expected the name {name} to be free on this Ray within "
                        f"{self._config.actor_start_timeout_s:g} s, but an actor that lives has it: another job learns "
                        "a run of this name; stop that job, or give this one another name (--run)"
                    ) from error
            time.sleep(
                _NAME_POLL_S
            )  # Ray frees the names of the dead, and of a job that has ended, within seconds


def _resource_options(demand: Demand) -> dict[str, Any]:
    own = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    options: dict[str, Any] = {"num_cpus": 0}
    options |= {own[name]: amount for name, amount in demand.resources.items() if name in own}
    options["resources"] = {name: amount for name, amount in demand.resources.items() if name not in own}
    return options


def _strategy(slot: Slot, node: str | None) -> Any:
    if slot.role == "coordinator":
        # Lives and dies with the driver, whose node no autoscaler takes away. Not soft: measured with Ray 2.60, what
        # asks for nothing and is soft about its node comes to any node.
        return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    if node is None:  # Ray waits for room, and an autoscaler sees that it does
        return "SPREAD"
    # Our plan knows nothing of other jobs: where one of them is in the way, Ray takes another node.
    return NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)
