"""Compiles (or loads from the cache) every kernel once, before several processes would do it side by side."""

from __future__ import annotations

import numpy as np

from actors.shard import ParameterShard
from cluster.config import FeaturesConfig
from cluster.decode.decoder import Decoder
from cluster.decode.messages import Messages
from cluster.store import LocalStore
from learning.batch import BatchId
from learning.encoding import NumericEncoder, merge_stats
from learning.ftrl import Ftrl
from learning.grouping import KeyGrouper
from learning.metrics import Prequential

__all__ = ["warm_up"]


def warm_up() -> None:
    """Take two JSON records the whole way; a first call takes half a minute on a new machine, later ones a second."""
    values = [b'{"id":"a","ts":1.5,"features":{"x":0.5,"c":"text"},"label":1}'] * 2
    messages = Messages(0, np.arange(2, dtype=np.int64), values, np.zeros(2), 2)
    encoder = NumericEncoder()
    batch = encoder.encode(Decoder("warm-up", FeaturesConfig()).decode(messages).batch)
    merge_stats([encoder.state()])
    learner, metrics, store = Ftrl(), Prequential.zero(), LocalStore(Ftrl())
    store.pull(batch)
    pulled = store.wait()
    metrics.update(learner.learn(pulled.rows, pulled.index, pulled.bias, batch), batch.labels)
    shard, keys = ParameterShard(0, learner), KeyGrouper(1).group(batch.keys).keys
    rows = shard.exchange(0, None, (BatchId(0, 0, 2), keys))
    coupling = learner.coupling(pulled.rows, pulled.rows, pulled.index, pulled.bias, batch)
    shard.exchange(0, (BatchId(0, 0, 2), rows, coupling), None)
