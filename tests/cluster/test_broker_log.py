"""The partition log by itself: what is appended is read back, whatever happens to the file's tail."""

from __future__ import annotations

import pickle
import shutil
import struct
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from cluster.broker.batch import parse_header
from cluster.broker.errors import ErrorCode, LogDamagedError, RequestError
from cluster.broker.limits import LogConfig
from cluster.broker.offset_store import Committed, OffsetStore
from cluster.broker.partition_log import PartitionLog
from cluster.broker.producers import ProducerIds


def batch(values, *, producer=-1, epoch=-1, sequence=-1, time_ms=1000, compression=0):
    builder = DefaultRecordBatchBuilder(2, compression, False, producer, epoch, sequence, 1 << 20)
    for index, value in enumerate(values):
        builder.append(index, time_ms + index, None, value, [])
    return memoryview(bytes(builder.build()))


def values_from(log, offset):
    found = []
    while (part := log.read(offset, 1 << 20)) is not None:
        data = memoryview(part.read())
        while data:
            size_bytes = parse_header(data).size_bytes
            for record in DefaultRecordBatch(data[:size_bytes]):
                if record.offset >= offset:
                    assert record.offset == offset
                    found.append(record.value)
                    offset += 1
            data = data[size_bytes:]
    return found


def refusal(call):
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value.code


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.binary(max_size=40), min_size=1, max_size=5)),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("tear"), st.integers(0, 10_000)),
        st.tuples(st.just("delete"), st.integers(0, 30)),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(STEPS, st.sampled_from([1, 300, 1 << 20]))
def test_the_log_behaves_like_a_list(steps, segment_bytes):
    """Appends, reads from every offset, reopening, torn tails and deletions agree with a plain list."""
    directory = Path(tempfile.mkdtemp())
    try:
        config = LogConfig(segment_bytes=segment_bytes)
        log, start = PartitionLog(directory, config), 0
        model: list[bytes] = []
        batches: list[int] = []
        for step, argument in steps:
            if step == "append":
                assert log.append(batch(argument)).base_offset == len(model)
                model += argument
                batches.append(len(argument))
            elif step == "delete":
                target = min(argument, len(model))
                start = max(start, target)
                assert log.delete_before(target) == start
            elif step == "reopen":
                log = PartitionLog(directory, config)
            elif log.end_offset > start and (lost := _tear(directory, argument)):
                # At most the last batch was being written when the broker was killed.
                model = model[: len(model) - batches.pop()] if lost else model
                start = min(start, len(model))
                log = PartitionLog(directory, config)
            assert (log.start_offset, log.end_offset) == (start, len(model))
            for offset in range(start, len(model) + 1):
                assert values_from(log, offset) == model[offset:]
    finally:
        shutil.rmtree(directory)


def _tear(directory, cut):
    """Cut some bytes of the last batch; False if the last file holds none or the start offset lies behind it."""
    path = max(directory.glob("*.log"))
    data = path.read_bytes()
    last = 0
    while last < len(data) and last + parse_header(data, last).size_bytes < len(data):
        last += parse_header(data, last).size_bytes
    start = int((directory / "start-offset").read_text()) if (directory / "start-offset").exists() else 0
    if not data or start > parse_header(data, last).base_offset:
        return False
    path.write_bytes(data[: last + cut % (len(data) - last)])
    return True


def test_offsets_outside_the_log_are_refused(tmp_path):
    """A reader asks below the start or beyond the end: OFFSET_OUT_OF_RANGE; at the end there is just nothing yet."""
    log = PartitionLog(tmp_path, LogConfig())
    log.append(batch([b"a", b"b", b"c"]))
    log.delete_before(2)
    assert refusal(lambda: log.read(1, 100)) is ErrorCode.OFFSET_OUT_OF_RANGE
    assert refusal(lambda: log.read(4, 100)) is ErrorCode.OFFSET_OUT_OF_RANGE
    assert log.read(3, 100) is None
    assert values_from(log, 2) == [b"c"]
    assert PartitionLog(tmp_path, LogConfig()).start_offset == 2


def test_a_damaged_checksum_is_refused_on_arrival(tmp_path):
    """A bit flips between producer and broker: the batch is refused and nothing is stored."""
    log = PartitionLog(tmp_path, LogConfig())
    spoilt = bytearray(batch([b"abc"]))
    spoilt[-1] ^= 1
    assert refusal(lambda: log.append(memoryview(spoilt))) is ErrorCode.CORRUPT_MESSAGE
    assert (log.end_offset, log.size_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.CORRUPT_MESSAGE),
        (b"x" * 16 + b"\x01" + b"x" * 60, ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (bytes(batch([b"a"])) * 2, ErrorCode.INVALID_RECORD),
        (bytes(batch([b"a" * 5000])), ErrorCode.MESSAGE_TOO_LARGE),
    ],
)
def test_what_is_no_single_batch_is_refused(tmp_path, data, code):
    """Nothing, an old format, two batches at once, a batch beyond the bound: each has its own error code."""
    log = PartitionLog(tmp_path, LogConfig(message_bytes_max=1000))
    assert refusal(lambda: log.append(memoryview(data))) is code
    assert log.size_bytes == 0


def test_duplicates_get_their_first_offset_and_gaps_are_refused(tmp_path):
    """An idempotent producer repeats a batch, leaves one out, or comes back with an old epoch."""
    log = PartitionLog(tmp_path, LogConfig())
    for sequence in range(8):
        log.append(batch([b"%d" % sequence], producer=7, epoch=1, sequence=sequence))
    for reopened in (log, PartitionLog(tmp_path, LogConfig())):
        again = reopened.append(batch([b"5"], producer=7, epoch=1, sequence=5))
        assert (again.base_offset, again.duplicate) == (5, True)
        old = batch([b"0"], producer=7, epoch=1, sequence=0)
        assert refusal(lambda log=reopened, old=old: log.append(old)) is ErrorCode.DUPLICATE_SEQUENCE_NUMBER
        gap = batch([b"x"], producer=7, epoch=1, sequence=9)
        assert (
            refusal(lambda log=reopened, gap=gap: log.append(gap)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        )
        stale = batch([b"x"], producer=7, epoch=0, sequence=8)
        assert (
            refusal(lambda log=reopened, stale=stale: log.append(stale)) is ErrorCode.INVALID_PRODUCER_EPOCH
        )
        stranger = batch([b"x"], producer=8, epoch=0, sequence=3)
        assert (
            refusal(lambda log=reopened, batch=stranger: log.append(batch))
            is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        )
        assert reopened.end_offset == 8
    assert log.append(batch([b"new"], producer=7, epoch=2, sequence=0)).base_offset == 8


def test_sequence_numbers_wrap_round(tmp_path):
    """A producer has sent 2^31 records: its numbers go on at 0, and a repeat across the seam is recognised."""
    log = PartitionLog(tmp_path, LogConfig())
    log.append(batch([b"first"]))
    log.delete_before(1)  # so that the log accepts a producer that begins at any number
    seam = batch([b"a", b"b", b"c"], producer=1, epoch=0, sequence=2**31 - 2)
    assert log.append(seam).base_offset == 1
    assert log.append(seam).duplicate
    assert log.append(batch([b"d"], producer=1, epoch=0, sequence=1)).base_offset == 4


def test_damage_before_the_tail_stops_the_start(tmp_path):
    """A disk flips a bit in the middle of the log: nothing is cut, the broker says where it is and stops."""
    log = PartitionLog(tmp_path, LogConfig())
    for _ in range(3):
        log.append(batch([b"abc"]))
    path = next(tmp_path.glob("*.log"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogDamagedError, match=r"offset 1.*nothing was cut"):
        PartitionLog(tmp_path, LogConfig())
    assert path.read_bytes() == bytes(data)


def test_a_missing_file_stops_the_start(tmp_path):
    """Somebody removes a segment file from the middle: the gap is reported, not read over."""
    log = PartitionLog(tmp_path, LogConfig(segment_bytes=1))
    for _ in range(3):
        log.append(batch([b"abc"]))
    sorted(tmp_path.glob("*.log"))[1].unlink()
    with pytest.raises(LogDamagedError, match="begin at offset 1"):
        PartitionLog(tmp_path, LogConfig(segment_bytes=1))


def test_retention_by_bytes_and_time(tmp_path):
    """Old files go, whole ones only; the offsets of what stays do not change, not even when all has expired."""
    config = LogConfig(segment_bytes=1, retention_bytes=3 * 70)
    log = PartitionLog(tmp_path / "bytes", config)
    for index in range(10):
        log.append(batch([b"%d" % index]))
    assert log.retain(now_ms=0) > 0
    assert 210 <= log.size_bytes < 300
    assert values_from(log, log.start_offset) == [b"%d" % i for i in range(log.start_offset, 10)]
    log = PartitionLog(tmp_path / "time", LogConfig(segment_bytes=1, retention_ms=100))
    for index in range(10):
        log.append(batch([b"%d" % index], time_ms=1000 + index * 10))
    assert log.retain(now_ms=1141) == 5
    assert (log.start_offset, log.end_offset) == (5, 10)
    assert log.retain(now_ms=10_000) == 5
    assert PartitionLog(tmp_path / "time", LogConfig()).start_offset == 10


def test_a_file_being_sent_outlives_retention(tmp_path):
    """Retention removes a file while a fetch is sending it: the fetch still gets its bytes."""
    log = PartitionLog(tmp_path, LogConfig(segment_bytes=1))
    log.append(batch([b"a"]))
    log.append(batch([b"b"]))
    part = log.read(0, 100)
    assert part is not None
    log.delete_before(1)
    assert len(list(tmp_path.glob("*.log"))) == 1
    assert [record.value for record in DefaultRecordBatch(part.read())] == [b"a"]


@pytest.mark.parametrize("compression", [0, 1, 3, 4])
def test_finding_a_time_gives_the_exact_record(tmp_path, compression):
    """A reader starts at a time: the first record of that time or later, inside a batch, across files, none after."""
    log = PartitionLog(tmp_path, LogConfig(segment_bytes=100))
    for start_ms in (1000, 2000, 1500, 3000):
        log.append(batch([b"x" * 20] * 3, time_ms=start_ms, compression=compression))
    assert log.offset_at_time(0) == (0, 1000)
    assert log.offset_at_time(1001) == (1, 1001)
    assert log.offset_at_time(1003) == (3, 2000)
    assert log.offset_at_time(2003) == (9, 3000)
    assert log.offset_at_time(3003) is None
    log.delete_before(5)
    assert log.offset_at_time(1001) == (5, 2002)
    log.delete_before(6)
    assert log.offset_at_time(1501) == (7, 1501)


def test_appends_of_many_threads_do_not_mix(tmp_path):
    """Eight producers append at once: every batch is whole, each thread's own order is kept."""
    log = PartitionLog(tmp_path, LogConfig(segment_bytes=4000))

    def work(name):
        for index in range(100):
            log.append(batch([b"%d:%d" % (name, index)]))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = values_from(PartitionLog(tmp_path, LogConfig()), 0)
    assert len(values) == 800
    for name in range(8):
        own = [value for value in values if value.startswith(b"%d:" % name)]
        assert own == [b"%d:%d" % (name, index) for index in range(100)]


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    """The disk fills up in the middle of an append: the producer hears of it, the log goes on where it was."""
    log = PartitionLog(tmp_path, LogConfig())
    log.append(batch([b"a"]))

    def full(fd, parts, position):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwritev", full)
        assert refusal(lambda: log.append(batch([b"b"]))) is ErrorCode.KAFKA_STORAGE_ERROR
    assert log.append(batch([b"c"])).base_offset == 1
    assert values_from(PartitionLog(tmp_path, LogConfig()), 0) == [b"a", b"c"]


def test_committed_offsets_survive_a_torn_line_and_are_rewritten(tmp_path, monkeypatch):
    """The broker is killed in the middle of a commit: earlier commits stand; the file does not grow for ever."""
    path = tmp_path / "offsets.jsonl"
    store = OffsetStore(path, offsets_max=10)
    store.commit("g", {("t", 0): Committed(5, -1, "über"), ("t", 1): Committed(6, 0, "")})
    store.commit("h", {("t", 0): Committed(1, -1, "")})
    store.forget("h")
    store.close()
    path.write_bytes(path.read_bytes() + b'["g", "t", 0, [9')
    store = OffsetStore(path, offsets_max=10)
    assert store.fetch("g") == {("t", 0): Committed(5, -1, "über"), ("t", 1): Committed(6, 0, "")}
    assert store.groups() == ["g"]
    monkeypatch.setattr("cluster.broker.offset_store._REWRITE_BYTES", 1000)
    for offset in range(300):
        store.commit("g", {("t", 0): Committed(offset, -1, "")})
    assert path.stat().st_size < 1100
    with pytest.raises(RequestError, match="10 committed offsets"):
        store.commit("k", {("t", index): Committed(0, -1, "") for index in range(9)})
    store.close()


def test_producer_ids_are_never_given_out_twice(tmp_path):
    """The broker is killed again and again: a new producer never gets the id of one before."""
    given_out = [ProducerIds(tmp_path / "ids").allocate() for _ in range(3)]
    ids = ProducerIds(tmp_path / "ids")
    given_out += [ids.allocate() for _ in range(2500)]
    assert len(set(given_out)) == len(given_out)


def test_errors_cross_processes():
    """An error is raised in a Ray worker: it arrives whole."""
    error = pickle.loads(pickle.dumps(RequestError(ErrorCode.INVALID_RECORD, "why")))
    assert (error.code, str(error)) == (ErrorCode.INVALID_RECORD, "INVALID_RECORD: why")


def test_the_header_is_that_of_the_wire():
    """The 61 bytes are laid out as in Apache Kafka's documentation of the record batch."""
    header = parse_header(batch([b"a", b"b"], producer=5, epoch=2, sequence=9))
    assert struct.calcsize(">qiibIhiqqqhii") == 61
    assert (header.records, header.producer_id, header.producer_epoch, header.base_sequence) == (2, 5, 2, 9)
