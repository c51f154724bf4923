"""Actors are where they belong on a real Ray of several nodes, under their names, before and after a death."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.commands import ROOT, Command, started

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

_SCENE_TIMEOUT_S = 300.0
SLOW_MACHINE = {"RAY_raylet_start_wait_time_s": "200"}


@pytest.fixture(scope="module")
def placing() -> Iterator[Command]:
    """All scenes in one process after another: starting the nodes takes longer than the scenes."""
    with started("tests.cluster.placing", cwd=ROOT, environment=SLOW_MACHINE) as command:
        yield command


def scene(placing: Command, name: str) -> dict[str, Any]:
    """What a scene has come to."""

    def scenes() -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for line in placing.out.splitlines() if line.startswith('{"scene"')]
        return {line["scene"]: line for line in lines}

    if name not in scenes():
        placing.wait_for(lambda: name in scenes(), f"scene {name}", _SCENE_TIMEOUT_S)
    return scenes()[name]


def test_actors_stand_where_the_pipeline_wants_them(placing: Command) -> None:
    """Shards on the nodes that offer `shard`, workers where the GPUs are, the coordinator beside the driver."""
    told = scene(placing, "job")
    for at in (told["before"], told["after"]):
        assert {role for name, (_, role) in at.items() if name.startswith("shard")} == {"shards"}
        assert {role for name, (_, role) in at.items() if name.startswith("worker")} == {"gpus"}
        assert at["coordinator"][0] == told["driver"]


def test_shards_are_spread_over_their_nodes(placing: Command) -> None:
    """Three shards on two nodes with room for two each: one node has two of them, also after one has died."""
    told = scene(placing, "job")
    for at in (told["before"], told["after"]):
        assert len({node for name, (node, _) in at.items() if name.startswith("shard")}) == 2


def test_actors_are_found_by_name(placing: Command) -> None:
    """shard-1 was killed while the job learnt: the second one of that place says so, and nothing is lost."""
    told = scene(placing, "job")
    others = {"shard-0", "shard-2", "worker-0", "worker-1", "coordinator"}
    assert set(told["before"]) == {*others, "shard-1"}
    assert set(told["after"]) == {*others, "shard-1.2"}
    assert told["recoveries"] == 1
    assert told["records"] == 4000


def test_a_job_that_no_node_can_hold_fails_at_once(placing: Command) -> None:
    """The error says what was asked for, what is there, and what to change, before anything is waited for."""
    told = scene(placing, "short")
    assert "nodes for 4 of 5 shard (CPU 1, shard 1); shard: 5 asked, 4 there; ask for fewer" in told["said"]
    assert "cluster.scale_up_timeout_s" in told["said"]
    assert told["seconds"] < 5


def test_a_second_job_of_a_run_is_told_that_the_first_one_lives(placing: Command) -> None:
    """The name is waited for, because those of a job that has just ended are free within seconds, and then refused."""
    told = scene(placing, "taken")
    assert "expected the name taken/shard-0 to be free on this Ray within 1 s" in told["said"]
    assert 1 <= told["seconds"] < 10


def test_an_autoscaler_is_given_its_time(placing: Command) -> None:
    """No node has what the shard asks for; one that has comes while the job waits."""
    assert scene(placing, "late")["said"] == "1 stand"
