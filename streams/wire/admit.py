"""Admission in compiled code: the sessions whose chunks in this batch all simply come next.

The twin of `topology.admission` for what nearly every chunk is: a session's first, or the one that
follows the last of the same producer and request, with or without a gap. A session with anything
else in the batch (a repeat, an overlap, other layers, another producer, request or model) goes as a
whole to the reference, from the state that it had before the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.streams.wire import layout as at
from routekeel.streams.wire.check import payload
from routekeel.streams.wire.primitives import (
    WIRE,
    copy,
    read_little,
    read_long,
    same,
    write_little,
)
from routekeel.streams.wire.vectors import copy_block, prefetch_block

# Columns of the table of turns (topology/intake.py), one row each.
(
    OLD_START, OLD_END, HEAD_START, HEAD_LENGTH, PRODUCER_AT, REQUEST_AT, SLOT_LAYERS, SLOT_EXPERTS,
    OPENED, ARENA_ROW, NEW_START, SLOT_COLUMNS,
) = range(12)  # fmt: skip
# Columns of a record's marks: what its chunk did to the head, and what was missing before it.
HIGH, SEEN, POSITION, POSITIONS_MISSING, SEQUENCES_MISSING, MARKS = range(6)

AHEAD, HEAD_BYTES = 8, 192
"""So many sessions ahead the heads of their states, as long as most are, are asked for."""
ONE, ALL = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


@WIRE.inlined
def state_bytes(layers: Any, experts: Any) -> Any:
    """Bytes of a session's matrix: float32[L, 2E + 6]."""
    return 4 * layers * (2 * experts + 6)


@WIRE.inlined
def fresh_head_bytes(values: Any, i: Any) -> Any:
    """Bytes of the head of a session whose first chunk is record i."""
    names = values[i, at.MODEL] + values[i, at.MODEL_REVISION]
    names += values[i, at.WORKER_ID] + values[i, at.REQUEST_ID]
    fixed = at.HEAD_SIZE + at.PRODUCER_SIZE + at.REQUEST_SIZE
    return fixed + names + 4 * values[i, at.LAYERS]


@WIRE.inlined
def open_fresh(buf: Any, starts: Any, values: Any, i: Any, table: Any, s: Any, heads: Any) -> Any:
    """Writes the head of a new session but for what every chunk writes; its lists are empty yet."""
    head = table[s, HEAD_START]
    layers = values[i, at.LAYERS]
    for index in range(table[s, HEAD_LENGTH]):
        heads[head + index] = np.uint8(0)
    heads[head] = np.uint8(at.HEAD_VERSION)
    write_little(heads, head + at.AT_EXPERTS, 4, values[i, at.EXPERTS])
    write_little(heads, head + at.AT_LAYERS, 2, layers)
    write_little(heads, head + at.AT_PRODUCERS, 2, np.int64(1))
    write_little(heads, head + at.AT_REQUESTS, 2, np.int64(1))
    write_little(heads, head + at.AT_MODEL, 2, values[i, at.MODEL])
    write_little(heads, head + at.AT_REVISION, 2, values[i, at.MODEL_REVISION])
    here = head + at.HEAD_SIZE
    model = payload(starts, values, i, at.MODEL)
    here = copy(buf, model, model + values[i, at.MODEL], heads, here)
    revision = payload(starts, values, i, at.MODEL_REVISION)
    here = copy(buf, revision, revision + values[i, at.MODEL_REVISION], heads, here)
    end = np.int64(starts[i, at.LAYERS + 1])
    _, read = read_long(buf, np.int64(starts[i, at.LAYERS]), end)
    for _ in range(layers):
        layer, read = read_long(buf, read, end)
        here = write_little(heads, here, 4, layer)
    table[s, PRODUCER_AT] = here
    size = values[i, at.WORKER_ID]
    write_little(heads, here, 8, values[i, at.PRODUCER_EPOCH])
    write_little(heads, here + 24, 2, size)
    worker = payload(starts, values, i, at.WORKER_ID)
    here = copy(buf, worker, worker + size, heads, here + at.PRODUCER_SIZE)
    table[s, REQUEST_AT] = here
    size = values[i, at.REQUEST_ID]
    write_little(heads, here, 2, size)
    write_little(heads, here + 3, 8, np.int64(-1))
    request = payload(starts, values, i, at.REQUEST_ID)
    copy(buf, request, request + size, heads, here + at.REQUEST_SIZE)
    table[s, SLOT_LAYERS] = layers
    table[s, SLOT_EXPERTS] = values[i, at.EXPERTS]


@WIRE.inlined
def open_known(old: Any, table: Any, s: Any, heads: Any) -> Any:
    """Copies a known session's head; finds its last producer and request. False where it has none."""
    start, head = table[s, OLD_START], table[s, HEAD_START]
    copy_block(old, start, table[s, HEAD_LENGTH], heads, head)
    layers = table[s, SLOT_LAYERS]
    producers = read_little(heads, head + at.AT_PRODUCERS, 2)
    requests = read_little(heads, head + at.AT_REQUESTS, 2)
    if producers == 0 or requests == 0:
        return False
    here = head + at.HEAD_SIZE + 4 * layers
    here += read_little(heads, head + at.AT_MODEL, 2) + read_little(heads, head + at.AT_REVISION, 2)
    for _ in range(producers):
        table[s, PRODUCER_AT] = here
        here += at.PRODUCER_SIZE + read_little(heads, here + 24, 2)
    for _ in range(requests):
        table[s, REQUEST_AT] = here
        split = heads[here + 2] != 0
        here += at.REQUEST_SIZE + read_little(heads, here, 2)
        if split:
            here += 8 * layers
    return heads[table[s, REQUEST_AT] + 2] == 0


@WIRE.inlined
def same_names(buf: Any, starts: Any, values: Any, i: Any, head: Any, heads: Any) -> Any:
    """Whether the chunk's model and revision are the session's."""
    size = values[i, at.MODEL]
    if size != read_little(heads, head + at.AT_MODEL, 2):
        return False
    here = head + at.HEAD_SIZE
    if not same(buf, payload(starts, values, i, at.MODEL), heads, here, size):
        return False
    here += size
    size = values[i, at.MODEL_REVISION]
    if size != read_little(heads, head + at.AT_REVISION, 2):
        return False
    return same(buf, payload(starts, values, i, at.MODEL_REVISION), heads, here, size)


@WIRE.inlined
def same_layers(buf: Any, starts: Any, values: Any, i: Any, table: Any, s: Any, heads: Any) -> Any:
    """Whether the chunk's layers are the session's."""
    layers = table[s, SLOT_LAYERS]
    if values[i, at.LAYERS] != layers:
        return False
    head = table[s, HEAD_START]
    known = head + at.HEAD_SIZE + read_little(heads, head + at.AT_MODEL, 2)
    known += read_little(heads, head + at.AT_REVISION, 2)
    end = np.int64(starts[i, at.LAYERS + 1])
    _, here = read_long(buf, np.int64(starts[i, at.LAYERS]), end)
    for _ in range(layers):
        layer, here = read_long(buf, here, end)
        if read_little(heads, known, 4) != layer & 0xFFFFFFFF:
            return False
        known += 4
    return True


@WIRE.inlined
def same_source(buf: Any, starts: Any, values: Any, i: Any, table: Any, s: Any, heads: Any) -> Any:
    """Whether the chunk's producer and request are the ones that the session heard last."""
    producer, request = table[s, PRODUCER_AT], table[s, REQUEST_AT]
    if read_little(heads, producer, 8) != values[i, at.PRODUCER_EPOCH]:
        return False
    size = values[i, at.WORKER_ID]
    if read_little(heads, producer + 24, 2) != size:
        return False
    worker = payload(starts, values, i, at.WORKER_ID)
    if not same(buf, worker, heads, producer + at.PRODUCER_SIZE, size):
        return False
    size = values[i, at.REQUEST_ID]
    if read_little(heads, request, 2) != size:
        return False
    sent = payload(starts, values, i, at.REQUEST_ID)
    return same(buf, sent, heads, request + at.REQUEST_SIZE, size)


@WIRE.inlined
def follow(values: Any, i: Any, table: Any, s: Any, heads: Any, marks: Any, first: Any) -> Any:
    """Moves sequence and position on; False for a repeat or an overlap (`Producer.admit`)."""
    producer, request = table[s, PRODUCER_AT], table[s, REQUEST_AT]
    sequence, start = values[i, at.SEQUENCE], values[i, at.POSITION_START]
    seen = ONE
    missing = np.int64(0)
    if not first:
        ahead = sequence - read_little(heads, producer + 8, 8)
        if ahead <= 0:
            return False
        missing = ahead - 1
        if ahead < at.SEQUENCE_WINDOW:
            before = np.uint64(read_little(heads, producer + 16, 8))
            seen = (before << np.uint64(ahead)) | ONE
    known = read_little(heads, request + 3, 8)
    if known >= start:
        return False
    marks[i, HIGH] = sequence
    marks[i, SEEN] = np.int64(seen)
    marks[i, POSITION] = start + values[i, at.STEPS] - 1
    marks[i, POSITIONS_MISSING] = start - known - 1 if known >= 0 else 0
    marks[i, SEQUENCES_MISSING] = missing
    write_little(heads, producer + 8, 8, marks[i, HIGH])
    write_little(heads, producer + 16, 8, marks[i, SEEN])
    write_little(heads, request + 3, 8, marks[i, POSITION])
    return True


@WIRE.inlined
def admit_one(
    buf: Any, starts: Any, values: Any, i: Any, old: Any, table: Any, s: Any, heads: Any, marks: Any
) -> Any:
    """Whether record i simply comes next in its session; moves the session's head on."""
    first = table[s, OPENED] == 0
    fresh = table[s, OLD_START] == table[s, OLD_END]
    if first:
        table[s, OPENED] = 1
        if fresh:
            open_fresh(buf, starts, values, i, table, s, heads)
        elif not open_known(old, table, s, heads):
            return False
    if not (first and fresh):
        if values[i, at.EXPERTS] != table[s, SLOT_EXPERTS]:
            return False
        if not same_names(buf, starts, values, i, table[s, HEAD_START], heads):
            return False
        if not same_layers(buf, starts, values, i, table, s, heads):
            return False
        if not same_source(buf, starts, values, i, table, s, heads):
            return False
    return follow(values, i, table, s, heads, marks, first and fresh)


def _measure(source_digest: int) -> Any:
    def run(values: Any, slots: Any, old: Any, table: Any, odd: Any) -> Any:
        if source_digest != 0:
            for s in range(table.shape[0]):
                if s + AHEAD < table.shape[0] and table[s + AHEAD, OLD_END] > 0:
                    prefetch_block(old, table[s + AHEAD, OLD_START], HEAD_BYTES)
                start, size = table[s, OLD_START], table[s, OLD_END] - table[s, OLD_START]
                if odd[s] or size == 0:
                    continue
                if old[start] != at.HEAD_VERSION:
                    odd[s] = True
                    continue
                layers = read_little(old, start + at.AT_LAYERS, 2)
                experts = read_little(old, start + at.AT_EXPERTS, 4)
                table[s, SLOT_LAYERS], table[s, SLOT_EXPERTS] = layers, experts
                table[s, HEAD_LENGTH] = size - state_bytes(layers, experts)
            # Backwards, so that a new session's first chunk has the last word.
            for back in range(slots.shape[0]):
                i = slots.shape[0] - 1 - back
                s = slots[i]
                if s >= 0 and not odd[s] and table[s, OLD_START] == table[s, OLD_END]:
                    table[s, HEAD_LENGTH] = fresh_head_bytes(values, i)

    return run


def _admit(source_digest: int) -> Any:
    def run(
        buf: Any, starts: Any, values: Any, slots: Any, old: Any, table: Any, odd: Any, heads: Any,
        marks: Any,
    ) -> Any:  # fmt: skip
        if source_digest != 0:
            for i in range(slots.shape[0]):
                s = slots[i]
                if s < 0 or odd[s]:
                    continue
                if not admit_one(buf, starts, values, i, old, table, s, heads, marks):
                    odd[s] = True

    return run


_BUF = array_in(types.uint8, 1)
_TABLE = array_out(types.int64, 2)
_ODD = array_out(types.boolean, 1)
measure = WIRE.entry(
    types.void(
        array_in(types.int64, 2),  # values
        array_in(types.int32, 1),  # turns, −1 for none
        _BUF, _TABLE, _ODD,  # old
    ),
    _measure,
)  # fmt: skip
admit = WIRE.entry(
    types.void(
        _BUF,  # buf
        array_in(types.int32, 2),  # starts
        array_in(types.int64, 2),  # values
        array_in(types.int32, 1),  # turns
        _BUF, _TABLE, _ODD,  # old
        array_out(types.uint8, 1),  # heads
        array_out(types.int64, 2),  # marks
    ),
    _admit,
)  # fmt: skip
