"""The whole way on the real services: produce, worker, sink, audit, and other people's consumers."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from routekeel.infra.local.stack import LocalStack
from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.history.audit import audit
from routekeel.streams.history.sql import run_query
from routekeel.streams.sdk.read import read_telemetry
from routekeel.streams.settings import Settings
from routekeel.streams.topics import ensure_topics
from tests.stack.system import MakeSystem, System, read_topic, wait_until
from tests.stream.chunks import chunk_fields

pytestmark = pytest.mark.stack
IDLE = ("--until-idle", "2")


def run_through(running: System) -> None:
    """Worker and sink to the end of what is there."""
    for command in ("worker", "sink"):
        process = running.start(command, *IDLE)
        assert process.wait(120) == 0, running.log_of(process)


def test_synthetic_load_arrives_once_and_stock_consumers_read_it(
    system: MakeSystem, tmp_path: Path
) -> None:
    running = system("whole-way")
    settings = running.prepare()
    load = ("--synthetic", "--sessions", "20", "--chunks", "10", "--shape", "4,2,8", "--seed", "3")
    assert running.run("produce", *load, "--json") == 0
    run_through(running)
    report = audit(settings)
    found = (report.ok, report.events, report.rows, report.missing, report.duplicated, report.dlq)
    assert found == (True, 200, 200, 0, 0, 0)
    _stock_python_consumer_agrees(settings)
    with read_telemetry(bootstrap_servers=settings.kafka.bootstrap_servers, registry_url=settings.registry.url,
                        topic=settings.topics.telemetry) as records:  # fmt: skip
        own = {(r.session_id, r.position): r.g_base.max() for r in records}
    assert len(own) == 200
    rows = run_query(
        settings, "SELECT session_id, position, max(g_base_max) FROM telemetry GROUP BY 1, 2"
    ).rows
    assert {(s, p) for s, p, _ in rows} == set(own)
    assert all(value >= own[s, p] - 1e-5 for s, p, value in rows)


def _stock_python_consumer_agrees(settings: Settings) -> None:
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": settings.registry.url}))
    context = SerializationContext(settings.topics.telemetry, MessageField.VALUE)
    values = [
        deserialize(m.value(), context) for m in read_topic(settings, settings.topics.telemetry)
    ]
    assert len(values) == 200
    assert {value["experts"] for value in values} == {8}
    assert all(len(value["g_base"]) == 4 * len(value["layers"]) for value in values)


def test_the_brokers_console_consumer_reads_the_topics(
    system: MakeSystem, local_stack: LocalStack, tmp_path: Path
) -> None:
    running = system("console")
    settings = running.prepare()
    load = ("--synthetic", "--sessions", "3", "--chunks", "2", "--shape", "2,2,4")
    assert running.run("produce", *load) == 0
    assert running.run("worker", *IDLE) == 0
    java, classpath = _kafka_of(local_stack)
    done = subprocess.run(
        [java, "-Xmx256m", "-cp", classpath, "org.apache.kafka.tools.consumer.ConsoleConsumer",
         "--bootstrap-server", settings.kafka.bootstrap_servers, "--topic", settings.topics.telemetry,
         "--from-beginning", "--max-messages", "6", "--timeout-ms", "30000",
         "--property", "print.key=true", "--property", "key.separator=|"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert done.stdout.count(b"synthetic-") >= 6


def _kafka_of(stack: LocalStack) -> tuple[str, str]:
    """Java and the class path of the running broker, as its own command line has them."""
    import psutil

    (broker,) = [service for service in stack.status() if service.name == "kafka"]
    line = psutil.Process(broker.pid).cmdline()
    return line[0], line[line.index("-cp") + 1]


def framed(settings: Settings, **changes: object) -> bytes:
    """A valid RouterLogits message."""
    ids = SchemaIds(settings.registry.url)
    schema_id = ids.register(ROUTER_LOGITS, subject_of(settings.topics.logits))
    return Encoder(ROUTER_LOGITS, schema_id).encode(chunk_fields("s", 0, **changes))


def test_bad_records_go_to_the_dlq_whole_and_the_rest_goes_on(system: MakeSystem) -> None:
    running = system("bad-records")
    settings = running.prepare()
    now_us = time.time_ns() // 1000
    good = framed(settings, event_time_us=now_us)
    bad = {
        b"truncated": good[: len(good) // 2],
        b"random": bytes(range(200)),
        b"unknown": b"\0\0\x98\x96\x7f" + good[5:],
        b"large": b"\0" + bytes(10 * 2**20),
        b"empty": b"",
        b"s": framed(settings, event_time_us=now_us, session_id=""),
    }
    producer = Producer(
        settings.kafka.client_config() | {"message.max.bytes": settings.topics.record_bytes_max}
    )
    for key, value in bad.items():
        producer.produce(
            settings.topics.logits, value, key, headers=[("trace", b"1"), ("trace", None)]
        )
    producer.produce(settings.topics.logits, good, b"s")
    assert producer.flush(30) == 0
    run_through(running)
    rows = run_query(
        settings,
        "SELECT key, error_class, length(value), header_names, stage FROM dead_letters ORDER BY key",
    ).rows
    assert {row[0]: row[1] for row in rows} == {
        "empty": "bad_framing", "large": "unknown_schema_id", "random": "unknown_schema_id",
        "s": "empty_session_id", "truncated": "bad_body", "unknown": "unknown_schema_id",
    }  # fmt: skip
    assert {row[0]: row[2] for row in rows} == {k.decode(): len(v) for k, v in bad.items()}
    assert all(list(row[3]) == ["trace", "trace"] and row[4] == "worker" for row in rows)
    report = audit(settings)
    assert (report.ok, report.events, report.rows, report.dlq) == (True, 7, 1, 6)


def test_a_recreated_topic_is_taken_for_a_new_log(system: MakeSystem) -> None:
    running = system("recreated")
    settings = running.prepare()
    load = ("--synthetic", "--sessions", "5", "--chunks", "4", "--shape", "2,2,4", "--seed")
    assert running.run("produce", *load, "1") == 0
    run_through(running)
    first = audit(settings)
    admin = AdminClient(settings.kafka.client_config())
    admin.delete_topics([settings.topics.logits])[settings.topics.logits].result()
    wait_until(lambda: settings.topics.logits not in admin.list_topics().topics, "the deletion")
    ensure_topics(settings)
    assert running.run("produce", *load, "2") == 0
    run_through(running)
    second = audit(settings)
    assert first.ok and second.ok
    assert first.topic_id != second.topic_id
    assert (first.events, second.events) == (20, 20)


def test_commands_say_what_is_away(system: MakeSystem) -> None:
    running = system("away")
    nowhere = {"kafka.bootstrap_servers": "127.0.0.1:1"}
    worker = running.start("worker", "--json", **nowhere)
    assert worker.wait(60) == 3
    last = json.loads(running.log_of(worker).strip().splitlines()[-1])
    assert "127.0.0.1:1" in last["error"] and "routekeel up" in last["hint"]
    running.prepare()
    sink = running.start("sink", "--json", **{"clickhouse.port": 1})
    assert sink.wait(60) == 3
    assert "ClickHouse" in json.loads(running.log_of(sink).strip().splitlines()[-1])["error"]
    registry = running.start("worker", "--json", **{"registry.url": "http://127.0.0.1:1"})
    assert registry.wait(90) == 3
    assert "registry" in json.loads(running.log_of(registry).strip().splitlines()[-1])["error"]
