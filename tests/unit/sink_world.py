"""A broker, a worker, a registry and a store in memory, for simulations of the sink.

Only what the sink's exactness rests on is modelled: logs with ids and offsets, a worker that
publishes again what it had published, a store that knows tokens and may do an insert without saying
so. The store is strict where a real one is silent: a token with other rows fails the test.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

from routekeel.schemas.errors import BadRow
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY
from routekeel.schemas.tables import Grain, Table, tables_of
from routekeel.streams.sinks.actions import (
    Action,
    FindLetters,
    FindRows,
    Insert,
    Payload,
    SendLetters,
    VerifyLog,
)
from routekeel.streams.sinks.block import Block, Item
from routekeel.streams.sinks.dedupe import TableProgress
from routekeel.streams.sinks.items import Route, refused_item
from routekeel.streams.sinks.outcomes import (
    Absent,
    Done,
    Failed,
    Fault,
    Found,
    Outcome,
    Recreated,
    RefusedByStore,
)
from routekeel.streams.topology.records import DeadLetter, LogBatch, Source, SourceRecord

TOPIC, LETTERS = "telemetry", "dlq"
ROUTES = {
    TOPIC: Route(TOPIC, TELEMETRY, tables_of(TELEMETRY)),
    LETTERS: Route(LETTERS, DEAD_LETTER, tables_of(DEAD_LETTER), by_lookup=True),
}
Identity = tuple[str, int, int]
"""(source topic id, source partition, source offset)"""


def is_undecodable(source_offset: int) -> bool:
    """Every so many records are garbage, each kind at its own places."""
    return source_offset % 23 == 11


def is_misshapen(source_offset: int) -> bool:
    """Refused while columns are built."""
    return source_offset % 29 == 13


def is_poison(source_offset: int) -> bool:
    """Refused by the store."""
    return source_offset % 17 == 5


def has_token_rows(source_offset: int) -> bool:
    """Belongs to a sampled session."""
    return source_offset % 3 == 0


@dataclass
class Log:
    """One topic partition: records since the topic's present id began."""

    topic: str
    topic_id: str
    records: list[SourceRecord] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return Source(self.topic, self.topic_id, 0)

    def append(self, fields: dict[str, Any], time_ms: int) -> None:
        offset = len(self.records)
        self.records.append(SourceRecord(offset, time_ms, None, pickle.dumps(fields), ()))


@dataclass
class World:
    """Everything outside the sink."""

    epoch: int = 1
    source_epoch: int = 1
    next_source: int = 0
    time_ms: int = 0
    logs: dict[str, Log] = field(default_factory=dict)
    rows: dict[str, list[tuple[int, str, Identity]]] = field(default_factory=dict)
    tokens: dict[str, bytes] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    committed: dict[str, tuple[int, str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.logs = {t: Log(t, f"{t}-1") for t in ROUTES}
        self.rows = {table.name: [] for route in ROUTES.values() for table in route.tables}

    # --- The worker

    def publish(self, count: int, again: int = 0) -> None:
        """Publish `count` new outputs, after publishing the last `again` ones once more."""
        first = max(0, self.next_source - again)
        for offset in range(first, self.next_source + count):
            self.time_ms += 700_000  # a midnight every 124 records
            fields = {
                "source_topic_id": f"logits-{self.source_epoch}",
                "source_partition": 0,
                "source_offset": offset,
                "layers": [0],
                "token_rows": {"steps": 1} if has_token_rows(offset) else None,
            }
            self.logs[TOPIC].append(fields, self.time_ms)
        self.next_source += count

    def recreate_output(self) -> None:
        """The telemetry topic is deleted and made anew; what was not stored is lost."""
        self.epoch += 1
        self.logs[TOPIC] = Log(TOPIC, f"{TOPIC}-{self.epoch}")

    def recreate_source(self) -> None:
        """The logits topic is made anew: source offsets begin at 0 under another id."""
        self.source_epoch += 1
        self.next_source = 0

    def lose_tables(self) -> None:
        """Somebody drops the database: tables, and with them the tokens, begin anew."""
        self.tokens.clear()
        for rows in self.rows.values():
            rows.clear()

    # --- The services

    def perform(self, action: Action) -> Outcome:
        """Do what the sink asks; `plan` says how the next actions go."""
        how = self.plan.pop(0) if self.plan else "well"
        match action:
            case VerifyLog():
                if how == "down":
                    return Failed("no answer")
                now = self.logs[action.source.topic].topic_id
                return Done() if now == action.source.topic_id else Recreated(now)
            case SendLetters():
                if how == "down":
                    return Failed("no answer")
                for letter in action.letters:
                    self._letter(action.source, letter)
                # Sent, but the acknowledgement was lost: it will be sent again.
                return Failed("no answer") if how == "lost" else Done()
            case FindLetters():
                if how == "down":
                    return Failed("no answer")
                stored = {identity for _, _, identity in self.rows["dead_letters"]}
                return Found(frozenset(stored & set(action.keys)))
            case FindRows():
                if how == "down":
                    return Failed("no answer")
                rows, insert = self.rows[action.insert.table.name], action.insert
                found = any((o, log) == (insert.last, insert.source.topic_id) for o, log, _ in rows)
                return Done() if found else Absent()
            case Insert():
                return self._insert(action, how)

    def _letter(self, source: Source, letter: DeadLetter) -> None:
        fields = {
            "source_topic_id": source.topic_id,
            "source_partition": 0,
            "source_offset": letter.record.offset,
        }
        self.logs[LETTERS].append(fields, self.time_ms)

    def _insert(self, action: Insert, how: str) -> Outcome:
        rows = pickle.loads(action.payload.data)
        if how == "down":
            return Failed("connection refused")
        if any(is_poison(o) for _, _, (log, _, o) in rows if log.startswith("logits")):
            return RefusedByStore(Fault.DATA, "violated constraint")
        if how == "memory" and len(rows) > 1:
            return RefusedByStore(Fault.SIZE, "memory limit exceeded")
        if how == "dropped":
            return Failed("timeout", unknown=True)
        known = self.tokens.get(action.token)
        assert known in (None, action.payload.data), f"{action.token} names two batches"
        if known is None:
            self.tokens[action.token] = action.payload.data
            self.rows[action.table.name].extend(rows)
        return Failed("timeout", unknown=True) if how == "lost" else Done()

    # --- What a starting sink asks

    def progress(self, topic: str) -> dict[str, TableProgress]:
        """How far the tables of a topic are."""
        topic_id, out = self.logs[topic].topic_id, {}
        for table in ROUTES[topic].tables:
            rows = self.rows[table.name]
            last = max((o for o, log, _ in rows if log == topic_id), default=-1)
            sources: dict[tuple[str, int], int] = {}
            for _, _, (log, partition, offset) in rows:
                key = (log, partition)
                sources[key] = max(sources.get(key, -1), offset)
            out[table.name] = TableProgress(last, last, sources)
        return out


def decode(topic: str, records: LogBatch) -> tuple[Block, str]:
    """The records as a block; garbage where the model says so."""
    return Block.of([item_of(topic, records[index]) for index in range(len(records))]), ""


def item_of(topic: str, record: SourceRecord) -> Item:
    """One record."""
    fields = pickle.loads(record.value or b"")
    if topic == TOPIC and is_undecodable(fields["source_offset"]):
        return refused_item(record, "bad_body", "garbage")
    return Item(record, fields, None, 1, 100)


def build(table: Table, block: Block, source: Source) -> Payload:
    """(log offset, log id, identity) per record. Raises BadRow as schemas.rows does."""
    rows = []
    for index, log_offset in enumerate(block.offsets.tolist()):
        topic_id, partition, offset = block.identity(index)
        if table.grain is not Grain.CHUNK and is_misshapen(offset):
            raise BadRow(index, "wrong length")
        rows.append((log_offset, source.topic_id, (topic_id, partition, offset)))
    return Payload(pickle.dumps(rows), len(rows))
