"""What is broken in a table, from its files alone, and what can be done about each part of it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from routekeel.infra.local.gateway.part_files import (
    PartName,
    fault_of,
    forget_inserts,
    outermost,
    set_aside,
)


@dataclass(frozen=True)
class Damage:
    """The broken parts of a table that count, each with its fault; what lies under another part does not.

    undo: of inserts, which have not been acknowledged. replace: of merges, whose sources are there, whole.
    left: the others, whose rows are lost here.
    """

    table: Path
    undo: dict[Path, str] = field(default_factory=dict)
    replace: dict[Path, str] = field(default_factory=dict)
    left: dict[Path, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is broken."""
        return bool(self.undo or self.replace or self.left)

    def mend(self) -> None:
        """Undo and replace; the table must not be attached. Raises OSError where the disk is full."""
        forget_inserts(self.table, {path.name for path in self.undo})
        for path in (*self.undo, *self.replace):
            set_aside(path)

    def __str__(self) -> str:
        kinds = (
            ("of inserts, which can be sent again", self.undo),
            ("of merges, whose sources are there again", self.replace),
            ("that stay where they are, for their rows are nowhere else", self.left),
        )
        return "; ".join(
            f"parts {why}: " + ", ".join(f"{path.name} ({fault})" for path, fault in parts.items())
            for why, parts in kinds
            if parts
        )


def damage_of(table: Path, known: Container[str], projections: bool = True) -> Damage:
    """What is broken. The parts in `known`, by path, have been whole: their inserts are acknowledged."""
    damage = Damage(table)
    parts = [path for path in table.iterdir() if PartName.of(path.name)]
    for path in outermost(parts):
        fault = fault_of(path, projections)
        if not fault:
            continue
        if _name(path).is_of_an_insert:
            (damage.left if str(path) in known else damage.undo)[path] = fault
        else:
            (damage.replace if _has_sources(path, parts) else damage.left)[path] = fault
    return damage


def _has_sources(merged: Path, parts: list[Path]) -> bool:
    """Whether whole parts are there that hold all that a merge or a mutation put into this one."""
    name = _name(merged)
    within = [path for path in parts if path != merged and name.holds(_name(path))]
    sources = outermost([path for path in within if not fault_of(path, projections=False)])
    if not sources:
        return False
    # Blocks between may never have been; the first and the last are those of the first and last source.
    spans = _name(sources[0]).first == name.first and _name(sources[-1]).last == name.last
    wanted = _rows(merged)
    return spans and wanted in (None, sum(_rows(source) or 0 for source in sources))


def _rows(part: Path) -> int | None:
    """How many rows a part says it has; None where even that is not to be read."""
    try:
        return int((part / "count.txt").read_text("ascii"))
    except (OSError, ValueError):
        return None


def _name(path: Path) -> PartName:
    name = PartName.of(path.name)
    assert name is not None
    return name
