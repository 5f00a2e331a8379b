"""The sink's compiled way gives the rows that fastavro and the plain columns give, and refuses the same."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.codec import Encoder
from routekeel.schemas.errors import BadRow, RegistryUnavailable
from routekeel.schemas.fields import Record
from routekeel.schemas.records import TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.schemas.tables import TELEMETRY_TABLE, WEIGHTS_TABLE, Grain, Table, tables_of
from routekeel.streams.sinks.block import Block
from routekeel.streams.sinks.dedupe import TableProgress, select_by_source
from routekeel.streams.sinks.items import ItemDecoder, Route
from routekeel.streams.sinks.payload import build_payload, bulk_batch, plain_batch
from routekeel.streams.topology.records import LogBatch, Source, SourceRecord
from tests.property.schema_values import values
from tests.unit.sink_records import telemetry_fields, weights_fields

SOURCE = Source("log", "log-1", 3)
EXAMPLES = settings(max_examples=60, deadline=None)


def ascii_only(value: Any) -> Any:
    """The same with texts that the compiled decoder reads."""
    if isinstance(value, dict):
        return {name: ascii_only(inner) for name, inner in value.items()}
    return value.encode("ascii", "replace").decode() if isinstance(value, str) else value


def decoder_of(record: Record) -> tuple[ItemDecoder, Encoder]:
    ids = FixedSchemaIds()
    encoder = Encoder(record, ids.register(record, ""))
    return ItemDecoder(Route("log", record, tables_of(record)), ids), encoder


def log_of(data: list[bytes | None]) -> LogBatch:
    """Records with holes between their offsets, as a compacted log or a transaction has them."""
    return LogBatch.of(
        [SourceRecord(10 + 2 * n, 1_790_000_000_000 + n, b"k", v, ()) for n, v in enumerate(data)]
    )


def compare(decoder: ItemDecoder, records: LogBatch) -> tuple[Block, Block]:
    """Both ways, held against each other; the blocks."""
    fast, trouble = decoder.decode(records)
    plain = Block.of([decoder.decode_one(records[index]) for index in range(len(records))])
    assert trouble == ""
    for name in ("offsets", "times_ms", "rows", "usable"):
        assert getattr(fast, name).tolist() == getattr(plain, name).tolist(), name
    assert dict(fast.refused) == dict(plain.refused) and fast.letters() == plain.letters()
    for index in np.flatnonzero(plain.usable).tolist():
        assert fast.identity(index) == plain.identity(index)
    compare_rows(decoder, fast, plain)
    return fast, plain


def compare_rows(decoder: ItemDecoder, fast: Block, plain: Block) -> None:
    for table in tables_of(decoder._record):
        progress = TableProgress(seen=11, sources={("id", 1): 40})
        ours, theirs = (select_by_source(progress, block, table.needs) for block in (fast, plain))
        assert ours.items.offsets.tolist() == theirs.items.offsets.tolist()
        assert (ours.repeats, ours.after) == (theirs.repeats, theirs.after)
        assert rows_of(table, ours.items) == rows_of(table, theirs.items), table.name
        batch = bulk_batch(table, ours.items, SOURCE)
        if batch is not None:
            wanted = plain_batch(table, theirs.items, SOURCE)
            assert batch.schema == wanted.schema and text_of(batch) == text_of(wanted), table.name
            batch.validate(full=True)


def rows_of(table: Table, block: Block) -> Any:
    """How many rows, or which record does not fit and why."""
    try:
        return build_payload(table, block, SOURCE).rows
    except BadRow as error:
        return error.index, error.reason


def text_of(batch: Any) -> list[str]:
    """As text: NaN is NaN, and every float is told from every other."""
    plain = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in batch.columns
    ]
    rows = zip(*(column.to_pylist() for column in plain), strict=True)
    return [repr(row) for row in rows]


@pytest.mark.parametrize("record", [TELEMETRY, WEIGHTS])
def test_any_values(record: Record) -> None:
    decoder, encoder = decoder_of(record)

    @EXAMPLES
    @given(st.lists(values(record), max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
    def check(drawn: list[dict[str, Any]], plain_text: list[bool]) -> None:
        fields = [ascii_only(v) if a else v for v, a in zip(drawn, plain_text, strict=False)]
        compare(decoder, log_of([encoder.encode(value) for value in fields]))

    check()


@pytest.mark.parametrize("record", [TELEMETRY, WEIGHTS])
@pytest.mark.parametrize("seed", range(12))
def test_damaged_bytes(record: Record, seed: int) -> None:
    """Whatever fastavro makes of them: another value, or a refusal."""
    rng = random.Random(seed)
    decoder, encoder = decoder_of(record)
    make = telemetry_fields if record is TELEMETRY else weights_fields
    data: list[bytes | None] = [None, b"", b"\x00\x00"]
    for offset in range(40):
        more = {"token_steps": offset % 3} if record is TELEMETRY else {}
        value = bytearray(encoder.encode(make(offset, layers=3, **more)))
        for _ in range(rng.randint(0, 2)):
            value[rng.randrange(len(value))] = rng.randrange(256)
        data.append(bytes(value[: rng.randint(0, len(value))] if rng.random() < 0.2 else value))
    rng.shuffle(data)
    compare(decoder, log_of(data))


def test_what_is_ordinary_goes_the_compiled_way() -> None:
    """Otherwise the comparisons above would compare the plain way with itself."""
    decoder, encoder = decoder_of(TELEMETRY)
    fields = [telemetry_fields(n, layers=3, token_steps=n % 2 * 2) for n in range(100)]
    block, _ = decoder.decode(log_of([encoder.encode(value) for value in fields]))
    assert not block.fields and bulk_batch(TELEMETRY_TABLE, block, SOURCE) is not None
    decoder, encoder = decoder_of(WEIGHTS)
    half = np.ones((2, 4), "<f2").tobytes()
    for changes in ({}, {"w_hat": b"", "w_hat_half": half}):
        fields = [weights_fields(n, **changes) for n in range(100)]
        block, _ = decoder.decode(log_of([encoder.encode(value) for value in fields]))
        for table in tables_of(WEIGHTS):
            batch = bulk_batch(table, block, SOURCE)
            assert batch is not None
            assert text_of(batch) == text_of(plain_batch(table, block, SOURCE))
    assert WEIGHTS_TABLE.grain is Grain.LAYER


@pytest.mark.parametrize("seed", range(8))
def test_cut_and_joined_blocks_are_the_same_records(seed: int) -> None:
    rng = random.Random(seed)
    decoder, encoder = decoder_of(TELEMETRY)
    data: list[bytes | None] = []
    for n in range(60):
        session = rng.choice(["s", "sesión"])  # the second is left to fastavro
        fields = telemetry_fields(
            n, topic_id=f"id-{n // 20}", layers=2, session_id=session, model=f"m{n}"
        )
        data.append(encoder.encode(fields) if rng.random() < 0.9 else b"bad")
    records = log_of(data)
    whole, _ = decoder.decode(records)
    cuts = [0, *sorted(rng.sample(range(1, 60), 4)), 60]
    parts = [decoder.decode(records[a:b])[0] for a, b in pairwise(cuts)]
    again = Block.joined([piece for part in parts for piece in halves(part)])
    compare_rows(decoder, again, whole)
    assert again.letters() == whole.letters()
    chosen = np.flatnonzero(np.array([rng.random() < 0.5 for _ in range(60)]))
    compare_rows(decoder, again.part(chosen), whole.part(chosen))


def halves(block: Block) -> list[Block]:
    middle = len(block) // 2
    return [block.part(slice(middle)), block.part(slice(middle, None))]


class HalfDeaf:
    """A registry that answers for what it knows, and for nothing else."""

    def __init__(self, ids: FixedSchemaIds) -> None:
        self._ids, self.answers = ids, False

    def writer(self, schema_id: int) -> Any:
        """As the other, where it answers."""
        if schema_id == 77 and not self.answers:
            raise RegistryUnavailable("it is restarting")
        return self._ids.writer(schema_id)


def test_a_block_ends_before_the_record_whose_schema_nobody_knows_now() -> None:
    ids = FixedSchemaIds()
    encoder = Encoder(TELEMETRY, ids.register(TELEMETRY, ""))
    registry: Any = HalfDeaf(ids)
    decoder = ItemDecoder(Route("log", TELEMETRY, tables_of(TELEMETRY)), registry)
    ours = [encoder.encode(telemetry_fields(n)) for n in range(4)]
    records = log_of([b"bad", *ours[:2], b"\x00" + (77).to_bytes(4, "big") + ours[2][5:], ours[3]])
    block, trouble = decoder.decode(records)
    assert trouble == "it is restarting" and block.offsets.tolist() == [10, 12, 14]
    assert block.usable.tolist() == [False, True, True]
    registry.answers = True  # that it is no schema of ours condemns the record, not the others
    rest, trouble = decoder.decode(records[len(block) :])
    assert trouble == "" and rest.usable.tolist() == [False, True]
    assert rest.refused[16].error_class == "unknown_schema_id"


def test_a_bad_record_among_many_does_not_slow_the_others() -> None:
    decoder, encoder = decoder_of(TELEMETRY)
    good = [encoder.encode(telemetry_fields(n, layers=3)) for n in range(8)]
    records = log_of([*good[:4], b"bad", *good[4:]])
    parts = [decoder.decode(records[a:b])[0] for a, b in ((0, 4), (4, 5), (5, 9))]
    whole = Block.joined(parts)
    chosen = select_by_source(TableProgress(), whole).items
    assert len(chosen) == 8 and bulk_batch(TELEMETRY_TABLE, chosen, SOURCE) is not None
