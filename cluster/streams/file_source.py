"""Reads a worker's share of a file: block i of `batch_records` rows belongs to partition i modulo the partitions.

The offset of a record is its row number, so a batch's identifier says which rows it holds, and a second reading from
any batch's end makes the same batches, in the order of the file. Every worker reads the whole file but converts and
decodes only its own blocks. One thread reads ahead, bounded by `buffered_batches_max`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from actors.ports import DeadLetter, Decoded, SourceError
from cluster.decode.decoder import Decoder
from cluster.decode.messages import Messages
from cluster.streams.file_blocks import BadRow, RowBlock, between, joined
from cluster.streams.file_columns import to_message
from cluster.streams.file_rows import open_rows
from cluster.streams.file_schema import FileSchema, infer_schema
from cluster.streams.plans import PlanWatch
from learning.batch import Batch, BatchId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.config import FeaturesConfig, FileSourceConfig

__all__ = ["FileSource", "encode_arrow", "schema_of"]

CLOSE_TIMEOUT_S = 5.0
MESSAGE_BYTES_MAX = 2**40
"""Blocks are encoded for the decoder only, never sent; the limit of messages does not apply to them."""


def schema_of(
    source: FileSourceConfig,
    features: FeaturesConfig,
    *,
    roles: tuple[str, ...] = (),
    slice_feature: str | None = None,
    label_min: float = 0.0,
    label_max: float = 1.0,
) -> FileSchema:
    """Columns and kinds of a pipeline's file. Raises SourceError."""
    return infer_schema(
        Path(source.path),
        label=source.label,
        features=features,
        time=source.time,
        id_=source.id,
        weight=source.weight,
        roles=roles,
        slice_feature=slice_feature,
        label_min=label_min,
        label_max=label_max,
    )


def encode_arrow(columns: pa.RecordBatch) -> bytes:
    """One Arrow IPC stream with one record batch: the same bytes as a Kafka message."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns.schema) as writer:
        writer.write_batch(columns)
    return bytes(sink.getvalue())


class FileSource:
    """A worker's share of a file (implements cluster.decode.messages.Source).

    Parameters
    ----------
    bounds:
        first row and end row (None: the end of the file) of each partition of this worker.
    partitions:
        into how many partitions the file is divided; the same for all workers, and for a run and its continuation.
    plan:
        batches of an earlier reading; order and cuts are the file's own, so they are compared and otherwise not needed.

    """

    def __init__(
        self,
        config: FileSourceConfig,
        features: FeaturesConfig,
        batch_records: int,
        bounds: Mapping[int, tuple[int, int | None]],
        partitions: int,
        *,
        label_min: float = 0.0,
        label_max: float = 1.0,
        roles: tuple[str, ...] = (),
        kept_roles: tuple[int, ...] = (),
        want_ids: bool = False,
        want_features: bool = False,
        slice_feature: str | None = None,
        plan: Sequence[BatchId] = (),
    ) -> None:
        limits: dict[str, Any] = {"roles": roles, "label_min": label_min, "label_max": label_max}
        self._schema = schema_of(config, features, slice_feature=slice_feature, **limits)
        self._batch_records = batch_records
        self._bounds = dict(bounds)
        self._partitions = partitions
        self._plan = PlanWatch(config.path, plan)
        self._decoder = Decoder(
            config.path,
            self._schema.as_config(features.numeric),
            **limits,
            kept_roles=kept_roles,
            want_ids=want_ids,
            want_features=want_features,
            slice_feature=slice_feature,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
        self._ready: queue.Queue[Decoded | SourceError | None] = queue.Queue(config.buffered_batches_max)
        self._last: SourceError | None = None
        self._exhausted = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"file-{config.path}", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float) -> Decoded | None:
        """The next batch, or None if there is none within `timeout_s`. Raises SourceError."""
        if self._last is not None:
            raise self._last
        if self._exhausted:
            return None
        try:
            item = self._ready.get(block=timeout_s > 0, timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, SourceError):
            self._last = item
            raise item
        self._exhausted = item is None
        return item

    @property
    def exhausted(self) -> bool:
        """True once the share has been read to its end."""
        return self._exhausted

    def lags(self) -> dict[int, int]:
        """None: how many rows a file has is only known by reading it."""
        return {}

    def close(self) -> None:
        """Stop the reader thread; may be called twice."""
        self._closed.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _read(self) -> None:
        try:
            for rows in self._own_blocks():
                decoded = self._decode(rows)
                self._plan.saw(decoded.batch.batch_id)
                if self._closed.is_set() or not self._give(decoded):
                    return
            if not self._closed.is_set():
                self._plan.ended()
            self._give(None)
        except SourceError as error:
            self._give(error)
        except Exception as error:  # noqa: BLE001 - a thread's error is lost unless it is handed over
            self._give(SourceError(f"reading {self._schema.path} failed: {type(error).__name__}: {error}"))

    def _give(self, item: Decoded | SourceError | None) -> bool:
        """Queue an item for `poll`; False if the source was closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _own_blocks(self) -> Iterator[RowBlock]:
        """The grid's blocks that are this worker's, whole, with unconverted columns."""
        parts: list[RowBlock] = []
        grid_line = None
        ends = [end for _, end in self._bounds.values()]
        last_row = None if None in ends or not ends else max(end for end in ends if end is not None)
        for block in open_rows(self._schema.path, self._schema.columns, self._schema.json_types()):
            for index, piece in self._pieces(block):
                if parts and index != grid_line:
                    yield joined(parts)
                    parts = []
                grid_line = index
                parts.append(piece)
            if self._closed.is_set() or (last_row is not None and block.next_row >= last_row):
                break
        if parts:
            yield joined(parts)

    def _pieces(self, block: RowBlock) -> Iterator[tuple[int, RowBlock]]:
        """Stretches of a read block that lie in one block of the grid and in this worker's bounds."""
        first = min([int(block.rows[0])] if len(block.rows) else [], default=block.next_row)
        first = min([first, *(bad.row for bad in block.bad)])
        for index in range(first // self._batch_records, (block.next_row - 1) // self._batch_records + 1):
            if index % self._partitions not in self._bounds:
                continue
            start, end = self._bounds[index % self._partitions]
            low = max(index * self._batch_records, start)
            high = (index + 1) * self._batch_records
            piece = between(block, low, high if end is None else min(high, end))
            if len(piece.rows) or piece.bad:
                yield index, piece

    def _decode(self, block: RowBlock) -> Decoded:
        """One block of the grid as a batch; its offsets reach to the block's last row, good or bad."""
        message = to_message(block, self._schema)
        first = min([*message.rows[:1].tolist(), *(bad.row for bad in message.bad)])
        partition = first // self._batch_records % self._partitions
        batch_id = BatchId(partition, first, block.next_row)
        rows = message.rows
        decoded = Decoded(Batch.empty(batch_id))
        if len(rows):
            value = encode_arrow(message.columns)
            decoded = self._decoder.decode(
                Messages(partition, rows[:1], [value], np.full(1, np.nan), block.next_row)
            )
        return self._placed(decoded, message, batch_id)

    def _placed(self, decoded: Decoded, message: RowBlock, batch_id: BatchId) -> Decoded:
        """The decoder saw one message; here its records get their row numbers as offsets."""
        refused = [letter.row for letter in decoded.dead if letter.row is not None]
        if len(refused) < len(
            decoded.dead
        ):  # all rows for the same reason: a column's type, not a record's value
            raise SourceError(f"{self._schema.path} cannot be learnt: {decoded.dead[0].reason}")
        kept = np.delete(message.rows, refused)
        dead = [
            replace(letter, offset=int(message.rows[row]), row=None)
            for letter, row in zip(decoded.dead, refused, strict=True)
        ]
        dead += [self._dead_letter(bad, batch_id.partition) for bad in message.bad]
        batch = replace(decoded.batch, batch_id=batch_id, positions=kept)
        return Decoded(batch, sorted(dead, key=lambda letter: letter.offset))

    def _dead_letter(self, bad: BadRow, partition: int) -> DeadLetter:
        return DeadLetter(str(self._schema.path), partition, bad.row, None, bad.reason, bad.value)
