"""Scorer: a model folder in, probabilities for DataFrames out; without Ray, Kafka or mlflow.

This file and those of `copy_code` travel inside the MLflow model, whose loader module it is, so that
`mlflow.pyfunc.load_model` works where the repository is not. Only numpy, numba, pandas and pyarrow are needed.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.model_files import ModelState, read_model
from learning.batch import Batch
from learning.encoding import NumericEncoder
from learning.ftrl import Ftrl
from learning.keys import BIAS_KEY
from learning.table import Table

__all__ = ["Scorer", "copy_code", "frame_to_batch", "requirements"]
