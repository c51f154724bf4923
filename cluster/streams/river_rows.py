"""Rows of river's bundled data sets for binary classification, in the shape of messages."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from actors.ports import SourceError
from cluster.streams.file_blocks import RowBlock

__all__ = ["RIVER_PREFIX", "river_rows", "river_size"]

RIVER_PREFIX = "river:"
BLOCK_ROWS = 4096


def river_rows(origin: str, ignore: tuple[str, ...] = ()) -> Iterator[RowBlock]:
    """Blocks of the data set named by `river:NAME`, in its own order. Raises SourceError."""
    records = iter(_data_set(origin))
    row = 0
    while block := list(itertools.islice(records, BLOCK_ROWS)):
        names = [name for name in block[0][0] if str(name) not in ignore]
        columns = {str(name): pa.array([features.get(name) for features, _ in block]) for name in names}
        columns["label"] = pa.array([float(label) for _, label in block], pa.float64())
        yield RowBlock(np.arange(row, row + len(block)), pa.RecordBatch.from_pydict(columns), [])
        row += len(block)


def river_size(origin: str) -> int:
    """Records of the data set."""
    return int(_data_set(origin).n_samples)


def _data_set(origin: str) -> Any:
    """The data set if it lies within the installed river; nothing is ever downloaded."""
    from river import datasets

    name = origin.removeprefix(RIVER_PREFIX)
    bundled = _bundled()
    if name in bundled:
        return bundled[name]()
    known = f"bundled with river are: {', '.join(sorted(bundled))}"
    if name in datasets.__all__ and name not in ("base", "synth"):
        raise SourceError(
            f"river's {name} is no bundled data set for binary classification (it would be downloaded, or has no label "
            f"from 0 to 1); {known}"
        )
    close = difflib.get_close_matches(name, sorted(bundled), n=1, cutoff=0.5)
    raise SourceError(
        f"river has no data set {name!r}; {f'did you mean {close[0]}? ' if close else ''}{known}"
    )


def _bundled() -> dict[str, Any]:
    from river import datasets
    from river.datasets import base

    found = {name: getattr(datasets, name) for name in datasets.__all__ if name not in ("base", "synth")}
    files = {name: each for name, each in found.items() if issubclass(each, base.FileDataset)}
    local = {name: each for name, each in files.items() if not issubclass(each, base.RemoteDataset)}
    return {name: each for name, each in local.items() if each().task == base.BINARY_CLF}
