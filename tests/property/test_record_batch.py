"""Record batches made in one pass: the bytes that aiokafka's builder makes, and what its reader reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from routekeel.streams.app import record_batch
from routekeel.streams.app.kafka_producer import FinishedBatch
from routekeel.streams.app.record_batch import Framer, RecordBatch
from routekeel.streams.topology.record_block import RecordBlock

NOW_MS = 1_790_000_000_123
PRODUCER = (77, 3, 2**31 - 5)

byte_strings = st.binary(max_size=80) | st.integers(0, 9000).map(lambda size: b"ab" * size)
headers = st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=70)), min_size=1, max_size=3)
records = st.lists(
    st.tuples(st.none() | byte_strings, st.none() | byte_strings, st.none() | headers),
    min_size=1,
    max_size=90,
)
Records = list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]] | None]]


def block_of(some: Records) -> RecordBlock:
    named = {index: list(header) for index, (_, _, header) in enumerate(some) if header}
    return RecordBlock.of([key for key, *_ in some], [value for _, value, _ in some], named)


def framed(block: RecordBlock, cuts: list[int]) -> Any:
    """The whole block, framed stretch by stretch, within what it may take."""
    framer = Framer(block)
    out, here = np.empty(int(framer.ends[-1]), np.uint8), 0
    for start, end in zip([0, *cuts], [*cuts, len(block)], strict=True):
        here = framer.frame(start, end, start, out, here)
        assert here <= (framer.ends[end - 1] if end else 0)
    return out[:here]


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(record_batch, "compiled_kernel_exists", lambda: False)
    return str(request.param)


@given(records, st.data())
def test_framing_is_that_of_aiokafka(some: Records, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(some)), max_size=3)))
    builder = DefaultRecordBatchBuilder(2, 0, 0, *PRODUCER, batch_size=2**31 - 1)
    for offset, (key, value, header) in enumerate(some):
        builder.append(offset, NOW_MS, key, value, header or [])
    expected = bytes(builder.build())
    batch = RecordBatch(len(some), framed(block_of(some), cuts).tobytes(), False, NOW_MS)
    assert batch.encode(*PRODUCER) == expected


def test_what_is_read_is_what_was_framed(way: str) -> None:
    some: Records = [
        (
            b"key-%d" % number,
            b"value " * number,
            [("version", b"\x00" * 12)] if number % 3 else None,
        )
        for number in range(500)
    ]
    some += [(None, None, None), (b"", b"", None), (b"gone", None, [("a", b"")])]
    batch = RecordBatch.of(framed(block_of(some), [100]), len(some), NOW_MS)
    assert batch.compressed
    finished = FinishedBatch(batch)
    finished._set_producer_state(*PRODUCER)
    read = DefaultRecordBatch(bytearray(finished._build()))
    assert read.validate_crc()
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == PRODUCER
    assert (read.first_timestamp, read.max_timestamp) == (NOW_MS, NOW_MS)
    found = [(r.key, r.value, list(r.headers) or None, r.offset, r.timestamp) for r in read]
    assert found == [(*record, offset, NOW_MS) for offset, record in enumerate(some)]


def test_what_does_not_become_smaller_is_not_compressed() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    batch = RecordBatch.of(framed(RecordBlock.of([None], [noise]), []), 1, NOW_MS)
    assert not batch.compressed
    read = DefaultRecordBatch(bytearray(batch.encode(*PRODUCER)))
    assert [record.value for record in read] == [noise]
