"""The fixture that tests of learning and actors run under."""

from __future__ import annotations

import logging
import sys
import threading
import time
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("name", ["sleep", "time", "time_ns", "monotonic", "monotonic_ns"])
def test_our_code_asks_for_the_clock(world_is_off, name):
    """A test of pure code, or the code it tests, reads the clock: it fails and is told the way out."""
    arguments = (0.0,) if name == "sleep" else ()
    with pytest.raises(AssertionError, match=rf"time\.{name} was called .* pass a fake one"):
        getattr(time, name)(*arguments)


def test_our_code_starts_ray(monkeypatch, request):
    """Ray is loaded because another test needed it, and pure code starts it: it fails."""
    ray = types.ModuleType("ray")
    monkeypatch.setitem(sys.modules, "ray", ray)
    ray.__dict__["init"] = print
    request.getfixturevalue("world_is_off")
    with pytest.raises(AssertionError, match=r"ray\.init was called"):
        ray.__dict__["init"]()


def test_our_code_imports_ray_first(monkeypatch, request):
    """Ray is not loaded, and pure code imports it: it fails too."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    request.getfixturevalue("world_is_off")
    with pytest.raises(ModuleNotFoundError):
        import ray  # noqa: F401


def test_installed_packages_may_read_the_clock(world_is_off):
    """Logging and threads read the clock by themselves, and go on working."""
    logging.getLogger("millrace").warning("a line with a time")
    assert not threading.Event().wait(timeout=0.001)


@given(st.lists(st.integers()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture has no state to reset
def test_hypothesis_works_without_the_clock(world_is_off, numbers):
    """A property test runs under the fixture, although hypothesis times its examples."""
    assert list(reversed(list(reversed(numbers)))) == numbers


def test_the_clock_is_back_afterwards():
    """After such a test, the next one sees the ordinary clock."""
    assert time.time() > 0
