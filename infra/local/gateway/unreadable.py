"""Sets a part aside that cannot be read, so that the parts it was merged from are there again.

The embedded engine does not notice that a full disk refused what a merge wrote: the merged part replaces
its sources and no query can read it (seen of 26.9: an empty marks file). For some minutes
(old_parts_lifetime) the sources lie beside it, whole, and are taken again when the table is attached
without it.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from routekeel.infra.local.gateway.sql import identifier, quoted

logger = logging.getLogger(__name__)

ATTACH_S = 60.0
ATTACH_STEP_S = 0.2
_PLACE = re.compile(r"while reading from part (?P<folder>\S+?)/* in table ")
_COLUMNS = "database, table, name, partition_id, min_block_number, max_block_number, rows"


class PartMender:
    """Looks at errors; mends what they tell of in a thread, one part at a time, and each once."""

    def __init__(self, connect: Any) -> None:
        self._connect = connect
        self._thread = ThreadPoolExecutor(1, "mender")
        self._tried: set[str] = set()

    def look_at(self, text: str) -> None:
        """An error of a query."""
        found = _PLACE.search(text)
        if found and found["folder"] not in self._tried:
            self._tried.add(found["folder"])
            self._thread.submit(self._mend, found["folder"])

    def close(self) -> None:
        """Finish what was begun."""
        self._thread.shutdown()

    def _mend(self, folder: str) -> None:
        connection = self._connect()
        try:
            for part in _parts(connection, f"active AND path = {quoted(folder + '/')}"):
                self._set_aside(connection, Path(folder), part)
        except Exception:
            logger.exception("the part in %s cannot be read, and not be set aside", folder)
        finally:
            connection.close()

    def _set_aside(self, connection: Any, folder: Path, part: Mapping[str, Any]) -> None:
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
        place = f"{identifier(part['database'])}.{identifier(part['table'])}"
        if there != part["rows"]:
            logger.error(
                "part %s of %s cannot be read; of its %d rows the parts it was merged from still have %d: "
                "it is left where it is",
                part["name"], place, part["rows"], there,
            )  # fmt: skip
            return
        connection.query(f"DETACH TABLE {place} SYNC", "Null")
        try:
            folder.rename(folder.parent / "detached" / f"unreadable_{folder.name}")
        finally:
            _attach(connection, place)
        logger.warning(
            "part %s of %s cannot be read and was set aside: the %d parts that it was merged from, with all "
            "its %d rows, are there again", part["name"], place, len(sources), there,
        )  # fmt: skip


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
