"""What a scenario touches: the edges as the app has them, and hands that do what others would do.

Whatever is written here holds for the real edges and for the simulated ones alike: a scenario that
could tell them apart shows where the simulation is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from routekeel.schemas.tables import Table
from routekeel.streams.app.partitions import StateLog
from routekeel.streams.app.sender import Output
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.dedupe import LetterKey, TableProgress
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.outcomes import Outcome
from routekeel.streams.topology.changelog import ChangelogRecord

PARTITIONS = 4
"""Of every topic, as in the settings' defaults."""
LIMIT_S = 60.0
"""What an await may take before the scenario fails."""


class StateLogs(Protocol):
    """The changelog, as several processes have it."""

    def client(self) -> StateLog:
        """One more process's."""
        ...

    def append(self, partition: int, records: Sequence[ChangelogRecord]) -> None:
        """Somebody else writes, at once; from any thread."""
        ...

    def leave_out(self, partition: int) -> int:
        """Use up offsets at the end that no reader gets a record for; how many."""
        ...


class Outputs(Protocol):
    """The output topics."""

    topic: str

    def client(self, room: int) -> Output:
        """A producer with room for so many records."""
        ...

    def refuse(self) -> None:
        """From now on the broker takes no more records of the topic."""
        ...

    def log(self, partition: int) -> list[tuple[bytes | None, bytes]]:
        """Every record of the topic's partition, in the log's order."""
        ...


class Member(Protocol):
    """One member of the group, with what StreamWorker calls: `app` is Faust's."""

    app: Any

    async def start(self) -> None:
        """Join the group; the listener has been attached to `app`."""
        ...

    async def commit(self) -> None:
        """Faust commits, as it does now and then."""
        ...

    async def stop(self) -> None:
        """Leave the group."""
        ...


class Group(Protocol):
    """The logits topic and the group that reads it."""

    topic: str

    def member(self, committable: Callable[[int], int | None]) -> Member:
        """One more worker's; `committable` says what of a partition is durable."""
        ...

    def publish(self, partition: int, values: Sequence[bytes]) -> None:
        """Records of the topic, acknowledged."""
        ...

    def remove_below(self, partition: int, offset: int) -> None:
        """What retention does."""
        ...

    async def topic_id(self) -> str:
        """As StreamWorker asks for it."""
        ...

    async def recreate_topic(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Delete the topic and make it anew; `meanwhile` runs while there is none."""
        ...


class Tables(Protocol):
    """The store as the sink's edge has it."""

    def progress(
        self, route: Route, topic_id: str, partitions: Sequence[int]
    ) -> dict[int, dict[str, TableProgress]]: ...

    def known_letters(self, keys: Sequence[LetterKey]) -> frozenset[LetterKey]: ...

    def insert(self, action: Insert, fault: str = "") -> Outcome:
        """With `fault` "down" nothing gets there; with "lost" the answer does not come back."""
        ...

    def has(self, action: Insert) -> bool:
        """Whether the rows of an insert are there."""
        ...

    def count(self, table: Table) -> int:
        """How many rows the table has."""
        ...

    def refuse_long_requests(self, longest: int | None) -> None:
        """Telemetry rows with a longer request_id are refused; None takes them again."""
        ...


class Edges(Protocol):
    """The edges of one world."""

    def state_logs(self) -> AbstractAsyncContextManager[StateLogs]: ...

    def outputs(self) -> AbstractAsyncContextManager[Outputs]: ...

    def group(self) -> AbstractAsyncContextManager[Group]: ...

    def tables(self) -> AbstractAsyncContextManager[Tables]: ...
