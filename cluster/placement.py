"""Which node each actor is to run on, and whether there is room for all of them: arithmetic, without Ray.

Every worker exchanges rows with every shard, in each batch, because keys are hashed over the shards. So nearness of one
to the other saves nothing that another placement would not save as well, and each role is spread evenly instead: over
the nodes' networks and memory, and so that the death of a node takes as little as it can. Only what has no GPU to ask
for leaves the nodes with GPUs alone, as long as there is room elsewhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.config import ClusterConfig

__all__ = ["Demand", "Node", "demand_of", "place", "shortage", "sums"]

_EPSILON = 1e-9
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Demand:
    """What an actor of a role takes of its node: Ray's resources by name, memory in bytes."""

    role: str
    resources: dict[str, float]

    def __str__(self) -> str:
        """As in "worker (CPU 1, GPU 1)"."""
        return f"{self.role} ({', '.join(_shown(name, amount) for name, amount in self.resources.items())})"


@dataclass(frozen=True, slots=True)
class Node:
    """A living node and all that it has, whether free or not."""

    id: str
    resources: dict[str, float]


def demand_of(role: str, config: ClusterConfig) -> Demand:
    """What each actor of a role takes: `shard`, `worker` or `coordinator`, which takes nothing.

    >>> from cluster.config import ClusterConfig
    >>> print(demand_of("worker", ClusterConfig(gpus_per_worker=0.5)))
    worker (CPU 1, GPU 0.5)
    """
    asked: dict[str, float] = {}
    if role == "shard":
        asked = {"CPU": 1, "memory": config.shard_memory_bytes or 0, **config.shard_resources}
    elif role == "worker":
        asked = {"CPU": 1, "GPU": config.gpus_per_worker, **config.worker_resources}
    return Demand(role, {name: amount for name, amount in asked.items() if amount})


def place(nodes: Sequence[Node], demands: Sequence[Demand], held: Sequence[str | None]) -> list[str | None]:
    """A node for each demand, in order; None where no node has room left.

    Args:
        nodes: the living ones.
        demands: of all actors of the job, those that stand already among them.
        held: the nodes of those that stand; None for one that is to be placed, or that stands nobody knows where.

    """
    left = {node.id: dict(node.resources) for node in nodes}
    has_gpu = {node.id: node.resources.get("GPU", 0) > 0 for node in nodes}
    of_role: Counter[tuple[str, str]] = Counter()
    places: list[str | None] = list(held)

    def take(node: str, demand: Demand) -> None:
        of_role[demand.role, node] += 1
        for name, amount in demand.resources.items():
            left[node][name] = left[node].get(name, 0) - amount

    def rank(node: str, demand: Demand) -> tuple[bool, int, float, str]:
        avoided = has_gpu[node] and "GPU" not in demand.resources
        return avoided, of_role[demand.role, node], -left[node].get("CPU", 0), node

    for place_held, demand in zip(held, demands, strict=True):
        if place_held in left:
            take(place_held, demand)
    for number in sorted((n for n, at in enumerate(held) if at is None), key=lambda n: _ease(demands[n])):
        demand = demands[number]
        fitting = [node for node in left if _times(left[node], demand) >= 1]
        if fitting:
            best = min(fitting, key=lambda node: rank(node, demand))
            places[number] = best
            take(best, demand)
    return places


def _ease(demand: Demand) -> tuple[bool, int]:
    """What only few nodes can take comes first: GPUs, then what names many resources."""
    return "GPU" not in demand.resources, -len(demand.resources)


def _times(resources: dict[str, float], demand: Demand) -> float:
    """How many actors of this demand the resources hold."""
    return min(
        (
            (resources.get(name, 0) + _EPSILON) // amount
            for name, amount in demand.resources.items()
        ),
        default=float("inf"),
    )  # fmt: skip


def shortage(nodes: Sequence[Node], demands: Sequence[Demand]) -> str:
    """What the nodes cannot hold even if they were empty, in words; empty where that is not certain."""
    problems = []
    for demand, count in _counted(demands):
        room = sum(_times(node.resources, demand) for node in nodes)
        if room < count:
            problems.append(f"nodes for {room:g} of {count} {demand}")
    there = _total(nodes)
    for name, asked in sorted(_asked(demands).items()):
        if asked > there.get(name, 0) + _EPSILON:
            problems.append(
                f"{name}: {_amount(name, asked)} asked, {_amount(name, there.get(name, 0))} there"
            )
    return "; ".join(problems)


def sums(nodes: Sequence[Node], demands: Sequence[Demand], free: dict[str, float]) -> str:
    """For each resource that is asked for: how much, how much there is, and how much of it is free."""
    there = _total(nodes)
    return ", ".join(
        f"{_shown(name, asked)} (there {_amount(name, there.get(name, 0))}, free {_amount(name, free.get(name, 0))})"
        for name, asked in sorted(_asked(demands).items())
    )


def _counted(demands: Sequence[Demand]) -> list[tuple[Demand, int]]:
    first = {demand.role: demand for demand in reversed(demands)}
    counts = Counter(demand.role for demand in demands)
    return [(first[role], counts[role]) for role in counts]


def _total(nodes: Sequence[Node]) -> Counter[str]:
    return sum((Counter(node.resources) for node in nodes), Counter())


def _asked(demands: Sequence[Demand]) -> Counter[str]:
    return sum((Counter(demand.resources) for demand in demands), Counter())


def _shown(name: str, amount: float) -> str:
    return f"{name} {_amount(name, amount)}"


def _amount(name: str, amount: float) -> str:
    return f"{amount / _GIB:.3g} GiB" if name == "memory" else f"{amount:.6g}"
