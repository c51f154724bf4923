"""Which learners may rehearse, as the pipeline file says it."""

from __future__ import annotations

import pytest

from cluster.config import PipelineError, build_pipeline


def values_of(learner: dict) -> dict:
    """A pipeline that rehearses."""
    return {
        "name": "r", "source": {"kind": "file", "path": "a.csv"}, "learner": learner, "rehearsal": {"records": 5},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["factors", "ensemble"])
def test_learners_that_cannot_learn_old_records_again_are_refused(kind: str) -> None:
    """Factors need names, which old records have no more; experts outside the tables have predictions for new ones."""
    learner = {
        "kind": kind,
        **({"experts": [{"kind": "ftrl"}, {"kind": "population"}]} if kind == "ensemble" else {}),
    }
    with pytest.raises(PipelineError, match="rehearsal"):
        build_pipeline(values_of(learner), [], origin="test")


def test_others_may() -> None:
    """A torch model, and linear ones."""
    for kind in ("deep", "ftrl", "population"):
        assert build_pipeline(values_of({"kind": kind}), [], origin="test").rehearsal.records == 5
