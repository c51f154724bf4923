"""CPU seconds per million records of each part of a job, over numbers of shards and workers: docs/scaling.md.

Real jobs on a local Ray, from Kafka to the last snapshot, each with its own number of shards and workers, batches,
learner and stream. Of each process the CPU time is taken from the kernel, from when all actors stand to behind the last
snapshot. CPU seconds hold on a loaded machine; the wall clock does not, and is not printed. Unless a row says "turns",
workers do not begin in turns (`cluster.staleness_share_max` is off): that belongs to the first records of a run only.

Then, alone: what the workers' calls to the shards consist of, what a report costs the coordinator and a call a shard,
and what Ray's own processes take when nothing happens. Last, what is fitted to all jobs by least squares:

    shard    a + b calls + c keys                  worker    a + b records + c batches + d calls + e keys

    python -m benchmarks.scale [--quick] [--records 400000] [--only parts,diagonal,others,grid,large] [--raw FILE]
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.measure import machine
from benchmarks.scale_fit import print_fits, shape
from benchmarks.scale_jobs import Case, Cost, measured, read_costs
from benchmarks.scale_parts import Traffic, call_cost, coordinator_cost, traffic_of
from benchmarks.scale_processes import RAY, family, usage
from benchmarks.scale_streams import ARROW_ROWS, PARTITIONS, TOPICS, fill
from cluster.broker.process import BrokerProcess
from cluster.loopback import stay_on_loopback

SIZES = (1, 2, 4, 8)
DIAGONAL = [Case(shards=size, workers=size) for size in SIZES]
OTHERS = [  # what tells most comes first
    *(Case(batch_records=records) for records in (512, 16_384)),
    *(Case(topic="numbers_arrow", batch_records=records) for records in (512, 4096)),
    *(dataclasses.replace(case, topic="clicks_json") for case in DIAGONAL[:2]),
    *(dataclasses.replace(case, learner="ftrl") for case in DIAGONAL[:2]),
    Case(watched=False),
    Case(snapshot_records=50_000),
    Case(workers=4, turns=True),
    Case(batch_records=1024),
]
GRID = sorted(
    (Case(shards=shards, workers=workers) for workers in SIZES for shards in SIZES if shards != workers),
    key=lambda case: case.shards + case.workers,
)
LARGE = [dataclasses.replace(case, topic="clicks_json") for case in DIAGONAL[2:]]
LARGE += [dataclasses.replace(DIAGONAL[2], learner="ftrl"), Case(workers=8, turns=True)]
QUICK = [Case(shards=1, workers=1), Case(shards=2, workers=2), Case(topic="clicks_json")]
REPORTS = (512, 4096, 16_384)
IDLE_S = 10.0


def main(
    *,
    records: Annotated[
        int, typer.Option(help="Records in each Arrow topic; half as many as JSON.")
    ] = 400_000,
    quick: Annotated[bool, typer.Option("--quick", help="Three small jobs, to see that it runs.")] = False,
    only: Annotated[str, typer.Option(help="Comma-separated: parts, diagonal, others, grid, large.")] = "",
    raw: Annotated[
        Path | None, typer.Option(help="Jobs as lines of JSON: those there are not run again.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Begin no job later than so long after the first one.")
    ] = 60.0,
) -> None:
    """Measure and print tables for RESULTS.md."""
    stay_on_loopback()
    import ray

    from cluster.ray_session import local_ray_options

    known = {"diagonal": DIAGONAL, "others": OTHERS, "grid": GRID, "large": LARGE}
    names = [name for name in only.split(",") if name] or ["parts", *known]
    cases = QUICK if quick else [case for name in names for case in known.get(name, ())]
    records = min(records, 40_000) if quick else records
    counts = {topic: records // 2 if topic.endswith("json") else records for topic in TOPICS}
    with tempfile.TemporaryDirectory(prefix="millrace-scale-") as folder, _broker(folder) as broker:
        servers = broker.bootstrap_servers
        sizes = fill(servers, counts)
        print(f"{machine()}; {records:,} records a job, half as JSON\n")
        print(
            f"Bytes a record in Kafka: {', '.join(f'{t} {b:.0f}' for t, b in sizes.items())}\n",
            flush=True,
        )
        ray.init(namespace="millrace", logging_level=logging.ERROR, **local_ray_options(20, folder))
        if "parts" in names:
            print_idle()
            print_coordinator(200 if quick else 1500)
            print_calls(quick=quick)
        costs = measure_jobs(cases, servers, counts, raw, minutes)
        ray.shutdown()
        if costs:
            traffic = traffics([cost.case for cost in costs], servers, counts)
            print_traffic(traffic, counts)
            print_fits(costs, traffic)


def _broker(folder: str) -> BrokerProcess:
    return BrokerProcess(Path(folder) / "broker", topics=dict.fromkeys(TOPICS, PARTITIONS))


def measure_jobs(
    cases: list[Case], servers: str, counts: dict[str, int], raw: Path | None, minutes: float
) -> list[Cost]:
    """The main table, one job after the other: seconds of CPU a million records, of all of a kind together."""
    began_s, costs = time.monotonic(), list[Cost]()
    known = {cost.case: cost for cost in read_costs(raw)}
    print(HEAD)
    for case in cases:
        if case not in known and time.monotonic() - began_s > minutes * 60:
            continue
        costs.append(known.get(case) or measured(case, servers, counts[case.topic]))
        print_job(costs[-1])
        if raw is not None and case not in known:
            with raw.open("a") as lines:
                lines.write(json.dumps(dataclasses.asdict(costs[-1])) + "\n")
    print(f"\n{len(cases) - len(costs)} of {len(cases)} jobs were not begun, for want of time\n")
    return costs


# Parts alone -----------------------------------------------------------------------------------------


def traffics(cases: list[Case], servers: str, counts: dict[str, int]) -> dict[Case, Traffic]:
    """What one worker of each shape of case sends."""
    ends = {
        topic: _ends(count if topic.endswith("json") else -(-count // ARROW_ROWS))
        for topic, count in counts.items()
    }
    found: dict[Case, Traffic] = {}
    for case in map(shape, cases):
        if case not in found:
            found[case] = traffic_of(case, servers, ends[case.topic])
    return found


def _ends(messages: int) -> dict[int, int]:
    return {p: messages // PARTITIONS + (p < messages % PARTITIONS) for p in range(PARTITIONS)}


def print_traffic(traffic: dict[Case, Traffic], counts: dict[str, int]) -> None:
    """Keys a batch, bytes a record over the wire, bytes a row in memory."""
    print(
        "| stream | learner | batch | shards | keys a batch | sent, bytes a record | answered | rows | bytes a row |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for case, t in traffic.items():
        count = counts[case.topic]
        print(
            f"| {case.topic} | {case.learner} | {case.batch_records:,} | {case.shards} | {t.keys / t.batches:,.0f} "
            f"| {t.sent_bytes / count:.0f} | {t.answer_bytes / count:.0f} | {t.rows:,} "
            f"| {t.table_bytes / t.rows:.0f} |",
            flush=True,
        )
    print()


def print_idle() -> None:
    """What Ray takes when nothing happens."""
    time.sleep(IDLE_S)  # it has just begun
    before, began_s = family(), time.monotonic()
    time.sleep(IDLE_S)
    after, seconds = family(memory=True), time.monotonic() - began_s
    used = usage(before, after)
    ms = {role: used.cpu_s.get(role, 0.0) / seconds * 1e3 for role in RAY}
    parts = [f"{role} {ms[role]:.1f} ms and {used.memory_bytes.get(role, 0) / 2**20:.0f} MiB" for role in RAY]
    idle = used.count.get("idle workers of Ray", 0)
    print(f"Ray when idle, CPU a second and memory: {'; '.join(parts)} ({idle} idle workers)\n", flush=True)


def print_coordinator(reports: int) -> None:
    """Milliseconds of CPU a report, by how many records it tells of."""
    print("| report of | learner | drift watched | coordinator, ms | its sender, ms |\n|---|---|---|--:|--:|")
    for case in (Case(watched=False), Case()):
        for records in REPORTS:
            ms = coordinator_cost(case, records, reports)
            print(
                f"| {records:,} records | {case.learner} | {'yes' if case.watched else 'no'} "
                f"| {ms['coordinator']:.2f} | {ms['sender']:.2f} |"
            )
    print(f"\nIts first reports, once a job: {ms['first']:.0f} ms more.", end="")
    print(
        f" Asked for commands: coordinator {ms['asked']:.2f} ms, driver {ms['asker']:.2f} ms a question\n",
        flush=True,
    )


def print_calls(*, quick: bool) -> None:
    """Milliseconds of CPU a call, by how many keys it pulls and pushes."""
    print("| call with | learner | shard, ms | caller, ms |\n|---|---|--:|--:|")
    for learner in ("population", "ftrl"):
        for keys, cycles in ((20, 1000), (300, 1000), (3000, 400), (30_000, 60)):
            ms = call_cost(learner, keys, cycles // 10 if quick else cycles)
            print(f"| {keys:,} keys | {learner} | {ms['shard']:.2f} | {ms['caller']:.2f} |", flush=True)
    print()


# Jobs ------------------------------------------------------------------------------------------------


HEAD = """| stream | learner | batch | W | S | workers | shards | coordinator | driver | Ray | all | log-loss |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def print_job(cost: Cost) -> None:
    """A row of the main table."""
    case = cost.case
    own = [cost.per_million(role) for role in ("worker", "shard", "coordinator", "driver")]
    of_ray = cost.used.of_ray() * 1e6 / cost.records
    notes = [
        *(["turns"] if case.turns else []),
        *([] if case.watched else ["unwatched"]),
        *([f"snapshot each {case.snapshot_records:,}"] if case.snapshot_records else []),
    ]
    print(
        f"| {', '.join([case.topic, *notes])} | {case.learner} | {case.batch_records:,} | {case.workers} "
        f"| {case.shards} | {' | '.join(f'{seconds:.2f}' for seconds in [*own, of_ray, sum(own) + of_ray])} "
        f"| {cost.log_loss:.4f} |",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
