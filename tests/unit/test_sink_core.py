"""When the sink cuts a batch, and when it reads less."""

from __future__ import annotations

import pickle

from routekeel.streams.sinks import core as module
from routekeel.streams.sinks.batch import BatchLimits
from routekeel.streams.sinks.core import SinkCore, Start
from routekeel.streams.sinks.dedupe import TableProgress
from routekeel.streams.topology.records import LogBatch, Source, SourceRecord
from tests.unit.sink_world import ROUTES, TOPIC, build, decode

ROWS_MAX, PARTITIONS = 400, 4
EARLY = ROWS_MAX // module.EARLY_PARTS


def core_of_telemetry() -> SinkCore:
    """A core with some partitions of one topic, whose batches never become due by their age."""
    core = SinkCore(ROUTES, BatchLimits(ROWS_MAX, 1e9), decode, build)
    progress = {table.name: TableProgress(-1, -1, {}) for table in ROUTES[TOPIC].tables}
    core.assign({(TOPIC, p): Start(Source(TOPIC, "id", p), progress, 0) for p in range(PARTITIONS)})
    return core


def read(core: SinkCore, partition: int, count: int, size: int = 0) -> None:
    """So many more records of one row each, with so many bytes of key."""
    first = core.partitions[TOPIC, partition].next_offset
    records = []
    for offset in range(first, first + count):
        fields = {"source_topic_id": "logits", "source_partition": partition, "source_offset": 1}
        value = pickle.dumps({**fields, "layers": [0], "token_rows": None, "pad": b" " * size})
        records.append(SourceRecord(offset, 0, None, value, ()))
    assert core.receive((TOPIC, partition), LogBatch.of(records), 0.0)


def started(core: SinkCore) -> list[tuple[int, int]]:
    """(partition, rows) of the batches that begin now."""
    assert not core.decode()
    return [(w.batch.source.partition, int(w.batch.items.rows.sum())) for w in core.ready(0.0)]


def test_the_fullest_partition_goes_first_while_the_store_has_little_to_do() -> None:
    core = core_of_telemetry()
    for partition in range(PARTITIONS):
        read(core, partition, EARLY - 1)
    assert started(core) == []
    read(core, 2, 1)
    read(core, 1, 11)
    assert started(core) == [(1, EARLY + 10)]
    assert started(core) == [(2, EARLY)]
    read(core, 0, EARLY)
    assert started(core) == [], "two are in flight: what waits goes on growing"
    read(core, 3, ROWS_MAX)
    assert started(core) == [(3, ROWS_MAX)], "a full batch begins whatever is in flight"


def test_reading_is_throttled_before_it_pauses_and_goes_on_below_that() -> None:
    core = core_of_telemetry()
    part = module.BUFFERED_BYTES_MAX // 16
    assert not core.is_nearly_full and core.pause_change() is None
    for _ in range(13):
        read(core, 0, 1, part)
    assert core.is_nearly_full and core.pause_change() is None
    for _ in range(4):
        read(core, 0, 1, part)
    assert core.pause_change() is True and core.pause_change() is None
    core.clear()
    assert not core.is_nearly_full
