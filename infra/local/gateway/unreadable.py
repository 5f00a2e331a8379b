"""Sets parts aside that are not whole, as a full disk leaves them without the embedded engine noticing.

Two kinds (both seen of 26.9). A part that an insert wrote: the insert has not been answered yet, so it is
as if it had not been done, and may be done again. And one that a merge wrote: for some minutes
(old_parts_lifetime) the parts that were merged lie beside it, whole, and are taken again when the table is
attached without it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from routekeel.infra.local.gateway.part_files import (
    fault_of,
    forget_insert,
    is_of_an_insert,
    part_folders,
    set_aside,
)
from routekeel.infra.local.gateway.replies import NOT_ENOUGH_SPACE, ClickHouseError
from routekeel.infra.local.gateway.sql import identifier, quoted

logger = logging.getLogger(__name__)

ATTACH_S = 60.0
ATTACH_STEP_S = 0.2
ROOM_BYTES = 32 * 1024 * 1024
"""What has to be free before a table is attached again: the engine would not notice what it cannot write."""
ROOM_STEP_S = 0.2
_PLACE = re.compile(r"while reading from part (?P<folder>\S+?)/* in table ")
_COLUMNS = "database, table, name, partition_id, min_block_number, max_block_number, rows"


def set_aside_unfinished(store: str) -> None:
    """Before the engine starts: set aside what inserts have left that were cut off. Raises OSError.

    With its rows whole a part may stay: its insert is then known, and done.
    """
    for folder in map(Path, part_folders(store)):
        if is_of_an_insert(folder) and (fault := fault_of(folder, projections=False)):
            forget_insert(folder)
            place = set_aside(folder)
            logger.error(
                "the part %s is not whole (%s) and was set aside: its insert was never acknowledged, or the "
                "machine has lost what was", place, fault,
            )  # fmt: skip


class PartMender:
    """Looks at every new part once, and at those that queries cannot read.

    `broken` counts the parts that were not whole; an insert during which it moved has to be sent again.
    """

    def __init__(self, connect: Any, store: str) -> None:
        self._connect = connect
        self._store = store
        self._thread = ThreadPoolExecutor(1, "mender")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._known: set[str] = set()
        self._left: set[str] = set()
        self._mending = ""
        self.broken = 0

    def check_new(self) -> None:
        """Look at the parts that have come since the last time, and set aside what is not whole."""
        with self._lock:
            there = set(part_folders(self._store))
            new, self._known = there - self._known, there
            self._left &= there
            for folder in map(Path, sorted(new)):
                if fault := fault_of(folder):
                    self._deal_with(folder, fault, is_of_an_insert(folder))

    def look_at(self, text: str) -> None:
        """An error of a query; what it tells of is dealt with in a thread."""
        found = _PLACE.search(text)
        # Of a projection that cannot be read the rows are whole, and can be asked instead.
        if found and not found["folder"].endswith(".proj"):
            self._thread.submit(self._look_at, Path(found["folder"]))

    def refuse_while_mending(self) -> None:
        """Raise ClickHouseError while a part is set aside: nobody must see what it seems to hold."""
        if self._mending:
            raise ClickHouseError.of(
                NOT_ENOUGH_SPACE,
                "NOT_ENOUGH_SPACE",
                f"The part {self._mending} is not whole; it is set aside as soon as the disk has room",
            )

    def close(self) -> None:
        """Finish what was begun, but wait for no room."""
        self._closing.set()
        self._thread.shutdown()

    def _look_at(self, folder: Path) -> None:
        self.check_new()
        with self._lock:
            # An insert's part that was whole holds rows that were acknowledged.
            if str(folder) not in self._left and (fault := fault_of(folder)):
                self._deal_with(folder, fault, never_done=False)

    def _deal_with(self, folder: Path, fault: str, never_done: bool) -> None:
        connection = self._connect()
        try:
            parts = _parts(connection, f"active AND path = {quoted(f'{folder}/')}")
            if not parts:  # not yet one of the table's: the insert itself comes to it
                self._known.discard(str(folder))
            for part in parts:
                self.broken += 1
                if never_done:
                    self._undo_insert(connection, folder, part, fault)
                else:
                    self._take_sources(connection, folder, part, fault)
        except Exception:
            logger.exception("the part in %s is not whole, and cannot be set aside", folder)
        finally:
            connection.close()

    def _undo_insert(
        self, connection: Any, folder: Path, part: Mapping[str, Any], fault: str
    ) -> None:
        with self._detached(connection, part) as place:
            forget_insert(folder)
            set_aside(folder)
        logger.warning(
            "part %s of %s was not written whole (%s) and is set aside: its insert is answered as unknown and "
            "can be sent again", part["name"], place, fault,
        )  # fmt: skip

    def _take_sources(
        self, connection: Any, folder: Path, part: Mapping[str, Any], fault: str
    ) -> None:
        place = _place(part)
        connection.query(f"SYSTEM WAIT LOADING PARTS {place}", "Null")
        sources = covering(
            _parts(
                connection,
                f"NOT active AND database = {quoted(part['database'])} "
                f"AND table = {quoted(part['table'])} "
                f"AND partition_id = {quoted(part['partition_id'])} "
                f"AND min_block_number >= {part['min_block_number']} "
                f"AND max_block_number <= {part['max_block_number']}",
            )
        )
        there = sum(source["rows"] for source in sources)
        if there != part["rows"]:
            self._left.add(str(folder))
            logger.error(
                "part %s of %s cannot be read (%s); of its %d rows the parts it was merged from still have "
                "%d: it is left where it is", part["name"], place, fault, part["rows"], there,
            )  # fmt: skip
            return
        with self._detached(connection, part):
            set_aside(folder)
        logger.warning(
            "part %s of %s cannot be read (%s) and was set aside: the %d parts that it was merged from, with "
            "all its %d rows, are there again", part["name"], place, fault, len(sources), there,
        )  # fmt: skip

    @contextmanager
    def _detached(self, connection: Any, part: Mapping[str, Any]) -> Iterator[str]:
        """The part's table, detached for so long: its files may be changed. Statements are refused."""
        self._mending, place = part["name"], _place(part)
        try:
            self._wait_for_room()
            connection.query(f"DETACH TABLE {place} SYNC", "Null")
            try:
                yield place
            finally:
                _attach(connection, place)
        finally:
            self._mending = ""

    def _wait_for_room(self) -> None:
        while True:
            found = os.statvfs(self._store)
            if found.f_bavail * found.f_frsize >= ROOM_BYTES:
                return
            if self._closing.wait(ROOM_STEP_S):
                raise RuntimeError("the disk is full, and the gateway ends")


def covering(parts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of parts, some of which were merged into others, those that no other one of them holds.

    >>> covering([{"min_block_number": a, "max_block_number": b} for a, b in ((1, 1), (1, 2), (2, 2), (3, 3))])
    [{'min_block_number': 1, 'max_block_number': 2}, {'min_block_number': 3, 'max_block_number': 3}]
    """
    kept: list[Mapping[str, Any]] = []
    for part in sorted(parts, key=lambda p: (p["min_block_number"], -p["max_block_number"])):
        if not kept or part["min_block_number"] > kept[-1]["max_block_number"]:
            kept.append(part)
    return kept


def _parts(connection: Any, condition: str) -> list[dict[str, Any]]:
    found = connection.query(
        f"SELECT {_COLUMNS} FROM system.parts WHERE {condition} "
        "SETTINGS output_format_json_quote_64bit_integers = 0",
        "JSONEachRow",
    )
    return [json.loads(line) for line in bytes(found.bytes()).splitlines()]


def _place(part: Mapping[str, Any]) -> str:
    return f"{identifier(part['database'])}.{identifier(part['table'])}"


def _attach(connection: Any, place: str) -> None:
    """ATTACH TABLE, which is refused as long as a query still holds the table."""
    until = time.monotonic() + ATTACH_S
    while True:
        try:
            connection.query(f"ATTACH TABLE {place}", "Null")
            return
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(ATTACH_STEP_S)  # nothing tells when a query lets go of a table
