"""Calls of any thread are run on the engine's one, errors come back, iterations take turns."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from routekeel.backends.engine_thread import EngineThread


@pytest.fixture(scope="module")
def engine() -> EngineThread:
    return EngineThread("engine")


def numbers(closed: list[str], stop: int = 3) -> Iterator[tuple[int, str]]:
    """(n, the thread that computed it); notes the thread on which it was closed."""
    try:
        for n in range(stop):
            yield n, threading.current_thread().name
    finally:
        closed.append(threading.current_thread().name)


def test_calls_run_on_the_one_thread(engine: EngineThread) -> None:
    assert engine.call(lambda: threading.current_thread().name) == "engine"
    nested = engine.call(lambda: engine.call(lambda: threading.current_thread().name))
    assert nested == "engine"


def test_an_error_is_raised_where_the_call_was_made(engine: EngineThread) -> None:
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 // 0)
    assert engine.call(lambda: 2) == 2


def test_iterations_take_turns(engine: EngineThread) -> None:
    closed: list[str] = []
    both = zip(
        engine.iterate(lambda: numbers(closed)),
        engine.iterate(lambda: numbers(closed)),
        strict=True,
    )
    assert list(both) == [((n, "engine"), (n, "engine")) for n in range(3)]
    assert closed == ["engine", "engine"]


def test_an_abandoned_iteration_is_closed_on_the_thread(engine: EngineThread) -> None:
    closed: list[str] = []
    items = engine.iterate(lambda: numbers(closed))
    assert next(items) == (0, "engine")
    del items
    gc.collect()
    assert closed == ["engine"]


def test_an_error_within_an_iteration_ends_it(engine: EngineThread) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    items = engine.iterate(failing)
    assert next(items) == 1
    with pytest.raises(LookupError, match="gone"):
        next(items)
