"""Vowpal Wabbit's --ftrl as a second opinion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vowpalwabbit import Workspace

from learning.batch import Batch
from learning.ftrl import Ftrl
from tests.learning.test_ftrl import learn_all
from tests.streams import stream


def vw_loss(batch: Batch, path: Path, ftrl: Ftrl) -> float:
    """Progressive log-loss of VW over the batch, with the same hyperparameters and 2^24 weights."""
    with path.open("w") as file:
        for i in range(len(batch)):
            entries = range(batch.offsets[i], batch.offsets[i + 1])
            features = " ".join(f"{batch.keys[j] % 2**31}:{float(batch.values[j])!r}" for j in entries)
            file.write(f"{1 if batch.labels[i] else -1} |f {features}\n")
    workspace = Workspace(
        f"-d {path} --ftrl --ftrl_alpha {ftrl.alpha} --ftrl_beta {ftrl.beta} --l1 {ftrl.l1} --l2 {ftrl.l2} "
        "--loss_function logistic -b 24 --quiet"
    )
    loss = workspace.get_sum_loss() / workspace.get_weighted_examples()
    workspace.finish()
    return float(loss)


@pytest.mark.parametrize(
    ("ftrl", "tolerance"),
    [
        (Ftrl(alpha=0.1), 1e-6),
        # VW shrinks the constant by L1 too, we (as numerics demands) do not: hence the looser bound.
        (Ftrl(alpha=0.1, l1=0.5, l2=0.1), 1e-3),
    ],
)
def test_progressive_loss_is_vowpal_wabbits(tmp_path: Path, ftrl: Ftrl, tolerance: float) -> None:
    """The same stream and hyperparameters give VW's progressive log-loss within 0.1 percent."""
    batch = stream(5000)
    p, _, _ = learn_all(ftrl, [batch])
    ours = float(-np.mean(batch.labels * np.log(p) + (1 - batch.labels) * np.log1p(-p)))
    assert ours == pytest.approx(vw_loss(batch, tmp_path / "stream.vw", ftrl), rel=tolerance)
