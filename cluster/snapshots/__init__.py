"""Snapshots of a run: base and differences, on a disk or behind an fsspec URL."""

from __future__ import annotations
