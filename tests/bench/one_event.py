"""The kernel for one event at a time, as the record-at-a-time frameworks hand them over.

Everything that depends on the shape alone is made once and used again: offsets, slots, scratch and
the arrays the kernel writes to, which are copied into records before the next call. The compiled
kernel is called directly: building a batch of one costs several times what the kernel does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import kernels, kernels_layout
from routekeel.operators.arithmetic import log32
from routekeel.operators.config import DEFAULT
from routekeel.operators.contract import ChunkBatch
from routekeel.operators.state import initial_rows
from routekeel.operators.step import NO_GRAM, step_many

from .records import HandWritten


class OneEvent:
    """The kernel for events of one shape. The arrays of `output` are overwritten by every call."""

    def __init__(self, steps: int, layers: int, experts: int, top_k: int) -> None:
        batch = ChunkBatch.build(
            np.zeros((steps * layers, experts), np.float32),
            [steps],
            [layers],
            np.arange(layers),
            top_k=top_k,
        )
        state = initial_rows(layers, experts)
        # One ordinary call loads the kernel and makes output arrays of the right shapes.
        _, self.output = step_many(DEFAULT, state, batch)
        loads = self.output.load_base.base
        assert isinstance(loads, np.ndarray)
        self._loads = loads
        vectors = 8 * -(-experts // 8)
        region = kernels_layout.VECTORS * vectors + kernels_layout.TAIL_SIZE
        shared = kernels_layout.SHARED * vectors + kernels_layout.LEDGER_SIZE
        out = self.output
        config = np.append(DEFAULT.packed, log32(np.float32(experts))).astype(np.float32)
        table = np.array([[steps, layers, top_k, 0, 0, 0, 0, 0]], np.int64)
        self._before = (state.shape[1], experts, table, batch.slots, batch.gram_index)
        self._after = (
            NO_GRAM.reshape(-1), out.layer, loads, out.route, out.chunk, out.ambiguity_mask, out.rows,
            out.row_w_base, out.row_w_hat, np.empty(layers * region + shared, np.float32), layers, out.state,
        )  # fmt: skip
        self._config, self._apply = config, batch.apply
        self.step(batch.logits, batch.ambiguity, state)

    def step(self, logits: Any, ambiguity: Any, state: Any) -> None:
        """Apply logits float32[T·L, E] to `state` float32[L, 2E + 6], in place."""
        self._loads.fill(0)
        self.output.ambiguity_mask.fill(0)
        kernels.run(
            self._config, state.reshape(-1), *self._before, logits.reshape(-1), self._apply, ambiguity, *self._after
        )  # fmt: skip


class PerEvent:
    """From a message to its outputs, for events of one shape."""

    def __init__(self, work: HandWritten, steps: int, layers: int, experts: int) -> None:
        self._work, self._layers = work, layers
        self._kernel = OneEvent(steps, layers, experts, top_k=2)

    def apply(
        self, value: bytes, partition: int, offset: int, state: Any | None
    ) -> tuple[Any, bytes, bytes | None]:
        """(state, Telemetry, Weights or None). A state that is given is changed in place."""
        work = self._work
        event = work.decode(value)
        first = state is None
        if first:
            state = work.fresh(event)
        logits, ambiguity = work.inputs([event])
        self._kernel.step(logits, ambiguity, state)
        outputs = work.outputs(self._kernel.output, self._layers)
        return state, *outputs.records(0, event, partition, offset, first)
