"""Tests of actors/ read no clock, never sleep and start no Ray."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _world_is_off(world_is_off: None) -> None:
    """Every test of this folder runs with the world switched off; see tests/conftest.py."""
