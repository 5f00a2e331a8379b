"""What the topics must hold, from the in-memory driver over the same records: the oracle on real runs."""

from __future__ import annotations

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.settings import Settings
from routekeel.streams.topics import describe
from routekeel.streams.topology.changelog import ChangelogReader, MemoryStore
from routekeel.streams.topology.from_settings import topology_config
from routekeel.streams.topology.records import SourceRecord
from tests.stack.system import changelog_topic, read_topic

ORACLE_BATCH = 5_000


def expected(settings: Settings) -> dict[int, TopologyDriver]:
    """What each partition must lead to, applied in one go."""
    topic_id = describe(settings, [settings.topics.logits])[settings.topics.logits].topic_id
    drivers: dict[int, TopologyDriver] = {}
    for message in read_topic(settings, settings.topics.logits):
        driver = drivers.setdefault(
            message.partition(), TopologyDriver(topology_config(settings), topic_id)
        )
        _, timestamp = message.timestamp()
        driver.log.append(
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
    """Every output, repeats dropped by id, equals the oracle's; how many repeats there were."""
    repeats = 0
    for kind, topic in (
        ("telemetry", settings.topics.telemetry),
        ("weights", settings.topics.weights),
    ):
        seen: dict[int, list[dict[str, object]]] = {partition: [] for partition in drivers}
        for message in read_topic(settings, topic):
            driver, known = drivers[message.partition()], seen[message.partition()]
            decoder = driver.telemetry_decoder if kind == "telemetry" else driver.weights_decoder
            # The registry's schema ids differ from the driver's; what follows the frame does not.
            record = decoder.decode(_frame(driver, kind) + message.value()[5:])
            last = known[-1]["source_offset"] if known else -1
            if record["source_offset"] <= last:  # type: ignore[operator]
                repeats += 1
            else:
                known.append(record)
        for partition, driver in drivers.items():
            source = driver.telemetry() if kind == "telemetry" else driver.weights()
            here = {"source_partition": partition, "source_topic": settings.topics.logits}
            assert seen[partition] == [r | here for r in source], f"{kind} of {partition} differ"
    return repeats


def _frame(driver: TopologyDriver, kind: str) -> bytes:
    if kind == "telemetry":
        return driver.sent[0].telemetry[:5]
    return next(sent.weights for sent in driver.sent if sent.weights)[:5]
