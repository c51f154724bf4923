"""What all tests share: hypothesis without deadlines, the gpu marker, and a world that is switched off."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Time limits for one example fail on a busy machine and tell nothing; pytest-timeout bounds the whole test.
hypothesis.settings.register_profile("millrace", deadline=None)
hypothesis.settings.load_profile("millrace")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture
def world_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the clock, sleeping and starting Ray raise, for the length of the test.

    tests/learning and tests/actors use it for every test: what they test is given its clock and transport.
    Only calls from this repository's code raise. hypothesis, logging and threads of installed packages read
    the clock too, and may: nothing that a test asserts comes from there.
    """
    for name in ("sleep", "time", "time_ns", "monotonic", "monotonic_ns"):
        monkeypatch.setattr(time, name, _for_packages_only(getattr(time, name), f"time.{name}"))
    if ray := sys.modules.get("ray"):  # importing it here would cost every test run a second
        monkeypatch.setattr(ray, "init", _for_nobody("ray.init"))
    else:
        monkeypatch.setitem(sys.modules, "ray", None)


def _for_packages_only(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which raises when this repository's code calls it."""

    def guarded(*args: Any) -> Any:
        caller = Path(sys._getframe(1).f_code.co_filename)
        # Threads of a broker that other tests keep running for the session may look at the clock.
        tested = threading.current_thread() is threading.main_thread()
        if tested and caller.is_relative_to(ROOT) and "site-packages" not in caller.parts:
            _refuse(name)
        return function(*args)

    return guarded


def _for_nobody(name: str) -> Callable[..., NoReturn]:
    """A function that only raises."""

    def refused(*args: Any, **kwargs: Any) -> NoReturn:
        _refuse(name)

    return refused


def _refuse(name: str) -> NoReturn:
    raise AssertionError(
        f"{name} was called in a test of learning/ or actors/, which are given their clock and transport: "
        "pass a fake one to the constructor, or move the test to tests/cluster."
    )
