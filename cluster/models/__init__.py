"""Model folders, MLflow runs and versions, and scoring without Ray."""

from __future__ import annotations
