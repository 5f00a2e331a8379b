"""A library that says the same a thousand times a minute is heard once in a while, with a count."""

from __future__ import annotations

import logging

from routekeel.streams.cli.log_throttle import INTERVAL_S, KINDS_MAX, LogThrottle


class Clock:
    """Seconds that are set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(name: str, text: str, *values: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, values, None)


def test_one_of_a_kind_passes_and_the_next_says_how_many_did_not() -> None:
    clock = Clock()
    throttle = LogThrottle("routekeel", clock)
    assert throttle.filter(line("aiokafka", "no %s", 1))
    for number in range(1_500):
        assert not throttle.filter(line("aiokafka", "no %s", number))
    for other in (line("aiokafka", "another %s", 1), line("faust", "no %s", 1),
                  line("aiokafka", "no %s", 1, level=logging.WARNING)):  # fmt: skip
        assert throttle.filter(other)
    clock.now = INTERVAL_S
    again = line("aiokafka", "no %s", 7)
    assert throttle.filter(again)
    assert again.getMessage() == "no 7 (1,500 more of these were held back)"
    clock.now = 2 * INTERVAL_S
    alone = line("aiokafka", "no %s", 8)
    assert throttle.filter(alone) and alone.getMessage() == "no 8"


def test_lines_of_our_own_all_pass() -> None:
    throttle = LogThrottle("routekeel", Clock())
    assert all(throttle.filter(line("routekeel.streams.app", "same")) for _ in range(5))
    assert [throttle.filter(line("routekeeler", "same")) for _ in range(2)] == [True, False]


def test_it_forgets_when_there_are_too_many_kinds() -> None:
    throttle = LogThrottle("routekeel", Clock())
    for number in range(3 * KINDS_MAX):
        assert throttle.filter(line("library", f"text {number}"))
        assert len(throttle._said) <= KINDS_MAX
