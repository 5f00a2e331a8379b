"""A field encoded alone is compiled once: partitions come and go, and each encodes its constants anew."""

from __future__ import annotations

from routekeel.schemas.compiled import encode_field, encoder
from routekeel.schemas.records import TELEMETRY


def test_a_field_is_compiled_once() -> None:
    field = next(field for field in TELEMETRY.fields if field.name == "policy_version")
    first = encode_field(field, 7)
    compiled = encoder.cache_info().currsize
    assert [encode_field(field, 7) for _ in range(5)] == [first] * 5
    assert encoder.cache_info().currsize == compiled
