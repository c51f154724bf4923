"""Promise 2 on a real Ray of two nodes and a real broker: whatever is killed, the result is as if nothing had been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.chaos_faults import FAULTS
from tests.cluster.commands import ROOT, Command, started

SEEDS = (*range(9), 16)
"""Each fault with one worker, and one of them with three; `make chaos` runs more."""
_SEED_TIMEOUT_S = 150.0

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def chaos() -> Iterator[Command]:
    """All seeds in one process after another: starting a world takes longer than breaking it."""
    with started("tests.cluster.chaos", "--seeds", ",".join(map(str, SEEDS)), cwd=ROOT) as command:
        yield command


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_changes_nothing(chaos: Command, seed: int) -> None:
    """State, metrics, offsets (several workers: counts by id) and predictions are those of the undisturbed run."""
    chaos.wait_for(lambda: seed in reports(chaos), f"report of seed {seed}", _SEED_TIMEOUT_S)
    report = reports(chaos)[seed]
    assert report["struck"], f"the job was over before {report['fault']} could strike"
    assert report["wrong"] == [], report["said"]


def test_every_fault_was_among_them() -> None:
    """The seeds of a run cover each fault with one worker, and some with several."""
    assert {seed for seed in SEEDS if seed < len(FAULTS)} == set(range(len(FAULTS)))
    assert any(seed >= len(FAULTS) for seed in SEEDS)


def reports(chaos: Command) -> dict[int, dict[str, Any]]:
    """The reports so far, by seed."""
    found = [json.loads(line) for line in chaos.out.splitlines() if line.startswith('{"seed"')]
    return {report["seed"]: report for report in found}
