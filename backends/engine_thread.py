"""One thread for an engine that ties its state to the thread that uses it.

MLX 0.32 keeps its streams per thread, and aborts the whole process when a thread that has used some
comes to its end. So the engine gets a thread that never ends, and callers may come from any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


class EngineThread:
    """Runs calls one after another on a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        """Start the thread; it waits for calls until the process ends."""
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            future, call = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:  # it belongs to the caller, whatever it is
                future.set_exception(error)
            del future, call  # or the last call's arrays live until the next one

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function()`, run on the thread; its exception is raised here."""
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future.result()

    def iterate(self, start: Callable[[], Iterator[T]]) -> Iterator[T]:
        """What `start()` yields, each item computed on the thread when it is asked for.

        Several iterations may take turns. One that is abandoned is closed on the thread, too.
        """
        items = self.call(start)
        with closing(_Closer(self, items)):
            while (item := self.call(partial(next, items, _END))) is not _END:
                yield item


class _Closer:
    """Closes a generator on the engine's thread."""

    def __init__(self, thread: EngineThread, items: Iterator[Any]) -> None:
        self._thread = thread
        self._items = items

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            self._thread.call(close)
