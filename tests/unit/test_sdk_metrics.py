"""The Prometheus view of the counters: sums over producers, and no counter runs backwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from routekeel.streams.sdk.producer import Producer
from routekeel.streams.sdk.refusal import REASONS
from tests.unit.mock_broker import closed_port

LOGITS = np.ones((1, 2, 4), np.float16)


@pytest.fixture
def servers() -> Iterator[str]:
    with closed_port() as address:
        yield address


def make(servers: str, registry: CollectorRegistry) -> Producer:
    return Producer(
        bootstrap_servers=servers,
        model="m",
        backend="b",
        top_k=2,
        schema_id=1,
        metrics_registry=registry,
    )


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(f"routekeel_sdk_{name}", labels)
    assert found is not None, name
    return found


def test_two_producers_share_a_registry(servers: str) -> None:
    registry = CollectorRegistry()
    one, two = make(servers, registry), make(servers, registry)
    one.emit_logits("s", LOGITS, position_start=0)
    two.emit_logits("s", LOGITS, position_start=0)
    two.emit_logits("", LOGITS, position_start=0)
    assert value(registry, "emitted_total") == 3
    assert value(registry, "accepted_total") == value(registry, "in_flight") == 2
    assert value(registry, "in_flight_bytes") == value(registry, "accepted_bytes_total") > 0
    assert value(registry, "dropped_total", reason="invalid_session") == 1
    one.close(0)
    assert value(registry, "emitted_total") == 3, "a closed producer's counts stay"
    assert value(registry, "in_flight") == 1
    assert value(registry, "dropped_total", reason="delivery_failed") == 1
    two.close(0)
    assert value(registry, "emitted_total") == 3
    assert value(registry, "dropped_total", reason="delivery_failed") == 2


def test_every_reason_is_a_label_from_the_start(servers: str) -> None:
    registry = CollectorRegistry()
    producer = make(servers, registry)
    text = generate_latest(registry).decode()
    for reason in REASONS:
        assert f'routekeel_sdk_dropped_total{{reason="{reason}"}} 0.0' in text
    producer.close(0)
