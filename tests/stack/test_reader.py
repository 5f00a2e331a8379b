"""The reader on the real broker: where it starts and ends, what it leaves out, what it says."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from routekeel import read_telemetry, read_weights
from routekeel.infra.local.stack import LocalStack
from routekeel.streams.errors import ConfigurationError, RoutekeelError
from routekeel.streams.produce.from_settings import sdk_config
from routekeel.streams.produce.publish import publish
from routekeel.streams.produce.synthetic import SyntheticLoad
from routekeel.streams.sdk.producer import Producer
from routekeel.streams.sdk.read import read_logits
from routekeel.streams.settings import Settings
from routekeel.streams.topics import ensure_topics
from tests.stack.sink_feed import LAYERS, Feed
from tests.stack.system import MakeSystem, System, delete_records, read_topic, wait_until
from tests.unit.sink_records import telemetry_fields, weights_fields

pytestmark = pytest.mark.stack
OFFSETS, PARTITIONS, REPEATED = 20, (0, 1, 2, 3), range(5, 12)
EVERY = [(p, o) for p in PARTITIONS for o in range(OFFSETS)]


@pytest.fixture(scope="module")
def settings(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Topics with 20 source offsets in each of four partitions; seven of them come twice."""
    local_stack.up()
    settings = System(local_stack, tmp_path_factory.mktemp("reader"), "reader").settings
    ensure_topics(settings)
    feed = Feed(settings)
    feed.publish(range(12))
    feed.publish(REPEATED)
    feed.publish(range(12, OFFSETS))
    return settings


def ids(records: Any) -> list[tuple[int, int]]:
    """(partition, source offset) of what a reader gives, sorted; the reader is closed."""
    with records:
        return sorted((r.id.partition, r.id.offset) for r in records)


def test_from_the_beginning_repeats_are_dropped_and_counted(settings: Settings) -> None:
    for read in (read_telemetry, read_weights):
        with read(config=sdk_config(settings)) as records:
            found = [r.id for r in records]
            assert records.repeats_dropped == len(PARTITIONS) * len(REPEATED)
        assert sorted((i.partition, i.offset) for i in found) == EVERY
        for partition in PARTITIONS:
            assert [i.offset for i in found if i.partition == partition] == list(range(OFFSETS))


def test_values_are_the_published_ones(settings: Settings) -> None:
    shape: dict[str, Any] = {"layers": LAYERS, "topic_id": "logits-1"}
    with read_telemetry({2: 0}, config=sdk_config(settings)) as records:
        for record in records:
            at = record.id.offset
            steps = 0 if at % 10 else 3
            wanted = telemetry_fields(at, partition=2, token_steps=steps, **shape)
            assert record.g_base.tobytes() == wanted["g_base"]
            assert (record.session_id, record.a_star) == (wanted["session_id"], wanted["a_star"])
    with read_weights({2: 0}, config=sdk_config(settings)) as weights:
        for weight in weights:
            wanted = weights_fields(weight.id.offset, partition=2, **shape)
            assert weight.w_hat.tobytes() == wanted["w_hat"]
            assert weight.w_hat.shape == (LAYERS, 4)


def test_from_offsets_to_offsets(settings: Settings) -> None:
    """Offsets of the topic, not of the source: 12 to 18 are the repeats of 5 to 11."""
    config = sdk_config(settings)
    assert ids(read_telemetry({1: 3, 3: 18}, until={1: 8, 3: 20}, config=config)) == [
        (1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (3, 11), (3, 12),
    ]  # fmt: skip
    with read_telemetry({0: 4}, until={0: 9}, config=config) as records:
        first = [r.id.offset for r in records]
        resume = records.offsets
    assert (first, resume) == ([4, 5, 6, 7, 8], {0: 9})
    rest = ids(read_telemetry(resume, config=config))
    # What lies below the first offset seen counts as a repeat: 5 to 8 were given before.
    assert rest == [(0, o) for o in range(9, OFFSETS)]


def test_from_a_time_and_from_the_end(settings: Settings) -> None:
    config = sdk_config(settings)
    now = datetime.now(UTC)
    assert ids(read_telemetry(now - timedelta(hours=1), config=config)) == EVERY
    assert ids(read_telemetry(now + timedelta(hours=1), config=config)) == []
    assert ids(read_telemetry("latest", config=config)) == []
    hour_ago_us = int((now - timedelta(hours=1)).timestamp() * 1e6)
    assert ids(read_telemetry("earliest", until=hour_ago_us, config=config)) == []


def test_a_time_between_two_records(settings: Settings, system: MakeSystem) -> None:
    own = system("reader-time").settings
    ensure_topics(own)
    feed, config = Feed(own), sdk_config(own)
    feed.publish(range(3), [0])
    (last,) = [m for m in read_topic(own, own.topics.telemetry) if m.offset() == 2]
    after = datetime.fromtimestamp((last.timestamp()[1] + 1) / 1000, UTC)
    wait_until(lambda: datetime.now(UTC) > after, "the next millisecond")
    feed.publish(range(3, 5), [0])
    assert ids(read_telemetry(after, config=config)) == [(0, 3), (0, 4)]
    assert ids(read_telemetry(until=after, config=config)) == [(0, 0), (0, 1), (0, 2)]


def test_one_session_and_one_model(settings: Settings) -> None:
    config = sdk_config(settings)
    # The feed writes every record under one key, so a session's name as key finds nothing.
    assert ids(read_telemetry(session_id="session-0-1", config=config)) == []
    assert len(ids(read_telemetry(session_id="key", config=config))) == len(EVERY)
    assert ids(read_telemetry(model="model-1", config=config)) == [e for e in EVERY if e[1] % 2]


def test_wrong_positions_are_refused_with_what_to_do(settings: Settings) -> None:
    config = sdk_config(settings)
    cases: list[tuple[Any, str]] = [
        ("yesterday", "no position"),
        ({9: 0}, "no partition 9"),
        ({0: 10_000}, "ends at offset"),
        (datetime(2026, 1, 1), "time zone"),
    ]
    for start, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            read_telemetry(start, config=config)
    with pytest.raises(ConfigurationError, match="there is no topic") as caught:
        read_telemetry(config=config, topic="reader.nowhere")
    assert "routekeel topics" in caught.value.hint


def test_following_gives_what_comes_and_ends_on_stop(
    settings: Settings, system: MakeSystem
) -> None:
    own = system("reader-follow").settings
    ensure_topics(own)
    feed = Feed(own)
    feed.publish(range(3), [0])
    found: list[int] = []
    caught_up, all_there = threading.Event(), threading.Event()
    with read_telemetry(config=sdk_config(own), follow=True) as records:

        def follow() -> None:
            for record in records:
                found.append(record.id.offset)
                (
                    caught_up if len(found) == 3 else all_there if len(found) == 5 else caught_up
                ).set()

        reader = threading.Thread(target=follow)
        reader.start()
        assert caught_up.wait(20)
        feed.publish(range(1, 5), [0])
        assert all_there.wait(20)
        records.stop()
        reader.join(20)
        assert not reader.is_alive()
        assert records.repeats_dropped == 2
    assert found == [0, 1, 2, 3, 4]


def test_bad_records_raise_or_are_handed_out(settings: Settings, system: MakeSystem) -> None:
    own = system("reader-bad").settings
    ensure_topics(own)
    feed, topic = Feed(own), own.topics.telemetry
    feed.publish([0], [0])
    feed.raw(topic, 0, b"\x00\x00")
    feed.raw(topic, 0, None)
    feed.publish([1], [0])
    config = sdk_config(own)
    with (
        read_telemetry(config=config) as records,
        pytest.raises(RoutekeelError, match=f"{topic}/0/1 cannot be decoded") as caught,
    ):
        list(records)
    assert "on_error" in caught.value.hint
    bad: list[Any] = []
    assert ids(read_telemetry(config=config, on_error=bad.append)) == [(0, 0), (0, 1)]
    assert [(b.topic, b.partition, b.offset) for b in bad] == [(topic, 0, 1), (topic, 0, 2)]


def test_deleted_records_are_said(settings: Settings, system: MakeSystem) -> None:
    own = system("reader-deleted").settings
    ensure_topics(own)
    Feed(own).publish(range(10), [0])
    delete_records(own, own.topics.telemetry, {0: 4})
    config = sdk_config(own)
    assert ids(read_telemetry(config=config)) == [(0, o) for o in range(4, 10)]
    with pytest.raises(RoutekeelError, match="begins at offset 4: 2 was deleted"):
        read_telemetry({0: 2}, config=config)


def test_logits_come_as_they_were_emitted(settings: Settings) -> None:
    """The synthetic load is the truth: every chunk in the log equals the one its seed gives again."""
    load = SyntheticLoad(4, 6, shape=(3, 2, 8), seed=5)
    config = sdk_config(settings)
    with Producer(config, model="m", backend="test", top_k=2) as producer:
        assert publish(load, producer).delivered == len(load)
    with read_logits(config=config) as records:
        found = {(r.session_id, r.position_start): r for r in records}
    assert len(found) == len(load)
    for session in range(4):
        for chunk in range(6):
            wanted = load.chunk(session, chunk)
            record = found[wanted.session_id, wanted.fields["position_start"]]
            assert np.array_equal(record.matrix, wanted.logits.astype(np.float32))
            assert (record.sequence, record.model) == (chunk, "synthetic")
            predictive = np.frombuffer(record.value["ambiguity_predictive"], "<f4")
            assert np.array_equal(predictive, wanted.fields["ambiguity"]["predictive"])
