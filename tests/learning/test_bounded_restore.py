"""A bounded table that is restored from a snapshot answers every later pull as if nothing had happened."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.admission import counts_of
from learning.birth import Birth
from learning.bounded import BoundedTable
from learning.expiry import StreamAge
from learning.keys import BIAS_KEY, segment_of
from learning.policy import TablePolicy
from learning.table_state import TableState
from tests.learning.test_bounded import NEVER, slow_sweep

Side = dict[str, np.ndarray]
Pull = tuple[dict[int, int], int, float]

BIRTH = Birth(1, 0.1, 0, 2)

policies = st.builds(
    TablePolicy,
    admit_after=st.integers(1, 4),
    admission=st.sampled_from(["exact", "bloom"]),
    waiting_max=st.sampled_from([6, 10_000]),
    expire_after_records=st.sampled_from([0, 7, 20]),
    expire_after_s=st.sampled_from([0.0, 10.0]),
)
pulls = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 12) | st.just(int(BIAS_KEY)), st.integers(1, 3), max_size=8),
        st.integers(0, 9),
        st.floats(0, 60) | st.just(math.nan),
    ),
    max_size=40,
)


def frozen(table: BoundedTable, number: int = 1) -> tuple[TableState, Side]:
    """A whole snapshot of a table."""
    side = table.freeze(number, 0)
    return TableState.join([*table.changes.chunks(contextlib.nullcontext())]), side


def learn(table: BoundedTable, pull: Pull) -> tuple[dict[int, float], dict[int, float]]:
    """Learn a pull; the rows that it was given by key, and all rows after it."""
    sights, records, time_s = pull
    keys = np.array(list(sights), np.uint64)
    rows = table.open(keys, np.array(list(sights.values()), np.uint8), records, time_s, NEVER)
    has = rows >= 0
    given_rows = dict(zip(keys[has].tolist(), table.rows[rows[has], 0].tolist(), strict=True))
    table.rows[rows[has], 0] += 1.0
    live_keys, values = table.snapshot()
    return given_rows, dict(zip(live_keys.tolist(), values[:, 0].tolist(), strict=True))


@settings(max_examples=300)
@given(policies, pulls, st.integers(0, 40), st.sampled_from([2, 1 << 14]))
def test_a_restored_table_goes_on_as_the_undisturbed_one(
    policy: TablePolicy, pulls: list[Pull], cut: int, sweep_rows: int
) -> None:
    """Keys wait, have rows, grow old in records and in seconds, and times leap: a crash anywhere changes no answer."""
    with slow_sweep(sweep_rows):
        table = BoundedTable(1, policy, birth=Birth(1, 0.1, 0, 1))
        for pull in pulls[:cut]:
            learn(table, pull)
        state, side = frozen(table)
        again = BoundedTable(1, policy, birth=Birth(1, 0.1, 0, 1))
        again.restore(state, [side], 1)
        for pull in pulls[cut:]:
            assert learn(again, pull) == learn(table, pull)
        assert again.tick == table.tick or not policy.tracks_use


@settings(max_examples=100)
@given(policies, pulls, st.sets(st.integers(0, 40), max_size=6))
def test_crash_after_crash_changes_nothing_either(
    policy: TablePolicy, pulls: list[Pull], cuts: set[int]
) -> None:
    """Each time it is restored from what the restored table had frozen."""
    table, again = BoundedTable(1, policy), BoundedTable(1, policy)
    for place, pull in enumerate(pulls, start=1):
        assert learn(again, pull) == learn(table, pull)
        if place in cuts:
            state, side = frozen(again, place)
            again = BoundedTable(1, policy)
            again.restore(state, [side], place)


@pytest.mark.parametrize("limits", [(30, 0.0), (0, 25.0), (40, 40.0)], ids=str)
def test_ages_go_on_to_the_batch_even_where_the_history_is_too_short(limits: tuple[int, float]) -> None:
    """When every other tick is dropped depends on where the history lay: that is restored too."""
    rng, differs = np.random.default_rng(5), 0
    for _ in range(40):
        batches = list(zip(rng.integers(0, 8, 200).tolist(), np.cumsum(rng.random(200) * 8), strict=True))
        exact, age = StreamAge(*limits), StreamAge(*limits, history_max=8)
        again, cut, cutoff = age, int(rng.integers(1, 100)), -1
        for tick, (records, time_s) in enumerate(batches, start=1):
            cutoff = age.advance(tick, records, time_s)
            if again is not age:
                assert again.advance(tick, records, time_s) == cutoff
            differs += exact.advance(tick, records, time_s) != cutoff
            if tick == cut:
                again = StreamAge(*limits, history_max=8)
                assert again.restore(age.state(tick, cutoff)) == (tick, cutoff)
    assert differs, "the history was never too short, so nothing was tested"


@pytest.mark.parametrize("admission", ["exact", "bloom"])
@pytest.mark.parametrize("shards", [(2, 1), (2, 3), (2, 3, 1), (3, 1, 2)], ids=str)
def test_tables_of_other_numbers_of_shards_go_on_as_one(admission: str, shards: tuple[int, ...]) -> None:
    """A cluster is started again larger, and smaller, and larger: who waited for how long is known to its owner."""
    policy = TablePolicy(3, admission, 30_000, expire_after_records=4_000, expire_after_s=500.0)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    pool = rng.integers(0, 2**64, 30_000, dtype=np.uint64)
    one, parts = BoundedTable(2, policy, birth=BIRTH), new_parts(policy, shards[0])
    for step in range(40 * len(shards)):
        if step and step % 40 == 0:
            parts = resharded(parts, policy, shards[step // 40], step)
        keys = np.unique(pool[(rng.random(600) ** 3 * len(pool)).astype(np.int64)])
        sights = rng.integers(1, 3, len(keys)).astype(np.uint8)
        at = one.open(keys, sights, 200, 17.0 * step, NEVER)
        owner = segment_of(keys) * len(parts) // 1024
        for shard, part in enumerate(parts):
            mine = owner == shard
            rows = part.open(keys[mine], sights[mine], 200, 17.0 * step, NEVER)
            assert np.array_equal(rows >= 0, at[mine] >= 0)
            has = rows >= 0
            assert np.array_equal(part.rows[rows[has]], one.rows[at[mine][has]])
            part.rows[rows[has]] += step
        one.rows[at[at >= 0]] += step
    assert one.status()["expired"] > 0
    assert one.status()["admitted"] > 1_000
    assert sum(part.status()["waiting"] for part in parts) == one.status()["waiting"]


def new_parts(policy: TablePolicy, shards: int) -> list[BoundedTable]:
    """The empty tables of so many shards."""
    return [BoundedTable(2, policy.of_shard(shards), birth=BIRTH) for _ in range(shards)]


def resharded(parts: list[BoundedTable], policy: TablePolicy, shards: int, number: int) -> list[BoundedTable]:
    """The same content in so many shards."""
    states, sides = zip(*(frozen(part, number) for part in parts), strict=True)
    made = new_parts(policy, shards)
    for shard, (part, state) in enumerate(zip(made, TableState.join(states).split(shards), strict=True)):
        part.restore(state, [counts_of(side, shard, shards) for side in sides], number)
    return made


@pytest.mark.parametrize("kept", [TablePolicy(), TablePolicy(admit_after=3), TablePolicy(expire_after_s=9.0)])
def test_a_table_goes_on_under_another_policy(kept: TablePolicy) -> None:
    """The pipeline's `tables` were changed between two starts: what the old policy knew is left where none asks it."""
    tables = [TablePolicy(3, "exact", expire_after_records=50), TablePolicy(2), TablePolicy(rows_max=9), kept]
    for before in tables:
        old = BoundedTable(1, before)
        for _ in range(3):
            learn(old, ({1: 2, 2: 1, 7: 1}, 3, 5.0))
        state, side = frozen(old)
        for after in tables:
            table = BoundedTable(1, after)
            table.restore(state, [side], 1)
            assert learn(table, ({1: 1, 2: 1}, 3, 5.0))[0] == dict(
                zip(state.keys[:2].tolist(), state.rows[:2, 0].tolist(), strict=True)
            )
