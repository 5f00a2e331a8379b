"""Where in a topic to start and to stop reading, as offsets per partition."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from routekeel.streams.errors import ConfigurationError, RoutekeelError, ServiceUnavailable

Position = Literal["earliest", "latest"] | Mapping[int, int] | datetime | int
"""'earliest', 'latest' (the end now), {partition: offset}, or a time: datetime or µs since 1970.

A time is compared with the record's Kafka timestamp: when it was written, not its event time.
"""


def partitions_of(consumer: Any, topic: str, servers: str, timeout_s: float) -> list[int]:
    """The topic's partitions. Raises ConfigurationError where it is missing, ServiceUnavailable."""
    try:
        found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        raise unreachable(servers, str(error.args[0].str())) from error
    if found.error is not None:
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ConfigurationError(
                f"there is no topic {topic!r} at {servers}", "`routekeel topics` creates them"
            )
        raise unreachable(servers, found.error.str())
    return sorted(found.partitions)


def bounds(
    consumer: Any, topic: str, partitions: list[int], servers: str, timeout_s: float
) -> dict[int, tuple[int, int]]:
    """The first offset and the end of each partition's log now. Raises ServiceUnavailable."""
    try:
        return {
            partition: consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=timeout_s
            )
            for partition in partitions
        }
    except KafkaException as error:
        raise unreachable(servers, str(error.args[0].str())) from error


def offsets_at(
    consumer: Any,
    topic: str,
    position: Position,
    logs: Mapping[int, tuple[int, int]],
    servers: str,
    timeout_s: float,
) -> dict[int, int]:
    """The offset of a position per partition; with a mapping only of the partitions in it.

    Raises ConfigurationError for a position that is none or lies outside the log, RoutekeelError
    where the records there were deleted by retention, ServiceUnavailable.
    """
    if position == "earliest":
        return {partition: low for partition, (low, _) in logs.items()}
    if position == "latest":
        return {partition: high for partition, (_, high) in logs.items()}
    if isinstance(position, datetime | int) and not isinstance(position, bool):
        try:
            return _at_time(consumer, topic, _time_ms(position), logs, timeout_s)
        except KafkaException as error:
            raise unreachable(servers, str(error.args[0].str())) from error
    if not isinstance(position, Mapping):
        raise ConfigurationError(
            f"{position!r} is no position in a topic",
            "'earliest', 'latest', {partition: offset}, a datetime or µs since 1970",
        )
    for partition, offset in position.items():
        if partition not in logs:
            raise ConfigurationError(f"topic {topic!r} has no partition {partition!r}")
        low, high = logs[partition]
        if offset < low:
            raise RoutekeelError(
                f"partition {partition} of {topic!r} begins at offset {low}: {offset} was deleted",
                "start at 'earliest'; topics.*_retention_h says how long records are kept",
            )
        if offset > high:
            raise ConfigurationError(
                f"partition {partition} of {topic!r} ends at offset {high}, before {offset}"
            )
    return dict(position)


def unreachable(servers: str, reason: str) -> ServiceUnavailable:
    """The error for a broker that does not answer."""
    return ServiceUnavailable(
        f"Kafka at {servers} cannot be reached: {reason}",
        "check kafka.bootstrap_servers, or start the local stack with `routekeel up`",
    )


def _time_ms(position: datetime | int) -> int:
    if isinstance(position, int):
        return position // 1000
    if position.tzinfo is None:
        raise ConfigurationError("a datetime needs a time zone", "e.g. datetime.now(UTC)")
    return int(position.timestamp() * 1000)


def _at_time(
    consumer: Any,
    topic: str,
    time_ms: int,
    logs: Mapping[int, tuple[int, int]],
    timeout_s: float,
) -> dict[int, int]:
    wanted = [TopicPartition(topic, partition, time_ms) for partition in logs]
    offsets: dict[int, int] = {}
    for tp in consumer.offsets_for_times(wanted, timeout=timeout_s):
        if tp.error is not None:
            raise KafkaException(tp.error)
        # The end says that every record is older.
        offsets[tp.partition] = logs[tp.partition][1] if tp.offset == OFFSET_END else tp.offset
    return offsets
