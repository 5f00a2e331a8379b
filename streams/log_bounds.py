"""Where each partition's log begins and ends, asked for in two requests and until there is an answer."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from routekeel.streams.settings import Settings
from routekeel.streams.topics import TIMEOUT_S, admin_client, unavailable

FIRST_TIMEOUT_S = 0.5


def log_bounds(
    settings: Settings, partitions: Iterable[tuple[str, int]], admin: AdminClient | None = None
) -> dict[tuple[str, int], tuple[int, int]]:
    """(start, end) of each log partition, in two requests however many there are.

    A consumer's get_watermark_offsets takes half a second for each. Raises ServiceUnavailable.
    """
    admin = admin or admin_client(settings)
    keys = list(partitions)
    try:
        starts, ends = (
            ask_offsets(admin, {TopicPartition(*key): spec for key in keys})
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        )
    except KafkaException as error:
        raise unavailable(settings, error) from error
    return {key: (starts[key], ends[key]) for key in keys}


# Who was asked leads the partition no more, or another time than the client thinks.
_LEADER_MOVED = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._NOENT,
)


def _code(error: BaseException | None) -> int | None:
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _asks_again(error: BaseException) -> bool:
    """Whether the next question may have an answer.

    A partition has no leader just after its topic was made or its broker came back; and a new client's first
    look for the leaders is lost now and then, which costs it a whole timeout.
    """
    return _code(error) in (*_LEADER_MOVED, KafkaError._TIMED_OUT, KafkaError._TRANSPORT)


def ask_offsets(
    admin: AdminClient, wanted: dict[TopicPartition, OffsetSpec]
) -> dict[tuple[str, int], int]:
    """The offset at each place wanted, by (topic, partition). Raises KafkaException where none comes."""
    if not wanted:
        return {}

    def look_for_leaders(state: RetryCallState) -> None:
        # The client itself goes on with the leaders it knows from before a broker came back, and is refused
        # for ever: list_offsets does not make it look.
        if state.outcome and _code(state.outcome.exception()) in _LEADER_MOVED:
            with suppress(KafkaException):
                admin.list_topics(timeout=FIRST_TIMEOUT_S)

    for attempt in Retrying(
        retry=retry_if_exception(_asks_again),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(TIMEOUT_S),
        before_sleep=look_for_leaders,
        reraise=True,
    ):
        with attempt:
            timeout_s = FIRST_TIMEOUT_S * 2 ** (attempt.retry_state.attempt_number - 1)
            futures = admin.list_offsets(wanted, request_timeout=min(timeout_s, TIMEOUT_S))
            found = {(tp.topic, tp.partition): f.result().offset for tp, f in futures.items()}
            if min(found.values()) < 0:  # so it says that the connection was lost
                raise KafkaException(KafkaError(KafkaError._TRANSPORT))
            return found
    raise AssertionError("the last attempt returns or raises")
