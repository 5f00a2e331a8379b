"""The local state store: whole checkpoints or none, and a disk that is full says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from routekeel.operators.state import initial_rows
from routekeel.streams.app.rocksdb_store import FORMAT_KEY, RocksDbStore
from routekeel.streams.errors import RoutekeelError
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.intake import Roster
from routekeel.streams.topology.recency import TOUCH_BYTES
from routekeel.streams.topology.session import Session
from routekeel.streams.topology.watermark import Watermark

FULL = """
import resource, signal, sys
from pathlib import Path
from routekeel.streams.app.rocksdb_store import RocksDbStore
from routekeel.streams.errors import RoutekeelError
from routekeel.streams.topology.watermark import Watermark
# Every file the process writes ends at this size: the disk as the database sees it when it is full.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RocksDbStore(Path(sys.argv[1]))
store.commit({b"first": b"1"}, Watermark("log", 0, 5, 0, 0), 9)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(100):
        store.commit({b"k%d" % number: bytes(50_000)}, Watermark("log", 0, 6 + number, 0, 0), 10 + number)
except RoutekeelError as error:
    print(number, error.message, error.hint)
    store.close()
    sys.exit(7)
"""


def test_what_is_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "db")
    assert (store.watermark, store.position) == (None, -1)
    mark = Watermark("log", 1, 41, 7, 2)
    store.commit({b"a": b"1", b"b": b"2"}, Watermark("log"), 3)
    store.commit({b"a": None, b"c": b"3"}, mark, 8)
    store.close()
    again = RocksDbStore(tmp_path / "db")
    assert dict(again.items()) == {b"b": b"2", b"c": b"3"}
    assert (again.get(b"a"), again.get(b"c")) == (None, b"3")
    assert again.get_all([b"c", b"a", b"b", b"c"]) == [b"3", None, b"2", b"3"]
    assert (again.watermark, again.position) == (mark, 8)
    again.close()


def test_the_order_of_eviction_needs_no_matrices(tmp_path: Path) -> None:
    def session(offset: int) -> bytes:
        return Session(b"m", b"", 8, (0, 1), initial_rows(2, 8), 0, offset, 10 * offset).encode()

    store, memory = RocksDbStore(tmp_path / "db"), MemoryStore()
    for changes in (
        {b"a": session(1), b"b": session(2), b"c": session(3), b"\xff": session(4)},
        {b"a": session(5), b"b": None},
    ):
        store.commit(changes, Watermark("log", 0, 9), 4)
        memory.commit(changes, Watermark("log", 0, 9), 4)
    assert dict(store.items()) == dict(memory.items())
    assert dict(store.heads()) == {k: v[:TOUCH_BYTES] for k, v in memory.items()}
    store.close()
    again = RocksDbStore(tmp_path / "db")
    orders = [list(Roster(TopologyConfig(), store, 0).table.order) for store in (again, memory)]
    assert orders == [[b"c", b"\xff", b"a"]] * 2
    again.close()


def test_a_database_without_the_heads_is_built_anew(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "db")
    store.commit({b"a": b"1"}, Watermark("log"), 3)
    store._db.delete(FORMAT_KEY)  # as an older version left it
    store.close()
    again = RocksDbStore(tmp_path / "db")
    assert (again.watermark, again.position, dict(again.items())) == (None, -1, {})
    again.close()


def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 7, done.stdout + done.stderr
    written = int(done.stdout.split()[0])
    assert "cannot write the local state" in done.stdout
    assert "the changelog has everything" in done.stdout
    store = RocksDbStore(folder)
    assert store.get(b"first") == b"1"
    # Whole commits only: the watermark stands at the last one that is there.
    kept = [n for n in range(written) if store.get(b"k%d" % n) is not None]
    assert kept == list(range(len(kept)))
    assert store.watermark is not None
    assert store.watermark.applied_offset == 5 + len(kept)
    assert store.position == 9 + len(kept)
    store.close()


def test_a_folder_that_another_uses_is_refused(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "db")
    with pytest.raises(RoutekeelError, match="cannot open the local state") as caught:
        RocksDbStore(tmp_path / "db")
    assert "worker.store_dir" in caught.value.hint
    store.close()
