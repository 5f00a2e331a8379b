"""One partition: records in, results and the next state out. The heart of the worker, without I/O.

A batch goes through four passes: decode and check every record; take them in, in log order (clock,
recency, evictions); apply them session by session, compiled where that suits and plainly where not;
put the outputs in log order. Nothing depends on where batches begin and end: the same log gives the
same bytes, which replay relies on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from routekeel.streams.topology.changelog import Checkpoint, StateStore, rewritten
from routekeel.streams.topology.chunk import LogitsChunk
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.execute import non_finite
from routekeel.streams.topology.intake import Intake, Roster
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.record_block import OutputColumns, Outputs
from routekeel.streams.topology.records import (
    BatchCounts,
    BatchResult,
    DeadLetter,
    LogBatch,
    Refusal,
    Source,
    SourceRecord,
)
from routekeel.streams.topology.reference import Decode, Member, ReferencePath
from routekeel.streams.topology.watermark import Watermark
from routekeel.streams.wire.path import CompiledPath, Decoded

PIECE_VALUES: Final = 2**20
"""Logits applied at a time (4 MiB unpacked), or one record, whatever it has."""


class PartitionProcessor:
    """Applies batches of one partition's records to the state in `store`.

    Between checkpoints the changes are kept here and not in the store, so that the store is always a
    state that the changelog can prove. `checkpoint()` says what to write; after it is durable,
    `checkpointed()` moves the store on. `compiled` is the fast way; without it all go the plain one.
    """

    def __init__(
        self,
        source: Source,
        config: TopologyConfig,
        decode: Decode,
        builder: OutputBuilder,
        store: StateStore,
        compiled: CompiledPath | None = None,
    ) -> None:
        self.source = source
        self._config = config
        self._reference = ReferencePath(source, config, decode, builder)
        self._compiled = compiled
        self._store = store
        mark = store.watermark or Watermark(source.topic_id)
        self.recreated = mark.topic_id != source.topic_id
        self.watermark = mark.of_log(source.topic_id)
        self._roster = Roster(config, store, self.watermark.clock_us)
        self._again: set[bytes] = set()
        self._whole = True
        """Whether no batch was left half-way, by an error, and some states are ahead of the watermark."""
        self.dirty_bytes = 0

    @property
    def sessions(self) -> int:
        """How many sessions this partition holds."""
        return len(self._roster)

    def lost_until(self, log_start: int) -> int:
        """Retention removed everything below `log_start`: go on from there; how many records that lost."""
        lost = log_start - self.watermark.applied_offset - 1
        if lost > 0:
            self.watermark = self.watermark._replace(
                applied_offset=log_start - 1,
                lost_to_retention=self.watermark.lost_to_retention + lost,
            )
        return max(0, lost)

    def apply(self, records: LogBatch | Sequence[SourceRecord]) -> BatchResult:
        """Apply the records in order, skipping what is at or below the watermark: `pieces` as one.

        The caller has made sure that they are contiguous with it (Kafka's log has no holes here).
        """
        batch = records if isinstance(records, LogBatch) else LogBatch.of(records)
        whole = BatchResult(Outputs.joined([]), [], self.watermark.applied_offset, BatchCounts())
        for piece in self.pieces(batch):
            whole.add(piece)
        return whole

    def pieces(self, batch: LogBatch) -> Iterator[BatchResult]:
        """Apply a batch bit by bit, so that outputs can go out while the next bit is computed.

        What a large model's chunks lead to is a hundred times their bytes in arrays; a bit of it stays
        in the processor's caches. Between two bits the state is whole, as between two batches.
        """
        new = batch.after(self.watermark.applied_offset)
        counts = BatchCounts(records=len(batch), skipped=len(batch) - len(new))
        decoded = self._compiled.decode(new) if self._compiled and len(new) else None
        chunks, letters = self._check(new, decoded)
        values = np.zeros(len(new), np.int64) if decoded is None else decoded.values
        for index, chunk in chunks.items():
            values[index] = chunk.rows * chunk.experts
        for start, end in _spans(values):
            piece = decoded.between(start, end) if decoded is not None else None
            part = new[start:end]
            own = {i - start: chunk for i, chunk in chunks.items() if start <= i < end}
            refused = [x for x in letters if part.offsets[0] <= x.record.offset <= part.offsets[-1]]
            for letter in refused:
                counts.dead_letters[letter.error_class] = (
                    counts.dead_letters.get(letter.error_class, 0) + 1
                )
            outputs = self._apply(part, piece, own, refused, counts)
            self.watermark = self.watermark._replace(
                applied_offset=part.offsets[-1], clock_us=self._roster.clock_us
            )
            yield BatchResult(outputs, refused, self.watermark.applied_offset, counts)
            counts = BatchCounts()
        if not len(new):
            yield BatchResult(Outputs.joined([]), [], self.watermark.applied_offset, counts)

    def checkpoint(self) -> Checkpoint:
        """What to write to the changelog for everything applied since the last checkpoint.

        Raises AssertionError after a batch that failed.
        """
        assert self._whole, "a batch was left half-way"
        changes = self._roster.changes
        again = sorted(self._again - set(changes)) if self._again else []
        return Checkpoint(
            changes, self.watermark, list(rewritten(again, self._store, self.watermark))
        )

    def rewrite(self, keys: Iterable[bytes]) -> None:
        """Write these keys again with the next checkpoint: their newest record is a late writer's."""
        self._again.update(keys)

    def checkpointed(self, position: int) -> None:
        """The checkpoint is durable; its last record has this offset in the changelog."""
        self._store.commit(self._roster.changes, self.watermark, position)
        self._roster.checkpointed()
        self._again.clear()
        self.dirty_bytes = 0

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to write: applied since the last checkpoint, or to be written again."""
        return bool(self._again) or self._store.watermark != self.watermark

    def state_of(self, session_id: bytes) -> bytes | None:
        """A session's encoded state as of the last record applied, for inspection."""
        return self._roster.state_of(session_id)

    def _check(
        self, records: LogBatch, decoded: Decoded | None
    ) -> tuple[dict[int, LogitsChunk], list[DeadLetter]]:
        """The chunks that the compiled decoder left over, by index, and the records refused."""
        left = range(len(records)) if decoded is None else np.flatnonzero(~decoded.good).tolist()
        chunks: dict[int, LogitsChunk] = {}
        letters: list[DeadLetter] = []
        for index in left:
            try:
                chunks[index] = self._reference.check(records[index])
            except Refusal as refusal:
                letters.append(DeadLetter(records[index], refusal.error_class, refusal.message))
        indices = list(chunks)
        for position in non_finite(list(chunks.values())):
            del chunks[indices[position]]
            message = "the logits contain NaN or infinity"
            letters.append(DeadLetter(records[indices[position]], "non_finite_logits", message))
        letters.sort(key=lambda letter: letter.record.offset)
        return chunks, letters

    def _apply(
        self,
        new: LogBatch,
        decoded: Decoded | None,
        chunks: dict[int, LogitsChunk],
        letters: Sequence[DeadLetter],
        counts: BatchCounts,
    ) -> Outputs:
        refused = {letter.record.offset for letter in letters}
        taken = list(range(len(new)))
        if refused:
            taken = [index for index in taken if new.offsets[index] not in refused]
        self._whole = False
        intake = self._take_in(new, taken, decoded, chunks, counts)
        table = self._roster.table
        odd = np.zeros(len(intake.slots), np.bool_)
        turns = np.full(len(new), -1, np.int32)
        turns[taken] = intake.turns
        if self._config.token_rows_share > 0:
            keys = table.order.keys_of(intake.sessions)
            odd[:] = [self._config.wants_token_rows(key) for key in keys]
        odd[turns[list(chunks)]] = True
        outputs = OutputColumns(len(new))
        epoch = self.watermark.log_epoch
        if decoded is not None and self._compiled is not None:
            clocks = np.zeros(len(new), np.int64)
            clocks[taken] = intake.clocks
            self._compiled.run(
                decoded, turns, clocks, epoch, table.heap, intake, odd, outputs, counts
            )
        else:
            odd[:] = True
        if odd.any():
            self._apply_plainly(new, taken, chunks, intake, odd, outputs, counts)
        self.dirty_bytes += self._roster.settle(intake)
        done = outputs.of(
            taken, [new.offsets[i] for i in taken], [new.keys[i] or b"" for i in taken]
        )
        self._whole = True
        return done

    def _apply_plainly(
        self,
        new: LogBatch,
        taken: Sequence[int],
        chunks: dict[int, LogitsChunk],
        intake: Intake,
        odd: npt.NDArray[np.bool_],
        outputs: OutputColumns,
        counts: BatchCounts,
    ) -> None:
        """The odd turns' records."""
        heap = self._roster.table.heap
        members = [
            Member(
                index,
                turn,
                clock,
                new[index],
                chunks.get(index) or self._reference.check(new[index]),
            )
            for index, turn, clock in zip(taken, intake.turns, intake.clocks, strict=True)
            if odd[turn]
        ]
        values = {
            turn: heap.get(slot) if heap.start[slot] >= 0 else b""
            for turn, slot in enumerate(intake.sessions)
            if odd[turn]
        }
        found, changed = self._reference.run(members, values, self.watermark.log_epoch, counts)
        for index, output in found.items():
            outputs.add(index, output)
        stay = [turn for turn in changed if intake.stays[turn]]
        heap.write(intake.slots[stay], [changed[turn] for turn in stay])

    def _take_in(
        self,
        new: LogBatch,
        taken: Sequence[int],
        decoded: Decoded | None,
        chunks: dict[int, LogitsChunk],
        counts: BatchCounts,
    ) -> Intake:
        times = np.array(
            [c.event_time_us for c in chunks.values()] if decoded is None else decoded.times_us,
            np.int64,
        )
        if decoded is not None:
            for index, chunk in chunks.items():
                times[index] = chunk.event_time_us
            times = times[list(taken)]
        keys = [new.keys[index] or b"" for index in taken]
        log_times = np.array(new.timestamps_ms, np.int64)[taken] * 1000
        clocks = self._roster.clocks_of(times, log_times, counts)
        offsets = [new.offsets[index] for index in taken]
        return self._roster.take(keys, offsets, clocks, self.watermark.log_epoch, counts)


def _spans(values: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Consecutive stretches of records of at most PIECE_VALUES, but of one record at least."""
    ends = np.cumsum(values)
    start, before = 0, 0
    while start < len(values):
        end = max(start + 1, int(np.searchsorted(ends, before + PIECE_VALUES, side="right")))
        yield start, end
        start, before = end, int(ends[end - 1])
