"""One partition: records in, results and the next state out. The heart of the worker, without I/O.

A batch goes through four passes: decode and check every record; admit in log order (repeats,
evictions, resets); run the kernel once per number of experts; build outputs in log order. Nothing
depends on where batches begin and end: the same log gives the same bytes, which replay relies on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from routekeel.operators.state import initial_rows
from routekeel.streams.topology.admission import admit
from routekeel.streams.topology.changelog import (
    ChangelogRecord,
    StateStore,
    Version,
    checkpoint_records,
)
from routekeel.streams.topology.chunk import LogitsChunk, chunk_from
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.execute import Plan, execute, non_finite
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.records import (
    BatchCounts,
    BatchResult,
    DeadLetter,
    Refusal,
    Source,
    SourceRecord,
)
from routekeel.streams.topology.session import Session
from routekeel.streams.topology.watermark import Watermark

Decode = Callable[[bytes], Mapping[str, Any]]
"""Framed bytes to fields; raises Refusal for bytes that are not a RouterLogits record."""


class PartitionProcessor:
    """Applies batches of one partition's records to the state in `store`.

    Between checkpoints the changes are kept here and not in the store, so that the store is always a
    state that the changelog can prove. `checkpoint()` says what to write; after it is durable,
    `checkpointed()` moves the store on.
    """

    def __init__(
        self,
        source: Source,
        config: TopologyConfig,
        decode: Decode,
        builder: OutputBuilder,
        store: StateStore,
    ) -> None:
        self.source = source
        self._config = config
        self._decode = decode
        self._builder = builder
        self._store = store
        mark = store.watermark or Watermark(source.topic_id)
        self.recreated = mark.topic_id != source.topic_id
        self.watermark = mark.of_log(source.topic_id)
        self._clock_us = self.watermark.clock_us
        self._changes: dict[bytes, bytes | None] = {}
        self._evicted_at: dict[bytes, Version] = {}
        self._live: dict[bytes, Session] = {}
        # Sessions by last touch, the least recent first, with the clock at that touch. The clock only
        # moves forward, so this is the order of idleness too.
        self._touched: OrderedDict[bytes, int] = _by_last_touch(store)
        self.dirty_bytes = 0

    @property
    def sessions(self) -> int:
        """How many sessions this partition holds."""
        return len(self._touched)

    def lost_until(self, log_start: int) -> int:
        """Retention removed everything below `log_start`: go on from there; how many records that lost."""
        lost = log_start - self.watermark.applied_offset - 1
        if lost > 0:
            self.watermark = self.watermark._replace(
                applied_offset=log_start - 1,
                lost_to_retention=self.watermark.lost_to_retention + lost,
            )
        return max(0, lost)

    def apply(self, records: Sequence[SourceRecord]) -> BatchResult:
        """Apply the records in order, skipping what is at or below the watermark.

        The caller has made sure that they are contiguous with it (engine.md, rule 6).
        """
        counts = BatchCounts(records=len(records))
        new = [record for record in records if record.offset > self.watermark.applied_offset]
        counts.skipped = len(records) - len(new)
        accepted: list[tuple[SourceRecord, LogitsChunk]] = []
        refused: list[DeadLetter] = []
        for record in new:
            try:
                accepted.append((record, self._check(record)))
            except Refusal as refusal:
                refused.append(DeadLetter(record, refusal.error_class, refusal.message))
        bad = non_finite([chunk for _, chunk in accepted])
        if bad:
            message = "the logits contain NaN or infinity"
            refused += [
                DeadLetter(accepted[index][0], "non_finite_logits", message) for index in bad
            ]
            refused.sort(key=lambda letter: letter.record.offset)
            accepted = [pair for index, pair in enumerate(accepted) if index not in bad]
        plans = [self._plan(record, chunk, counts) for record, chunk in accepted]
        execute(plans, self._config)
        outputs = [self._builder.build(self.source, plan) for plan in plans]
        self._settle(plans)
        for letter in refused:
            counts.dead_letters[letter.error_class] = (
                counts.dead_letters.get(letter.error_class, 0) + 1
            )
        if new:
            self.watermark = self.watermark._replace(
                applied_offset=new[-1].offset, clock_us=self._clock_us
            )
        return BatchResult(outputs, refused, self.watermark.applied_offset, counts)

    def checkpoint(self) -> list[ChangelogRecord]:
        """What to write to the changelog for everything applied since the last checkpoint."""
        return list(checkpoint_records(self._changes, self._evicted_at, self.watermark))

    def checkpointed(self, position: int) -> None:
        """The checkpoint is durable; the store holds the changelog up to `position` (see LogEnd)."""
        self._store.commit(self._changes, self.watermark, max(position, self._store.position))
        self._changes, self._evicted_at, self.dirty_bytes = {}, {}, 0

    @property
    def is_dirty(self) -> bool:
        """Whether anything was applied since the last checkpoint."""
        return self._store.watermark != self.watermark

    def state_of(self, session_id: bytes) -> bytes | None:
        """A session's encoded state as of the last record applied, for inspection."""
        if session_id in self._changes:
            return self._changes[session_id]
        return self._store.get(session_id)

    def _check(self, record: SourceRecord) -> LogitsChunk:
        if record.value is None:
            raise Refusal("empty_value", "the record has no value")
        return chunk_from(record, self._decode(record.value))

    def _plan(self, record: SourceRecord, chunk: LogitsChunk, counts: BatchCounts) -> Plan:
        self._advance_clock(record, chunk, counts)
        session, reset = self._session(chunk, record.offset, counts)
        admission = admit(session, chunk, self._config.requests_max)
        session.log_epoch, session.last_offset = self.watermark.log_epoch, record.offset
        session.touched_us = self._clock_us
        self._touch(chunk.session_id, record.offset, counts)
        counts.rows += chunk.rows - admission.rows_repeated
        counts.rows_repeated += admission.rows_repeated
        counts.chunks_repeated += admission.tokens_applied == 0
        counts.positions_missing += admission.positions_missing
        counts.sequences_missing += admission.sequences_missing
        counts.dropped_by_producer += chunk.fields["dropped_before"]
        if reset:
            counts.state_resets[reset] = counts.state_resets.get(reset, 0) + 1
        detail = self._config.wants_token_rows(chunk.session_id)
        return Plan(
            record, chunk, session, admission, session.head(), session.layers, reset, detail
        )

    def _advance_clock(self, record: SourceRecord, chunk: LogitsChunk, counts: BatchCounts) -> None:
        """Event time drives eviction, but a clock far ahead of the log must not evict everything."""
        ceiling = record.timestamp_ms * 1000 + self._config.event_time_skew_us
        event_time = chunk.event_time_us
        if event_time > ceiling:
            event_time = ceiling
            counts.event_time_clamped += 1
        if event_time > self._clock_us:
            self._clock_us = event_time
        deadline = self._clock_us - self._config.session_ttl_us
        while self._touched:
            key, touched_us = next(iter(self._touched.items()))
            if touched_us >= deadline:
                break
            self._evict(key, record.offset)
            counts.evicted_idle += 1

    def _session(self, chunk: LogitsChunk, offset: int, counts: BatchCounts) -> tuple[Session, str]:
        session = self._live.get(chunk.session_id)
        if session is None:
            value = self.state_of(chunk.session_id)
            if value is None:
                return self._fresh(chunk), ""
            session = self._live[chunk.session_id] = Session.decode(value)
        if session.model != chunk.model or session.model_revision != chunk.model_revision:
            return self._fresh(chunk), "model_changed"
        if session.experts != chunk.experts:
            return self._fresh(chunk), "experts_changed"
        return session, ""

    def _fresh(self, chunk: LogitsChunk) -> Session:
        packed = initial_rows(len(chunk.layers), chunk.experts)
        session = Session(chunk.model, chunk.model_revision, chunk.experts, chunk.layers, packed)
        self._live[chunk.session_id] = session
        return session

    def _touch(self, key: bytes, offset: int, counts: BatchCounts) -> None:
        self._touched[key] = self._clock_us
        self._touched.move_to_end(key)
        if len(self._touched) > self._config.sessions_max:
            self._evict(next(iter(self._touched)), offset)
            counts.evicted_cap += 1

    def _evict(self, key: bytes, offset: int) -> None:
        del self._touched[key]
        self._live.pop(key, None)
        self._changes[key] = None
        self._evicted_at[key] = Version(self.watermark.log_epoch, offset)

    def _settle(self, plans: Iterable[Plan]) -> None:
        """Make the last state of every touched session its new value."""
        for plan in plans:
            if self._live.get(plan.chunk.session_id) is plan.session:
                value = plan.state
                old = self._changes.get(plan.chunk.session_id)
                self.dirty_bytes += len(value) - (len(old) if old is not None else 0)
                self._changes[plan.chunk.session_id] = value
        self._live.clear()


def _by_last_touch(store: StateStore) -> OrderedDict[bytes, int]:
    # The order of touch is the order of the last applied offset, within and across logs.
    sessions = []
    for key, value in store.items():
        session = Session.decode(value)
        sessions.append((session.log_epoch, session.last_offset, key, session.touched_us))
    sessions.sort(key=lambda entry: entry[:2])
    return OrderedDict((key, touched_us) for _, _, key, touched_us in sessions)
