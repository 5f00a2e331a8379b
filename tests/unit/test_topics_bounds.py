"""A log's bounds are asked for again while its partition has no leader or a question was lost."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.settings import Settings
from routekeel.streams.topics import log_bounds


class Admin:
    """Answers with these errors first, then with 0 for a start and 7 for an end."""

    def __init__(self, errors: list[int]) -> None:
        self.errors = errors
        self.timeouts: list[float] = []

    def list_offsets(self, wanted: dict[Any, Any], request_timeout: float) -> dict[Any, Any]:
        self.timeouts.append(request_timeout)
        answers: dict[Any, Any] = {partition: Future() for partition in wanted}
        for partition, answer in answers.items():
            if self.errors:
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


def test_any_other_error_is_told_at_once() -> None:
    admin = Admin([KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(ServiceUnavailable):
        log_bounds(Settings(), [("logits", 2)], admin)  # type: ignore[arg-type]
    assert len(admin.timeouts) == 1
