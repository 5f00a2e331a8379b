"""The compiled way through a batch: decode, admit, kernel, encode, each in one call for many records.

Sessions with anything out of the ordinary are marked odd and left to the reference
(`topology.reference`), from the state that they had before the batch. What is done here has the
reference's bytes (tests/property/test_compiled_path.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routekeel.operators.contract import BatchOutput, ChunkBatch
from routekeel.operators.state import state_width
from routekeel.operators.step import compiled_kernel_exists, step_many
from routekeel.schemas.codec import Encoder, header
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.intake import Intake
from routekeel.streams.topology.record_block import OutputColumns
from routekeel.streams.topology.records import BatchCounts, LogBatch, Source
from routekeel.streams.topology.state_heap import NOWHERE, StateHeap

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """A batch with its decoded columns; `good` says which records they hold, `values` has their T·L·E."""

    records: LogBatch
    columns: Any
    good: Bools
    times_us: I64
    values: I64

    def between(self, start: int, end: int) -> Decoded:
        """The records from `start` up to `end`; nothing is copied."""
        span = slice(start, end)
        columns = self.columns.part(span)
        return Decoded(
            self.records[span], columns, columns.good, self.times_us[span], self.values[span]
        )


def compiled_path(
    source: Source, config: TopologyConfig, telemetry: Encoder, weights: Encoder, logits_id: int
) -> CompiledPath | None:
    """The compiled way where numba is here and the configuration asks for it, else None."""
    if config.kernel == "numpy" or not compiled_kernel_exists():
        return None
    return CompiledPath(source, config, telemetry, weights, logits_id)


def warm_up(config: TopologyConfig) -> None:
    """Load the compiled code, or compile it (once per machine), before anything waits for it."""
    if config.kernel != "numpy" and compiled_kernel_exists():
        import routekeel.streams.wire.encode
        import routekeel.streams.wire.frame
        import routekeel.streams.wire.grams
        import routekeel.streams.wire.spans  # noqa: F401


class BatchTables(NamedTuple):
    """What the passes over one batch share: decoded columns, turns and clocks by record, heads by turn."""

    columns: Any
    turns: npt.NDArray[np.int32]
    clocks: I64
    offsets: I64
    epoch: int
    memory: Bytes
    table: I64
    heads: npt.NDArray[np.uint8]
    marks: I64


class CompiledPath:
    """Bound to one partition and its configuration; holds nothing between batches."""

    def __init__(
        self,
        source: Source,
        config: TopologyConfig,
        telemetry: Encoder,
        weights: Encoder,
        logits_id: int,
    ) -> None:
        # Loaded here and not on top: without numba none of this can be imported.
        from routekeel.streams.wire import (
            admit,
            check,
            decode,
            encode,
            gather,
            grams,
            layout,
            numbers,
        )
        from routekeel.streams.wire.output_program import telemetry_program, weights_program
        from routekeel.streams.wire.program import program_of

        self._decode, self._check, self._admit = decode, check, admit
        self._gather, self._encode, self._at = gather, encode, layout
        self._grams, self._numbers = grams, numbers
        self._config, self._logits_id = config, logits_id
        self._program = program_of(ROUTER_LOGITS)
        fixed = {
            "source_topic": source.topic,
            "source_topic_id": source.topic_id,
            "source_partition": source.partition,
            "policy_version": config.policy_version,
            "policy_arm": config.policy_arm,
        }
        nothing = dict.fromkeys(
            ("probe_epsilon", "probe_basis_id", "probe_directions", "token_rows")
        )
        fixed_telemetry = {
            **fixed, **nothing, "rows_repeated": 0, "state_reset": "",
            "provenance_probe": "unavailable",
        }  # fmt: skip
        fixed_weights = {**fixed, "w_hat": b"", "w_hat_half": None, "state": b""}
        self._halves = config.cadence.precision == "F16"
        route_in = "w_hat_half" if self._halves else "w_hat"
        self._telemetry = telemetry_program(header(telemetry.schema_id), fixed_telemetry)
        self._weights = [
            weights_program(
                header(weights.schema_id), fixed_weights, route_in=route_in, with_state=with_state
            )
            for with_state in (False, True)
        ]

    def decode(self, records: LogBatch) -> Decoded:
        """Decode and check; what is not plainly valid is left to the reference."""
        values = [value or b"" for value in records.values]
        columns = self._decode.decode(values, self._logits_id, self._program)
        self._check.check(columns, records.keys)
        at, numbers = self._at, columns.values
        times_us = numbers[:, at.EVENT_TIME].copy()
        # What was not decoded may hold any numbers.
        shapes = np.where(columns.good[:, None], numbers[:, [at.STEPS, at.LAYERS, at.EXPERTS]], 0)
        return Decoded(records, columns, columns.good, times_us, shapes.prod(axis=1))

    def run(
        self,
        decoded: Decoded,
        turns: npt.NDArray[np.int32],
        clocks: I64,
        epoch: int,
        heap: StateHeap,
        intake: Intake,
        odd: Bools,
        outputs: OutputColumns,
        counts: BatchCounts,
    ) -> None:
        """Fill in outputs by record, and states in the heap; sets `odd` where the reference must."""
        columns, admit = decoded.columns, self._admit
        table = np.zeros((len(intake.slots), admit.SLOT_COLUMNS), np.int64)
        starts = heap.start[intake.slots]
        known = starts >= 0
        table[known, admit.OLD_START] = starts[known]
        table[known, admit.OLD_END] = (starts + heap.size[intake.slots])[known]
        old = heap.view()
        admit.measure(columns.values, turns, old, table, odd)
        ends = np.cumsum(table[:, admit.HEAD_LENGTH])
        table[:, admit.HEAD_START] = ends - table[:, admit.HEAD_LENGTH]
        heads = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        marks = np.empty((len(turns), admit.MARKS), np.int64)
        admit.admit(
            columns.buffer, columns.starts, columns.values, turns, old, table, odd, heads, marks
        )
        del old  # or the memory could not grow
        plain = (table[:, admit.OPENED] != 0) & ~odd
        groups = {
            experts: np.flatnonzero(plain & (table[:, admit.SLOT_EXPERTS] == experts))
            for experts in np.unique(table[plain, admit.SLOT_EXPERTS]).tolist()
        }
        stays = np.flatnonzero(plain & intake.stays)
        sizes = table[:, admit.HEAD_LENGTH].copy()
        for experts, group in groups.items():
            sizes[group] += 4 * table[group, admit.SLOT_LAYERS] * state_width(experts)
        table[:, admit.NEW_START] = NOWHERE
        table[stays, admit.NEW_START] = heap.place(intake.slots[stays], sizes[stays])
        offsets = np.array(decoded.records.offsets, np.int64)
        memory = heap.view()
        batch = BatchTables(columns, turns, clocks, offsets, epoch, memory, table, heads, marks)
        for experts, group in groups.items():
            self._run_group(batch, group, experts, outputs, counts)

    def _run_group(
        self,
        batch: BatchTables,
        group: I64,
        experts: int,
        outputs: OutputColumns,
        counts: BatchCounts,
    ) -> None:
        at, values, table = self._at, batch.columns.values, batch.table
        member = np.zeros(len(table) + 1, np.bool_)  # the last for turn −1, no session
        member[group] = True
        chosen = np.flatnonzero(member[batch.turns])
        chunks = self._assemble(batch, group, chosen, experts)
        arena, inputs, gram, known = chunks
        _, output = step_many(
            self._config.control, arena, inputs, gram, self._config.kernel, out=arena
        )
        numbers = self._numbers.numbers_of(batch, chosen, output, known)
        outputs.add_all(chosen, *self._write(batch, chosen, output, inputs, numbers))
        self._gather.put_states(
            table,
            group,
            batch.heads,
            arena.view(np.uint8).reshape(-1),
            arena.shape[1],
            batch.memory,
        )
        counts.rows += inputs.rows
        counts.positions_missing += int(batch.marks[chosen, self._admit.POSITIONS_MISSING].sum())
        counts.sequences_missing += int(batch.marks[chosen, self._admit.SEQUENCES_MISSING].sum())
        counts.dropped_by_producer += int(values[chosen, at.DROPPED_BEFORE].sum())

    def _assemble(
        self, batch: BatchTables, group: I64, chosen: I64, experts: int
    ) -> tuple[Any, ChunkBatch, Any, Bools | None]:
        at, admit, values, table = self._at, self._admit, batch.columns.values, batch.table
        width = state_width(experts)
        layers = table[group, admit.SLOT_LAYERS]
        ends = np.cumsum(layers)
        table[group, admit.ARENA_ROW] = ends - layers
        arena = np.empty((int(ends[-1]), width), np.float32)
        self._gather.fill_arena(batch.memory, table, group, arena.view(np.uint8).reshape(-1), width)
        steps, counts = values[chosen, at.STEPS], values[chosen, at.LAYERS]
        logits = np.empty((int((steps * counts).sum()), experts), np.float32)
        ambiguity = np.empty((int(steps.sum()), 3), np.float32)
        rows = np.empty(int(counts.sum()), np.int32)
        self._gather.fill_inputs(
            batch.columns.buffer, batch.columns.starts, values, chosen, batch.turns, table,
            self._numbers.entropy_scales(values, chosen), self._gather.LOGARITHMS,
            logits.view(np.uint32).reshape(-1), logits.reshape(-1),
            ambiguity.view(np.uint32).reshape(-1), ambiguity.reshape(-1), rows,
        )  # fmt: skip
        gram, gram_index, known = None, None, None
        if self._config.router_grams:
            gram, gram_index, known = self._grams.grams_of(
                self._config, batch, group, chosen, experts
            )
        inputs = ChunkBatch.build(
            logits, steps, counts, rows, top_k=values[chosen, at.TOP_K], ambiguity=ambiguity,
            gram_index=gram_index,
        )  # fmt: skip
        return arena, inputs, gram, known

    def _write(
        self, batch: BatchTables, chosen: I64, output: BatchOutput, inputs: ChunkBatch, numbers: I64
    ) -> tuple[Bytes, I64]:
        cadence, columns = self._config.cadence, batch.columns
        route = output.route.astype("<f2") if self._halves else output.route
        chunk, layer = output.chunk, output.layer
        # Larger than any record can come out: its input, every number and column at its longest.
        refs, experts = len(output.layer), inputs.experts
        spans = columns.starts[chosen, -1] - columns.starts[chosen, 0]
        spans = spans - columns.values[chosen, self._at.LOGITS]
        fixed = sum(len(p.constants) for p in (self._telemetry, *self._weights)) + 1024
        floats = layer.shape[1] + 8 + 3 * experts + state_width(experts)
        heads = batch.table[batch.turns[chosen], self._admit.HEAD_LENGTH].sum()
        size = int(2 * spans.sum() + fixed * len(chosen) + 4 * floats * refs + heads)
        out = np.empty(size, np.uint8)
        ends = np.empty((len(chosen), 2), np.int64)
        one = np.zeros(1, np.float32)
        self._encode.encode_outputs(
            self._telemetry.operations, self._telemetry.constants,
            self._weights[0].operations, self._weights[0].constants,
            self._weights[1].operations, self._weights[1].constants,
            columns.buffer, columns.starts, columns.values, chosen, batch.turns, batch.table,
            batch.heads, batch.marks, batch.clocks, batch.offsets, batch.epoch,
            cadence.every_tokens, cadence.state_every_tokens, np.float32(cadence.change),
            inputs.slot_start, numbers, chunk, chunk.view(np.uint32), one, one.view(np.uint32),
            layer, layer.view(np.uint32).reshape(-1), output.loads.view(np.uint8), refs * experts,
            np.ascontiguousarray(route).view(np.uint8).reshape(-1), route.itemsize,
            output.state.view(np.uint8).reshape(-1), out, ends,
        )  # fmt: skip
        size = int(ends[-1, 1])
        # What is handed on waits to be sent, and must not hold twice what it counts.
        return (out[:size] if 2 * size > len(out) else out[:size].copy()), ends
