"""What the topics must hold, from the in-memory driver over the same records: the oracle on real runs."""

from __future__ import annotations

from routekeel.schemas.registry import SchemaIds
from routekeel.streams.driver import TopologyDriver
from routekeel.streams.settings import Settings
from routekeel.streams.topics import describe
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.from_settings import topology_config
from routekeel.streams.topology.records import Source, SourceRecord
from tests.stack.system import changelog_topic, read_topic

ORACLE_BATCH = 5_000


def expected(settings: Settings) -> dict[int, TopologyDriver]:
    """What each partition must lead to, applied in one go; its bytes are the worker's."""
    topic = settings.topics.logits
    topic_id = describe(settings, [topic])[topic].topic_id
    ids = SchemaIds(settings.registry.url)
    drivers: dict[int, TopologyDriver] = {}
    for message in read_topic(settings, topic):
        partition = message.partition()
        if partition not in drivers:
            source = Source(topic, topic_id, partition)
            drivers[partition] = TopologyDriver(topology_config(settings), source, ids=ids)
        _, timestamp = message.timestamp()
        drivers[partition].log.append(
            SourceRecord(
                message.offset(), timestamp, message.key(), message.value(), message.headers() or ()
            )
        )
    for driver in drivers.values():
        driver.run([ORACLE_BATCH] * (len(driver.log) // ORACLE_BATCH))
    return drivers


def assert_states_exact(settings: Settings, drivers: dict[int, TopologyDriver]) -> int:
    """Every session's final state, ŵ and all, equals the oracle's; how many sessions there are."""
    stores = {partition: MemoryStore() for partition in drivers}
    readers = {partition: ChangelogReader(store) for partition, store in stores.items()}
    for message in read_topic(settings, changelog_topic(settings)):
        if message.partition() in readers:
            readers[message.partition()].feed(
                message.offset(), message.key(), message.value(), message.headers()
            )
    for partition, driver in drivers.items():
        states = dict(stores[partition].items())
        assert states == driver.states(), f"states of partition {partition} differ"
    return sum(len(driver.states()) for driver in drivers.values())


def assert_outputs_exact(settings: Settings, drivers: dict[int, TopologyDriver]) -> int:
    """Every output, repeats dropped by id, is the oracle's byte for byte; how many repeats there were."""
    repeats = 0
    for kind, topic in (
        ("telemetry", settings.topics.telemetry),
        ("weights", settings.topics.weights),
    ):
        offset_of = {
            partition: driver.telemetry_decoder if kind == "telemetry" else driver.weights_decoder
            for partition, driver in drivers.items()
        }
        seen: dict[int, dict[int, bytes]] = {partition: {} for partition in drivers}
        for message in read_topic(settings, topic):
            known, value = seen[message.partition()], message.value()
            offset = int(offset_of[message.partition()].decode(value)["source_offset"])  # type: ignore[call-overload]
            if offset in known:
                assert known[offset] == value, f"{kind} of {offset} came again with other bytes"
                repeats += 1
            known[offset] = value
        for partition, driver in drivers.items():
            index = 1 if kind == "telemetry" else 2
            wanted = {row[0]: row[index] for row in driver.distinct_bytes() if row[index]}
            assert seen[partition].keys() == wanted.keys(), f"{kind} of {partition}: other offsets"
            differing = [o for o, value in wanted.items() if seen[partition][o] != value]
            assert not differing, f"{kind} of {partition} differ at offsets {differing[:10]}"
    return repeats
