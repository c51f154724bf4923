"""Three raylets on one machine: one comes and one drains while 200,000 records stream."""

from __future__ import annotations

import json

import pytest

from tests.cluster.commands import ROOT, started
from tests.cluster.scaled import RECORDS, ROWS

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_node_comes_and_another_goes_and_every_record_is_learnt_once() -> None:
    """The job is scaled onto the new node, and moves off the one that drains before that is gone."""
    with started("tests.cluster.nodes", cwd=ROOT) as command:
        code = command.wait(380)
        assert code == 0, f"{command.out}\n{command.err}"
        report = json.loads(next(line for line in command.out.splitlines() if line.startswith("{")))
    print(*report["said"], sep="\n")
    assert (report["was_on_it"], report["is_on_it"]) == (True, False)
    assert report["recoveries"] == 0
    assert report["records"] == report["encoder"] == report["predicted"] == RECORDS
    assert (report["offsets"], report["repeated"]) == (RECORDS // ROWS, 0)
