"""The producers' counters for Prometheus, read when scraped: emit_logits only adds plain ints."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from routekeel.streams.sdk.refusal import REASONS
from routekeel.streams.sdk.stats import ProducerStats

_COUNTERS = (
    ("emitted", "Chunks handed to emit_logits."),
    ("accepted", "Chunks handed to the Kafka client."),
    ("delivered", "Chunks that the broker acknowledged."),
    ("accepted_bytes", "Bytes handed to the Kafka client, with a fixed overhead per record."),
)
_GAUGES = (
    ("in_flight", "Chunks that wait for the broker's acknowledgement."),
    ("in_flight_bytes", "Bytes that wait for it."),
    ("buffer_bytes", "The most bytes that may wait."),
    ("sessions", "Sessions whose sequence is remembered."),
)


class Source(Protocol):
    """What the collector reads: a producer."""

    def stats(self) -> ProducerStats:
        """The counts now."""
        ...


class ProducerCollector(Collector):
    """The sum over the producers of one metrics registry, closed ones included.

    Closing adds a producer's final counts to a base, so that counters never run backwards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: list[Source] = []
        self._base = {name: 0 for name, _ in _COUNTERS}
        self._base_dropped = dict.fromkeys(REASONS, 0)

    def add(self, source: Source) -> None:
        """Count a producer in."""
        with self._lock:
            self._sources.append(source)

    def retire(self, source: Source) -> None:
        """Keep a closed producer's counts and forget the producer."""
        stats = source.stats()
        with self._lock:
            if source in self._sources:
                self._sources.remove(source)
                for name in self._base:
                    self._base[name] += getattr(stats, name)
                for reason, count in stats.dropped.items():
                    self._base_dropped[reason] += count

    def describe(self) -> list[CounterMetricFamily]:
        """Nothing: it keeps the registry from collecting just to learn the names."""
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The families of this moment."""
        with self._lock:
            current = [source.stats() for source in self._sources]
            base, dropped = dict(self._base), dict(self._base_dropped)
        for name, text in _COUNTERS:
            total = base[name] + sum(getattr(stats, name) for stats in current)
            yield CounterMetricFamily(f"routekeel_sdk_{name}", text, value=total)
        for name, text in _GAUGES:
            value = sum(getattr(stats, name) for stats in current)
            yield GaugeMetricFamily(f"routekeel_sdk_{name}", text, value=value)
        family = CounterMetricFamily(
            "routekeel_sdk_dropped", "Chunks that were not sent, by reason.", labels=["reason"]
        )
        for reason, before in dropped.items():
            count = before + sum(stats.dropped.get(reason, 0) for stats in current)
            family.add_metric([reason], count)
        yield family


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, ProducerCollector] = (
    weakref.WeakKeyDictionary()
)
_collectors_lock = threading.Lock()


def collector_of(registry: CollectorRegistry) -> ProducerCollector:
    """The registry's collector, made and registered on first use."""
    with _collectors_lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _collectors[registry] = ProducerCollector()
            registry.register(collector)
        return collector
