"""One batch on its way into the tables, as a state machine without I/O: what to do next, and what
an outcome means. Whoever drives it performs `next()` and reports to `done()`.
"""

# Theory of operation
#
# The sink turns records of a log into rows, each exactly once, although the process may die at any
# point, the worker before it may publish records again, and the server may do an insert and fail to
# say so. Four things together give that.
#
# 1. Where to begin. After every assignment the tables are asked for the largest log offset they
#    hold of each log (by Kafka's topic id: a recreated topic is another log, read from its start).
#    A topic fills several tables, one insert each; the one with a row for every record, the
#    *anchor*, is filled last, so what the anchor has the others have. A table that is ahead of the
#    anchor, because the process died between two inserts, skips what it has.
#
# 2. Repeats. A restarted worker repeats some outputs at later offsets. Per source the source
#    offsets ascend but for repeats, so what is at or below the largest one stored is dropped
#    (dedupe.py), per table again. Dead letters do not ascend; their table is asked.
#
# 3. Tokens. An insert carries a token of table, topic id, partition, first and last offset, and the
#    server drops an insert whose token it knows. So an insert with an unknown outcome (timeout,
#    connection lost) is sent again, the same bytes under the same token, until there is an answer.
#    Is the answer then that it is too large, the table is asked before it is cut in two: once no
#    attempt can still be under way, what is not there was not done.
#    A token never names two different sets of rows: the rows of a range follow from the log alone
#    and the payload, once built, is kept until its outcome is known. One insert is one block in one
#    partition of the table (batch.py cuts at midnight), so it happens wholly or not at all.
#
# 4. Who may insert. (1) would fail if an insert of a former owner came after the new owner's read
#    of the tables. A sink starts an insert only if the insert is sure to be over before the group
#    can give the partition to somebody else (lease.py): an accepted commit proves membership for
#    the session timeout, and the server's max_execution_time bounds the insert. A sink that gives a
#    partition up by itself first waits for the outcome of what it has in flight, or, where the
#    outcome is unknown, until the bound has passed. The lease is looked at again before each block
#    of the body is sent (leased_body.py). What remains is a process that is stopped between the
#    last of these looks and the system call after it, and goes on after another has taken over;
#    nothing on the client's side can exclude that, and the audit counts it.
#
# Bad records. Refused at decoding, or while columns are built: to the DLQ, awaited, before the rows
# of the same batch are inserted (a crash between repeats the letter, and the dead_letters table
# drops the repeat). Refused by the server with an error about the data: the batch is halved until
# the record is alone; the halves have their own ranges and so their own tokens, and the refused
# insert left nothing behind. A lack of memory halves too, but condemns nothing; after an unknown
# outcome the table is asked first (3). Whatever else the server says is tried again
# for ever. So is a store that condemns suspiciously many records of one batch: then the store is
# broken, and the dead letters are no place for a whole stream.
#
# The log itself may be replaced between the reading of a batch and its insertion. So a batch begins
# with a look at the topic's id that was taken after its last record had been read.

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from routekeel.schemas.errors import BadRow
from routekeel.schemas.tables import Table
from routekeel.streams.sinks.actions import (
    Action,
    BuildPayload,
    FindLetters,
    FindRows,
    Insert,
    SendLetters,
    VerifyLog,
)
from routekeel.streams.sinks.batch import Batch
from routekeel.streams.sinks.block import Block, Refused
from routekeel.streams.sinks.dedupe import (
    LetterKey,
    Selection,
    TableProgress,
    select_by_lookup,
    select_by_source,
)
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.outcomes import (
    Absent,
    Done,
    Failed,
    Fault,
    Found,
    Outcome,
    Recreated,
    RefusedByStore,
)

CONDEMNED_MAX: Final = 256


@dataclass(slots=True)
class WorkCounts:
    """What became of a batch."""

    rows: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    inserts: int = 0
    failures: int = 0
    splits: int = 0
    unstorable: int = 0


class BatchWork:
    """Takes one batch through its tables. `progress`, by table name, moves on with each insert."""

    def __init__(
        self,
        batch: Batch,
        route: Route,
        progress: MutableMapping[str, TableProgress],
        build: BuildPayload,
    ) -> None:
        self.batch = batch
        self.route = route
        self.counts = WorkCounts()
        self.recreated = False
        self.last_error = ""
        self.outcome_unknown = False
        self._progress = progress
        self._build = build
        self._segments: list[Block] = [batch.items]
        self._table = 0
        self._verified = False
        self._condemned = 0
        self._letters = batch.items.letters()
        self._known: frozenset[LetterKey] | None = None
        self._selection: Selection | None = None
        self._current: Action | None = None

    def next(self) -> Action | None:
        """The next thing to do, the same one until it is done; None when the batch is finished."""
        while self._current is None and not self.recreated:
            if not self._verified:
                self._current = VerifyLog(self.batch.source, self.batch.read_at)
            elif self._letters:
                self._current = SendLetters(self.batch.source, tuple(self._letters))
            elif not self._segments:
                return None
            else:
                self._current = self._advance(self._segments[-1])
        return self._current

    def done(self, outcome: Outcome) -> None:
        """Take in the outcome of the action that `next` gave."""
        action, self._current = self._current, None
        match action, outcome:
            case _, Failed():
                self._retry(action, outcome)
            case VerifyLog(), Recreated():
                self.recreated, self.last_error = True, outcome.message
            case VerifyLog(), _:
                self._verified = True
            case SendLetters(), _:
                self.counts.letters.update(letter.error_class for letter in action.letters)
                self._letters.clear()
            case FindLetters(), Found():
                self._known = outcome.keys
            case Insert(), RefusedByStore():
                self._refused(action, outcome)
            case Insert(), Done():
                self._inserted(action)
            case FindRows(), Done():
                self._inserted(action.insert)
            case FindRows(), Absent():
                self._not_inserted()
            case _:
                raise TypeError(f"{outcome} is no outcome of {action}")

    def _advance(self, segment: Block) -> Action | None:
        """The next action for a segment; None where something changed and `next` looks again."""
        if self._table == len(self.route.tables):
            self._segments.pop()
            self._table, self._known = 0, None
            return None
        table = self.route.tables[self._table]
        progress = self._progress[table.name]
        if self.route.by_lookup:
            if self._known is None:
                usable = np.flatnonzero(segment.usable).tolist()
                keys = tuple(segment.identity(index) for index in usable)
                if keys:
                    return FindLetters(keys)
            selection = select_by_lookup(progress, segment, self._known or ())
        else:
            selection = select_by_source(progress, segment, table.needs)
        if not len(selection.items):
            self._next_table(table, selection)
            return None
        try:
            payload = self._build(table, selection.items, self.batch.source)
        except BadRow as error:
            self._condemn(selection.items, error.index, Refused("bad_row", error.reason))
            return None
        self._selection = selection
        first, last = int(segment.offsets[0]), int(segment.offsets[-1])
        source = self.batch.source
        token = f"{table.name}/{source.topic_id}/{source.partition}/{first}-{last}"
        return Insert(table, token, payload, source, int(selection.items.offsets[-1]))

    def _next_table(self, table: Table, selection: Selection) -> None:
        self._progress[table.name] = selection.after
        self.counts.repeats[table.name] += selection.repeats
        self._table += 1

    def _inserted(self, action: Insert) -> None:
        assert self._selection is not None
        self.outcome_unknown, self.last_error = False, ""
        self.counts.rows[action.table.name] += action.payload.rows
        self.counts.inserts += 1
        self._next_table(action.table, self._selection)

    def _not_inserted(self) -> None:
        """The rows that were too many for the server may go in two parts, under tokens of their own."""
        assert self._selection is not None
        self.outcome_unknown = False
        if len(self._selection.items) > 1:
            self._split(self._selection.items)

    def _retry(self, action: Action | None, outcome: Failed) -> None:
        self._current = action
        self.counts.failures += 1
        self.last_error = outcome.message
        self.outcome_unknown |= outcome.unknown

    def _refused(self, action: Insert, refusal: RefusedByStore) -> None:
        assert self._selection is not None
        items = self._selection.items
        too_many = self._condemned >= CONDEMNED_MAX
        if refusal.fault is Fault.SIZE and self.outcome_unknown:
            # An earlier attempt may have been done: the same rows under other tokens would be there twice.
            self._current, self.last_error = FindRows(action), refusal.message
        elif refusal.fault is Fault.SIZE and len(items) == 1:
            self._retry(action, Failed(refusal.message))
        elif refusal.fault is Fault.DATA and too_many:
            message = f"more than {CONDEMNED_MAX} records of a batch refused: {refusal.message}"
            self._retry(action, Failed(message))
        elif len(items) == 1:
            self._condemned += 1
            self.outcome_unknown = False
            self._condemn(items, 0, Refused("store_refused", refusal.message))
        else:
            self._split(items)

    def _split(self, items: Block) -> None:
        left_last = int(items.offsets[(len(items) - 1) // 2])
        self.counts.splits += 1
        self.outcome_unknown, self._known = False, None
        segment = self._segments.pop()
        middle = int(np.searchsorted(segment.offsets, left_last, side="right"))
        self._segments += [segment.part(slice(middle, None)), segment.part(slice(middle))]
        self._table = 0

    def _condemn(self, items: Block, index: int, why: Refused) -> None:
        """Give one record of the current segment to the dead letters instead of the tables."""
        segment = self._segments.pop()
        bad = int(np.searchsorted(segment.offsets, items.offsets[index]))
        segment = segment.refuse(bad, why)
        self._segments.append(segment)
        if self.route.by_lookup:
            # A dead letter that cannot be stored stays where it is whole, in its topic; as another
            # dead letter it would be refused again, for ever.
            self.counts.unstorable += 1
            self.last_error = why.message
        else:
            self._letters.append(segment.letter(bad))
