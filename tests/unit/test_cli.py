"""The commands without services: help, wrong use, exit codes, and one JSON object on the last line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import routekeel
from routekeel.streams.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [command.name for command in app.registered_commands if command.name]
runner = CliRunner()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack's state and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROUTEKEEL_STACK__STATE_DIR", str(tmp_path / "state"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The commands")[2]
    assert f"`routekeel {command}" in table or f"`{command}`" in table


def test_the_version() -> None:
    assert routekeel.__version__ in runner.invoke(app, ["--version"]).stdout


@pytest.mark.parametrize(
    "line",
    [
        ["nonsense"],
        ["produce"],
        ["produce", "file.jsonl", "--synthetic"],
        ["produce", "--synthetic", "--shape", "1,2"],
        ["produce", "none.jsonl"],
        ["config", "--set", "topics.partitions"],
        ["config", "--set", "topics.partition=3"],
        ["config", "--config", "none.yaml"],
        ["audit", "--partition", "-1"],
    ],
)
def test_wrong_use_ends_with_2(line: list[str]) -> None:
    result = runner.invoke(app, line)
    assert result.exit_code == 2, result.output
    assert result.output.strip()


def test_config_as_json_and_for_people() -> None:
    result = runner.invoke(app, ["config", "--json", "--set", "worker.store=rocksdb"])
    assert result.exit_code == 0
    last = json.loads(result.stdout.strip().splitlines()[-1])
    assert last["worker.store"] == {"value": "rocksdb", "origin": "flag"}
    assert last["stack.state_dir"]["origin"] == "variable ROUTEKEEL_STACK__STATE_DIR"
    text = runner.invoke(app, ["config"]).stdout
    assert "kafka.bootstrap_servers" in text and "default" in text


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["config", "--set", "topics.partition=3"], 2),
        (["topics", "--set", "kafka.bootstrap_servers=127.0.0.1:1"], 3),
        (["sql", "SELECT 1", "--set", "clickhouse.port=1"], 3),
        (["audit", "--set", "kafka.bootstrap_servers=127.0.0.1:1"], 3),
        (["sink", "--set", "kafka.bootstrap_servers=127.0.0.1:1"], 3),
        (["produce", "--synthetic", "--set", "kafka.bootstrap_servers=127.0.0.1:1"], 3),
    ],
)
def test_an_error_is_one_json_object_with_what_to_do(
    line: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routekeel.streams.topics.TIMEOUT_S", 1.0)
    result = runner.invoke(app, [*line, "--json"])
    assert result.exit_code == code, result.output
    (last,) = result.stdout.strip().splitlines()
    found = json.loads(last)
    assert found["ok"] is False
    assert found["exit_code"] == code
    assert found["error"] and found["hint"]


def test_status_of_a_stack_that_never_ran() -> None:
    result = runner.invoke(app, ["status", "--json"])
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert {service["health"] for service in found["services"]} == {"stopped"}
