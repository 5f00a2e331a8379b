"""A partition's committed state in a local RocksDB, so that a restart only reads the changelog's end.

Changes, watermark and changelog position go in one write batch: after a kill the database holds a
whole checkpoint or the one before, never a part.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark

log = logging.getLogger(__name__)

POSITION_KEY = b"\x00position"
_POSITION = struct.Struct("<q")
BLOCK_CACHE_BYTES = 32 * 2**20
WRITE_BUFFER_BYTES = 16 * 2**20


class RocksDbStore:
    """One database in `folder`. Raises RoutekeelError when it cannot be opened or written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_keep_log_file_num(2)
        table = BlockBasedOptions()
        table.set_block_cache(Cache(BLOCK_CACHE_BYTES))
        options.set_block_based_table_factory(table)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(str(folder), options, access_type=AccessType.read_write())
        except Exception as error:
            raise RoutekeelError(
                f"cannot open the local state in {folder}: {error}",
                "another worker may use it (give each its own worker.store_dir), the disk may be full, or the folder "
                "may be read-only; it can be removed, the changelog has everything",
            ) from error
        mark = self._db.get(WATERMARK_KEY)
        position = self._db.get(POSITION_KEY)
        self.watermark = None if mark is None else Watermark.decode(mark)
        self.position = -1 if position is None else int(_POSITION.unpack(position)[0])

    def get(self, key: bytes) -> bytes | None:
        """The session's encoded state, if there is one."""
        value = self._db.get(key)
        return None if value is None else bytes(value)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session."""
        for key, value in self._db.items():
            if key[:1] != b"\x00":
                yield key, value

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        """Apply the changes, all or none."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(WATERMARK_KEY, watermark.encode())
        batch.put(POSITION_KEY, _POSITION.pack(position))
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
