"""Runs one sink from start to end: checks, assembly, the loop, the pages, the account."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from routekeel.schemas.codec import Encoder
from routekeel.schemas.errors import RegistryUnavailable
from routekeel.schemas.records import DEAD_LETTER
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.errors import ConfigurationError, RoutekeelError, ServiceUnavailable
from routekeel.streams.history.store import apply_schema, connect
from routekeel.streams.registry import registry_of
from routekeel.streams.runtime_file import runtime_file
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.assignment import Starts
from routekeel.streams.sinks.batch import BatchLimits
from routekeel.streams.sinks.core import SinkCore
from routekeel.streams.sinks.edge import SinkEdge
from routekeel.streams.sinks.items import ItemDecoder, routes_of
from routekeel.streams.sinks.lease import Lease, LeaseTerms
from routekeel.streams.sinks.letters import LetterProducer
from routekeel.streams.sinks.log_ids import LogIds
from routekeel.streams.sinks.loop import SinkLoop
from routekeel.streams.sinks.metrics import SinkMetrics
from routekeel.streams.sinks.payload import build_payload, warm_up
from routekeel.streams.sinks.progress import SinkProgress, SinkResult, Totals
from routekeel.streams.sinks.store import TableStore
from routekeel.streams.sinks.web import WebPages
from routekeel.streams.topics import require

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S_MIN: Final = 1


class SinkFailed(RoutekeelError):
    """The sink ended because of an error; a supervisor should start it again."""


def run_sink(
    settings: Settings,
    *,
    until_idle_s: float | None = None,
    on_progress: Callable[[SinkProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> SinkResult:
    """Fill the tables until `stop` is set or, where asked for, nothing came for so many seconds.

    Blocking; call it from the thread that owns the consumer. Creates missing tables. Raises
    ServiceUnavailable where Kafka, the registry or ClickHouse cannot be reached at the start,
    ConfigurationError where a topic is missing or stack.state_dir cannot be written, SinkFailed when
    something broke that trying again does not mend. Services that go away later are waited for.
    """
    began = time.monotonic()
    routes = routes_of(settings)
    topics = require(settings, list(routes))
    terms = LeaseTerms.of(settings)
    client = _client(settings, terms)
    totals = Totals(anchors=frozenset(route.anchor for route in routes.values()), looped_at=began)
    totals.progress_at = began
    metrics = SinkMetrics()
    registry, dead_letter = _registry(settings)
    letters = LetterProducer(settings, dead_letter, topics[settings.topics.dlq].partitions)
    clock = time.monotonic
    log_ids = LogIds(settings, list(routes), clock)
    cluster = settings.clickhouse.cluster or ""
    lease = Lease(terms)
    store = TableStore(
        client,
        settings.clickhouse.database,
        terms,
        cluster,
        lambda: lease.allows_last_byte(clock()),
    )
    decoders = {topic: ItemDecoder(route, registry) for topic, route in routes.items()}
    limits = BatchLimits(settings.sink.batch_rows_max, settings.sink.batch_interval_s)
    core = SinkCore(
        routes, limits, lambda topic, records: decoders[topic].decode(records), build_payload
    )
    edge = SinkEdge(store, letters, log_ids, metrics, clock)
    starts = Starts(settings, routes, log_ids, store, clock)
    loop = SinkLoop(settings, routes, core, edge, starts, lease, metrics, totals, clock)
    pages = _pages(settings, metrics, totals, clock)
    warm_up()
    try:
        with runtime_file(settings.stack.state_dir, "sink", pages.url):
            idle = loop.run(stop or threading.Event(), until_idle_s, on_progress)
    except RoutekeelError:
        raise
    except Exception as error:
        log.error("the sink failed", exc_info=error)
        raise SinkFailed(
            f"the sink failed: {type(error).__name__}: {error}",
            "start it again; it goes on from what the tables hold",
        ) from error
    finally:
        pages.close()
        letters.close()
        client.close()
    return totals.result(time.monotonic() - began, idle)


def _client(settings: Settings, terms: LeaseTerms) -> Client:
    days = {
        "telemetry": settings.sink.telemetry_ttl_days,
        "weights": settings.sink.weights_ttl_days,
    }
    setup = connect(settings.clickhouse)
    try:
        apply_schema(setup, settings.clickhouse, days)
    finally:
        setup.close()
    return connect(
        settings.clickhouse,
        connect_timeout=max(CONNECT_TIMEOUT_S_MIN, int(terms.transfer_s / 2)),
        send_receive_timeout=math.ceil(terms.insert_bound_s),
    )


def _registry(settings: Settings) -> tuple[SchemaIds, Encoder]:
    ids = registry_of(settings, retries=0)
    try:
        schema_id = ids.register(DEAD_LETTER, subject_of(settings.topics.dlq))
    except RegistryUnavailable as error:
        raise ServiceUnavailable(
            f"the schema registry does not answer: {error.reason}",
            "routekeel up, or set registry.url",
        ) from error
    return ids, Encoder(DEAD_LETTER, schema_id)


def _pages(
    settings: Settings, metrics: SinkMetrics, totals: Totals, clock: Callable[[], float]
) -> WebPages:
    def health() -> dict[str, Any]:
        return totals.health(clock())

    host, port = settings.sink.web_host, settings.sink.web_port
    try:
        pages = WebPages(host, port, metrics.registry, health)
    except OSError as error:
        raise ConfigurationError(
            f"the sink's pages cannot be served on {host}:{port}: {error.strerror}",
            "set sink.web_port to a free port, or to 0 for any",
        ) from error
    log.info("metrics and health at %s", pages.url)
    return pages
