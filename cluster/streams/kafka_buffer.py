"""What a reader has fetched of one Kafka partition and not yet cut into batches: bounded, and cut on a fixed grid."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cluster.decode.messages import Messages
from cluster.streams.kafka_chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BATCH_BYTES_MAX", "PartitionBuffer", "message_rows"]

BATCH_BYTES_MAX = 64 * 2**20
"""A batch is also full at this many bytes, so that a few huge messages do not need a batch's worth of memory each."""

_ARROW_STREAM, _ARROW_FILE = b"\xff\xff\xff\xff", b"ARROW1"
"""How Arrow IPC messages begin; no JSON does."""


def message_rows(value: bytes) -> int:
    """Records in one message: the rows of an Arrow message, otherwise one; an unreadable message counts as one."""
    try:
        if value.startswith(_ARROW_STREAM):
            with pa.ipc.open_stream(value) as stream:
                return sum(batch.num_rows for batch in stream)
        if value.startswith(_ARROW_FILE):
            with pa.ipc.open_file(value) as file:
                return sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))
    except (pa.ArrowException, OSError, ValueError):
        return 1
    return 1


_ARROW_BEGINS = (_ARROW_STREAM[:1], _ARROW_FILE[:1])


@dataclass(slots=True)
class _Piece:
    """A chunk with the rows of each message; `rows_after` is their running sum, None where each holds one."""

    chunk: Chunk
    rows_after: NDArray[np.int64] | None
    bytes: int
    arrived_s: float

    @classmethod
    def of(cls, chunk: Chunk, arrived_s: float) -> _Piece:
        rows_after = None
        if any(value[:1] in _ARROW_BEGINS for value in chunk.values):
            rows_after = np.cumsum([message_rows(value) for value in chunk.values])
        return cls(chunk, rows_after, chunk.bytes, arrived_s)

    @property
    def rows(self) -> int:
        return len(self.chunk.values) if self.rows_after is None else int(self.rows_after[-1])

    def messages_until(self, rows: int, bytes_max: int) -> int:
        """Messages that it takes to reach `rows` or `bytes_max`, at least one."""
        if self.rows_after is None:
            count = min(rows, len(self.chunk.values))
        else:
            count = min(int(np.searchsorted(self.rows_after, rows)) + 1, len(self.chunk.values))
        if self.bytes > bytes_max:
            sizes = np.cumsum([len(value) for value in self.chunk.values])
            count = min(count, int(np.searchsorted(sizes, bytes_max)) + 1)
        return count

    def split(self, count: int) -> tuple[_Piece, _Piece | None]:
        """The first `count` messages, and the rest."""
        total = len(self.chunk.values)
        if count >= total:
            return self, None
        head = self.chunk.part(0, count)
        rest = self.chunk.part(count, total)
        after = self.rows_after
        if after is None:
            head_after = rest_after = None
        else:
            head_after, rest_after = after[:count], after[count:] - after[count - 1]
        head_bytes = head.bytes
        arrived_s = self.arrived_s
        return (
            _Piece(head, head_after, head_bytes, arrived_s),
            _Piece(rest, rest_after, self.bytes - head_bytes, arrived_s),
        )


class PartitionBuffer:
    """Fetched messages of one partition, from `next_offset` (not yet cut) to `position` (not yet fetched).

    Where a batch ends depends on the messages alone (their rows and bytes), never on how they were fetched, so a
    second reading from any batch's end makes the same batches. Where a plan says otherwise, it ends there.
    """

    def __init__(self, partition: int, start_offset: int, end_offset: int | None, batch_records: int) -> None:
        self.partition = partition
        self.next_offset = start_offset
        self.position = start_offset
        self.end_offset = end_offset
        self.rows = 0
        self.bytes = 0
        self._batch_records = batch_records
        self._pieces: deque[_Piece] = deque()

    def add(self, chunks: Sequence[Chunk], arrived_s: float = 0.0) -> None:
        """Take over chunks that came at `arrived_s`; messages at and behind the end offset are dropped."""
        for chunk in chunks:
            self.position = max(self.position, chunk.next_offset)
            if self.end_offset is not None and chunk.next_offset > self.end_offset:
                kept = int(np.searchsorted(chunk.offsets, self.end_offset))
                if not kept:
                    continue
                chunk = Chunk(  # noqa: PLW2901 - the trimmed chunk takes the place of the whole one
                    chunk.offsets[:kept], chunk.produced_s[:kept], chunk.values[:kept], self.end_offset
                )
            piece = _Piece.of(chunk, arrived_s)
            self._pieces.append(piece)
            self.rows += piece.rows
            self.bytes += piece.bytes

    @property
    def fetched(self) -> bool:
        """True once a bounded partition has been fetched up to its end."""
        return self.end_offset is not None and self.position >= self.end_offset

    @property
    def done(self) -> bool:
        """True once a bounded partition has been cut up to its end."""
        return self.fetched and not self._pieces

    @property
    def holds_batch(self) -> bool:
        """True if a batch can be cut that no later message would have made longer."""
        return (
            self.rows >= self._batch_records
            or self.bytes >= BATCH_BYTES_MAX
            or (self.fetched and bool(self._pieces))
        )

    @property
    def holds_any(self) -> bool:
        """True if there is anything to cut."""
        return bool(self._pieces)

    @property
    def oldest_s(self) -> float:
        """When the first message came that is not cut; infinity where there is none."""
        return self._pieces[0].arrived_s if self._pieces else math.inf

    def cut(self) -> Messages:
        """The next batch's messages: up to the grid's next line, or all that is there."""
        pieces: list[_Piece] = []
        rows = bytes_ = 0
        while self._pieces and rows < self._batch_records and bytes_ < BATCH_BYTES_MAX:
            piece = self._pieces.popleft()
            count = piece.messages_until(self._batch_records - rows, BATCH_BYTES_MAX - bytes_)
            head, rest = piece.split(count)
            if rest is not None:
                self._pieces.appendleft(rest)
            rows += head.rows
            bytes_ += head.bytes
            pieces.append(head)
        self.rows -= rows
        self.bytes -= bytes_
        self.next_offset = pieces[-1].chunk.next_offset
        return self._messages([piece.chunk for piece in pieces])

    def holds_until(self, offset: int) -> bool:
        """True if all messages below `offset` have been fetched."""
        return self.position >= offset

    def cut_until(self, offset: int) -> Messages:
        """All messages below `offset`, which must have been fetched; none if compaction has removed them since."""
        heads: list[_Piece] = []
        while self._pieces and self._pieces[0].chunk.offsets[0] < offset:
            piece = self._pieces.popleft()
            head, rest = piece.split(int(np.searchsorted(piece.chunk.offsets, offset)))
            if rest is not None:
                self._pieces.appendleft(rest)
            heads.append(head)
        self.rows -= sum(head.rows for head in heads)
        self.bytes -= sum(head.bytes for head in heads)
        self.next_offset = offset
        return self._messages([head.chunk for head in heads])

    def _messages(self, chunks: list[Chunk]) -> Messages:
        no_offsets, no_times = np.empty(0, np.int64), np.empty(0)
        return Messages(
            self.partition,
            np.concatenate([no_offsets, *(chunk.offsets for chunk in chunks)]),
            [value for chunk in chunks for value in chunk.values],
            np.concatenate([no_times, *(chunk.produced_s for chunk in chunks)]),
            self.next_offset,
        )
