"""Where actors go, and when there is certainly no room: the plan alone, without Ray."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import ClusterConfig
from cluster.placement import Demand, Node, demand_of, place, shortage, sums

GIB = 2**30


def job(**options) -> list[Demand]:
    """The demands of a whole job."""
    config = ClusterConfig(**options)
    return [
        *[demand_of("shard", config)] * config.shards,
        *[demand_of("worker", config)] * config.workers,
        demand_of("coordinator", config),
    ]


def nodes(*resources: dict[str, float]) -> list[Node]:
    """Nodes called n0, n1 and so on."""
    return [Node(f"n{number}", has) for number, has in enumerate(resources)]


def planned(
    there: list[Node], demands: list[Demand], held: list[str | None] | None = None
) -> dict[str, list]:
    """Places by role."""
    places = place(there, demands, held or [None] * len(demands))
    roles: dict[str, list] = {}
    for demand, node in zip(demands, places, strict=True):
        roles.setdefault(demand.role, []).append(node)
    return roles


def test_each_role_is_spread_evenly():
    """Three nodes of different sizes: none holds two more shards, or workers, than another."""
    plan = planned(nodes({"CPU": 4}, {"CPU": 64}, {"CPU": 8}), job(shards=6, workers=5))
    assert Counter(plan["shard"]) == {"n0": 2, "n1": 2, "n2": 2}
    assert sorted(Counter(plan["worker"]).values()) == [1, 2, 2]


def test_workers_with_gpus_find_them_and_shards_leave_them_room():
    """The node with GPUs has CPUs for two: were shards put there, the workers would wait for ever."""
    plan = planned(
        nodes({"CPU": 2, "GPU": 2}, {"CPU": 2}, {"CPU": 2}), job(shards=4, workers=2, gpus_per_worker=1)
    )
    assert plan["worker"] == ["n0", "n0"]
    assert Counter(plan["shard"]) == {"n1": 2, "n2": 2}


def test_two_workers_share_a_gpu():
    """gpus_per_worker is a fraction."""
    plan = planned(nodes({"CPU": 8, "GPU": 1}, {"CPU": 8}), job(workers=3, gpus_per_worker=0.5))
    assert plan["worker"] == ["n0", "n0", None]


def test_custom_resources_and_memory_hold_shards_where_they_belong():
    """One node offers `shard`, but has memory for one only."""
    there = nodes({"CPU": 8}, {"CPU": 8, "shard": 8, "memory": 3 * GIB}, {"CPU": 8, "memory": 64 * GIB})
    demands = job(shards=2, workers=2, shard_resources={"shard": 1}, shard_memory_bytes=2 * GIB)
    assert planned(there, demands)["shard"] == ["n1", None]
    assert shortage(there, demands) == ("nodes for 1 of 2 shard (CPU 1, memory 2 GiB, shard 1)")


def test_who_takes_a_dead_ones_place_goes_where_room_is():
    """A node died: its shard and worker are placed anew, beside what stands."""
    held = ["n0", None, "n0", None, None]
    plan = planned(nodes({"CPU": 4}, {"CPU": 2}), job(), held)
    assert plan["shard"] == ["n0", "n1"]
    assert plan["worker"] == ["n0", "n1"]


def test_an_actor_that_stands_on_an_unknown_node_is_no_obstacle():
    """Its node has left the list between two looks."""
    assert planned(nodes({"CPU": 4}), job(), ["gone", None, None, None, None])["shard"] == ["gone", "n0"]


def test_what_is_asked_and_what_is_there_is_said_for_each_resource():
    """Too few CPUs, and no GPU at all."""
    there, demands = nodes({"CPU": 2}, {"CPU": 1}), job(shards=3, workers=2, gpus_per_worker=1)
    assert shortage(there, demands) == (
        "nodes for 0 of 2 worker (CPU 1, GPU 1); CPU: 5 asked, 3 there; GPU: 2 asked, 0 there"
    )
    assert sums(there, demands, {"CPU": 1.5}) == "CPU 5 (there 3, free 1.5), GPU 2 (there 0, free 0)"


def test_an_empty_cluster_has_room_for_nothing():
    """The head offers nothing and no other node has come."""
    assert "nodes for 0 of 2 shard" in shortage([], job())
    assert "CPU: 4 asked, 0 there" in shortage(nodes({}), job())


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_plan_never_asks_more_of_a_node_than_it_has(has, shards, workers, gpus):
    """Whatever the cluster looks like; and where everything has a place, no shortage is reported."""
    there = nodes(*({"CPU": cpus, "GPU": gpu} for cpus, gpu in has))
    demands = job(shards=shards, workers=workers, gpus_per_worker=gpus)
    places = place(there, demands, [None] * len(demands))
    taken: dict[tuple[str, str], float] = {}
    for demand, node in zip(demands, places, strict=True):
        for name, amount in demand.resources.items():
            if node is not None:
                taken[node, name] = taken.get((node, name), 0) + amount
    assert all(amount <= there[int(node[1:])].resources[name] for (node, name), amount in taken.items())
    if None not in places:
        assert shortage(there, demands) == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shard_resources": {"CPU": 2}}, "every actor takes one"),
        ({"worker_resources": {"GPU": 1}}, "gpus_per_worker"),
        ({"shard_resources": {"memory": 1}}, "shard_memory_bytes"),
        ({"shard_resources": {"shard": 1.5}}, "no whole number"),
        ({"gpus_per_worker": 1.5}, "whole ones"),
        ({"worker_resources": {"zone_a": 0}}, "greater than 0"),
    ],
)
def test_resources_that_ray_would_refuse_are_refused_in_the_file(options, reason):
    """Before anything is started, with the key that is meant."""
    with pytest.raises(ValueError, match=reason):
        ClusterConfig(**options)
