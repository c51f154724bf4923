"""ParameterShard: owns the rows of some segments of the key space, in one table for each table of the learner.

Messages in:
    exchange(worker, moment, push, pull) -> Rows or None: apply an earlier push of the worker and answer its next pull,
        in one call; or Wait, and the worker asks again. exchange_packed is the same as bytes.
    freeze(moment), part(): begin a snapshot, and what of it is here; snapshot(): copies of all there is now.
    restore(tables, ...): replace the content, and begin a new generation; resume(moment) begins one with what is here,
        catch_up(layers, ...) with what is here and the differences to it.
    ask(question) -> answer: rows by key, best items; changes nothing (learning/questions.py).
    status() -> rows, bytes, pushes, staleness, and how many rows other workers had moved.
Messages out: none.

A shard never sees records. What it hands out for a pull it keeps as that pull's *base* until the push comes, so a
push carries only the end rows and the walk's coupling under the pull's batch id, no keys. A push of a batch id that
was applied before is answered and dropped; one of any other id is refused.

A worker may pull its next batch before it has pushed this one. The push, when it comes, is therefore also taken into
the base of the pull after it, by the same rule as into the table: exactly what the worker does with the rows it has
(`carried` says which). So of the rows that a worker learns on, only what other workers pushed meanwhile is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actors.answers import answer
from actors.holding import Holding, HoldingPart
from actors.ports import StaleGenerationError, StoreError
from actors.tickets import Ticket, carry_walk, merge_walk, read_rows
from learning.exchange import Moment, Pull, Push, Rows, Wait, split_rows
from learning.staleness import StalenessGate, StalenessHistogram
from learning.wire import pack_answer, unpack_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.ports import Layers, Sides, Tables
    from learning.batch import BatchId
    from learning.learner import Learner
    from learning.policy import TablePolicy
    from learning.questions import Found, Listed, Question

__all__ = ["ParameterShard", "StalePushError"]

PULLS_OPEN_MAX = 2


class StalePushError(Exception):
    """A push that belongs to no pull this shard remembers; the message names shard, worker and batch."""


class ParameterShard:
    """One shard of the parameter state of `learner`. Not thread-safe: one call at a time.

    `policies` by table name. `staleness_examples_max` and `staleness_share_max` (learning/staleness.py) make this shard
    the one that lets pulls in, or has them wait.
    """

    def __init__(
        self,
        shard: int,
        learner: Learner,
        policies: Mapping[str, TablePolicy] | None = None,
        staleness_examples_max: int | None = None,
        staleness_share_max: float | None = None,
    ) -> None:
        self._shard = shard
        self._learner = learner
        self.held = Holding(learner, policies)
        self._tables, self._names = self.held.tables, self.held.names
        self._widths = [spec.width for spec in self.held.specs]
        self._generation = 1
        self._gate = StalenessGate(staleness_examples_max, staleness_share_max)
        self._staleness = StalenessHistogram()
        self._open: dict[int, list[Ticket]] = {}
        self._applied: dict[int, BatchId] = {}
        self._pushes = self._repeats = self._moved_rows = self._frozen_pushes = 0

    def exchange(self, worker: int, moment: Moment, push: Push | None, pull: Pull | None) -> Rows | Wait:
        """Apply `push`; then the present rows of the keys of `pull` (none without one), or that it has to wait.

        Raises:
            StaleGenerationError: the job has gone back to a snapshot since.
            StalePushError: the push belongs to no open pull of this worker.

        """
        with self.held.lock:
            self.freeze(moment)
            return self._exchange(worker, push, pull)

    def _exchange(self, worker: int, push: Push | None, pull: Pull | None) -> Rows | Wait:
        if push is not None:
            self._apply(worker, push)
        if pull is not None and not self._gate.enter(worker, pull.batch_id, pull.records):
            return Wait(self._gate.pushed)
        if pull is None or not pull.sizes:
            return Rows(np.empty(0, np.float32), None)
        opened = self._open.setdefault(worker, [])
        # Asked again, because another shard said wait: its rows are open, and only to be read again.
        again = opened.pop() if opened and opened[-1].pull.batch_id == pull.batch_id else None
        assert len(opened) < PULLS_OPEN_MAX, f"worker {worker} has {len(opened)} pulls open"
        return self._answer(opened, pull, again)

    def exchange_packed(self, message: bytes) -> bytes:
        """`exchange` as bytes, at half the cost between processes."""
        return pack_answer(self.exchange(*unpack_call(message)))

    def _answer(self, opened: list[Ticket], pull: Pull, again: Ticket | None) -> Rows:
        # Arrays that arrive from another process are read-only, which numba would compile for a second time.
        keys = pull.keys.copy()
        flat = np.empty(sum(n * width for n, width in zip(pull.sizes, self._widths, strict=True)), np.float32)
        views = split_rows(flat, pull.sizes, self._widths)
        at, start = [], 0
        for t, table in enumerate(self._tables):
            part = slice(start, start + pull.sizes[t])
            sights = None if pull.sights is None else pull.sights[part]
            if again is None:
                held_from = self._held_from(t, table.tick)
                rows = table.open(keys[part], sights, pull.records, pull.time_s, held_from)
            else:
                rows = again.at[t]
            read_rows(self.held, t, rows, keys[part], views[t])
            at.append(rows)
            start = part.stop
        ticks = [table.tick for table in self._tables] if again is None else again.ticks
        opened.append(Ticket(pull, at, views, ticks))
        nameless = self._names.nameless(pull, at)
        if all(self.held.keeps_all):
            return Rows(flat, None, nameless)
        return Rows(flat, tuple(np.flatnonzero(rows < 0).astype(np.int32) for rows in at), nameless)

    def _held_from(self, table: int, tick: int) -> int:
        """The oldest tick whose rows are in use by an open pull; without one, the next tick."""
        ticks = (tickets[0].ticks[table] for tickets in self._open.values() if tickets)
        return min(ticks, default=tick + 1)

    def _apply(self, worker: int, push: Push) -> None:
        if self._applied.get(worker) == push.batch_id:
            self._repeats += 1
            return
        opened = self._open.get(worker, [])
        ticket = opened[0] if opened else None
        expected = 0 if ticket is None else sum(base.size for base in ticket.base)
        if ticket is None or ticket.pull.batch_id != push.batch_id or len(push.rows) != expected:
            raise self._stale(worker, ticket, push, expected)
        del opened[0]
        ends = split_rows(push.rows.copy(), ticket.pull.sizes, self._widths)
        for t, end in enumerate(ends):
            self._moved_rows += merge_walk(self._learner, self.held, t, ticket, end, push.coupling)
            if opened:
                carry_walk(self._learner, self.held, t, ticket, opened[0], end, push.coupling)
        self._names.take(ticket.pull, ticket.at, push.names)
        self._staleness.add(self._gate.leave(worker, push.batch_id))
        self._applied[worker] = push.batch_id
        self._pushes += 1

    def _stale(self, worker: int, ticket: Ticket | None, push: Push, expected: int) -> StalePushError:
        opened = "none" if ticket is None else f"{ticket.pull.batch_id} with {expected} numbers"
        came = f"{push.batch_id} with {len(push.rows)} numbers"
        return StalePushError(
            f"shard {self._shard} expected worker {worker} to push the batch it pulled ({opened}), but came batch "
            f"{came}; restart the job from its last snapshot"
        )

    def freeze(self, moment: Moment) -> None:
        """Begin the moment's snapshot, if it has not begun.

        Raises:
            StaleGenerationError: the job has gone back to a snapshot since.
            StoreError: a later snapshot has begun, whose rows a late writer of this one would take away.

        """
        if moment.generation != self._generation:
            raise StaleGenerationError(
                f"shard {self._shard} is in generation {self._generation} of the job and was sent a message of "
                f"generation {moment.generation}; it is refused"
            )
        if moment.snapshot < self.held.frozen:
            raise StoreError(
                f"shard {self._shard} has begun snapshot {self.held.frozen} and was sent a message from before it, of "
                f"snapshot {moment.snapshot}; it is refused"
            )
        if moment.snapshot > self.held.frozen:
            self._frozen_pushes = self._pushes
        self.held.freeze(moment)

    def part(self) -> HoldingPart:
        """The snapshot that has begun, to be read once, in any thread."""
        return self.held.part()

    def snapshot(self) -> Tables:
        """Of each table, copies of all keys, rows and names as they are now."""
        return self.held.snapshot()

    def begin(self, moment: Moment) -> None:
        """Begin a generation with what is here: messages of any other are refused."""
        self._generation = moment.generation

    def restore(
        self, tables: Tables, sides: Sides | None = None, moment: Moment | None = None, pushed: int = 0
    ) -> None:
        """Replace the content by that of the moment's snapshot, and begin its generation.

        Open pulls are forgotten. `pushed`: records that the job has learnt so far.
        """
        moment = moment or Moment(self._generation)
        self.held.restore(tables, sides, moment)
        self._begin_at(moment, pushed)

    def catch_up(self, layers: Layers, moment: Moment, pushed: int) -> None:
        """Take in the differences from the snapshot that is here to the moment's, and begin its generation."""
        self.held.catch_up(layers, moment)
        self._begin_at(moment, pushed)

    def resume(self, moment: Moment, pushed: int) -> None:
        """Begin the moment's generation with what is here, which is its snapshot. Raises StoreError if it is not."""
        with self.held.lock:
            later = self._pushes - self._frozen_pushes + sum(map(len, self._open.values()))
            if self.held.frozen != moment.snapshot or later:
                raise StoreError(
                    f"shard {self._shard} expected to hold snapshot {moment.snapshot} and nothing later, but holds "
                    f"{self.held.frozen} and {later} pulls and pushes behind it; it is to load the snapshot"
                )
            self._begin_at(moment, pushed)

    def _begin_at(self, moment: Moment, pushed: int) -> None:
        self._generation = moment.generation
        self._open.clear()
        self._applied.clear()
        self._gate = StalenessGate(self._gate.bound, self._gate.share_max, pushed or self._gate.pushed)

    def ask(self, question: Question) -> Found | Listed:
        """Answer a question about the rows as they are now."""
        with self.held.lock:
            return answer(question, self._learner, self._tables, self._names)

    def status(self) -> dict[str, Any]:
        """State of each table now; pushes, repeats, waits and rows moved by others since the start; staleness."""
        return {
            "tables": self.held.status(),
            "pushes": self._pushes,
            "repeated_pushes": self._repeats,
            "moved_rows": self._moved_rows,
            "waits": self._gate.denied,
            "staleness": self._staleness.counts.tolist(),
            "staleness_max": self._gate.staleness_max,
        }
