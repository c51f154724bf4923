"""Recommendations over shards: what one table with all items in it would give, by the ids that were sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.local_store import DirectShards, LocalStore
from cluster.recommend import Recommender, RecommendError
from cluster.store import ShardedStore
from learning.batch import Batch
from learning.factors import Factors
from learning.factors_kernels import COUNT, FACTORS
from learning.ftrl import Ftrl
from learning.keys import name_key, value_key
from learning.policy import TablePolicy
from learning.table_state import TableState
from tests.direct import ListSource, Rig, coordinator_for
from tests.ratings_stream import ratings
from tests.streams import cut

LEARNER = Factors(factors=6)
CHOICES = Factors(factors=6, feedback="implicit", negatives=3)
RECORDS = 3000
USER = name_key("user")


def learnt(
    shards: int,
    learner: Factors = LEARNER,
    policies: dict[str, TablePolicy] | None = None,
    batches: list[Batch] | None = None,
) -> DirectShards:
    """Shards after one worker has learnt the ratings in batches of 100."""
    direct = DirectShards(shards, learner, policies)
    store = ShardedStore(0, direct, learner, has_policies=policies is not None)
    source = ListSource(cut(ratings(RECORDS), 100) if batches is None else batches)
    Rig(learner, store, source, coordinator_for(learner)).build().run()
    return direct


class Reference:
    """All items in one table, sorted in numpy."""

    def __init__(self, learner: Factors = LEARNER) -> None:
        store, batches = LocalStore(learner), cut(ratings(RECORDS), 100)
        Rig(learner, store, ListSource(batches), coordinator_for(learner)).build().run()
        self.learner, self.tables = learner, store.snapshot()
        self.items = self.tables["items"]
        assert self.items.names is not None
        self.names = np.array(self.items.names.tolist())
        whole = ratings(RECORDS)
        assert whole.role_texts is not None
        self.rated: dict[int, set[str]] = {}
        for user, item in zip(whole.keys[::2].tolist(), whole.role_texts[1].tolist(), strict=True):
            self.rated.setdefault(user, set()).add(item)

    def row(self, table: str, key: int) -> np.ndarray | None:
        """The row of a key."""
        state = self.tables[table]
        at = np.flatnonzero(state.keys == np.uint64(key))
        return state.rows[at[0]] if len(at) else None

    def recommend(self, user: str, n: int, *, exclude_seen: bool) -> list[tuple[str, float]]:
        """The best n by a full sort."""
        key = int(value_key(USER, user))
        row, scale = self.row("users", key), self.tables["scale"].rows[0]
        scores = self.learner.score_items(row, self.items.rows)
        order = np.lexsort((self.items.keys, -scores))
        graded = self.learner.grade(scores, row, scale)
        known = self.rated.get(key, set()) if exclude_seen else set()
        return [(str(self.names[i]), float(graded[i])) for i in order if self.names[i] not in known][:n]

    def similar(self, item: str, n: int) -> list[tuple[str, float]]:
        """The n most alike by a full sort."""
        factors = self.items.rows[:, FACTORS:].astype(np.float64)
        own = factors[int(np.flatnonzero(self.names == item)[0])]
        cosines = factors @ own / np.linalg.norm(factors, axis=1) / np.linalg.norm(own)
        enough = (self.items.rows[:, COUNT] >= 5) & (self.names != item)
        order = [i for i in np.lexsort((self.items.keys, -cosines)) if enough[i]]
        return [(str(self.names[i]), float(cosines[i])) for i in order[:n]]


def assert_same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    """The same items in the same order, with the same figures."""
    assert [item for item, _ in found] == [item for item, _ in expected]
    assert [figure for _, figure in found] == pytest.approx([figure for _, figure in expected])


@pytest.mark.parametrize("learner", [LEARNER, CHOICES], ids=["ratings", "choices"])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_recommendations_are_those_of_a_full_sort(shards: int, learner: Factors) -> None:
    """Known users and a stranger ask for few items and for more than there are, with what they know and without."""
    reference, recommender = Reference(learner), Recommender(learnt(shards, learner), learner)
    assert recommender.figure == ("rating" if learner is LEARNER else "score")
    for user in ("0", "7", "119", "nobody"):
        for n in (1, 10, 500):
            for exclude_seen in (True, False):
                expected = reference.recommend(user, n, exclude_seen=exclude_seen)
                assert_same(recommender.recommend(user, n, exclude_seen=exclude_seen), expected)


def test_what_a_user_has_rated_is_left_out_and_nothing_else() -> None:
    """All items are asked for: those rated and those recommended are together all of them."""
    reference, recommender = Reference(), Recommender(learnt(2), LEARNER)
    every = {item for item, _ in recommender.recommend("3", 1000, exclude_seen=False)}
    assert every == set(reference.names.tolist())
    rated = reference.rated[int(value_key(USER, "3"))]
    assert {item for item, _ in recommender.recommend("3", 1000)} == every - rated
    assert len(rated) > 5


def test_predicted_ratings_are_on_the_scale_of_the_ratings() -> None:
    """Ratings were 1 to 5: so are predictions, best first."""
    found = [rating for _, rating in Recommender(learnt(2), LEARNER).recommend("7", 100)]
    assert found == sorted(found, reverse=True)
    assert 1 <= found[-1] < found[0] <= 5


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_similar_items_are_those_of_a_full_sort(shards: int) -> None:
    """Somebody looks at an item that many have rated: its neighbours, without itself and those hardly rated."""
    reference, recommender = Reference(), Recommender(learnt(shards), LEARNER)
    for item in ("1", "2", "17"):
        for n in (1, 10, 500):
            assert_same(recommender.similar(item, n), reference.similar(item, n))


def test_what_cannot_be_answered_is_a_sentence() -> None:
    """An item nobody has rated, no item at all, a model that forgets who rated what, a model that ranks nothing."""
    recommender = Recommender(learnt(2), LEARNER)
    with pytest.raises(RecommendError, match="'9999' is none of them; give the id as it is in the records"):
        recommender.similar("9999", 3)
    with pytest.raises(RecommendError, match="asked for 1 item or more, but it was 0"):
        recommender.recommend("7", 0)
    forgetful = Factors(factors=6, remember_seen=False)
    unseen = Recommender(learnt(2, forgetful), forgetful)
    with pytest.raises(RecommendError, match=r"learner\.remember_seen: false; ask for all items"):
        unseen.recommend("7", 3)
    expected = Reference().recommend("7", 3, exclude_seen=False)
    assert_same(unseen.recommend("7", 3, exclude_seen=False), expected)
    with pytest.raises(RecommendError, match="the learner ftrl recommends nothing; learn with"):
        Recommender(DirectShards(1, Ftrl()), Ftrl())


def test_before_the_first_record_there_is_nothing_to_recommend() -> None:
    """Somebody asks a job that has just started."""
    assert Recommender(DirectShards(2, LEARNER), LEARNER).recommend("7", 3) == []


def test_a_user_whose_row_went_still_knows_the_items() -> None:
    """Rows of users expire but not the pairs: fewer ratings are counted than items are known, and all are left out."""
    policies = {"users": TablePolicy(expire_after_records=200)}
    direct, reference = learnt(2, policies=policies), Reference()
    recommender = Recommender(direct, LEARNER)
    every = set(reference.names.tolist())
    for user in ("0", "7"):
        rated = reference.rated[int(value_key(USER, user))]
        assert {item for item, _ in recommender.recommend(user, len(every) - len(rated))} == every - rated


@pytest.mark.parametrize(
    "policy",
    [TablePolicy(admit_after=3, admission="exact"), TablePolicy(expire_after_records=150), TablePolicy(rows_max=40)],
    ids=["admission", "expiry", "ceiling"],
)  # fmt: skip
def test_every_item_that_has_a_row_has_its_name(policy: TablePolicy) -> None:
    """Items wait for their row, lose it and get another one: whoever has one is called as it was sent."""
    direct = learnt(2, policies={"items": policy})
    named = name_key("item")
    for shard in direct.shards:
        items = shard.snapshot()["items"]
        assert items.names is not None
        assert len(items.keys) > 5
        assert [value_key(named, text) for text in items.names.tolist()] == items.keys.tolist()


def test_two_workers_name_the_same_items_once() -> None:
    """Both see the same items first, in pulls that overlap; their names come twice and stay the same."""
    direct = DirectShards(2, LEARNER)
    stores = [ShardedStore(worker, direct, LEARNER) for worker in range(2)]
    for turn in zip(*(cut(ratings(600, partition=w), 50) for w in range(2)), strict=True):
        for store, batch in zip(stores, turn, strict=True):
            store.pull(batch)
        for store, batch in zip(stores, turn, strict=True):
            pulled = store.wait()
            LEARNER.learn(pulled.tables, batch)
            store.push(pulled)
    for store in stores:
        store.flush()
    texts = ratings(600).role_texts
    assert texts is not None
    found = [item for item, _ in Recommender(direct, LEARNER).recommend("x", 1000)]
    assert sorted(found) == sorted(set(texts[1].tolist()))


def test_without_texts_items_are_called_by_their_keys_until_texts_come() -> None:
    """A snapshot of an older version has no names: they come with the next records, and only for those items."""
    batches = cut(ratings(RECORDS), 100)
    mute = [replace(batch, role_texts=None) for batch in batches]
    found = [item for item, _ in Recommender(learnt(2, batches=mute), LEARNER).recommend("x", 5)]
    assert found
    assert all(item.startswith("key:") and len(item) == 20 for item in found)
    later = [replace(batch, batch_id=batch.batch_id._replace(partition=1)) for batch in batches[:1]]
    direct = learnt(2, batches=[*mute, *later])
    assert later[0].role_texts is not None
    names = {item for item, _ in Recommender(direct, LEARNER).recommend("x", 1000)}
    assert {name for name in names if not name.startswith("key:")} == set(later[0].role_texts[1].tolist())


def test_a_restored_snapshot_gives_the_same_answers() -> None:
    """A job's snapshot goes on with another number of shards."""
    direct = learnt(3)
    before = Recommender(direct, LEARNER)
    states = [shard.snapshot() for shard in direct.shards]
    after = DirectShards(2, LEARNER)
    parts = {name: TableState.join([state[name] for state in states]).split(2) for name in states[0]}
    for s, shard in enumerate(after.shards):
        shard.restore({name: of_shards[s] for name, of_shards in parts.items()})
    again = Recommender(after, LEARNER)
    assert again.recommend("7", 20) == before.recommend("7", 20)
    assert again.similar("1", 20) == before.similar("1", 20)
