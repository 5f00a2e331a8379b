"""Who goes on next: every await of a simulated process is a turn that the seed grants.

The processes run as tasks of one event loop, without threads, timers or I/O, so a seed fixes every
interleaving. Killing a process means that none of its turns is ever granted again.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from typing import Any

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
SETTLE_ROUNDS = 12


class Killed(asyncio.CancelledError):
    """The process is dead: nothing it does reaches the world any more."""


class Process:
    """All tasks that descend from one simulated process."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.turns, self.name = turns, name
        self.alive = True
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failure: BaseException | None = None

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of this process; its failure is the process's."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        task = asyncio.get_running_loop().create_task(self._guard(coroutine), context=context)
        # Killed before its first turn, the guard never gets to the coroutine.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    async def _guard(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failure = self.failure or error

    def kill(self) -> None:
        """kill -9: no handler runs, and what is waited for never comes."""
        self.alive = False
        self.turns.forget(self)
        for task in list(self.tasks):
            task.cancel()

    async def turn(self, what: str) -> None:
        """Wait until the seed lets this process go on. Raises Killed when it never will."""
        if not self.alive:
            raise Killed(what)
        await self.turns.wait(self, what)
        if not self.alive:
            raise Killed(what)


class Turns:
    """The waiting turns of all processes. `log` holds what was granted, for reading a failure."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._waiting: list[tuple[Process, str, asyncio.Future[None]]] = []
        self.log: list[str] = []

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make tasks know their process."""

        def factory(
            loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
        ) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
            context = options.get("context")
            process = context[PROCESS] if context and PROCESS in context else PROCESS.get()
            if process is not None:
                process.tasks.add(task)
                task.add_done_callback(process.tasks.discard)
            return task

        loop.set_task_factory(factory)

    async def wait(self, process: Process, what: str) -> None:
        """Queue for a turn."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((process, what, future))
        await future

    def forget(self, process: Process) -> None:
        """Drop the turns that a dead process waits for."""
        self._waiting = [entry for entry in self._waiting if entry[0] is not process]

    async def grant(self) -> bool:
        """Let everything run that can, then grant one turn; False when nobody waits."""
        await settle()
        self._waiting = [entry for entry in self._waiting if not entry[2].done()]
        if not self._waiting:
            return False
        process, what, future = self._waiting.pop(self._rng.randrange(len(self._waiting)))
        self.log.append(f"{process.name}: {what}")
        future.set_result(None)
        await settle()
        return True


async def settle() -> None:
    """Let the tasks run that can, until none can or some have been up very often.

    What asyncio has ready is asked for, by its private name, because nothing public says that
    nobody can go on: rounds that run nothing were half of a simulation's time.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(SETTLE_ROUNDS):
        if not ready:
            return
        await asyncio.sleep(0)
