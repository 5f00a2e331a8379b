"""Eviction depends on the log alone: idle sessions by event time, the least recent above the cap."""

from __future__ import annotations

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.session import Session
from tests.stream.chunks import START_US, chunk_fields

MINUTE_US = 60_000_000


def test_an_idle_session_is_evicted_with_a_tombstone_and_starts_anew() -> None:
    driver = TopologyDriver(TopologyConfig(session_ttl_us=MINUTE_US))
    driver.append(chunk_fields("old", 0, event_time_us=START_US))
    driver.append(chunk_fields("new", 0, event_time_us=START_US + 2 * MINUTE_US))
    driver.run()
    assert set(driver.states()) == {b"new"}
    assert [r.key for r in driver.changelog if r.value is None] == [b"old"]
    driver.append(chunk_fields("old", 3, event_time_us=START_US + 2 * MINUTE_US))
    fresh = TopologyDriver(TopologyConfig())
    fresh.append(chunk_fields("old", 3))
    driver.run()
    fresh.run()
    assert (
        Session.decode(driver.states()[b"old"]).packed.tobytes()
        == Session.decode(fresh.states()[b"old"]).packed.tobytes()
    )


def test_the_cap_evicts_the_least_recently_touched() -> None:
    driver = TopologyDriver(TopologyConfig(sessions_max=2))
    for index, session in enumerate(("a", "b", "a", "c")):
        driver.append(chunk_fields(session, 3 * index))
    driver.run()
    assert set(driver.states()) == {b"a", b"c"}


def test_a_clock_far_ahead_does_not_evict_everything() -> None:
    driver = TopologyDriver(
        TopologyConfig(session_ttl_us=MINUTE_US, event_time_skew_us=MINUTE_US // 2)
    )
    driver.append(chunk_fields("a", 0))
    far = START_US + 1000 * MINUTE_US
    driver.append(chunk_fields("b", 0, event_time_us=far), timestamp_ms=START_US // 1000)
    driver.run()
    assert set(driver.states()) == {b"a", b"b"}
    assert driver.telemetry()[1]["event_time_us"] == far


def test_a_recreated_topic_starts_at_its_own_beginning() -> None:
    driver = TopologyDriver(TopologyConfig())
    driver.append(chunk_fields("s", 0))
    driver.append(chunk_fields("s", 3))
    driver.run()
    driver.log.clear()
    driver.source = driver.source._replace(topic_id="log-2")
    driver.append(chunk_fields("s", 6))
    driver.crash()
    assert driver.processor.recreated
    driver.run()
    sent = [driver.telemetry_decoder.decode(output.telemetry) for output in driver.sent]
    places = [(t["source_topic_id"], t["source_offset"]) for t in sent]
    assert places == [("log-1", 0), ("log-1", 1), ("log-2", 0)]
    assert Session.decode(driver.states()[b"s"]).requests[0].position == 8
