"""One local stack for all tests that need real services: its own state directory, its own ports."""

from __future__ import annotations

import http.client
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import pytest

from routekeel.infra.local.ports import any_free
from routekeel.infra.local.stack import Endpoints, LocalStack, StackConfig
from tests.stack.system import MakeSystem, System


def config_at(state_dir: Path) -> StackConfig:
    """A configuration that cannot meet another stack's ports or data."""
    return StackConfig(
        state_dir=state_dir,
        kafka_port=any_free(),
        registry_port=any_free(),
        clickhouse_port=any_free(),
        clickhouse_memory_mb=2048,
    )


def client_of(at: Endpoints, **more: Any) -> Any:
    """A ClickHouse client with the stack's credentials; `more` goes to the client."""
    arguments = {
        "host": at.clickhouse_host,
        "port": at.clickhouse_port,
        "username": at.clickhouse_username,
        "password": at.clickhouse_password,
        "database": at.clickhouse_database,
    }
    return clickhouse_connect.get_client(**{**arguments, **more})


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A running stack. Tests that stop or kill its services must bring them up again."""
    stack = LocalStack(config_at(tmp_path_factory.mktemp("stack") / "state"))
    stack.up()
    yield stack
    stack.wipe()


@pytest.fixture
def endpoints(local_stack: LocalStack) -> Endpoints:
    """The running stack's addresses."""
    return local_stack.up()


@pytest.fixture
def connect(endpoints: Endpoints) -> Callable[..., Any]:
    """Opens a ClickHouse client with the stack's credentials; arguments go to the client."""

    return partial(client_of, endpoints)


@pytest.fixture
def client(connect: Callable[..., Any]) -> Iterator[Any]:
    """A ClickHouse client."""
    made = connect()
    yield made
    made.close()


@pytest.fixture
def raw(endpoints: Endpoints) -> Callable[..., tuple[int, dict[str, str], bytes]]:
    """Sends one HTTP request to the ClickHouse port: status, headers and body come back."""

    def send(
        method: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        **parameters: str,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(
            endpoints.clickhouse_host, endpoints.clickhouse_port
        )
        user = f"{endpoints.clickhouse_username}:{endpoints.clickhouse_password}"
        basic = {"Authorization": "Basic " + b64encode(user.encode()).decode()}
        url = f"/?{urlencode(parameters)}"
        connection.request(method, url, body, {**basic, **(headers or {})})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()

    return send


@pytest.fixture
def system(local_stack: LocalStack, tmp_path: Path) -> Iterator[MakeSystem]:
    """Makes systems with names of their own; what they started is ended."""
    made: list[System] = []

    def make(name: str, **flags: Any) -> System:
        local_stack.up()
        made.append(System(local_stack, tmp_path, name, **flags))
        return made[-1]

    yield make
    for one in made:
        one.close()
