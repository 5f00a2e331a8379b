"""The worker's decoder: a bad record is refused at once, a registry that is away refuses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from routekeel.schemas.codec import Encoder
from routekeel.schemas.errors import RegistryUnavailable
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.app import decoding
from routekeel.streams.app.decoding import LogitsDecoder
from routekeel.streams.topology.records import Refusal
from tests.stream.chunks import chunk_fields


class Registry(FixedSchemaIds):
    """Away for the first `away` questions; counts them."""

    def __init__(self, away: int = 0) -> None:
        super().__init__()
        self.away, self.asked = away, 0

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        self.asked += 1
        if self.asked <= self.away:
            raise RegistryUnavailable("no answer")
        return super().writer(schema_id)


def encoded(registry: Registry) -> bytes:
    schema_id = registry.register(ROUTER_LOGITS, "logits-value")
    return Encoder(ROUTER_LOGITS, schema_id).encode(chunk_fields("s", 0))


async def test_a_good_record_costs_one_question() -> None:
    registry = Registry()
    value, decoder = encoded(registry), LogitsDecoder(registry)
    await decoder.resolve([value, None, b"", b"x", value])
    assert registry.asked == 1
    assert decoder.decode(value)["session_id"] == "s"
    asked = registry.asked
    await decoder.resolve([value])
    assert decoder.decode(value)["session_id"] == "s"
    assert registry.asked == asked  # nobody is asked again


@pytest.mark.parametrize(
    ("change", "error_class"),
    [
        (lambda v: v[:4], "bad_framing"),
        (lambda v: b"\1" + v[1:], "bad_framing"),
        (lambda v: b"\0\0\0\1\1" + v[5:], "unknown_schema_id"),
        (lambda v: v[:40], "bad_body"),
        (lambda v: v + b"\0", "bad_body"),
    ],
)
async def test_bad_records_are_refused_by_kind(change: Any, error_class: str) -> None:
    registry = Registry()
    value, decoder = change(encoded(registry)), LogitsDecoder(registry)
    await decoder.resolve([value])
    with pytest.raises(Refusal) as caught:
        decoder.decode(value)
    assert caught.value.error_class == error_class


async def test_another_records_schema_is_refused() -> None:
    registry = Registry()
    other = registry.register(TELEMETRY, "telemetry-value")
    value, decoder = encoded(registry), LogitsDecoder(registry)
    value = b"\0" + other.to_bytes(4, "big") + value[5:]
    await decoder.resolve([value])
    with pytest.raises(Refusal) as caught:
        decoder.decode(value)
    assert caught.value.error_class == "wrong_record"


async def test_an_id_that_is_registered_later_is_known_then() -> None:
    registry = Registry()
    late = Encoder(ROUTER_LOGITS, 1).encode(chunk_fields("s", 0))
    decoder = LogitsDecoder(registry)
    await decoder.resolve([late])
    with pytest.raises(Refusal):
        decoder.decode(late)
    assert registry.register(ROUTER_LOGITS, "logits-value") == 1
    await decoder.resolve([late])
    assert decoder.decode(late)["session_id"] == "s"


async def test_a_registry_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(away=5)
    value, decoder = encoded(registry), LogitsDecoder(registry)
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr(decoding.asyncio, "sleep", sleep)
    await decoder.resolve([value])
    assert decoder.decode(value)["session_id"] == "s"
    assert len(waits) == 5
    assert max(waits) <= 6.0


async def test_resolved_ids_are_bounded_and_never_missing_from_their_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "RESOLVED_KEPT_MAX", 2)
    registry = Registry()
    value, decoder = encoded(registry), LogitsDecoder(registry)
    known = {registry.add({"type": "record", "name": f"r{n}", "fields": []}) for n in range(6)}
    for schema_id in sorted(known):
        await decoder.resolve([b"\0" + schema_id.to_bytes(4, "big") + b"x", value])
        assert len(decoder._resolved) <= 2
        assert decoder.decode(value)["session_id"] == "s"
