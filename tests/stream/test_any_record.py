"""Any record at all: each field of a valid chunk made extreme or of the wrong length, and no escape.

An exception out of `apply` ends the worker, whose successor reads the same record again: so whatever
decodes is either applied or dead-lettered, and the outputs of what is applied can be encoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.fields import Field
from routekeel.schemas.kinds import BYTES, Enum, Matrix, Nested, Scalar, Sequence
from routekeel.schemas.limits import TEXT_BYTES_MAX
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.config import TopologyConfig
from tests.stream.chunks import chunk_fields

INTS = st.sampled_from([0, 1, -1, 2, 3, 1023, 1024, 4096, 4097, 2**31 - 1, -(2**31)])
LONGS = INTS | st.sampled_from(
    [2**62, 2**62 + 1, 2**63 - 3, 2**63 - 2, 2**63 - 1, -(2**63), 1_790_000_000_000_000]
)
FLOATS = st.floats(width=32)
PROBE_FIELD = ROUTER_LOGITS.field("probe")
PROBE: dict[str, Any] = {
    **{"step": 0, "layers": [1], "epsilon": 0.1, "basis_id": "b", "directions": 2},
    **dict.fromkeys(("dx_norm", "dw_norm", "dy_norm"), b"\0\0\x80\x3f" * 2),
    **dict.fromkeys(("drift_dx_norm", "drift_dy_norm"), b"\0\0\x80\x3f"),
}
LENGTHS = st.sampled_from([0, 1, 3, 4, 8, 12, 16, 20, 24, 25, 48, 96])
TEXTS = st.text(max_size=3) | st.sampled_from(
    ["\0s", "s", "x" * TEXT_BYTES_MAX, "é" * 513, "x" * 65_536]
)
VALUES = st.sampled_from([0.0, 1.0, -1.0, 0.5, 65504.0, np.nan, np.inf, -np.inf, 3e38, 1e-45])


def blobs(dtype: str) -> st.SearchStrategy[bytes]:
    """Bytes of any length: random ones, and arrays of extreme numbers that may well fit."""
    with np.errstate(all="ignore"):
        kind = np.dtype(dtype)
    arrays = st.lists(VALUES, max_size=24).map(
        lambda values: (
            np.nan_to_num(np.array(values)).clip(-6e4, 6e4).astype(kind).tobytes()
            if kind.kind in "iu"
            else np.array(values, np.float64).astype(kind).tobytes()
        )
    )
    fitting = st.tuples(LENGTHS, st.binary(min_size=1, max_size=4)).map(
        lambda pair: (pair[1] * 96)[: pair[0]]
    )
    return arrays | fitting


def any_value(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case Enum(symbols=symbols):
            return st.sampled_from(symbols)
        case Sequence():
            ids = st.lists(INTS, max_size=4)
            return ids | ids.map(sorted) | st.just(list(range(1025)))
        case Matrix(dtype=dtype):
            return blobs(dtype)
        case Nested(fields=fields):
            return changed(PROBE, fields, 2)
        case Scalar(avro="boolean"):
            return st.booleans()
        case Scalar(avro="int"):
            return INTS
        case Scalar(avro="long"):
            return LONGS
        case Scalar(avro="float" | "double"):
            return FLOATS
        case Scalar(avro="string"):
            return TEXTS
    assert kind is BYTES, kind
    return blobs("<f2") | blobs("<f4")


def any_field(field: Field) -> st.SearchStrategy[Any]:
    return st.none() | any_value(field.kind) if field.nullable else any_value(field.kind)


def changed(good: dict[str, Any], fields: tuple[Field, ...], most: int) -> st.SearchStrategy[Any]:
    """A valid record with at least one and at most so many fields changed to what they can hold."""
    picked = st.lists(st.sampled_from(fields), min_size=1, max_size=most)
    changes = picked.flatmap(
        lambda some: st.fixed_dictionaries({f.name: any_field(f) for f in some})
    )
    return changes.map(lambda new: {**good, **new})


def changed_chunks() -> st.SearchStrategy[dict[str, Any]]:
    """A valid chunk with one to three fields changed to anything that the schema can hold."""
    chunks = st.builds(chunk_fields, st.just("s"), st.integers(0, 6), st.integers(1, 3))
    return chunks.flatmap(
        lambda good: (
            changed({**good, "probe": PROBE}, ROUTER_LOGITS.fields, 3)
            | changed({**good, "probe": PROBE}, (PROBE_FIELD,), 1)
        )
    )


@given(st.lists(changed_chunks(), min_size=1, max_size=6))
@settings(max_examples=250, deadline=None)
def test_nothing_escapes_and_every_record_is_accounted_for(log: list[dict[str, Any]]) -> None:
    with np.errstate(all="ignore"):
        driver = TopologyDriver(TopologyConfig(kernel="numpy", token_rows_share=1.0))
        for fields in log:
            driver.append(fields, 1_790_000_000_000)
        result = driver.processor.apply(driver.log)
        WorkerMetrics().count(result.counts)
    assert sorted(
        [output.offset for output in result.outputs]
        + [letter.record.offset for letter in result.dead_letters]
    ) == list(range(len(log)))
    assert not [
        letter for letter in result.dead_letters if letter.error_class == "unexpected_error"
    ]
    for output in result.outputs:
        assert driver.telemetry_decoder.decode(output.telemetry)["source_offset"] == output.offset
        if output.weights is not None:
            assert driver.weights_decoder.decode(output.weights)["source_offset"] == output.offset
