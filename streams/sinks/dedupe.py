"""Which records of a batch a table does not have yet: by log offset and by source offset.

A restarted worker publishes some outputs again, later in the same log. Within one output partition
the source offsets of one source ascend except for such repeats, so the largest one stored per
source (topic id, partition) is all that has to be remembered. The old outputs of a recreated topic
and the new ones of a recreated source fall out of the same two numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from routekeel.streams.sinks.items import Item

SourceKey = tuple[str, int]
"""A source: (topic id, partition)."""
LetterKey = tuple[str, int, int]
"""What a dead letter is about: (topic id, partition, offset)."""


@dataclass(frozen=True, slots=True)
class TableProgress:
    """How far one table has taken one log partition.

    `seen` is the last log offset dealt with (as rows, repeats or dead letters), `stored` the
    largest one that has rows in the table; −1 where none. `sources` is the largest stored source
    offset by source.
    """

    seen: int = -1
    stored: int = -1
    sources: Mapping[SourceKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """The items to insert, and what the table's progress will be once they are in."""

    items: tuple[Item, ...]
    repeats: int
    after: TableProgress


def select_by_source(progress: TableProgress, items: Sequence[Item], needs: str = "") -> Selection:
    """The items beyond the table's progress whose source offset is new.

    Refused items are left out. Items must be in log order. Where a table holds rows for some
    records only, `needs` names the field without which an item is passed over.
    """
    latest = dict(progress.sources)
    chosen: list[Item] = []
    repeats = 0
    for item in items:
        if item.fields is None or item.offset <= progress.seen:
            continue
        if needs and not item.fields.get(needs):
            continue
        key, source_offset = item.source()
        if source_offset <= latest.get(key, -1):
            repeats += 1
            continue
        latest[key] = source_offset
        chosen.append(item)
    return Selection(tuple(chosen), repeats, _after(progress, items, chosen, latest))


def select_by_lookup(
    progress: TableProgress, items: Sequence[Item], known: Iterable[LetterKey]
) -> Selection:
    """The items beyond the table's progress whose identity is not among the known ones.

    Dead letters of one source need not ascend (a refusal may be found at decoding or at insertion),
    so their table is asked for those it has.
    """
    taken = set(known)
    chosen: list[Item] = []
    repeats = 0
    for item in items:
        if item.fields is None or item.offset <= progress.seen:
            continue
        key = letter_key(item)
        if key in taken:
            repeats += 1
            continue
        taken.add(key)
        chosen.append(item)
    return Selection(tuple(chosen), repeats, _after(progress, items, chosen, progress.sources))


def letter_key(item: Item) -> LetterKey:
    """The identity of what a dead letter is about."""
    (topic_id, partition), offset = item.source()
    return topic_id, partition, offset


def _after(
    progress: TableProgress,
    items: Sequence[Item],
    chosen: Sequence[Item],
    sources: Mapping[SourceKey, int],
) -> TableProgress:
    seen = max(progress.seen, items[-1].offset) if items else progress.seen
    stored = max(progress.stored, chosen[-1].offset) if chosen else progress.stored
    return TableProgress(seen, stored, sources)
