"""Compares what a run led to with the oracle: states, outputs and rows, byte for byte.

The oracle is the topology applied to each partition's log in one batch, with no faults.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import DEAD_LETTER
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.driver import TopologyDriver
from routekeel.streams.settings import Settings
from routekeel.streams.settings.tree import WorkerSettings
from routekeel.streams.sinks.block import Block
from routekeel.streams.sinks.payload import plain_batch
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.dead_letter import dead_letter_fields
from routekeel.streams.topology.records import Source as SourceId
from routekeel.streams.topology.records import SourceRecord
from tests.simulation.broker import TOPIC_ID, Broker
from tests.simulation.scenario import Scenario
from tests.simulation.store import SimStore

BORDERS = 3
"""Where else than at its ends a changelog's cleaned part is made to end, to read what is then there."""


@lru_cache(maxsize=1)
def settings(standby: bool = False) -> Settings:
    """The defaults, without a look at files or variables; with or without standby replicas."""
    return Settings(worker=WorkerSettings(standby_replicas=int(standby)))


@dataclass
class Result:
    """What a run led to; the broker holds the rest."""

    broker: Broker
    ids: FixedSchemaIds
    turns: list[str]
    deaths: int = 0
    rebalances: int = 0
    refused: int = 0
    """Commits that the stores of the dead refused, their disks being full."""
    drivers: dict[int, TopologyDriver] = field(default_factory=dict)


def judge(scenario: Scenario, result: Result) -> None:
    """States and outputs are the oracle's bytes."""
    broker, topics = result.broker, settings().topics
    letters = Encoder(DEAD_LETTER, result.ids.register(DEAD_LETTER, ""))
    for partition, log in broker.logs.items():
        source = SourceId(topics.logits, TOPIC_ID, partition)
        driver = TopologyDriver(scenario.config, source, list(log), ids=result.ids)
        driver.run()
        result.drivers[partition] = driver
        rng = Random(f"borders {scenario.seed}")
        for border in (0.0, *(rng.random() for _ in range(BORDERS)), 1.0):
            changelog = broker.after_compaction(partition, border)
            store = MemoryStore()
            reader = ChangelogReader(store)
            for offset, record in enumerate(changelog):
                if record is not None:
                    reader.feed(offset, *record)
            where = f"states of partition {partition}, compacted below {border:.0%}, differ"
            assert dict(store.items()) == driver.states(), where
        distinct = driver.distinct_bytes()
        expected = {
            topics.telemetry: {offset: telemetry for offset, telemetry, _ in distinct},
            topics.weights: {offset: weights for offset, _, weights in distinct if weights},
            topics.dlq: {
                letter.record.offset: letters.encode(dead_letter_fields(source, letter))
                for letter in driver.dead_letters
            },
        }
        for topic, wanted in expected.items():
            found = [value for _, value in broker.outputs.get(topic, {}).get(partition, [])]
            _assert_outputs(f"{topic}[{partition}]", found, wanted)


def _assert_outputs(place: str, found: list[bytes], wanted: dict[int, bytes]) -> None:
    """In ascending order but for repeats, which are the same bytes; nothing else, nothing missing."""
    offset_of = {value: offset for offset, value in wanted.items()}
    left = deque(sorted(wanted))
    for value in found:
        assert value in offset_of, f"{place} holds bytes that the oracle does not have"
        if left and offset_of[value] == left[0]:
            left.popleft()
        else:
            assert not left or offset_of[value] < left[0], f"{place} skips offset {left[0]}"
    assert not left, f"{place} lacks {list(left)[:10]}"


def judge_rows(result: Result, store: SimStore) -> None:
    """Every table holds what the oracle's records make, each row once, every value."""
    letters = Encoder(DEAD_LETTER, result.ids.register(DEAD_LETTER, ""))
    expected: dict[str, list[dict[str, Any]]] = {name: [] for name in store.tables.rows}
    for partition, driver in result.drivers.items():
        logs = {
            settings().topics.telemetry: [t for _, t, _ in driver.distinct_bytes()],
            settings().topics.weights: [w for _, _, w in driver.distinct_bytes() if w],
            settings().topics.dlq: [
                letters.encode(dead_letter_fields(driver.source, letter))
                for letter in driver.dead_letters
            ],
        }
        for topic, values in logs.items():
            items = [
                store.decoders[topic].decode_one(SourceRecord(n, 0, None, value, ()))
                for n, value in enumerate(values)
            ]
            for table in store.routes[topic].tables:
                batch = plain_batch(table, Block.of(items), SourceId(topic, "", partition))
                expected[table.name] += batch.to_pylist()
    for name, rows in expected.items():
        # As text: NaN is NaN, and every float is told from every other.
        assert sorted(map(_row_text, store.tables.rows[name])) == sorted(map(_row_text, rows)), name


def _row_text(row: dict[str, Any]) -> str:
    return repr([(name, value) for name, value in row.items() if not name.startswith("log_")])
