"""The registry against Confluent's own client: serializers, races, levels, and a restart."""

from __future__ import annotations

import http.client
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlparse
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from routekeel.infra.local.registry.schema import canonical
from routekeel.infra.local.stack import Endpoints, LocalStack

pytestmark = pytest.mark.stack


def text_of(*fields: dict[str, Any], name: str = "Reading") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


FIRST = text_of({"name": "a", "type": "int"})
WITH_DEFAULT = text_of({"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 7})
WITHOUT_DEFAULT = text_of({"name": "a", "type": "int"}, {"name": "b", "type": "int"})


@pytest.fixture
def client(endpoints: Endpoints) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": endpoints.registry_url})


@pytest.fixture
def subject() -> str:
    return f"s-{uuid4()}-value"


def avro(text: str) -> Schema:
    return Schema(text, "AVRO")


def call(
    endpoints: Endpoints, method: str, path: str, body: Any = None
) -> tuple[int, Any, str | None]:
    address = urlparse(endpoints.registry_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body))
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read()), response.getheader("Content-Type")


def test_records_travel_through_a_topic(endpoints: Endpoints, client: SchemaRegistryClient) -> None:
    topic = f"readings-{uuid4()}"
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(10)
    context = SerializationContext(topic, MessageField.VALUE)
    written = AvroSerializer(client, FIRST)({"a": 5}, context)
    assert written is not None
    producer = Producer({"bootstrap.servers": endpoints.kafka_bootstrap})
    producer.produce(topic, written)
    producer.flush(10)
    consumer = Consumer({"bootstrap.servers": endpoints.kafka_bootstrap, "group.id": "g"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(10)
    assert message is not None
    reader = AvroDeserializer(SchemaRegistryClient({"url": endpoints.registry_url}), WITH_DEFAULT)
    assert reader(message.value(), context) == {"a": 5, "b": 7}
    consumer.close()


def test_a_record_of_ten_megabytes_is_taken(endpoints: Endpoints) -> None:
    topic = f"big-{uuid4()}"
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(10)
    outcomes: list[Any] = []
    limit = 16 * 1024 * 1024
    producer = Producer(
        {"bootstrap.servers": endpoints.kafka_bootstrap, "message.max.bytes": limit}
    )
    value = os.urandom(10 * 1024 * 1024)
    producer.produce(topic, value, on_delivery=lambda error, _: outcomes.append(error))
    producer.flush(20)
    assert outcomes == [None]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(10)
    assert int(config["max.message.bytes"].value) == limit


def test_one_schema_one_id(client: SchemaRegistryClient, subject: str) -> None:
    schema_id = client.register_schema(subject, avro(FIRST))
    spaced = json.dumps(json.loads(FIRST), indent=4)
    assert client.register_schema(subject, avro(spaced)) == schema_id
    assert client.register_schema(subject + "2", avro(FIRST)) == schema_id
    latest = client.get_latest_version(subject)
    assert (latest.version, latest.schema_id) == (1, schema_id)
    assert client.lookup_schema(subject, avro(spaced)).version == 1
    fresh = SchemaRegistryClient({"url": client._rest_client.base_urls[0]})
    stored = fresh.get_schema(schema_id).schema_str
    assert stored is not None
    assert canonical(json.loads(stored)) == canonical(json.loads(FIRST))
    holding = fresh.get_schema_versions(schema_id)
    assert {v.subject for v in holding} >= {subject, subject + "2"}


def test_a_hundred_registrations_at_once_agree(endpoints: Endpoints, subject: str) -> None:
    def register(number: int) -> int:
        own = SchemaRegistryClient({"url": endpoints.registry_url})
        name = subject if number % 2 else f"{subject}-{number}"
        return int(own.register_schema(name, avro(text_of({"name": subject[2:6], "type": "int"}))))

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(register, range(100)))) == 1
    status, versions, _ = call(endpoints, "GET", f"/subjects/{subject}/versions")
    assert (status, versions) == (200, [1])


def test_different_schemas_at_once_get_different_versions(
    endpoints: Endpoints, subject: str
) -> None:
    def register(number: int) -> int:
        own = SchemaRegistryClient({"url": endpoints.registry_url})
        field = {"name": f"f{number}", "type": "int", "default": number}
        return int(own.register_schema(subject, avro(text_of(field))))

    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(register, range(20)))
    assert len(set(ids)) == 20
    assert call(endpoints, "GET", f"/subjects/{subject}/versions")[1] == list(range(1, 21))


def test_levels_decide(client: SchemaRegistryClient, subject: str) -> None:
    client.register_schema(subject, avro(FIRST))
    assert not client.test_compatibility(subject, avro(WITHOUT_DEFAULT))
    with pytest.raises(SchemaRegistryError) as caught:
        client.register_schema(subject, avro(WITHOUT_DEFAULT))
    assert (caught.value.http_status_code, caught.value.error_code) == (409, 409)
    assert "b: the writer has no such field" in caught.value.error_message
    client.set_compatibility(subject, "FORWARD")
    assert client.get_compatibility(subject) == "FORWARD"
    assert client.test_compatibility(subject, avro(WITHOUT_DEFAULT))
    client.register_schema(subject, avro(WITHOUT_DEFAULT))
    assert client.get_versions(subject) == [1, 2]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/none/versions/latest", None, 404, 40401),
        ("POST", "/subjects/none", {"schema": FIRST}, 404, 40401),
        ("GET", "/schemas/ids/99999", None, 404, 40403),
        ("GET", "/schemas/ids/x", None, 404, 40403),
        ("GET", "/config/none", None, 404, 40408),
        ("POST", "/subjects/x/versions", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/x/versions", {"schema": FIRST, "schemaType": "JSON"}, 422, 42201),
        ("POST", "/subjects/x/versions", b"no json", 422, 42201),
        ("PUT", "/config", {"compatibility": "SOMETIMES"}, 422, 42203),
        ("DELETE", "/subjects/none", None, 404, 40401),
        ("POST", "/compatibility/subjects/none/versions/1", {"schema": FIRST}, 404, 40401),
        ("GET", "/nowhere", None, 404, 404),
    ],
)
def test_refusals_have_confluents_codes(
    endpoints: Endpoints, method: str, path: str, body: Any, status: int, code: int
) -> None:
    got, answer, media = call(endpoints, method, path, body)
    assert (got, answer["error_code"]) == (status, code)
    assert answer["message"]
    assert (media or "").startswith("application/vnd.schemaregistry.v1+json")


def test_versions_are_only_marked_deleted(endpoints: Endpoints, subject: str) -> None:
    client = SchemaRegistryClient({"url": endpoints.registry_url})
    schema_id = client.register_schema(subject, avro(FIRST))
    client.register_schema(subject, avro(WITH_DEFAULT))
    assert client.delete_version(subject, 2) == 2
    assert call(endpoints, "GET", f"/subjects/{subject}/versions/2")[1]["error_code"] == 40402
    assert call(endpoints, "GET", f"/subjects/{subject}/versions/2?deleted=true")[0] == 200
    assert client.delete_subject(subject) == [1]
    assert subject not in client.get_subjects()
    assert subject in client.get_subjects(deleted=True)
    assert call(endpoints, "GET", f"/schemas/ids/{schema_id}")[0] == 200
    again = SchemaRegistryClient({"url": endpoints.registry_url})
    assert again.register_schema(subject, avro(FIRST)) == schema_id
    assert again.get_versions(subject) == [3]


def test_names_with_slashes_and_spaces(client: SchemaRegistryClient) -> None:
    name = f"a/b c%?ü-{uuid4()}"
    client.register_schema(name, avro(FIRST))
    assert client.get_versions(name) == [1]
    assert name in client.get_subjects()


def test_everything_is_there_after_a_kill(local_stack: LocalStack, subject: str) -> None:
    endpoints = local_stack.up()
    client = SchemaRegistryClient({"url": endpoints.registry_url})
    schema_id = client.register_schema(subject, avro(FIRST))
    client.set_compatibility(subject, "NONE")
    pid = next(s.pid for s in local_stack.status() if s.name == "registry")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while next(s for s in local_stack.status() if s.name == "registry").health != "stopped":
        pass
    assert local_stack.endpoints() is None
    assert local_stack.up().registry_url == endpoints.registry_url
    fresh = SchemaRegistryClient({"url": endpoints.registry_url})
    assert fresh.get_latest_version(subject).schema_id == schema_id
    assert fresh.get_compatibility(subject) == "NONE"
    assert fresh.register_schema(subject, avro('"int"')) != schema_id


def test_its_topic_is_compacted(endpoints: Endpoints) -> None:
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, "_schemas")
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["cleanup.policy"].value == "compact"
    assert len(admin.list_topics("_schemas", timeout=10).topics["_schemas"].partitions) == 1
