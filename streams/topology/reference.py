"""The plain way through a batch: Python objects, fastavro, one idea after the other.

It takes every record, and defines what is right. What nearly every record is, the compiled way
(`compiled.py`) does faster, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from routekeel.operators.state import initial_rows
from routekeel.streams.topology.admission import admit
from routekeel.streams.topology.chunk import LogitsChunk, chunk_from
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.execute import Plan, execute
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.record_block import Output
from routekeel.streams.topology.records import BatchCounts, Refusal, Source, SourceRecord
from routekeel.streams.topology.session import Session

Decode = Callable[[bytes], Mapping[str, Any]]
"""Framed bytes to fields; raises Refusal for bytes that are not a RouterLogits record."""


class Member(NamedTuple):
    """An accepted record with its place in the batch, its session's turn and the clock at it."""

    place: int
    turn: int
    clock_us: int
    record: SourceRecord
    chunk: LogitsChunk


class ReferencePath:
    """Applies records to sessions; holds nothing between batches."""

    def __init__(
        self, source: Source, config: TopologyConfig, decode: Decode, builder: OutputBuilder
    ) -> None:
        self._source, self._config = source, config
        self._decode, self._builder = decode, builder

    def check(self, record: SourceRecord) -> LogitsChunk:
        """The record as a valid chunk. Raises Refusal; non-finite logits are not looked for here."""
        if record.value is None:
            raise Refusal("empty_value", "the record has no value")
        return chunk_from(record, self._decode(record.value))

    def run(
        self,
        members: Sequence[Member],
        values: Mapping[int, bytes],
        epoch: int,
        counts: BatchCounts,
    ) -> tuple[dict[int, Output], dict[int, bytes]]:
        """Outputs by place and last states by turn; `values` are the turns' states before the batch."""
        live: dict[int, Session] = {}
        plans = [self._plan(member, values[member.turn], live, epoch, counts) for member in members]
        execute(plans, self._config)
        outputs, states = {}, {}
        for member, plan in zip(members, plans, strict=True):
            outputs[member.place] = self._builder.build(self._source, plan)
            states[member.turn] = plan.state
        return outputs, states

    def _plan(
        self,
        member: Member,
        value: bytes,
        live: dict[int, Session],
        epoch: int,
        counts: BatchCounts,
    ) -> Plan:
        record, chunk = member.record, member.chunk
        session, reset = _session(live.get(member.turn), value, chunk)
        live[member.turn] = session
        is_first = session.last_offset < 0
        admission = admit(session, chunk, self._config.requests_max)
        session.log_epoch, session.last_offset = epoch, record.offset
        session.touched_us = member.clock_us
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
            record,
            chunk,
            session,
            admission,
            session.head(),
            session.layers,
            reset,
            detail,
            is_first,
        )


def _session(live: Session | None, value: bytes, chunk: LogitsChunk) -> tuple[Session, str]:
    """The session to apply the chunk to, and why its state begins anew, if it does."""
    session = live
    if session is None:
        if not value:
            return _fresh(chunk), ""
        session = Session.decode(value)
    if session.model != chunk.model or session.model_revision != chunk.model_revision:
        return _fresh(chunk), "model_changed"
    if session.experts != chunk.experts:
        return _fresh(chunk), "experts_changed"
    return session, ""


def _fresh(chunk: LogitsChunk) -> Session:
    packed = initial_rows(len(chunk.layers), chunk.experts)
    return Session(chunk.model, chunk.model_revision, chunk.experts, chunk.layers, packed)
