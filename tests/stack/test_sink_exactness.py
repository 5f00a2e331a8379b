"""The sink on the real broker and engine: every row once, whatever ends or comes again."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.history.store import connect
from routekeel.streams.sinks.run import run_sink
from tests.stack.sink_feed import Feed, counts, expected
from tests.stack.system import System, wait_until
from tests.stack.topics import recreate
from tests.unit.sink_records import telemetry_fields

pytestmark = pytest.mark.stack
IDLE = ("--until-idle", "1.5")


@pytest.fixture
def system(local_stack: LocalStack, tmp_path: Path, request: Any) -> Iterator[System]:
    local_stack.up()
    name = "sk-" + request.node.name.removeprefix("test_")[:40].replace("_", "-").strip("-")
    system = System(local_stack, tmp_path, name)
    try:
        yield system
    finally:
        system.close()


def test_kill_9_with_overlapping_repeats(system: System) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    settings = system.prepare()
    feed, published = Feed(settings), 0
    for _ in range(4):
        sink = system.start("sink", **{"sink.batch_rows_max": rng.randrange(50, 400)})
        new = rng.randrange(200, 600)
        again = rng.randrange(0, 1 + min(published, 150))
        thread = threading.Thread(
            target=feed.publish, args=(range(published - again, published + new),)
        )
        thread.start()
        target = 2 * 4 * published + rng.randrange(0, 2 * 4 * new)
        wait_until(lambda: counts(settings)["telemetry"][0] >= target, f"{target} rows")  # noqa: B023
        system.kill(sink)
        thread.join()
        published += new
    assert system.run("sink", *IDLE) == 0
    assert counts(settings) == expected(published)


def test_clickhouse_goes_and_comes_back(system: System, local_stack: LocalStack) -> None:
    settings = system.prepare()
    feed = Feed(settings)
    feed.publish(range(100))
    sink = system.start("sink")
    wait_until(lambda: counts(settings) == expected(100), "the first rows")
    for service in local_stack.status():
        if service.name == "clickhouse":
            assert service.pid is not None
            os.kill(service.pid, signal.SIGKILL)
    feed.publish(range(100, 600))
    wait_until(lambda: "trying again" in system.log_of(sink), "a failed insert")
    local_stack.up()
    wait_until(lambda: counts(settings) == expected(600), "all rows after the recovery")
    sink.terminate()
    assert sink.wait(30) == 0


def test_poison_and_garbage_become_dead_letters_and_the_rest_is_stored(system: System) -> None:
    settings = system.prepare()
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    client.command("ALTER TABLE telemetry MODIFY COLUMN request_id FixedString(16)")
    feed = Feed(settings)
    feed.publish(range(40))
    bad = [
        telemetry_fields(offset, layers=2, topic_id="logits-1", request_id="far too long for it")
        for offset in (40, 43)
    ]
    topic = settings.topics.telemetry
    feed.send(topic, 0, bad[0])
    for offset in (41, 42):
        feed.send(topic, 0, telemetry_fields(offset, layers=2))
    feed.send(topic, 0, bad[1])
    feed.raw(topic, 0, feed.encode(topic, bad[0])[:5] + b"garbage")
    feed.raw(topic, 0, b"\x00\x7f\xff\xff\x01unknown schema")
    feed.raw(topic, 0, None)
    feed.flush()
    result = run_sink(settings, until_idle_s=1.5)
    assert result.dead_letters == 5
    rows = client.query(
        "SELECT error_class, stage, hex(assumeNotNull(value)), header_names, header_values, source_offset "
        "FROM dead_letters ORDER BY source_offset"
    ).result_rows
    assert [row[0] for row in rows] == [
        "store_refused", "store_refused", "bad_body", "unknown_schema_id", "empty_value"
    ]  # fmt: skip
    assert {row[1] for row in rows} == {"sink"}
    assert bytes.fromhex(rows[3][2]) == b"\x00\x7f\xff\xff\x01unknown schema"
    assert rows[2][3] == ["trace"]
    telemetry, distinct = counts(settings)["telemetry"]
    assert telemetry == distinct == 4 * 40 * 2 + 2 * 2
    # A restart handles nothing again: the commit covers what left no rows.
    again = run_sink(settings, until_idle_s=1.0)
    assert again.dead_letters == 0
    assert sum(again.rows.values()) == 0


def test_two_sinks_share_and_hand_over(system: System) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    settings = system.prepare()
    feed, total = Feed(settings), 2000
    first = system.start("sink")
    publisher = threading.Thread(target=feed.publish, args=(range(total),))
    publisher.start()
    second = system.start("sink")
    wait_until(lambda: counts(settings)["telemetry"][0] > 2000, "some rows")
    third = system.start("sink")
    wait_until(lambda: counts(settings)["telemetry"][0] > 5000, "more rows")
    rng.choice([first, second]).terminate()
    system.kill(third)
    publisher.join()
    wait_until(lambda: counts(settings) == expected(total), "all rows, once")


def test_recreated_output_topic_is_read_from_its_start(system: System) -> None:
    settings = system.prepare()
    feed = Feed(settings)
    feed.publish(range(50))
    sink = system.start("sink")
    wait_until(lambda: counts(settings) == expected(50), "the first rows")
    recreate(settings, settings.topics.telemetry, settings.topics.weights)
    # The worker repeats some of what it had published, then goes on.
    Feed(settings).publish(range(30, 90))
    wait_until(lambda: counts(settings) == expected(90), "the rows of the new topic")
    sink.terminate()
    assert sink.wait(30) == 0


def test_recreated_source_is_another_source(system: System) -> None:
    settings = system.prepare()
    Feed(settings).publish(range(50))
    Feed(settings, topic_id="logits-2").publish(range(30))
    run_sink(settings, until_idle_s=1.0)
    both = {t: (a + b, a + b) for t, (a, _), (b, _) in zip_counts(expected(50), expected(30))}
    assert counts(settings) == both


def test_repeated_dead_letters_are_stored_once(system: System) -> None:
    settings = system.prepare()
    feed = Feed(settings)
    feed.letters([3, 9, 5])
    feed.letters([5, 3, 11])
    result = run_sink(settings, until_idle_s=1.0)
    assert result.repeats == 2
    assert counts(settings)["dead_letters"] == (4, 4)


def test_pages_say_what_happens_and_a_stop_is_clean(system: System) -> None:
    settings = system.prepare()
    Feed(settings).publish(range(20))
    sink = system.start("sink")
    path = settings.stack.state_dir / "run" / f"sink-{sink.pid}.json"
    wait_until(path.exists, "the runtime file")
    url = json.loads(path.read_text(encoding="utf-8"))["url"]
    wait_until(lambda: counts(settings) == expected(20), "the rows")
    with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
        assert json.load(reply)["ok"] is True
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    assert 'routekeel_sink_rows_total{table="telemetry"} 160.0' in text
    sink.terminate()
    assert sink.wait(30) == 0
    assert not path.exists()


def zip_counts(
    a: dict[str, tuple[int, int]], b: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    return ((table, a[table], b[table]) for table in a)
