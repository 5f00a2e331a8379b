"""A time becomes offsets, and a broker that does not know them is no end of the log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, OFFSET_INVALID, KafkaError, KafkaException

from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.sdk.positions import offsets_at

LOGS = {0: (3, 20), 1: (0, 9)}


class Consumer:
    """Answers offsets_for_times with an offset and an error by partition."""

    def __init__(self, *answers: tuple[int, int | None], fails: int | None = None) -> None:
        self._answers, self._fails = answers, fails

    def offsets_for_times(self, wanted: list[Any], timeout: float) -> list[Any]:
        assert [(tp.partition, tp.offset) for tp in wanted] == [(0, 5), (1, 5)]
        if self._fails is not None:
            raise KafkaException(KafkaError(self._fails))
        return [
            SimpleNamespace(partition=p, offset=offset, error=code and KafkaError(code))
            for p, (offset, code) in enumerate(self._answers)
        ]


def found(consumer: Consumer) -> dict[int, int]:
    return offsets_at(consumer, "logits", 5_000, LOGS, "broker:1", 1.0)


def test_a_time_after_the_last_record_is_the_end() -> None:
    assert found(Consumer((7, None), (OFFSET_END, None))) == {0: 7, 1: 9}


@pytest.mark.parametrize(
    "consumer",
    [
        Consumer((7, None), (OFFSET_INVALID, KafkaError._TRANSPORT)),
        Consumer(fails=KafkaError._TIMED_OUT),
    ],
)
def test_no_answer_is_said_with_what_to_do(consumer: Consumer) -> None:
    with pytest.raises(ServiceUnavailable, match="Kafka at broker:1 cannot be reached") as raised:
        found(consumer)
    assert "bootstrap_servers" in str(raised.value.hint)
