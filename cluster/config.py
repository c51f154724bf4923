"""The pipeline file: one YAML mapping that says what is learnt, from where, and on how many shards and workers.

Values are composed once, in this order: defaults < file < `--set a.b=c`. Unknown and mistyped keys are errors that
name the nearest valid key. The environment is used only for addresses and secrets: `${NAME}` in
`source.bootstrap_servers`, `source.options` and `mlflow.tracking_uri` is replaced by that variable when a connection
is made, so the recorded pipeline never holds the secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cluster.config_anchors import BaseConfig, DistillationConfig, RehearsalConfig
from cluster.config_cluster import ClusterConfig
from cluster.config_errors import PipelineError, explain, read_yaml, with_overrides
from cluster.config_learners import (
    AnyLearnerConfig,
    LearnerConfig,
    Section,
    TablePolicyConfig,
    default_learner,
)
from cluster.config_watch import DriftConfig, SlicesConfig, StatisticsConfig
from learning.policy import TablePolicy

__all__ = [
    "BaseConfig",
    "ClusterConfig",
    "DeadLettersConfig",
    "FeaturesConfig",
    "FileSourceConfig",
    "KafkaSourceConfig",
    "LearnerConfig",
    "MlflowConfig",
    "NumericConfig",
    "Pipeline",
    "PipelineError",
    "PredictionsConfig",
    "RecoveryConfig",
    "RollbackConfig",
    "SnapshotsConfig",
    "load_pipeline",
]


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class KafkaConnection(Section):
    """How to reach Kafka; `options` go to kafka-python as they are (TLS, SASL), `${NAME}` read from the environment."""

    bootstrap_servers: str = "127.0.0.1:9092"
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)


class KafkaSourceConfig(KafkaConnection):
    """Records from a topic: one JSON object, or one Arrow record batch, a message (told apart by their first bytes)."""

    kind: Literal["kafka"] = "kafka"
    topic: str
    start: Literal["earliest", "latest"] = "earliest"
    until: Literal["forever", "end"] = "forever"
    """`end`: stop at the offsets that were the partitions' ends when the job started."""
    poll_timeout_s: PositiveFloat = 0.2
    message_bytes_max: PositiveInt = 8 * 2**20
    buffered_batches_max: PositiveInt = 8


class FileSourceConfig(Section):
    """Records from one CSV, CSV.gz, Parquet or JSON-lines file, in the order of its rows."""

    kind: Literal["file"] = "file"
    path: str
    label: str = "y"
    time: str | None = None
    id: str | None = None
    weight: str | None = None
    buffered_batches_max: PositiveInt = 8


class NumericConfig(Section):
    """What a number becomes: its running z-score, a bin of that z-score, and if it is whole its exact value."""

    standardize: bool = True
    """Running z-score, clipped to +-`clip`; False learns the number as it comes."""
    clip: PositiveFloat = 6.0
    bins_per_sd: Annotated[float, Field(ge=0)] = 3.0
    """Bins per standard deviation, learnt as categories beside the z-score; 0 turns them off."""
    exact: bool = True
    """A whole number is also learnt as a category: counts, codes and ids come as numbers too."""


class FeaturesConfig(Section):
    """Which features there are. Those that are not named take their kind from the data: text is categorical."""

    numeric: NumericConfig = NumericConfig()
    as_numeric: tuple[str, ...] = ()
    as_categorical: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> FeaturesConfig:
        names = [*self.as_numeric, *self.as_categorical, *self.ignore]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"feature(s) {', '.join(twice)} are named twice in as_numeric, as_categorical and ignore; keep one"
            raise ValueError(msg)
        return self


class SnapshotsConfig(Section):
    """Where the state is written, and how often. One is always taken at the end."""

    path: str = "runs"
    """A folder that all nodes share, or an fsspec URL (s3://bucket/runs); each run has a folder of its own in it."""
    interval_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds between two, if something was learnt; 0: not by time."""
    interval_records: Annotated[int, Field(ge=0)] = 0
    """Records between two; 0: not by records."""
    deltas_max: Annotated[int, Field(ge=0)] = 16
    """Differences in a row, at most, before a whole one is written."""
    keep: Annotated[int, Field(ge=1)] = 3
    """How many stay restorable, besides those that are model versions."""
    write_timeout_s: PositiveFloat = 600.0


class RecoveryConfig(Section):
    """What happens when an actor or a node dies, or the broker stays away: back to the last snapshot, and on."""

    attempts_max: Annotated[int, Field(ge=0)] = 5
    """Times in a row without a newer snapshot; then the job ends. 0: a death ends it."""
    unavailable_s: PositiveFloat = 300.0
    """How long to wait for a broker, or for room for the actors, before the job ends."""


class PredictionsConfig(Section):
    """Topic that receives {"id", "prediction", "version"} for each record, as JSON; None writes none."""

    topic: str | None = None


class DeadLettersConfig(Section):
    """Where bad records go, with reason and place: a topic of the source's Kafka, or files in the run's folder."""

    topic: str | None = None
    value_bytes_max: PositiveInt = 65536
    """Of a longer bad message this many bytes are kept; its full length is recorded."""


class MlflowConfig(Section):
    """Where runs and versions are recorded; the environment's MLFLOW_TRACKING_URI outranks nothing but the default."""

    enabled: bool = True
    tracking_uri: str | None = None
    experiment: str = "millrace"
    model: str | None = None
    """Registered model name; None takes the pipeline's name."""
    interval_s: PositiveFloat = 2.0
    version_interval_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds between versions while the job learns; each keeps its snapshot. 0: only the last one of a job."""


class RollbackConfig(Section):
    """Going back by itself to an older version that does better on the same recent records."""

    automatic: bool = False
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of comparisons, at most, in which the older version only seems better; divided among the versions."""
    records: Annotated[int, Field(ge=2000)] = 20_000
    """Records on which models are compared, once so many have come behind a snapshot."""
    versions_max: PositiveInt = 3
    """Versions that are compared with the present model, at most: the newest, the oldest, and some between."""


class Pipeline(Section):
    """A whole pipeline; `batch_records` is how many records are pulled, learnt and pushed at a time."""

    name: Annotated[str, Field(pattern=_NAME)]
    source: Annotated[KafkaSourceConfig | FileSourceConfig, Field(discriminator="kind")]
    features: FeaturesConfig = FeaturesConfig()
    learner: AnyLearnerConfig = Field(default_factory=default_learner)
    base: BaseConfig = BaseConfig()
    rehearsal: RehearsalConfig = RehearsalConfig()
    distillation: DistillationConfig = DistillationConfig()
    tables: dict[str, TablePolicyConfig] = Field(default_factory=dict)
    """Admission, expiry and ceiling of the learner's tables, by name; a table that is not named keeps every key."""
    batch_records: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    batch_wait_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """How long records of a live topic wait for their batch to be full; 0: what is there is learnt at once."""
    records_max: PositiveInt | None = None
    """The job ends once this many records have been read (learnt or dead-lettered); None sets no such end."""
    cluster: ClusterConfig = ClusterConfig()
    run: Annotated[str, Field(pattern=_NAME)] | None = None
    """The run's name: one that exists is continued from its last snapshot. None: a new one, named by the time."""
    snapshots: SnapshotsConfig = SnapshotsConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    rollback: RollbackConfig = RollbackConfig()
    drift: DriftConfig = DriftConfig()
    slices: SlicesConfig = SlicesConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    predictions: PredictionsConfig = PredictionsConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()
    mlflow: MlflowConfig = MlflowConfig()

    @model_validator(mode="after")
    def _tables_exist(self) -> Self:
        names = [spec.name for spec in self.learner.build().specs()]
        unknown = sorted(set(self.tables) - set(names))
        if unknown:
            msg = f"tables.{unknown[0]}: the learner {self.learner.kind} has no such table, but {', '.join(names)}"
            raise ValueError(msg)
        self.policies()
        self.drift.check(self.learner.build())
        self.rehearsal.check(self.learner.build())
        self.distillation.check(self.learner.build())
        if self.rollback.automatic and getattr(self.learner, "feedback", "explicit") == "implicit":
            msg = "rollback.automatic: choices have no label on which models could be compared; leave it off"
            raise ValueError(msg)
        return self

    def policies(self) -> dict[str, TablePolicy]:
        """The policies of the tables that are named."""
        return {name: TablePolicy(**section.model_dump()) for name, section in self.tables.items()}


def load_pipeline(path: str | Path, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file, apply `a.b=c` overrides (values are YAML), and check everything.

    Raises:
        PipelineError: one sentence a problem, naming the file and the key.

    """
    return build_pipeline(read_yaml(Path(path)), overrides or [], origin=str(path))


def build_pipeline(values: dict[str, Any], overrides: list[str], *, origin: str) -> Pipeline:
    """Check a mapping that was read from `origin` (a file name, or a job's own name)."""
    merged = with_overrides(values, overrides)
    try:
        return Pipeline.model_validate(merged)
    except ValueError as error:
        raise explain(error, merged, Pipeline, origin) from error
