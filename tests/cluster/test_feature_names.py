"""Features of a topic are shown by their names: told by the messages, at their first sight, bounded, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from rich.console import Console

from actors.ports import Decoded
from cluster.broker import Broker
from cluster.config import FeaturesConfig, build_pipeline
from cluster.decode.decoder import Decoder
from cluster.decode.messages import Messages
from cluster.decode.naming import NamingDecoder, names_in
from cluster.job import run_job
from cluster.snapshots.remote_place import place_of
from cluster.status.find import status_of
from cluster.streams.file_source import encode_arrow
from learning.feature_stats import FeatureStats
from learning.keys import name_key
from learning.worker_state import WorkerState
from tests.cluster.topics import produce, records

FEATURES = {"price", "visits", "city", "user", "mobile"}


def json_of(*names: str) -> bytes:
    return orjson.dumps({"id": "1", "features": dict.fromkeys(names, 1.5), "label": 1})


def arrow_of(*names: str, rows: int = 3) -> bytes:
    columns = {name: [0.5] * rows for name in (*names, "label")}
    return encode_arrow(pa.RecordBatch.from_pydict(columns))


def decoder_of(names_max: int = 1000) -> NamingDecoder:
    return NamingDecoder(Decoder("t", FeaturesConfig(), want_features=True), names_max)


def decode(decoder: NamingDecoder, *values: bytes, first: int = 0) -> Decoded:
    """Messages at every third offset, as compaction leaves them."""
    offsets = first + 3 * np.arange(len(values), dtype=np.int64)
    return decoder.decode(Messages(0, offsets, list(values), np.zeros(len(values)), first + 3 * len(values)))


def told(decoded: Decoded) -> list[str] | None:
    names = decoded.batch.feature_names
    assert names is None or list(names) == [int(name_key(name)) for name in names.values()]
    return None if names is None else list(names.values())


def test_names_are_told_once_and_in_order_of_first_sight() -> None:
    """JSON and Arrow in one topic; a feature that comes late, behind a bad record and within a batch; then silence."""
    decoder = decoder_of()
    assert told(decode(decoder, json_of("b", "a"), json_of("a", "b"))) == ["b", "a"]
    assert told(decode(decoder, json_of("b", "a"), b"bad", json_of("b"), json_of("b", "late"))) == ["late"]
    assert told(decode(decoder, json_of("late"), arrow_of("a", "x", "ts", "weight"), arrow_of("a", "y"))) == [
        "x", "y",
    ]  # fmt: skip
    assert told(decode(decoder, arrow_of("y", "x"), json_of("a", "late", "b"))) is None
    assert told(decode(decoder, b"bad", b"")) is None
    assert told(decode(decoder, json_of("Größe", 'quo"te', "", "a\u202eb"))) == [
        "Größe", 'quo"te', "", "a\u202eb",
    ]  # fmt: skip


def test_no_more_names_than_statistics_are_kept_of() -> None:
    """The first ones, by their order in the stream; behind them no message is looked into again."""
    decoder = decoder_of(4)
    assert told(decode(decoder, json_of("c", "b"), json_of("c", "b"))) == ["c", "b"]
    assert told(decode(decoder, json_of("e", "d", "a"), json_of("z"))) == ["e", "d"]
    assert told(decode(decoder, json_of("a"), arrow_of("q"))) is None


def test_a_message_that_is_none_has_no_names() -> None:
    """Nothing that comes out of a topic stops the reader for the sake of a name."""
    for hostile in (b"", b"[]", b"7", b'{"features": 7}', b"{}", b"\xff\xff\xff\xff", b"ARROW1", b"\xff"):
        assert names_in(hostile) == []
    assert names_in(arrow_of("a", "id")[:40]) == []


def known(state: WorkerState) -> list[str]:
    return list(state.feature_names.values())


def test_the_state_keeps_names_of_what_it_has_statistics_of_and_merges_them() -> None:
    """At most `features_max`, over snapshots and over a change of the number of workers."""
    state, other = (WorkerState(statistics=FeatureStats(3)) for _ in range(2))
    decoder = decoder_of()
    seen = state.prepare(decode(decoder, json_of("b", "a")).batch)
    assert seen.feature_names is None, "the learner does not get them"
    other.prepare(decode(decoder_of(), json_of("c", "b", "d")).batch)
    again = WorkerState(statistics=FeatureStats(3))
    again.restore(state.arrays())
    assert known(again) == known(state) == ["b", "a"]
    again.prepare(
        decode(decoder_of(), json_of("a", "e", "b", "f"), first=9).batch
    )  # a decoder that began anew
    state.prepare(decode(decoder, json_of("a", "e", "b", "f"), first=9).batch)
    assert {n: a.tobytes() for n, a in again.arrays().items()} == {
        n: a.tobytes() for n, a in state.arrays().items()
    }
    assert known(state) == ["b", "a", "e"]
    other.merge([state])
    assert known(other) == ["c", "b", "d"]
    nobody = WorkerState()
    nobody.restore(state.arrays())
    assert nobody.feature_names == {}


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("arrow_rows", [0, 50], ids=["json", "arrow"])
def test_a_job_shows_features_of_its_topic_by_name(broker: Broker, tmp_path: Path, arrow_rows: int) -> None:
    """What people see in jobs.status: names, also of a feature that comes late, and a hostile one made harmless."""
    rows: list[dict[str, Any]] = records(1200)
    hostile = "\x1b]0;gone\x07" + "x" * 10_000
    for row in rows[900:]:
        row["features"] |= {"late": 1.0, hostile: 2.0}
    topic = f"named-{arrow_rows}"
    produce(broker, topic, rows, 2, arrow_rows=arrow_rows)
    values = {
        "name": "named",
        "run": "n",
        "source": {"kind": "kafka", "topic": topic, "bootstrap_servers": broker.bootstrap_servers, "until": "end"},
        "mlflow": {"enabled": False},
        "batch_records": 100,
        "snapshots": {"path": str(tmp_path / "runs")},
    }  # fmt: skip
    run_job(build_pipeline(values, [], origin="test"), Console(quiet=True), local=True)
    shown = status_of(place_of(str(tmp_path / "runs" / "n"))).groups["features"]
    (odd,) = set(shown) - FEATURES - {"late"}
    assert set(shown) >= FEATURES | {"late"}
    assert odd.startswith(r"\x1b]0;gone\x07xxx")
    assert len(odd) == 80
    assert shown["late"]["missing"] == pytest.approx(0.75)
