"""A bounded table does what its policy says, batch by batch, and what a plain model of the semantics does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning import bounded
from learning.birth import Birth
from learning.bounded import BoundedTable
from learning.expiry import CONFIRMED
from learning.keys import BIAS_KEY, segment_of
from learning.policy import TablePolicy
from learning.table_state import TableState

NEVER = 10**9


def _u64(keys: list[int]) -> np.ndarray:
    return np.array(keys, np.uint64)


@dataclass
class Model:
    """Admission after exact counts, and expiry, as the docstrings say it; key to (value, tick of last use)."""

    policy: TablePolicy
    rows: dict[int, tuple[float, int]] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    records: list[int] = field(default_factory=lambda: [0])  # R(t) of tick t
    times_s: list[float] = field(default_factory=lambda: [math.nan])
    leaps: list[float] = field(default_factory=list)

    def believed(self, time_s: float) -> float:
        """NaN for a time that leaps ahead of the newest, until so many in a row agree."""
        if math.isnan(time_s) or not time_s >= self.times_s[-1] + (self.policy.expire_after_s or math.inf):
            self.leaps = self.leaps if math.isnan(time_s) else []
            return time_s
        agrees = self.leaps and abs(time_s - self.leaps[-1]) < self.policy.expire_after_s
        self.leaps = [*self.leaps, time_s] if agrees else [time_s]
        return time_s if len(self.leaps) >= CONFIRMED else math.nan

    def open(self, sights: dict[int, int], records: int, time_s: float, held_from: int) -> set[int]:
        """The keys that have a row now."""
        tick = len(self.records)
        newest = [time for time in (*self.times_s, self.believed(time_s)) if not math.isnan(time)]
        self.times_s.append(max(newest, default=math.nan))
        for key, (_, used) in list(self.rows.items()):
            if key != int(BIAS_KEY) and used < min(held_from, tick) and self._too_old(used):
                del self.rows[key]
        self.records.append(self.records[-1] + records)
        for key, count in sights.items():
            if key in self.rows:
                self.rows[key] = (self.rows[key][0], tick)
                continue
            self.waiting[key] = self.waiting.get(key, 0) + count
            if self.waiting[key] >= self.policy.admit_after or key == int(BIAS_KEY):
                del self.waiting[key]
                self.rows[key] = (0.0, tick)
        return self.rows.keys() & sights.keys()

    def _too_old(self, used: int) -> bool:
        after_records, after_s = self.policy.expire_after_records, self.policy.expire_after_s
        known = [time for time in self.times_s if not math.isnan(time)]
        if after_records and self.records[-1] - self.records[used] >= after_records:
            return True
        used_s = known[0] if known and math.isnan(self.times_s[used]) else self.times_s[used]
        return bool(after_s) and self.times_s[-1] - used_s >= after_s


pulls = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 12) | st.just(int(BIAS_KEY)), st.integers(1, 3), max_size=8),
        st.integers(0, 9),
        st.floats(0, 50) | st.just(math.nan),
        st.integers(0, 4),
    ),
    max_size=40,
)
policies = st.builds(
    TablePolicy,
    admit_after=st.integers(1, 4),
    admission=st.just("exact"),
    expire_after_records=st.sampled_from([0, 1, 7, 20]),
    expire_after_s=st.sampled_from([0.0, 10.0]),
)


@settings(max_examples=200)
@given(policies, pulls, st.sampled_from([8, 2**32 - 2]), st.sampled_from([0, 2, 1 << 14]))
def test_admission_and_expiry_equal_the_plain_model(
    policy: TablePolicy, pulls: list[tuple[dict[int, int], int, float, int]], stamp_max: int, sweep_rows: int
) -> None:
    """Keys wait, get rows, are learnt, grow old, are held or not, and come again, whatever the sweep got to."""
    with slow_sweep(sweep_rows):
        _compare_with_the_model(policy, pulls, stamp_max)


@contextmanager
def slow_sweep(rows: int) -> Iterator[None]:
    """Let sweeps look at so few rows that those too old stay."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounded, "_SWEEP_ROWS", rows)
        patched.setattr(bounded, "_SWEEP_ROWS_PER_BIRTH", 0)
        yield


def _compare_with_the_model(
    policy: TablePolicy, pulls: list[tuple[dict[int, int], int, float, int]], stamp_max: int
) -> None:
    window = 8 if stamp_max > 8 else 2  # small stamps bound how long a use is remembered
    table, model, held_from = BoundedTable(1, policy, stamp_max=stamp_max), Model(policy), 0
    for sights, size, at_s, holding in pulls:
        records, time_s = (30, math.nan) if window == 2 else (size, at_s)
        held_from = max(held_from, table.tick + 1 - min(holding, window))
        rows = table.open(
            _u64(list(sights)), np.array(list(sights.values()), np.uint8), records, time_s, held_from
        )
        there = model.open(sights, records, time_s, held_from)
        assert {key for key, row in zip(sights, rows.tolist(), strict=True) if row >= 0} == there
        for key, row in zip(sights, rows.tolist(), strict=True):
            if row >= 0:
                assert table.rows[row, 0] == model.rows[key][0]
                table.rows[row, 0] += 1.0
                model.rows[key] = (model.rows[key][0] + 1.0, model.rows[key][1])
        keys, values = table.snapshot()
        assert dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True)) == {
            key: value for key, (value, _) in model.rows.items()
        }
        found = table.find(np.arange(13, dtype=np.uint64)) >= 0
        assert np.flatnonzero(found).tolist() == sorted(model.rows.keys() & set(range(13)))


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 400), max_size=40, unique=True), max_size=40),
    st.sampled_from([1, 5, 30, 130]),
    st.integers(0, 5),
)
def test_the_ceiling_holds_and_open_pulls_keep_their_rows(
    batches: list[list[int]], rows_max: int, open_pulls: int
) -> None:
    """More keys come than there may be rows: no batch sees more rows, and none loses a row while it is open."""
    table = BoundedTable(1, TablePolicy(rows_max=rows_max))
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for keys in batches:
        held = held[-open_pulls:] if open_pulls else []
        rows = table.open(_u64(keys), None, len(keys), math.nan, table.tick + 1 - len(held))
        held.append((_u64(keys), rows))
        assert len(table) <= rows_max
        distinct_held = {int(key) for pull, at in held for key, row in zip(pull, at, strict=True) if row >= 0}
        assert len(distinct_held) <= rows_max
        for pull, at in held:
            has = at >= 0
            assert np.array_equal(table.find(pull[has]), at[has])
    status = table.status()
    assert status["rows"] == len(table)
    if rows_max >= 401:
        assert status["evicted"] == status["refused"] == 0


def test_the_coldest_rows_go_first() -> None:
    """A table as full as it may be takes new keys: those that were not wanted for the longest time make room."""
    table = BoundedTable(1, TablePolicy(rows_max=40))
    for tick in range(4):
        table.open(_u64(list(range(10 * tick, 10 * tick + 10))), None, 10, math.nan, NEVER)
    table.open(_u64(list(range(5))), None, 5, math.nan, NEVER)  # of the oldest ten, five are wanted again
    table.open(_u64(list(range(100, 107))), None, 7, math.nan, NEVER)
    gone = np.flatnonzero(table.find(np.arange(40, dtype=np.uint64)) < 0).tolist()
    assert set(range(5, 10)) <= set(gone) <= set(range(5, 20))
    assert len(gone) == 7
    assert table.status()["evicted"] == 7


def test_a_large_table_at_its_ceiling_keeps_what_is_wanted() -> None:
    """New keys come in every batch for ever: the table stays within its ceiling, and a key wanted often stays."""
    table, rng = BoundedTable(1, TablePolicy(rows_max=20_000)), np.random.default_rng(0)
    often = np.arange(2_000, dtype=np.uint64)
    for _ in range(60):
        keys = np.concatenate((often, rng.integers(10_000, 2**63, 2_000, dtype=np.uint64)))
        assert table.open(keys, None, 100, math.nan, NEVER).min() >= 0
        assert len(table) <= 20_000
    first = table.find(often)
    assert first.min() >= 0
    assert table.status()["evicted"] > 90_000
    assert table._table.numbered <= 20_000


def test_the_bias_needs_no_admission_and_never_goes() -> None:
    """It is wanted once, and then by nobody for longer than anything lives, in a table that is full."""
    table = BoundedTable(1, TablePolicy(admit_after=9, expire_after_records=5, rows_max=1))
    bias = np.array([BIAS_KEY])
    row = table.open(bias, None, 10, 0.0, NEVER)
    for key in range(20):
        table.open(_u64([key]), np.array([9], np.uint8), 10, 0.0, NEVER)
    assert table.find(bias).tolist() == row.tolist() == [0]


def test_rows_nobody_wants_are_swept_away() -> None:
    """A hundred thousand rows grow too old while other keys are wanted: a bounded number goes with each batch."""
    table = BoundedTable(1, TablePolicy(expire_after_records=1_000))
    table.open(np.arange(100_000, dtype=np.uint64), None, 1, math.nan, NEVER)
    left = []
    for _ in range(80):
        table.open(_u64([1 << 40]), None, 1_000, math.nan, NEVER)
        left.append(len(table))
    assert left[-1] == 1
    assert min(np.diff(left)) >= -3_000
    assert table.status()["expired"] == 100_000


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_decide_together_as_one_table(shards: int) -> None:
    """The same stream over one table and over several: the same keys have the same rows after every batch."""
    with slow_sweep(10):  # goes around at different times
        _compare_with_shards(shards)


def _compare_with_shards(shards: int) -> None:
    policy = TablePolicy(admit_after=3, waiting_max=20_000, expire_after_records=4_000, expire_after_s=500.0)
    birth, rng = Birth(1, 0.1, 0, 2), np.random.default_rng(1)
    one = BoundedTable(2, policy, birth=birth)
    parts = [BoundedTable(2, policy.of_shard(shards), birth=birth) for _ in range(shards)]
    pool = rng.integers(0, 2**64, 30_000, dtype=np.uint64)
    for step in range(60):
        keys = np.unique(pool[(rng.random(600) ** 3 * len(pool)).astype(np.int64)])
        sights = rng.integers(1, 3, len(keys)).astype(np.uint8)
        at = one.open(keys, sights, 200, 17.0 * step, step - 1)
        owner = segment_of(keys) * shards // 1024
        for shard, part in enumerate(parts):
            mine = owner == shard
            rows = part.open(keys[mine], sights[mine], 200, 17.0 * step, step - 1)
            assert np.array_equal(rows >= 0, at[mine] >= 0)
            has = rows >= 0
            assert np.array_equal(part.rows[rows[has]], one.rows[at[mine][has]])
            part.rows[rows[has]] += step
        one.rows[at[at >= 0]] += step
    snapshots = [part.snapshot() for part in parts]
    together = {
        key: row.tolist() for keys, rows in snapshots for key, row in zip(keys.tolist(), rows, strict=True)
    }
    keys, values = one.snapshot()
    assert together == {key: row.tolist() for key, row in zip(keys.tolist(), values, strict=True)}
    assert len(keys) < len(one)  # rows too old that were not swept yet are in no snapshot
    assert one.status()["expired"] > 0
    assert one.status()["admitted"] > 1_000


def test_a_restored_table_goes_on_with_its_rows_as_just_wanted() -> None:
    """Only live rows are in a snapshot; after the restore none is old, and keys that waited begin again."""
    policy = TablePolicy(admit_after=2, admission="exact", expire_after_records=10)
    table = BoundedTable(2, policy)
    twice = np.array([2, 2, 2, 1], np.uint8)
    at = table.open(_u64([1, 2, 3, 4]), twice, 10, math.nan, NEVER)
    table.rows[at[:3]] = [[1, 1], [2, 2], [3, 3]]
    table.open(_u64([2, 3]), None, 10, math.nan, NEVER)  # 1 is too old from the next batch on
    table.open(_u64([3]), None, 10, math.nan, NEVER)
    keys, rows = table.snapshot()
    assert sorted(zip(keys.tolist(), rows[:, 0].tolist(), strict=True)) == [(2, 2.0), (3, 3.0)]
    other = BoundedTable(2, policy)
    other.restore(TableState(keys, rows))
    assert other.open(_u64([4]), None, 9, math.nan, NEVER).tolist() == [-1]
    at = other.open(_u64([2, 3]), None, 1, math.nan, NEVER)
    assert other.rows[at, 0].tolist() == [2.0, 3.0]
    assert other.status()["waiting"] == 1


def test_a_policy_that_keeps_all_is_a_plain_table() -> None:
    """Every key has its row at once, and nothing is tracked."""
    table = BoundedTable(2, TablePolicy())
    assert table.open(_u64([5, 6]), None, 1, math.nan, 0).tolist() == [0, 1]
    assert (table.tick, len(table), table.find(_u64([6, 7])).tolist()) == (1, 2, [1, -1])
    status = table.status()
    assert {name: status[name] for name in ("rows", "waiting", "expired", "evicted", "refused")} == {
        "rows": 2, "waiting": 0, "expired": 0, "evicted": 0, "refused": 0,
    }  # fmt: skip
