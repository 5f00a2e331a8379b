"""A log's bounds are asked for again while its partition has no leader or a question was lost."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings

LOST = -1001
"""What librdkafka answers, without an error, when the connection is lost."""


class Admin:
    """Answers with these errors first, then with 0 for a start and 7 for an end."""

    def __init__(self, errors: list[int]) -> None:
        self.errors = errors
        self.timeouts: list[float] = []
        self.looked = 0

    def list_topics(self, timeout: float) -> None:
        self.looked += 1
        if self.looked == 1:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def list_offsets(self, wanted: dict[Any, Any], request_timeout: float) -> dict[Any, Any]:
        self.timeouts.append(request_timeout)
        answers: dict[Any, Any] = {partition: Future() for partition in wanted}
        for partition, answer in answers.items():
            if self.errors and self.errors[0] == LOST:
                answer.set_result(SimpleNamespace(offset=self.errors.pop(0)))
            elif self.errors:
                answer.set_exception(KafkaException(KafkaError(self.errors.pop(0))))
            else:
                end = 7 if wanted[partition]._value == -1 else 0
                answer.set_result(SimpleNamespace(offset=end))
        return answers


def test_a_partition_without_a_leader_is_asked_again() -> None:
    admin = Admin(
        [
            KafkaError.NOT_LEADER_FOR_PARTITION,
            KafkaError.LEADER_NOT_AVAILABLE,
            KafkaError._TIMED_OUT,
        ]
    )
    assert log_bounds(Settings(), [("logits", 2)], admin) == {("logits", 2): (0, 7)}  # type: ignore[arg-type]
    assert admin.timeouts == [0.5, 1.0, 2.0, 4.0, 0.5]
    assert admin.looked == 2


def test_the_leaders_are_looked_for_where_the_client_goes_on_with_old_ones() -> None:
    admin = Admin([KafkaError.FENCED_LEADER_EPOCH, KafkaError._NOENT])
    assert log_bounds(Settings(), [("logits", 2)], admin) == {("logits", 2): (0, 7)}  # type: ignore[arg-type]
    assert admin.looked == 2


def test_a_lost_connection_is_no_offset() -> None:
    admin = Admin([LOST, LOST])
    assert log_bounds(Settings(), [("logits", 2)], admin) == {("logits", 2): (0, 7)}  # type: ignore[arg-type]
    assert (len(admin.timeouts), admin.looked) == (4, 0)


def test_any_other_error_is_told_at_once() -> None:
    admin = Admin([KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(ServiceUnavailable):
        log_bounds(Settings(), [("logits", 2)], admin)  # type: ignore[arg-type]
    assert len(admin.timeouts) == 1
