"""Processes, ports and small files: recognised, chosen, written whole."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from routekeel.infra.local import files, ports
from routekeel.infra.local.errors import StackError
from routekeel.infra.local.processes import ProcessRecord, find, spawn, stop

FOREVER = "import signal; print('here', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True)\n"
    "while True: signal.pause()"
)


def start(folder: Path, code: str = FOREVER, mark: str = "the-mark") -> ProcessRecord:
    record = spawn(
        "sleeper",
        [sys.executable, "-c", code, mark],
        port=1,
        mark="the-mark",
        console=folder / "console.log",
        cwd=folder,
        env=dict(os.environ),
        record_path=folder / "sleeper.json",
    )
    while b"here" not in (folder / "console.log").read_bytes():
        assert find(record) is not None
    return record


def test_a_process_is_recorded_found_and_stopped(tmp_path: Path) -> None:
    record = start(tmp_path)
    assert ProcessRecord.load(tmp_path / "sleeper.json") == record
    assert find(record) is not None
    assert os.getsid(record.pid) == record.pid != os.getsid(0)  # no Ctrl-C from our terminal
    assert stop(record, 10.0)
    assert find(record) is None
    assert not stop(record, 10.0)


def test_one_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    record = start(tmp_path, STUBBORN)
    assert stop(record, 0.2)
    assert find(record) is None


def test_a_recycled_pid_is_left_alone(tmp_path: Path) -> None:
    record = start(tmp_path)
    try:
        for other in (
            replace(record, started=record.started - 3600),
            replace(record, mark="another state directory"),
            replace(record, pid=os.getpid()),
        ):
            assert find(other) is None
            assert not stop(other, 1.0)
        assert find(record) is not None
    finally:
        stop(record, 10.0)


def test_an_ended_child_is_no_zombie(tmp_path: Path) -> None:
    record = start(tmp_path)
    os.kill(record.pid, signal.SIGKILL)
    while find(record) is not None:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(record.pid, 0)


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert ProcessRecord.load(path) is None
    for text in ("", "{", "[]", '{"pid": 1}'):
        path.write_text(text)
        assert ProcessRecord.load(path) is None


def test_an_unwritable_record_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        spawn(
            "lost",
            [sys.executable, "-c", FOREVER],
            port=1,
            mark="lost",
            console=tmp_path / "console.log",
            cwd=tmp_path,
            env=dict(os.environ),
            record_path=tmp_path / "missing" / "lost.json",
        )
    console = str(tmp_path / "console.log")
    children = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
    assert console not in [file.path for child in children for file in child.open_files()]


def listening() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def test_a_free_wanted_port_is_taken_and_remembered(tmp_path: Path) -> None:
    wanted = ports.any_free()
    book = ports.PortBook(tmp_path / "ports.json")
    assert book.choose("a", wanted) == wanted
    assert ports.PortBook(tmp_path / "ports.json").get("a") == wanted
    assert book.get("b") is None


def test_a_taken_port_is_replaced_and_the_choice_stays(tmp_path: Path) -> None:
    book = ports.PortBook(tmp_path / "ports.json")
    with listening() as server:
        wanted = server.getsockname()[1]
        assert ports.answers(wanted)
        assert not ports.is_free(wanted)
        chosen = book.choose("a", wanted)
        assert chosen != wanted
    assert ports.is_free(wanted)
    assert book.choose("a", wanted) == chosen  # free again, but clients know the other
    other = ports.any_free()
    assert book.choose("a", other) == other  # another one is wanted now


def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    book = ports.PortBook(tmp_path / "ports.json")
    wanted = ports.any_free()
    assert book.choose("a", wanted) != book.choose("b", wanted)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 5}', '{"a": {"port": "x"}}'])
def test_a_damaged_port_file_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    assert ports.PortBook(tmp_path / "ports.json").get("a") is None


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f"
    files.write_atomically(path, "one", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(TypeError):
        files.write_atomically(path, 5)  # type: ignore[arg-type]
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_password_is_made_once_and_kept_private(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    password = files.password_in(folder, "p")
    assert len(password) >= 24
    assert files.password_in(folder, "p") == password
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "p").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError) as caught:
        files.prepare_folder(tmp_path / "file" / "below")
    assert caught.value.hint


def test_a_full_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FREE_BYTES_MIN", 2**62)
    with pytest.raises(StackError, match="MiB left") as caught:
        files.prepare_folder(tmp_path)
    assert "space" in caught.value.hint
    error = files.from_os_error(OSError(28, "No space left on device"), tmp_path)
    assert "No space left" in error.message


def test_logs_are_kept_within_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOG_BYTES_MAX", 10)
    log = tmp_path / "a.log"
    log.write_text("first line\nlast line\n")
    assert files.tail([log, tmp_path / "none"], lines=1) == "last line"
    files.rotate(log)
    assert not log.exists()
    assert (tmp_path / "a.log.1").exists()
    assert files.tail([log]) == ""
