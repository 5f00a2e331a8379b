"""A partition's committed state in a local RocksDB, so that a restart only reads the changelog's end.

Changes, watermark and changelog position go in one write batch: after a kill the database holds a
whole checkpoint or the one before, never a part. Beside each session stands a copy of its head: a
restart needs every session's last touch, and must not read all the matrices for it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.topology.recency import TOUCH_BYTES
from routekeel.streams.topology.session_table import SessionTable
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark

log = logging.getLogger(__name__)

POSITION_KEY = b"\x00position"
FORMAT_KEY = b"\x00format"
FORMAT = b"2"
HEAD_PREFIX = b"\x00head"
HEADS_END = b"\x00heae"
SESSIONS_BEGIN = b"\x01"  # what is ours starts with NUL, which no session id does
_POSITION = struct.Struct("<q")
BLOCK_CACHE_BYTES = 64 * 2**20
"""One for all databases of the process: a worker may own any number of partitions."""
WRITE_BUFFER_BYTES = 16 * 2**20


class RocksDbStore:
    """One database in `folder`. Raises RoutekeelError when it cannot be opened or written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._db = _open(folder)
        if self._db.get(WATERMARK_KEY) is not None and self._db.get(FORMAT_KEY) != FORMAT:
            log.warning("the local state in %s has an older format; it is built anew", folder)
            self._db.close()
            Rdict.destroy(str(folder))
            self._db = _open(folder)
        mark = self._db.get(WATERMARK_KEY)
        position = self._db.get(POSITION_KEY)
        self.table: SessionTable | None = None
        self.watermark = None if mark is None else Watermark.decode(mark)
        self.position = -1 if position is None else int(_POSITION.unpack(position)[0])

    def get(self, key: bytes) -> bytes | None:
        """The session's encoded state, if there is one."""
        value = self._db.get(key)
        return None if value is None else bytes(value)

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """`get` for each, in half the time."""
        return list(self._db.get(list(keys)))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session."""
        yield from self._db.items(from_key=SESSIONS_BEGIN)

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session with the head of its state."""
        for key, head in self._db.items(from_key=HEAD_PREFIX):
            if key >= HEADS_END:
                return
            yield key[len(HEAD_PREFIX) :], head

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        """Apply the changes, all or none."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
                batch.delete(HEAD_PREFIX + key)
            else:
                batch.put(key, value)
                batch.put(HEAD_PREFIX + key, value[:TOUCH_BYTES])
        batch.put(WATERMARK_KEY, watermark.encode())
        batch.put(POSITION_KEY, _POSITION.pack(position))
        batch.put(FORMAT_KEY, FORMAT)
        try:
            self._db.write(batch)
        except Exception as error:
            raise RoutekeelError(
                f"cannot write the local state in {self._folder}: {error}",
                "the disk may be full; nothing is lost, the changelog has everything",
            ) from error
        self.watermark, self.position = watermark, position

    def close(self) -> None:
        """Close the database. One that could not be written cannot be closed well; that loses nothing."""
        try:
            self._db.close()
        except Exception as error:
            # Raised from here it would hide why the worker ends.
            log.warning("the local state in %s was not closed cleanly: %s", self._folder, error)


@lru_cache(maxsize=1)
def _block_cache() -> Cache:
    return Cache(BLOCK_CACHE_BYTES)


def _open(folder: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(2)
    table = BlockBasedOptions()
    table.set_block_cache(_block_cache())
    options.set_block_based_table_factory(table)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Rdict(str(folder), options, access_type=AccessType.read_write())
    except Exception as error:
        raise RoutekeelError(
            f"cannot open the local state in {folder}: {error}",
            "another worker may use it (give each its own worker.store_dir), the disk may be full, or the folder "
            "may be read-only; it can be removed, the changelog has everything",
        ) from error
