"""The same system on the official images, where a container engine answers; skipped elsewhere.

Broker and ClickHouse run in containers with the settings of docker-compose.yml. The registry is
our own module beside them: it needs no image, and speaks the same protocol.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from routekeel.infra.local.ports import any_free
from routekeel.infra.local.services import answers_http
from tests.stack.system import MakeSystem, System, wait_until

COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
PASSWORD = "for-this-test-only"


def service(name: str) -> dict[str, Any]:
    """A service of docker-compose.yml."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"][name]
    return found


@pytest.fixture(scope="session")
def engine() -> Any:
    """The container engine. Skips where none answers."""
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env(timeout=5)
        client.ping()
    except Exception as error:  # whatever keeps it from answering, there is none to use
        pytest.skip(f"no container engine answers: {type(error).__name__}")
    return client


@pytest.fixture(scope="session")
def kafka(engine: Any) -> Iterator[str]:
    """A broker; its address on this machine."""
    from testcontainers.core.container import DockerContainer

    wanted, port = service("kafka"), any_free()
    environment = wanted["environment"] | {
        "KAFKA_ADVERTISED_LISTENERS": f"INSIDE://localhost:19092,OUTSIDE://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    }
    container = DockerContainer(wanted["image"])
    container.ports["9092/tcp"] = ("127.0.0.1", port)  # on this machine only
    for name, value in environment.items():
        container = container.with_env(name, value)
    with container:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})

        def answers() -> bool:
            try:
                return bool(admin.list_topics(timeout=2).brokers)
            except Exception:
                return False

        wait_until(answers, "the broker's container")
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def clickhouse(engine: Any) -> Iterator[dict[str, Any]]:
    """A ClickHouse server; the settings that lead to it."""
    from testcontainers.core.container import DockerContainer

    port = any_free()
    container = (
        DockerContainer(service("clickhouse")["image"])
        .with_env("CLICKHOUSE_USER", "routekeel")
        .with_env("CLICKHOUSE_PASSWORD", PASSWORD)
    )
    container.ports["8123/tcp"] = ("127.0.0.1", port)
    with container:
        wait_until(lambda: answers_http(port, "/ping", 2.0), "the store's container")
        yield {
            "clickhouse.host": "127.0.0.1",
            "clickhouse.port": port,
            "clickhouse.username": "routekeel",
            "clickhouse.password": PASSWORD,
        }


@pytest.fixture(scope="session")
def registry(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our registry over the container's broker; its URL."""
    port, state = any_free(), tmp_path_factory.mktemp("registry")
    process = subprocess.Popen(
        [sys.executable, "-m", "routekeel.infra.local.registry", "--state", str(state),
         "--port", str(port), "--bootstrap", kafka]
    )  # fmt: skip
    try:
        wait_until(lambda: answers_http(port, "/subjects", 2.0), "the registry", alive=[process])
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def system(
    kafka: str, clickhouse: dict[str, Any], registry: str, tmp_path: Path
) -> Iterator[MakeSystem]:
    """Makes systems with names of their own on the containers, as the stack's fixture does."""
    made: list[System] = []
    places = {"kafka.bootstrap_servers": kafka, "registry.url": registry, **clickhouse}

    def make(name: str, **flags: Any) -> System:
        state = {"stack.state_dir": str(tmp_path / "state")}
        made.append(System(None, tmp_path, f"docker-{name}", **{**state, **places, **flags}))
        return made[-1]

    yield make
    for one in made:
        one.close()
