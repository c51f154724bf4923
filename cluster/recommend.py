"""Recommender: the best items for a user and the items like another, by the ids that records were sent with.

It asks shards, wherever they run: those of a job that is learning, or one made of a snapshot. Each shard gives its best
items, as many as are wanted and as the user has rated on top; of all of them together those that the user knows are
left out. So the answer is that of one table with all items in it. Nothing here is changed by asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.local_store import DirectShards
from cluster.models.model_layout import learner_of, tables_of
from cluster.snapshots.model import load_model
from learning.grouping import shard_of_segment
from learning.keys import BIAS_KEY, name_key, segment_of, value_key
from learning.questions import Listed, Lookup, Question, Similar, Top
from learning.ranking import Ranked, merge_top
from learning.recommending import ITEMS, SCALE, SEEN, USERS, Ranker, ranker_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cluster.store import ShardTransport
    from learning.learner import Learner

__all__ = ["RecommendError", "Recommender", "recommender_of"]


class RecommendError(Exception):
    """There is no answer to this question; the message says why and what to do."""


class Recommender:
    """Answers from `shards`, which hold the rows of `learner`. Raises RecommendError if it is none that ranks items.

    An item whose text the shards do not have (it was learnt by an older version) is called `key:` and 16 digits.
    """

    def __init__(self, shards: ShardTransport, learner: Learner) -> None:
        try:
            self._learner: Ranker = ranker_of(learner)
        except ValueError as error:
            raise RecommendError(str(error)) from error
        self._shards = shards
        self._remembers = any(spec.name == SEEN for spec in learner.specs())

    @property
    def figure(self) -> str:
        """What `recommend` gives beside each item: its predicted `rating`, or of implicit feedback its `score`."""
        return "rating" if self._learner.feedback == "explicit" else "score"

    def recommend(self, user: str, n: int, *, exclude_seen: bool = True) -> list[tuple[str, float]]:
        """The `n` items that `user` would rate best, and the ratings predicted (of implicit feedback: scores).

        A user who is not known gets what everybody likes. `exclude_seen` leaves out what the user has rated.

        Raises:
            RecommendError: the learner does not remember who has rated what.
            StoreError: a shard does not answer.

        """
        _check_count(n)
        if exclude_seen and not self._remembers:
            raise RecommendError(
                "expected a model that remembers who has rated what, but this one was learnt with "
                "learner.remember_seen: false; ask for all items (--no-exclude-seen), or learn again with true"
            )
        key = self._key(0, user)
        row = self._row(USERS, key)
        known = 0 if row is None or not exclude_seen else self._learner.ratings_of(row)
        names, keys, scores = self._unseen(row, key, n, known, exclude_seen=exclude_seen)
        ratings = self._learner.grade(scores, row, self._row(SCALE, BIAS_KEY))
        return list(zip(_texts(keys, names), ratings.tolist(), strict=True))

    def similar(self, item: str, n: int) -> list[tuple[str, float]]:
        """The `n` items most like `item`, and the cosines of their factors; items of few ratings are left out.

        Raises:
            RecommendError: the item is not known.
            StoreError: a shard does not answer.

        """
        _check_count(n)
        key = self._key(1, item)
        row = self._row(ITEMS, key)
        if row is None:
            raise RecommendError(
                f"expected an item that the model has learnt, but {item!r} is none of them; give the id as it is in "
                f"the records, field {self._learner.roles[1]!r}"
            )
        names, (keys, scores) = self._best(Similar(row, n + 1))
        others = keys != key
        return list(zip(_texts(keys[others][:n], names), scores[others][:n].tolist(), strict=True))

    def _unseen(
        self, row: NDArray[np.float32] | None, user: np.uint64, n: int, known: int, *, exclude_seen: bool
    ) -> tuple[dict[int, str], NDArray[np.uint64], NDArray[np.float64]]:
        """Names, keys and scores of the n best; more are asked for until enough are new, or there are no more."""
        wanted = n + known
        while True:
            names, (keys, scores) = self._best(Top(row, wanted))
            asked = len(keys)
            if exclude_seen:
                seen, _ = self._lookup(SEEN, self._learner.seen_keys(user, keys))
                keys, scores = keys[~seen], scores[~seen]
            if len(keys) >= n or asked < wanted:
                return names, keys[:n], scores[:n]
            wanted *= (
                2  # ends: there are not that many items. A row that went and came back counts from anew.
            )

    def _best(self, question: Top | Similar) -> tuple[dict[int, str], Ranked]:
        """Every shard's answer as one, with the names by key."""
        answers: list[Listed] = self._ask([(shard, question) for shard in range(len(self._shards))])
        names: dict[int, str] = {}
        for answer in answers:
            names |= zip(answer.keys.tolist(), answer.names.tolist(), strict=True)
        return names, merge_top([(answer.keys, answer.scores) for answer in answers], question.n)

    def _row(self, table: str, key: np.uint64) -> NDArray[np.float32] | None:
        present, rows = self._lookup(table, np.array([key], np.uint64))
        return rows[0] if present[0] else None

    def _lookup(self, table: str, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which keys have a row, and the rows f32 (n, width), from the shards that own them."""
        owner = shard_of_segment(len(self._shards))[segment_of(keys)]
        shards = np.unique(owner).tolist()
        found = self._ask([(shard, Lookup(table, keys[owner == shard])) for shard in shards])
        width = next(spec.width for spec in self._learner.specs() if spec.name == table)
        present, rows = np.zeros(len(keys), np.bool_), np.zeros((len(keys), width), np.float32)
        for shard, answer in zip(shards, found, strict=True):
            present[owner == shard], rows[owner == shard] = answer
        return present, rows

    def _ask(self, questions: list[tuple[int, Question]]) -> list[Any]:
        return self._shards.gather([self._shards.ask(shard, question) for shard, question in questions])

    def _key(self, role: int, text: str) -> np.uint64:
        return value_key(name_key(self._learner.roles[role]), text)


def recommender_of(folder: str | Path) -> Recommender:
    """A recommender over the model in a folder, in this process.

    Raises:
        ModelFilesError, SnapshotError: there is no whole model.
        RecommendError: its learner ranks no items.

    """
    state = load_model(folder)
    learner = learner_of(state.pipeline)
    shards = DirectShards(1, learner)
    shards.shards[0].restore(tables_of(learner, state.arrays))
    return Recommender(shards, learner)


def _check_count(n: int) -> None:
    if n < 1:
        raise RecommendError(f"expected to be asked for 1 item or more, but it was {n}")


def _texts(keys: NDArray[np.uint64], names: dict[int, str]) -> list[str]:
    return [names[key] or f"key:{key:016x}" for key in keys.tolist()]
