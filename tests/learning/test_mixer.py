"""Mixing of experts' predictions: weights from before the label, a bandit that sees its own losses, workers joined."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from learning.batch import Batch, BatchId
from learning.experts import Experts
from learning.experts_rules import RULES
from learning.keys import name_key
from learning.mixer import Mixer, Mixing
from learning.mixer_join import joined_mixers
from learning.pace import Pace

NAMES = ("a", "b", "c")
ALL = (*(Mixing(rule) for rule in RULES), Mixing("linucb", context=("x",)), Mixing("thompson", width=1.0),
       Mixing("epsilon_greedy", epsilon=0.1, context=("x",)))  # fmt: skip
BY_RULE = [pytest.param(mixing, id=mixing.rule) for mixing in ALL]


def stream(n: int, seed: int = 0) -> tuple[np.ndarray, Batch]:
    """Predictions f64 (n, 3): `a` knows the label where x > 0, `b` where it is not, `c` never."""
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=n).astype(np.float32), (rng.random(n) < 0.5).astype(np.float32)
    knows = np.where(labels > 0, 0.8, 0.2)
    predictions = np.column_stack((np.where(x > 0, knows, 0.5), np.where(x > 0, 0.5, knows), np.full(n, 0.5)))
    batch = dataclasses.replace(
        Batch.empty(BatchId(0, 0, n)), keys=np.full(n, name_key("x")), values=x, kinds=np.zeros(n, np.uint8),
        offsets=np.arange(n + 1), labels=labels, weights=np.ones(n, np.float32), positions=np.arange(n),
    )  # fmt: skip
    return predictions, batch


def part(batch: Batch, first: int, end: int) -> Batch:
    """Records [first, end) of a batch with one entry a record."""
    columns = {
        name: getattr(batch, name)[first:end]
        for name in ("keys", "values", "kinds", "labels", "weights", "positions")
    }
    return dataclasses.replace(batch, offsets=np.arange(end - first + 1), **columns)


def same(one: dict, other: dict) -> bool:
    """Whether states agree to the bit."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )


@pytest.mark.parametrize("mixing", BY_RULE)
@pytest.mark.parametrize("squared", [False, True])
def test_no_prediction_knows_its_own_label(mixing: Mixing, squared: bool) -> None:
    """Labels from record i on are turned around: predictions up to and with i stay, and later ones do not all.

    A mixer that learnt a record before it mixed it would change at i.
    """
    predictions, batch = stream(400)
    own = Mixer(mixing, NAMES, squared=squared).learn(predictions, batch).predictions
    for i in (0, 1, 57, 250):
        labels = batch.labels.copy()
        labels[i:] = 1.0 - labels[i:]
        other = Mixer(mixing, NAMES, squared=squared).learn(
            predictions, dataclasses.replace(batch, labels=labels)
        )
        assert other.predictions[: i + 1].tolist() == own[: i + 1].tolist()
        assert other.predictions[i + 1 :].tolist() != own[i + 1 :].tolist()


@pytest.mark.parametrize("mixing", BY_RULE)
def test_batches_do_not_matter(mixing: Mixing) -> None:
    """The stream in one batch or in many, by way of a snapshot in the middle: predictions and state are equal."""
    predictions, batch = stream(300)
    whole, cut = Mixer(mixing, NAMES), Mixer(mixing, NAMES)
    expected, got = whole.learn(predictions, batch), []
    for first, end in ((0, 1), (1, 64), (64, 200), (200, 300)):
        got.append(cut.learn(predictions[first:end], part(batch, first, end)))
        cut = Mixer.of(mixing, NAMES, cut.arrays())
    assert np.concatenate([mixed.predictions for mixed in got]).tolist() == expected.predictions.tolist()
    assert same(whole.arrays(), cut.arrays())
    if mixing.is_bandit:
        assert expected.arms is not None
        assert np.concatenate([mixed.arms for mixed in got]).tolist() == expected.arms.tolist()


def test_probabilities_are_mixed_and_no_votes() -> None:
    """Fixed share is the mean of probabilities by weight, as learning/experts.py has it."""
    predictions, batch = stream(200)
    mixed = Mixer(Mixing(), NAMES).learn(predictions, batch)
    assert mixed.predictions.tolist() == Experts(3).learn(predictions, batch.labels).tolist()
    assert (mixed.arms, mixed.propensities) == (None, None)


@pytest.mark.parametrize("rule", ["linucb", "thompson", "epsilon_greedy"])
def test_a_bandit_finds_the_expert_of_each_record(rule: str) -> None:
    """`a` is right where x > 0 and `b` elsewhere: by the context the bandit gets nearer to it than any expert."""
    predictions, batch = stream(6000)
    mixer = Mixer(Mixing(rule, context=("x",)), NAMES)
    mixed = mixer.learn(predictions, batch)
    assert mixed.arms is not None
    assert mixed.propensities is not None
    right = np.where(batch.values > 0, 0, 1)
    late = slice(3000, None)
    assert np.mean(mixed.arms[late] == right[late]) > 0.8
    assert ((mixed.propensities > 0.0) & (mixed.propensities <= 1.0)).all()
    losses = mixer.expert_losses()
    assert losses["mixture"] < 0.9 * min(losses[name] for name in NAMES)
    frozen = mixer.arrays()
    scored = mixer.mix(predictions, batch)
    assert np.mean(scored == predictions[np.arange(6000), right]) > 0.9
    assert same(frozen, mixer.arrays())


@pytest.mark.parametrize("mixing", BY_RULE)
def test_a_bandit_sees_the_loss_of_its_arm_only(mixing: Mixing) -> None:
    """Predictions of the arms that were not chosen are changed: a bandit's state stays, and weights do not."""
    predictions, batch = stream(200)
    mixer, other = Mixer(mixing, NAMES), Mixer(mixing, NAMES)
    mixed = mixer.learn(predictions, batch)
    arms = np.zeros(200, np.int64) if mixed.arms is None else mixed.arms
    changed = np.full_like(predictions, 0.9)
    changed[np.arange(200), arms] = predictions[np.arange(200), arms]
    other.learn(changed, batch)
    states = [{n: a for n, a in m.arrays().items() if n != "losses"} for m in (mixer, other)]
    assert same(*states) == mixing.is_bandit


@pytest.mark.parametrize("mixing", BY_RULE)
def test_one_worker_is_joined_as_it_is(mixing: Mixing) -> None:
    """A job with one worker: joining at its barriers changes no bit."""
    predictions, batch = stream(100)
    mixer = Mixer(mixing, NAMES)
    mixer.learn(predictions, batch)
    assert same(joined_mixers(mixing, NAMES, None, [mixer.arrays()]), mixer.arrays())


@pytest.mark.parametrize("mixing", BY_RULE)
def test_workers_join_by_evidence(mixing: Mixing) -> None:
    """Two workers learn halves of a stream from one base: losses and records are the whole's, and weights near it."""
    predictions, batch = stream(600)
    base = Mixer(mixing, NAMES)
    base.learn(predictions[:200], part(batch, 0, 200))
    parts = []
    for worker, (first, end) in enumerate(((200, 400), (400, 600))):
        mixer = Mixer.of(mixing, NAMES, base.arrays(), worker=worker)
        mixer.learn(predictions[first:end], part(batch, first, end))
        parts.append(mixer.arrays())
    joined = Mixer.of(mixing, NAMES, joined_mixers(mixing, NAMES, base.arrays(), parts))
    assert joined.records == 600
    assert joined.weights().keys() == {"a", "b", "c"}
    assert sum(joined.weights().values()) == pytest.approx(1.0)
    whole = Mixer(mixing, NAMES)
    whole.learn(predictions, batch)
    for name in NAMES:
        assert joined.expert_losses()[name] == pytest.approx(whole.expert_losses()[name], rel=1e-12)
    if mixing.rule == "hedge":
        for name in NAMES:
            assert math.log(joined.weights()[name]) == pytest.approx(
                math.log(whole.weights()[name]), abs=1e-6
            )


def test_evidence_for_an_expert_multiplies() -> None:
    """Two workers that both saw `a` do well trust it more together than each alone, and the others keep their share."""
    predictions, batch = stream(120)
    predictions[:, 0] = np.where(batch.labels > 0, 0.6, 0.4)
    predictions[:, 1] = 0.5
    parts = []
    for first, end in ((0, 30), (30, 60)):
        mixer = Mixer(Mixing(), NAMES)
        mixer.learn(predictions[first:end], part(batch, first, end))
        parts.append(mixer)
    joined = Mixer.of(
        Mixing(), NAMES, joined_mixers(Mixing(), NAMES, None, [mixer.arrays() for mixer in parts])
    )
    assert joined.weights()["a"] > max(mixer.weights()["a"] for mixer in parts)
    assert min(joined.weights().values()) >= 5e-4 / 3


@pytest.mark.parametrize("mixing", BY_RULE)
def test_workers_that_have_finished_have_no_say(mixing: Mixing) -> None:
    """Seven of eight have learnt nothing since the last barrier: the eighth's mixer is the joined one, to the bit."""
    predictions, batch = stream(600)
    base = Mixer(mixing, NAMES)
    base.learn(predictions[:300], part(batch, 0, 300))
    busy = [Mixer.of(mixing, NAMES, base.arrays()) for _ in range(2)]
    for mixer, first in zip(busy, (300, 400), strict=True):
        mixer.learn(predictions[first : first + 100], part(batch, first, first + 100))
    done, (one, two) = base.arrays(), (mixer.arrays() for mixer in busy)
    assert same(joined_mixers(mixing, NAMES, done, [*[done] * 3, one, *[done] * 4]), one)
    both = joined_mixers(mixing, NAMES, done, [one, two])
    assert same(joined_mixers(mixing, NAMES, done, [*[done] * 6, one, two]), both)
    assert same(joined_mixers(mixing, NAMES, done, [done] * 3), done)


def test_the_best_recent_one_is_found_after_others_have_finished() -> None:
    """`b` becomes the better one when one worker of eight is left: its half-life alone decides how soon that shows."""
    _, batch = stream(6000)
    mixing = Mixing("best_recent", half_life_records=1000.0)
    good, bad = np.where(batch.labels > 0, 0.9, 0.1), np.full(len(batch), 0.5)
    base = Mixer(mixing, NAMES)
    base.learn(np.column_stack((good, bad, bad))[:3000], part(batch, 0, 3000))
    done = state = base.arrays()
    for first in (3000, 4000, 5000):
        live = Mixer.of(mixing, NAMES, state)
        live.learn(np.column_stack((bad, good, bad))[first : first + 1000], part(batch, first, first + 1000))
        state = joined_mixers(mixing, NAMES, state, [live.arrays(), *[done] * 7])
        done = state
    assert Mixer.of(mixing, NAMES, state).weights()["b"] == 1.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rule": "vote"}, "rule should be one of fixed_share"),
        ({"rule": "hedge", "share": 0.1}, "share means nothing to hedge"),
        ({"context": ("x",)}, "context means nothing to fixed_share"),
        ({"share": 2.0}, "share in"),
        ({"rule": "linucb", "context": ("x", "x")}, "each once"),
        ({"rule": "linucb", "epsilon": 2.0}, "epsilon from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, said: str) -> None:
    """A setting out of range, or one that the rule does not have, is refused in a sentence that names it."""
    with pytest.raises(ValueError, match=said):
        Mixing(**settings)


@pytest.mark.parametrize("mixing", BY_RULE)
def test_arrays_of_other_experts_are_refused(mixing: Mixing) -> None:
    """A snapshot of an ensemble of two is no state of one of three, nor is one that lacks an array."""
    with pytest.raises(ValueError, match="expected"):
        Mixer.of(mixing, NAMES, Mixer(mixing, NAMES[:2]).arrays())
    arrays = Mixer(mixing, NAMES).arrays()
    for name in arrays:
        with pytest.raises(ValueError, match="expected"):
            Mixer.of(mixing, NAMES, {other: array for other, array in arrays.items() if other != name})


@pytest.mark.parametrize("mixing", BY_RULE)
def test_an_expert_that_begins_afresh_has_no_weight_and_gets_its_due(mixing: Mixing) -> None:
    """After 200 records `a` begins afresh: its weight is the others', and comes back by its losses."""
    predictions, batch = stream(400)
    predictions[:, 0] = np.where(batch.labels > 0, 0.9, 0.1)
    mixer = Mixer(mixing, NAMES)
    mixer.learn(predictions[:200], part(batch, 0, 200))
    before = mixer.weights()
    mixer.renew("a")
    if not mixing.is_bandit:
        assert mixer.weights()["a"] == pytest.approx(1 / 3 if mixing.rule == "hedge" else 0.0)
        assert sum(mixer.weights().values()) == pytest.approx(1.0)
        assert mixer.weights()["a"] < before["a"]
    mixer = Mixer.of(mixing, NAMES, mixer.arrays())
    mixer.learn(predictions[200:], part(batch, 200, 400))
    if mixing.rule in {"fixed_share", "hedge"}:
        assert mixer.weights()["a"] > 0.9


def test_a_pace_raises_the_share_for_its_batch() -> None:
    """A reaction to drift: while the batch's pace says so, the least weight is at least its share; later it is not."""
    predictions, batch = stream(400)
    predictions[:, 0] = np.where(batch.labels > 0, 0.9, 0.1)
    mixer = Mixer(Mixing(), NAMES)
    mixer.learn(predictions[:200], dataclasses.replace(part(batch, 0, 200), pace=Pace(1.0, 0.3)))
    assert min(mixer.weights().values()) >= 0.1
    mixer.learn(predictions[200:], part(batch, 200, 400))
    assert min(mixer.weights().values()) < 0.01
