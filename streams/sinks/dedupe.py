"""Which records of a batch a table does not have yet: by log offset and by source offset.

A restarted worker publishes some outputs again, later in the same log. Within one output partition
the source offsets of one source ascend except for such repeats, so the largest one stored per
source (topic id, partition) is all that has to be remembered. The old outputs of a recreated topic
and the new ones of a recreated source fall out of the same two numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from routekeel.streams.sinks.block import Block, LetterKey, SourceKey
from routekeel.streams.sinks.bulk import I64

__all__ = [
    "LetterKey",
    "Selection",
    "SourceKey",
    "TableProgress",
    "select_by_lookup",
    "select_by_source",
]


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

    items: Block
    repeats: int
    after: TableProgress


def select_by_source(progress: TableProgress, items: Block, needs: str = "") -> Selection:
    """The records beyond the table's progress whose source offset is new.

    Refused ones are left out. Where a table holds rows for some records only, `needs` names the
    field without which a record is passed over.
    """
    wanted = items.usable & (items.offsets > progress.seen)
    if needs:
        wanted &= items.has(needs)
    latest = dict(progress.sources)
    fresh = np.zeros(len(items), np.bool_)
    for place, key in enumerate(items.keys):
        indices = np.flatnonzero(wanted & (items.key_of == place))
        if not len(indices):
            continue
        offsets = items.source_offsets[indices]
        before = np.maximum.accumulate(np.concatenate([[latest.get(key, -1)], offsets]))
        fresh[indices] = offsets > before[:-1]
        latest[key] = int(before[-1])
    chosen = np.flatnonzero(fresh)
    repeats = int(wanted.sum()) - len(chosen)
    return Selection(_chosen(items, chosen), repeats, _after(progress, items, chosen, latest))


def select_by_lookup(
    progress: TableProgress, items: Block, known: Iterable[LetterKey]
) -> Selection:
    """The records beyond the table's progress whose identity is not among the known ones.

    Dead letters of one source need not ascend (a refusal may be found at decoding or at insertion),
    so their table is asked for those it has.
    """
    taken = set(known)
    chosen: list[int] = []
    repeats = 0
    for index in np.flatnonzero(items.usable & (items.offsets > progress.seen)).tolist():
        key = items.identity(index)
        if key in taken:
            repeats += 1
            continue
        taken.add(key)
        chosen.append(index)
    indices = np.array(chosen, np.int64)
    after = _after(progress, items, indices, progress.sources)
    return Selection(_chosen(items, indices), repeats, after)


def _chosen(items: Block, indices: I64) -> Block:
    return items if len(indices) == len(items) else items.part(indices)


def _after(
    progress: TableProgress, items: Block, chosen: I64, sources: Mapping[SourceKey, int]
) -> TableProgress:
    seen = max(progress.seen, int(items.offsets[-1])) if len(items) else progress.seen
    stored = progress.stored
    if len(chosen):
        stored = max(stored, int(items.offsets[chosen[-1]]))
    return TableProgress(seen, stored, sources)
