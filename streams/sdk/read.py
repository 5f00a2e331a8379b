"""read_telemetry, read_weights, read_logits: the topics as iterators, for anybody's program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar, Unpack

from routekeel.schemas.codec import Decoder, WriterSchemas
from routekeel.schemas.fields import Record
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import SchemaIds
from routekeel.schemas.views import RouterLogitsView, TelemetryView, View, WeightsView
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.sdk.positions import Position
from routekeel.streams.sdk.reader import BadRecord, TopicReader

TIMEOUT_S = 30.0
V = TypeVar("V", bound=View)


class ReadOptions(TypedDict, total=False):
    """How to read a topic; the same for all three.

    until: a Position to stop at (default: the end at the start of reading).
    follow: go on with records as they come (False).
    session_id, model: only records of that session or model.
    on_error: gets each BadRecord; without it a bad record raises.
    config: an SdkConfig (default: from the ROUTEKEEL_* variables).
    bootstrap_servers, registry_url, topic: over what the config says.
    schemas: where schema ids are looked up (default: the registry).
    timeout_s: how long the broker may give nothing before the end is reached (30).
    """

    until: Position | None
    follow: bool
    session_id: str | None
    model: str | None
    on_error: Callable[[BadRecord], None] | None
    config: SdkConfig | None
    bootstrap_servers: str | None
    registry_url: str | None
    topic: str | None
    schemas: WriterSchemas | None
    timeout_s: float


def read_telemetry(
    start: Position = "earliest", **options: Unpack[ReadOptions]
) -> TopicReader[TelemetryView]:
    """The telemetry topic, one TelemetryView per chunk, repeats left out; see ReadOptions.

    Records come in the log's order within a partition, so within a session; partitions interleave.
    Raises ConfigurationError where the topic is missing or `start` is no position in it, and
    ServiceUnavailable where Kafka or the registry does not answer.

        with read_telemetry(session_id="s-1") as records:
            for record in records:
                print(record.position, record.g_base.max(), record.a_star)
    """
    config = _config(options)
    return _reader(TELEMETRY, TelemetryView, config.telemetry_topic, start, config, options, True)


def read_weights(
    start: Position = "earliest", **options: Unpack[ReadOptions]
) -> TopicReader[WeightsView]:
    """The weights topic, one WeightsView per chunk (`w_hat` float32[L, E]); as read_telemetry."""
    config = _config(options)
    return _reader(WEIGHTS, WeightsView, config.weights_topic, start, config, options, True)


def read_logits(
    start: Position = "earliest", **options: Unpack[ReadOptions]
) -> TopicReader[RouterLogitsView]:
    """The logits topic: a RouterLogitsView per chunk (`matrix` float32[T, L, E]), with repeats."""
    config = _config(options)
    return _reader(ROUTER_LOGITS, RouterLogitsView, config.topic, start, config, options, False)


def _config(options: ReadOptions) -> SdkConfig:
    config = options.get("config")
    names = ("bootstrap_servers", "registry_url")
    given = {name: options[name] for name in names if options.get(name)}  # type: ignore[literal-required]
    return config.with_fields(**given) if config is not None else SdkConfig.from_environ(**given)


def _reader(
    record: Record,
    view: Callable[[Mapping[str, Any]], V],
    topic: str,
    start: Position,
    config: SdkConfig,
    options: ReadOptions,
    drop_repeats: bool,
) -> TopicReader[V]:
    schemas = options.get("schemas") or SchemaIds(
        config.registry_url,
        user=config.registry_username or "",
        password=config.registry_password or "",
        ca_location=config.ssl_ca_file or "",
        timeout_s=config.registry_timeout_s,
    )
    return TopicReader(
        config,
        options.get("topic") or topic,
        view,
        Decoder(record, schemas),
        start=start,
        until=options.get("until"),
        follow=options.get("follow", False),
        session_id=options.get("session_id"),
        model=options.get("model"),
        on_error=options.get("on_error"),
        timeout_s=options.get("timeout_s", TIMEOUT_S),
        drop_repeats=drop_repeats,
    )
