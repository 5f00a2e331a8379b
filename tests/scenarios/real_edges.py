"""The real edges, on the local stack: the app's own producer, state log and Faust app, the sink's store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import product
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from urllib3.exceptions import ProtocolError

from routekeel.schemas.tables import DEAD_LETTERS_TABLE, Table
from routekeel.streams.app.changelog_topic import ChangelogTopic
from routekeel.streams.app.faust_app import create_app
from routekeel.streams.app.output import OutputProducer
from routekeel.streams.app.run import current_topic_id
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.history.store import connect
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.dedupe import LetterKey, TableProgress
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.lease import LeaseTerms
from routekeel.streams.sinks.outcomes import Outcome
from routekeel.streams.sinks.store import TableStore
from routekeel.streams.topics import admin_client, changelog_topic, ensure_topics
from routekeel.streams.topology.changelog import ChangelogRecord
from tests.scenarios.edges import PARTITIONS
from tests.stack.system import System, delete_records, read_topic, wait_until
from tests.stack.topics import recreate

FLUSH_S = 30.0


class RealEdges:
    """A system of its own on the stack."""

    def __init__(self, system: System) -> None:
        # Batches of a few records: borders, and what waits behind one another, as in the simulation.
        system.flags |= {"worker.batch_records_max": 5, "worker.commit_interval_s": 3600}
        # So long that what nobody has waited for is not there yet when the log is read.
        system.flags["worker.linger_ms"] = 500
        self._system = system
        self.settings = system.settings

    def _make_topics(self) -> None:
        """Make the topics and wait until every partition has a leader, which a broker says before."""
        ensure_topics(self.settings)
        topics = self.settings.topics
        names = (changelog_topic(self.settings), topics.logits, topics.telemetry)

        def led() -> bool:
            with suppress(ServiceUnavailable):
                return bool(log_bounds(self.settings, product(names, range(PARTITIONS))))
            return False

        wait_until(led, "the leaders of the topics")

    @asynccontextmanager
    async def state_logs(self) -> AsyncIterator[RealStateLogs]:
        self._make_topics()
        logs = RealStateLogs(self.settings)
        yield logs
        for client in logs.clients:
            client.close()

    @asynccontextmanager
    async def outputs(self) -> AsyncIterator[RealOutputs]:
        self._make_topics()
        outputs = RealOutputs(self.settings)
        yield outputs
        for client in outputs.clients:
            client.close()

    @asynccontextmanager
    async def group(self) -> AsyncIterator[RealGroup]:
        self._make_topics()
        self.settings.worker.store_dir.mkdir(parents=True, exist_ok=True)  # as run_worker does
        group = RealGroup(self.settings)
        try:
            yield group
        finally:
            for member in list(group.members):
                await member.stop()

    @asynccontextmanager
    async def tables(self) -> AsyncIterator[RealTables]:
        self._system.prepare()
        tables = RealTables(self.settings)
        yield tables
        tables.close()


def produce(settings: Settings, topic: str, partition: int, records: Sequence[Any]) -> None:
    """(key, value, headers) each, acknowledged."""
    producer = Producer(settings.kafka.client_config() | {"enable.idempotence": True})
    for key, value, headers in records:
        producer.produce(topic, value, key, partition, headers=headers)
    assert producer.flush(FLUSH_S) == 0


class RealStateLogs:
    """The changelog topic."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.topic = settings, changelog_topic(settings)
        self.clients: list[ChangelogTopic] = []

    def client(self) -> ChangelogTopic:
        self.clients.append(ChangelogTopic(self._settings))
        return self.clients[-1]

    def append(self, partition: int, records: Sequence[ChangelogRecord]) -> None:
        produce(self._settings, self.topic, partition, records)

    def leave_out(self, partition: int) -> int:
        """A record of a transaction that is given up, and the mark that says so."""
        producer = Producer(
            self._settings.kafka.client_config() | {"transactional.id": f"{self.topic}-{partition}"}
        )
        producer.init_transactions(FLUSH_S)
        producer.begin_transaction()
        producer.produce(self.topic, b"never", b"there", partition)
        assert producer.flush(FLUSH_S) == 0
        producer.abort_transaction(FLUSH_S)
        return 2


class RealOutputs:
    """The telemetry topic."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.topic = settings, settings.topics.telemetry
        self.clients: list[OutputProducer] = []

    def client(self, room: int) -> OutputProducer:
        self.clients.append(OutputProducer(self._settings, records_max=room))
        return self.clients[-1]

    def refuse(self) -> None:
        smallest = ConfigEntry(
            "max.message.bytes", "1", incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[smallest])
        admin = admin_client(self._settings)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()

    def log(self, partition: int) -> list[tuple[bytes | None, bytes]]:
        return [
            (message.key(), message.value())
            for message in read_topic(self._settings, self.topic)
            if message.partition() == partition
        ]


class RealGroup:
    """The logits topic and the app's group."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.topic = settings, settings.topics.logits
        self.members: list[RealMember] = []

    def member(self, committable: Callable[[int], int | None]) -> RealMember:
        return RealMember(self, committable)

    def publish(self, partition: int, values: Sequence[bytes]) -> None:
        produce(self.settings, self.topic, partition, [(b"key", value, None) for value in values])

    def remove_below(self, partition: int, offset: int) -> None:
        delete_records(self.settings, self.topic, {partition: offset})

    async def topic_id(self) -> str:
        return await current_topic_id(self.settings)

    async def recreate_topic(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()

        def gone() -> None:
            asyncio.run_coroutine_threadsafe(meanwhile(), loop).result()  # type: ignore[arg-type]

        await asyncio.to_thread(recreate, self.settings, self.topic, meanwhile=gone)


class RealMember:
    """The app's Faust in this process."""

    def __init__(self, group: RealGroup, committable: Callable[[int], int | None]) -> None:
        self._group = group
        self.app: Any = create_app(group.settings, lambda topic, partition: committable(partition))

    async def start(self) -> None:
        self._group.members.append(self)
        await self.app.start()

    async def commit(self) -> None:
        await self.app.consumer.commit()

    async def stop(self) -> None:
        self._group.members.remove(self)
        await self.app.stop()


class LosesAnswers:
    """A client whose insert is done, and nobody hears of it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def raw_insert(self, *arguments: Any, **options: Any) -> Any:
        self._client.raw_insert(*arguments, **options)
        raise ProtocolError("Connection broken")


class RealTables:
    """The sink's store on the embedded engine; with "down" the body of an insert is not sent."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._client = settings, connect(settings.clickhouse)
        terms, database = LeaseTerms.of(settings), settings.clickhouse.database
        lost: Any = LosesAnswers(self._client)
        self._stores = {
            "": TableStore(self._client, database, terms),
            "lost": TableStore(lost, database, terms),
            "down": TableStore(self._client, database, terms, may_send=lambda: False),
        }

    def progress(
        self, route: Route, topic_id: str, partitions: Sequence[int]
    ) -> dict[int, dict[str, TableProgress]]:
        return self._stores[""].progress(route, topic_id, partitions)

    def known_letters(self, keys: Sequence[LetterKey]) -> frozenset[LetterKey]:
        return self._stores[""].known_letters(DEAD_LETTERS_TABLE, keys)

    def insert(self, action: Insert, fault: str = "") -> Outcome:
        return self._stores[fault].insert(action)

    def has(self, action: Insert) -> bool:
        return self._stores[""].has(action)

    def count(self, table: Table) -> int:
        place = f"{self._settings.clickhouse.database}.{table.name}"
        return int(self._client.query(f"SELECT count() FROM {place}").first_row[0])

    def refuse_long_requests(self, longest: int | None) -> None:
        kind = "String" if longest is None else f"FixedString({longest})"
        place = f"{self._settings.clickhouse.database}.telemetry"
        self._client.command(f"ALTER TABLE {place} MODIFY COLUMN request_id {kind}")

    def close(self) -> None:
        """Close the client."""
        self._client.close()
