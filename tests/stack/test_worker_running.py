"""A worker that runs while things happen to it: what its pages say, and that it goes on exactly."""

from __future__ import annotations

import json
import resource
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from routekeel.streams.produce.from_settings import sdk_config
from routekeel.streams.produce.publish import publish
from routekeel.streams.produce.synthetic import SyntheticLoad
from routekeel.streams.sdk.producer import Producer as SdkProducer
from routekeel.streams.settings import Settings
from routekeel.streams.topics import describe, ensure_topics
from tests.stack.exactness import assert_outputs_exact, assert_states_exact, expected
from tests.stack.system import MakeSystem, delete_records, end_of, log_ends, read_topic, wait_until
from tests.stack.topics import recreate

pytestmark = pytest.mark.stack
SMALL = {"worker.checkpoint_interval_s": 0.2}


def send(settings: Settings, seed: int, sessions: int = 6, chunks: int = 4) -> int:
    """Publish a synthetic load; how many chunks it had."""
    load = SyntheticLoad(sessions, chunks, shape=(2, 2, 4), seed=seed)
    with SdkProducer(sdk_config(settings), model="m", backend="test", top_k=2) as producer:
        assert publish(load, producer).delivered == len(load)
    return len(load)


def page(url: str, name: str) -> str:
    with urllib.request.urlopen(f"{url}/{name}", timeout=60) as reply:
        text: str = reply.read().decode()
    return text


def metrics(url: str) -> dict[str, float]:
    """Every sample of the worker's page, its name with the labels."""
    lines = [line for line in page(url, "metrics").splitlines() if not line.startswith("#")]
    pairs = [line.rpartition(" ") for line in lines]
    return {name.removeprefix("routekeel_worker_"): float(value) for name, _, value in pairs}


def test_the_pages_say_what_the_worker_does(system: MakeSystem) -> None:
    running = system("pages", **SMALL, **{"worker.sessions_max_per_partition": 1})
    settings = running.settings
    ensure_topics(settings)
    sent = send(settings, seed=1)
    raw = Producer(settings.kafka.client_config())
    raw.produce(settings.topics.logits, b"\x00\x00", b"k", partition=0)
    assert raw.flush(10) == 0
    worker = running.start("worker")
    url = running.pages(worker)

    def caught_up() -> bool:
        found = metrics(url)
        lag = [value for name, value in found.items() if name.startswith("lag_records")]
        caught_up = found["records_total"] == sent + 1 and len(lag) == 4 and not any(lag)
        return caught_up and found["checkpoints_total"] > 0

    wait_until(caught_up, "the lag to be 0 and a checkpoint", alive=[worker])
    found = metrics(url)
    used = {m.partition() for m in read_topic(settings, settings.topics.logits) if m.key() != b"k"}
    letters = {k: v for k, v in found.items() if k.startswith("dead_letters_total")}
    assert letters == {'dead_letters_total{reason="bad_framing"}': 1}
    sessions = [v for k, v in found.items() if k.startswith("sessions{")]
    assert max(sessions) == 1 and sum(sessions) == len(used)
    assert found['evictions_total{reason="cap"}'] >= 6 - sum(sessions)
    assert found["rows_total"] + found["rows_repeated_total"] == sent * 2 * 2
    assert found['outputs_total{topic="telemetry"}'] == sent
    assert found['outputs_total{topic="dlq"}'] == 1
    assert (found["recoveries_total"], found["recovery_seconds_count"]) == (4, 4)
    assert found["checkpoints_total"] >= 1 and found["changelog_bytes_total"] > 0
    assert found["input_bytes_total"] > sent * 2 * 2 * 4 * 2
    assert 0 < found["step_seconds_count"] == found["batch_records_count"] <= sent + 1
    assert found["batch_records_sum"] == sent + 1
    health = json.loads(page(url, "health"))
    assert (health["ok"], health["ready"], health["records"]) == (True, True, sent + 1)
    assert health["partitions"] == [0, 1, 2, 3] and set(health["lag"].values()) == {0}
    worker.terminate()
    assert worker.wait(30) == 0, running.log_of(worker)


def test_what_retention_removed_unread_is_counted_and_the_rest_goes_on(system: MakeSystem) -> None:
    """Rule 6 of the exactness rules: the log starts above the watermark."""
    running = system("retention", **SMALL)
    settings = running.settings
    ensure_topics(settings)
    sent = send(settings, seed=1)
    ends = log_ends(settings, settings.topics.logits)
    lost = {partition: end // 2 for partition, end in ends.items() if end >= 2}
    delete_records(settings, settings.topics.logits, lost)
    worker = running.start("worker")
    url = running.pages(worker)
    left = sent - sum(lost.values())
    wait_until(
        lambda: end_of(settings, settings.topics.telemetry) == left, "the outputs", alive=[worker]
    )
    assert metrics(url)["lost_to_retention_total"] == sum(lost.values()) > 0
    assert "were removed by retention before they were read" in running.log_of(worker)
    more = send(settings, seed=2)
    wait_until(
        lambda: end_of(settings, settings.topics.telemetry) == left + more, "more", alive=[worker]
    )
    worker.terminate()
    assert worker.wait(30) == 0, running.log_of(worker)
    # What was lost is in the changelog's watermark: a restart does not count it again.
    again = running.start("worker")
    page_again = running.pages(again)
    wait_until(
        lambda: json.loads(page(page_again, "health"))["ready"], "the recovery", alive=[again]
    )
    send(settings, seed=3)
    wait_until(lambda: metrics(page_again)["records_total"] == 24, "the last", alive=[again])
    assert metrics(page_again)["lost_to_retention_total"] == 0


def test_offsets_that_transactions_took_are_no_gap(system: MakeSystem) -> None:
    """A marker is no record: reading again would find the same for ever, also where a batch begins at it."""
    running = system("transaction", **SMALL)
    settings = running.settings
    ensure_topics(settings)
    producer = Producer(settings.kafka.client_config() | {"transactional.id": "transaction"})
    producer.init_transactions(30)
    worker = running.start("worker")
    url = running.pages(worker)
    for count in (
        1,
        2,
        3,
    ):  # each applied before the next is written: a batch begins after a marker
        producer.begin_transaction()
        producer.produce(settings.topics.logits, b"not even Avro", b"session", 0)
        producer.commit_transaction(30)
        wait_until(
            lambda count=count: end_of(settings, settings.topics.dlq) == count,
            "the dead letter",
            alive=[worker],
        )
    assert metrics(url)["offsets_without_record_total"] == 2
    worker.terminate()
    assert worker.wait(30) == 0, running.log_of(worker)


@pytest.mark.parametrize("gone", ["for a moment", "for long"])
def test_a_topic_that_is_recreated_under_a_running_worker_is_a_new_log(
    gone: str, system: MakeSystem
) -> None:
    running = system(f"recreated-{gone.split()[-1]}", **SMALL)
    settings = running.settings
    ensure_topics(settings)
    topic, telemetry = settings.topics.logits, settings.topics.telemetry
    first = send(settings, seed=1)
    worker = running.start("worker")
    url = running.pages(worker)
    wait_until(lambda: end_of(settings, telemetry) == first, "the outputs", alive=[worker])
    before = describe(settings, [topic])[topic].topic_id

    def rebalanced() -> None:
        """The group notices that the topic is gone, and the worker waits for it."""
        wait_until(
            lambda: "waiting for it" in running.log_of(worker), "a rebalance", alive=[worker]
        )

    recreate(settings, topic, meanwhile=rebalanced if gone == "for long" else None)
    after = describe(settings, [topic])[topic].topic_id
    second = send(settings, seed=2)
    wait_until(lambda: end_of(settings, telemetry) == first + second, "the new log", alive=[worker])
    assert metrics(url)["topic_recreated_total"] >= 1
    worker.terminate()
    assert worker.wait(30) == 0, running.log_of(worker)
    drivers = expected(settings)
    assert before != after
    ids = sources(settings)
    assert ids.count(before) == first and ids.count(after) == second
    # Sessions of the new log start anew only where their names do: the states are the oracle's.
    assert sum(len(driver.states()) for driver in drivers.values()) == 6


def sources(settings: Settings) -> list[str]:
    """The source topic id of every telemetry record."""
    from routekeel.streams.sdk.read import read_telemetry

    with read_telemetry(config=sdk_config(settings)) as records:
        return [record.id.topic_id for record in records]


def test_a_full_disk_ends_the_worker_with_what_to_do_and_loses_nothing(
    system: MakeSystem, tmp_path: Path
) -> None:
    running = system("full-disk", **SMALL, **{"worker.store": "rocksdb"})
    settings = running.settings
    ensure_topics(settings)
    telemetry = settings.topics.telemetry
    first = send(settings, seed=1)
    # Its messages go to a pipe: a file would be as full as the store's.
    worker = subprocess.Popen(
        running.line("worker", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    running.watch(worker, tmp_path / "unused")
    wait_until(lambda: end_of(settings, telemetry) == first, "the outputs", alive=[worker])
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1, 1))
    second = send(settings, seed=2)
    out, err = worker.communicate(timeout=60)
    said: Any = json.loads(out.decode().strip().splitlines()[-1])
    assert worker.returncode == said["exit_code"] == 1
    assert "cannot write the local state" in said["error"]
    assert "the disk may be full; nothing is lost" in said["hint"]
    assert b"Traceback" not in out + err, err.decode()
    last = running.start("worker", "--until-idle", "1")
    assert last.wait(60) == 0, running.log_of(last)
    drivers = expected(settings)
    assert sum(len(driver.log) for driver in drivers.values()) == first + second
    assert_states_exact(settings, drivers)
    assert_outputs_exact(settings, drivers)
