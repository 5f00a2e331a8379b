"""Is what is stored what the log leads to, bit for bit? The stored rows against a replay of the log.

Expected rows are made as the sink makes them (the same rounding), and compared column by column;
only where the sink read a record, and when it inserted it, may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from routekeel.schemas.clickhouse import name as quoted
from routekeel.schemas.columns import Origin
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY, WEIGHTS
from routekeel.schemas.rows import Coordinates, columns
from routekeel.schemas.tables import Grain, Table, tables_of
from routekeel.streams.errors import ConfigurationError
from routekeel.streams.history.replay import Fields, Replay, Replayed
from routekeel.streams.history.store import connect, unavailable
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.payload import record_batch
from routekeel.streams.topics import require
from routekeel.streams.topology.records import Source

DIFFERENCES_SHOWN = 20
_NOT_COMPARED = frozenset({Origin.LOG, Origin.INSERT})
_KEY = {
    Grain.CHUNK: ("source_offset",),
    Grain.LAYER: ("source_offset", "layer"),
    Grain.TOKEN: ("source_offset", "position", "layer"),
}

OnProgress = Callable[[int, int], None]
"""Called with (offsets replayed, offsets in all)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One stored value that is not what the log leads to, or a row that is missing or too many."""

    table: str
    partition: int
    source_offset: int
    column: str
    stored: str
    replayed: str


@dataclass(slots=True)
class ReplayReport:
    """What was compared. `passed_over` counts records of sessions that began before the log does."""

    topic: str
    topic_id: str
    records: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    passed_over: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every stored value is the replayed one."""
        return not self.differing

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"ok": self.ok, **asdict(self)}

    def render(self) -> str:
        """The report for a terminal (rich markup)."""
        verdict = "[bold green]ok[/]" if self.ok else "[bold red]not ok[/]"
        rows = ", ".join(f"{count:,} of {name}" for name, count in self.rows.items())
        lines = [f"{verdict}  {self.records:,} records replayed; rows compared: {rows}"]
        if self.passed_over:
            lines.append(
                f"  {self.passed_over:,} records passed over: their sessions began before the log does"
            )
        if self.differing:
            lines.append(f"  {self.differing:,} values or rows differ; the first:")
        lines += [
            f"  {d.table}[{d.partition}] offset {d.source_offset} {d.column}: "
            f"stored {d.stored}, replayed {d.replayed}"
            for d in self.differences
        ]
        return "\n".join(lines)

    def note(self, difference: Difference) -> None:
        """Count a difference; the first few are kept."""
        self.differing += 1
        if len(self.differences) < DIFFERENCES_SHOWN:
            self.differences.append(difference)


def audit_replay(
    settings: Settings,
    partition: int | None = None,
    first: int = 0,
    end: int | None = None,
    on_progress: OnProgress | None = None,
) -> ReplayReport:
    """Replay offsets first ≤ o < end of a partition (of all, by default) and compare what is stored.

    Raises ServiceUnavailable, and ConfigurationError for a partition that the topic does not have.
    """
    topic = settings.topics.logits
    info = require(settings, [topic])[topic]
    if partition is not None and not 0 <= partition < info.partitions:
        raise ConfigurationError(f"{topic} has the partitions 0 to {info.partitions - 1}")
    wanted = range(info.partitions) if partition is None else [partition]
    bounds = log_bounds(settings, [(topic, p) for p in wanted])
    spans = {
        p: (start, high if end is None else min(end, high))
        for (_, p), (start, high) in bounds.items()
    }
    total = sum(max(0, stop - start) for start, stop in spans.values())
    report, done = ReplayReport(topic, info.topic_id), 0
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    try:
        for p, (start, stop) in spans.items():
            source = Source(topic, info.topic_id, p)
            for block in Replay(settings, source, start).blocks(first, stop):
                _compare_block(client, source, block, first, report)
                done += block.end - block.first
                if on_progress is not None:
                    on_progress(done, total)
    except ClickHouseError as error:
        raise unavailable(settings.clickhouse, error) from error
    finally:
        client.close()
    return report


def _compare_block(
    client: Client, source: Source, block: Replayed, first: int, report: ReplayReport
) -> None:
    low = max(first, block.first)
    if low >= block.end:
        return
    report.records += block.end - low
    passed = [offset for offset in block.passed_over if offset >= low]
    report.passed_over += len(passed)
    for record, values in (
        (TELEMETRY, block.telemetry), (WEIGHTS, block.weights), (DEAD_LETTER, block.dead_letters)
    ):  # fmt: skip
        for table in tables_of(record):
            expected = _expected(table, values)
            stored = _stored(client, table, source, low, block.end, passed)
            report.rows[table.name] = report.rows.get(table.name, 0) + expected.num_rows
            _compare(table, source.partition, stored, expected, report)


def _expected(table: Table, values: list[Fields]) -> pa.Table:
    nowhere = np.zeros(len(values), np.int64)
    data = columns(table, values, Coordinates("", "", 0, nowhere, nowhere))
    whole = pa.Table.from_batches([record_batch(table, data)])
    return _plain(whole.select(_compared(table))).sort_by(
        [(k, "ascending") for k in _KEY[table.grain]]
    )


def _stored(
    client: Client, table: Table, source: Source, low: int, end: int, passed: Iterable[int]
) -> pa.Table:
    names = _compared(table)
    where = "AND stage = 'worker'" if table.record is DEAD_LETTER else ""
    query = f"""
        SELECT {", ".join(map(quoted, names))} FROM {quoted(table.name)}
        WHERE source_topic_id = {{topic_id:String}} AND source_partition = {{partition:Int32}}
          AND source_offset >= {{low:Int64}} AND source_offset < {{end:Int64}} {where}
        ORDER BY {", ".join(_KEY[table.grain])}"""
    found = client.query_arrow(
        query,
        parameters={
            "topic_id": source.topic_id, "partition": source.partition, "low": low, "end": end
        },
        use_strings=True,
    )  # fmt: skip
    stored = _plain(found)
    left_out = pa.array(sorted(passed), pa.int64())
    return stored.filter(pc.invert(pc.is_in(stored["source_offset"], left_out)))


def _compared(table: Table) -> list[str]:
    return [c.name for c in table.filled if c.origin not in _NOT_COMPARED]


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries unpacked: they are how a column travels, not what it holds."""
    for index, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            plain = table.column(index).cast(column.type.value_type)
            table = table.set_column(index, column.name, plain)
    return table.combine_chunks()


def _compare(
    table: Table, partition: int, stored: pa.Table, expected: pa.Table, report: ReplayReport
) -> None:
    key = _KEY[table.grain]
    places = [_places(rows, key) for rows in (stored, expected)]
    if places[0] != places[1]:
        have, want = set(places[0]), set(places[1])
        for place in sorted(have ^ want):
            there, not_there = ("present", "absent") if place in have else ("absent", "present")
            report.note(
                Difference(table.name, partition, place[0], f"row {place}", there, not_there)
            )
        if len(places[0]) != len(have):
            twice = len(places[0]) - len(have)
            report.note(Difference(table.name, partition, -1, "rows", f"{twice} twice", "once"))
        return
    for name in _compared(table):
        mine, theirs = expected[name].combine_chunks(), stored[name].combine_chunks()
        for row in _differing(theirs, mine).tolist():
            values = (repr(theirs[row].as_py()), repr(mine[row].as_py()))
            report.note(Difference(table.name, partition, places[1][row][0], name, *values))


def _places(rows: pa.Table, key: tuple[str, ...]) -> list[tuple[int, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in key), strict=True))


def _differing(stored: pa.Array, expected: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rows in which two columns differ; NULL equals NULL, NaN equals NaN, and bits must agree."""
    if stored.type != expected.type:
        stored = stored.cast(expected.type)
    if _same_bits(stored, expected):
        return np.empty(0, np.int64)
    pairs = zip(stored.to_pylist(), expected.to_pylist(), strict=True)
    # repr tells every float32 from every other and makes NaN equal to NaN.
    return np.array([i for i, (a, b) in enumerate(pairs) if repr(a) != repr(b)], np.int64)


def _same_bits(one: pa.Array, other: pa.Array) -> bool:
    """Whether two columns of a type are the same to the bit: Arrow itself takes -0.0 for 0.0."""
    if pa.types.is_list(one.type):
        lengths = [pc.list_value_length(column) for column in (one, other)]
        return lengths[0].equals(lengths[1]) and _same_bits(one.flatten(), other.flatten())
    if pa.types.is_floating(one.type):
        one, other = (column.view(f"int{column.type.bit_width}") for column in (one, other))
    return bool(one.equals(other))
