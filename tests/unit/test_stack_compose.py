"""docker-compose.yml, structurally: pinned images, health, order, loopback, no password inside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from routekeel.infra.compose.probe import answers
from routekeel.streams.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
CONDITIONS = {"service_healthy", "service_completed_successfully"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text("utf-8"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]  # type: ignore[no-any-return]


def conditions_on(services: dict[str, dict[str, Any]], name: str) -> set[str]:
    wanted = [service.get("depends_on", {}).get(name) for service in services.values()]
    return {row["condition"] for row in wanted if row}


def test_every_image_is_pinned(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.fullmatch(r"\d+(\.\d+)+", tag), f"{name}: {service['image']}"
    dockerfile = (ROOT / "infra/compose/Dockerfile").read_text("utf-8")
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert bases
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)


def test_what_is_built_exists(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    dockerfile = (ROOT / "infra/compose/Dockerfile").read_text("utf-8")
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored


def test_every_lasting_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        once = conditions_on(services, name) == {"service_completed_successfully"}
        assert once or service["healthcheck"]["test"], name
        assert service["restart"] == ("no" if once else "unless-stopped"), name


def test_order_refers_to_what_is_there(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for needed, row in service.get("depends_on", {}).items():
            assert needed in services, f"{name} needs {needed}"
            assert row["condition"] in CONDITIONS
            if row["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]


def test_ports_are_open_on_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_the_password_comes_from_outside(services: dict[str, dict[str, Any]]) -> None:
    values = [
        value
        for service in services.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert values
    assert all(v.startswith("${ROUTEKEEL_CLICKHOUSE__PASSWORD:?") for v in values)


def test_volumes_are_declared(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    used = {v.split(":")[0] for s in services.values() for v in s.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_the_variables_are_settings(services: dict[str, dict[str, Any]]) -> None:
    for name in ("worker", "sink", "topics"):
        environment = {
            key: re.sub(r"\$\{\w+:[-?](.*)\}", r"\1", value)
            for key, value in services[name]["environment"].items()
        }
        loaded = load_settings(environ=environment).settings
        assert loaded.kafka.bootstrap_servers == "kafka:19092"
        assert loaded.clickhouse.host == "clickhouse"


def test_the_probe_tells_an_answer_from_none() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    assert answers(f"{address}/health")
    assert not answers(f"{address}/other")
    server.shutdown()
    thread.join()
    server.server_close()
    assert not answers(f"{address}/health")


def test_docker_reads_it() -> None:
    docker = shutil.which("docker")
    command = [docker or "docker", "compose"]
    if docker is None or subprocess.run([*command, "version"], capture_output=True).returncode:
        pytest.skip("no docker compose on this machine")
    done = subprocess.run(
        [*command, "-f", str(COMPOSE), "config", "--quiet"],
        capture_output=True,
        text=True,
        env={**os.environ, "ROUTEKEEL_CLICKHOUSE__PASSWORD": "for the check only"},
    )
    assert done.returncode == 0, done.stderr
