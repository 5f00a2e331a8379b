"""The settings tree: which source wins, what is refused, and that every value says where it is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from routekeel.streams.errors import ConfigurationError
from routekeel.streams.settings import load_settings
from routekeel.streams.settings.load import HIDDEN

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def away(tmp_path: Path) -> dict[str, str]:
    """Flags that keep a local stack that happens to run out of the picture."""
    return {"stack.state_dir": str(tmp_path / "none")}


def test_flags_win_over_variables_over_the_file(tmp_path: Path, away: dict[str, str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("topics: {partitions: 2, logits: a}\nworker: {linger_ms: 1}\n")
    variables = {"ROUTEKEEL_TOPICS__PARTITIONS": "3", "ROUTEKEEL_WORKER__LINGER_MS": "2"}
    loaded = load_settings(file, away | {"worker.linger_ms": 7.0}, variables)
    settings = loaded.settings
    assert (settings.topics.logits, settings.topics.partitions) == ("a", 3)
    assert settings.worker.linger_ms == 7.0
    origins = {name: origin for name, _, origin in loaded.rows()}
    assert origins["topics.logits"] == f"file {file}"
    assert origins["topics.partitions"] == "variable ROUTEKEEL_TOPICS__PARTITIONS"
    assert origins["worker.linger_ms"] == "flag"
    assert origins["sink.group_id"] == "default"


def test_the_file_can_be_named_by_a_variable(tmp_path: Path, away: dict[str, str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("control: {parameters: {g_target: 0.2}}\n")
    settings = load_settings(None, away, {"ROUTEKEEL_CONFIG": str(file)}).settings
    assert settings.control.parameters == {"g_target": 0.2}


@pytest.mark.parametrize(
    ("text", "unknown", "near"),
    [
        ("workre: {}", "workre", "worker"),
        ("worker: {lingerms: 1}", "worker.lingerms", "worker.linger_ms"),
        ("topics: {partition: 1}", "topics.partition", "topics.partitions"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(
    tmp_path: Path, text: str, unknown: str, near: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, {}, {})
    assert f"unknown setting {unknown} " in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.hint == f"did you mean {near}?"
    assert caught.value.exit_code == 2


def test_an_unknown_variable_is_refused_too() -> None:
    with pytest.raises(ConfigurationError, match="ROUTEKEEL_KAFKA__BOOTSTRAP"):
        load_settings(None, {}, {"ROUTEKEEL_KAFKA__BOOTSTRAP": "x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("topics: {partitions: 0}", "topics.partitions"),
        ("worker: {store: floppy}", "worker.store"),
        ("worker: 5", "is a section"),
        ("- a", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_content_says_what_and_where(
    tmp_path: Path, away: dict[str, str], text: str, said: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, away, {})
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_settings(tmp_path / "none.yaml", {}, {})


def test_secrets_are_hidden_but_used(away: dict[str, str]) -> None:
    variables = {
        "ROUTEKEEL_KAFKA__SASL_PASSWORD": "s3cret",
        "ROUTEKEEL_KAFKA__SASL_USERNAME": "me",
        "ROUTEKEEL_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "ROUTEKEEL_CLICKHOUSE__PASSWORD": "other",
    }
    loaded = load_settings(None, away, variables)
    rows = {name: value for name, value, _ in loaded.rows()}
    assert rows["kafka.sasl_password"] == rows["clickhouse.password"] == HIDDEN
    assert "s3cret" not in repr(loaded)
    client = loaded.settings.kafka.client_config()
    assert client["sasl.password"] == "s3cret"
    assert client["security.protocol"] == "SASL_SSL"
    assert client["sasl.mechanism"] == "PLAIN"


@pytest.mark.parametrize("name", ["simple", "advanced"])
def test_the_shipped_files_load(name: str, away: dict[str, str]) -> None:
    file = ROOT / "infra" / "config" / f"{name}.yaml"
    loaded = load_settings(file, away, {})
    assert f"file {file}" in {origin for _, _, origin in loaded.rows()}
