"""Sets parts aside that are not whole, as a full disk leaves them without the embedded engine noticing.

Two kinds (both seen of 26.9). A part that an insert wrote: the insert has not been answered yet, so it is
made as if it had not been done. And one that a merge wrote: for some minutes (old_parts_lifetime) the parts
that were merged lie beside it, whole, and are taken again when the table is attached without it.

A table is mended as a whole, once nobody writes to it: what is broken in it when it is attached is lost to
the engine, which moves it away and keeps the token of its insert, or takes it for empty.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routekeel.infra.local.gateway.damage import damage_of
from routekeel.infra.local.gateway.part_files import fault_of, part_folders, table_folders
from routekeel.infra.local.gateway.replies import NOT_ENOUGH_SPACE, ClickHouseError
from routekeel.infra.local.gateway.sql import identifier, quoted

logger = logging.getLogger(__name__)

ROOM_BYTES = 32 * 1024 * 1024
"""What has to be free before a table is attached again: the engine would not notice what it cannot write."""
STEP_S = 0.2
ROUNDS = 3
_PLACE = re.compile(r"while reading from part (?P<folder>\S+?)/* in table ")


def mend_before_start(store: str) -> None:
    """Before the engine runs: what inserts and merges have left that were cut off. Raises OSError.

    With its rows whole a part may stay: its insert is then known, and done.
    """
    for table in map(Path, table_folders(store)):
        if damage := damage_of(table, known=(), projections=False):
            damage.mend()
            logger.error(
                "table %s was not whole: %s. What of it was acknowledged the machine has lost; "
                "routekeel audit says what is missing", table.name, damage,
            )  # fmt: skip


class PartMender:
    """Looks at every new part once, and at those that queries cannot read.

    `broken` moves whenever anything was not whole; an insert during which it moved has to be sent again.
    """

    def __init__(self, connect: Any, store: str, end_streams: Callable[[], None]) -> None:
        self._connect = connect
        self._end_streams = end_streams
        self._store = store
        self._thread = ThreadPoolExecutor(1, "mender")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._known = set(part_folders(store))
        """Parts that need not be looked at: whole, or under another one, or beyond help."""
        self._told: set[str] = set()
        self._mending = ""
        self.broken = 0

    def check_new(self) -> None:
        """Look at the parts that have come since the last time, and mend the tables of those not whole."""
        with self._lock:
            self._check()

    def look_at(self, text: str) -> None:
        """An error of a query; what it tells of is dealt with in a thread."""
        found = _PLACE.search(text)
        # Of a projection that cannot be read the rows are whole, and can be asked instead.
        if found and not found["folder"].endswith(".proj"):
            self._thread.submit(self._look_at, Path(found["folder"]))

    @property
    def is_mending(self) -> bool:
        """Whether a table is being mended, or waits for room to be."""
        return bool(self._mending)

    def refuse_while_mending(self) -> None:
        """Raise ClickHouseError while a table is mended: nobody must see what its parts seem to hold."""
        if self.is_mending:
            raise ClickHouseError.of(
                NOT_ENOUGH_SPACE,
                "NOT_ENOUGH_SPACE",
                f"{self._mending} has a part that is not whole; it is set aside as soon as the disk has room",
            )

    def stop_waiting(self) -> None:
        """Wait for no room any more: the gateway ends, and what is broken is mended before the next start."""
        self._closing.set()

    def close(self) -> None:
        """Finish what was begun."""
        self.stop_waiting()
        self._thread.shutdown()

    def _look_at(self, folder: Path) -> None:
        with self._lock:
            self._check()
            table = folder.parent
            if str(folder) in self._told or not fault_of(folder):
                return
            damage = damage_of(table, self._known)
            if folder in damage.replace:
                self._known.discard(str(folder))
                self._check()
            elif damage:
                self._told.add(str(folder))
                logger.error("table %s cannot be read: %s", table.name, damage)

    def _check(self) -> None:
        try:
            for _ in range(ROUNDS):
                there = set(part_folders(self._store))
                self._known &= there
                self._told &= there
                new = there - self._known
                broken = {folder for folder in new if fault_of(Path(folder))}
                if not broken:
                    self._known = there
                    return
                for table in sorted({Path(folder).parent for folder in broken}):
                    self._mend(table, broken)
                if self._closing.is_set():
                    return
        except Exception:
            # What was not dealt with is not known: until it is, no insert is answered with success.
            self.broken += 1
            logger.exception("a part that is not whole cannot be set aside")
        finally:
            self._mending = ""

    def _mend(self, table: Path, broken: set[str]) -> None:
        damage = damage_of(table, self._known)
        place = self._place_of(table) if damage else ""
        if not place:  # under other parts, or dropped
            self._known |= {folder for folder in broken if Path(folder).parent == table}
            return
        self._mending = place  # before the count: who has seen that one move must not get in
        self.broken += 1
        if damage.left:
            # Attached again they would be taken for empty, and nobody would see that rows are missing.
            logger.error("table %s is not whole: %s", place, damage)
            self._known |= set(map(str, damage.left))
            return
        with self._detached(place):
            damage = damage_of(table, self._known)  # nobody writes to it any more
            damage.mend()
        logger.warning("table %s was not whole. Set aside: %s", place, damage)

    def _place_of(self, table: Path) -> str:
        query = f"SELECT database, name FROM system.tables WHERE uuid = {quoted(table.name)}"
        connection = self._connect()
        try:
            lines = bytes(connection.query(query, "JSONEachRow").bytes()).splitlines()
        finally:
            connection.close()
        found = [json.loads(line) for line in lines]
        return f"{identifier(found[0]['database'])}.{identifier(found[0]['name'])}" if found else ""

    @contextmanager
    def _detached(self, place: str) -> Iterator[None]:
        """A table that is detached for so long: its files may be changed."""
        self._wait_for_room()
        self._end_streams()
        connection = self._connect()
        try:
            connection.query(f"DETACH TABLE {place} SYNC", "Null")
            try:
                yield
            finally:
                self._attach(connection, place)
        finally:
            connection.close()

    def _wait_for_room(self) -> None:
        while True:
            found = os.statvfs(self._store)
            if found.f_bavail * found.f_frsize >= ROOM_BYTES:
                return
            if self._closing.wait(STEP_S):
                raise RuntimeError("the disk is full, and the gateway ends")

    def _attach(self, connection: Any, place: str) -> None:
        """ATTACH TABLE, which is refused as long as a query still holds the table."""
        while True:
            try:
                connection.query(f"ATTACH TABLE {place}", "Null")
                return
            except RuntimeError as error:
                if self._closing.wait(STEP_S):
                    raise
                logger.warning("table %s cannot be attached yet: %s", place, error)
