"""Runs the kernel over a batch's chunks: one call per number of experts, states gathered and put back.

The arena holds a row per (session, layer) that the batch touches; the kernel gives back, for each
chunk, the rows as they were right after it, so that every chunk has its own snapshot.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from routekeel.operators.columns import LAYER
from routekeel.operators.contract import BatchOutput, ChunkBatch
from routekeel.operators.state import initial_rows
from routekeel.operators.step import step_many
from routekeel.schemas.logits import unpack
from routekeel.streams.topology.admission import Admission
from routekeel.streams.topology.cadence import NOTHING, Cadence, moved
from routekeel.streams.topology.chunk import LogitsChunk
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.records import SourceRecord
from routekeel.streams.topology.session import HEAD_AT, Session

F32 = npt.NDArray[np.float32]


@dataclass(slots=True)
class Plan:
    """One accepted chunk on its way through the batch; `execute` fills the second half.

    `head` and `layers_then` are the session's encoded head and layer ids right after this chunk;
    `is_first` says that the session's state begins with it.
    """

    record: SourceRecord
    chunk: LogitsChunk
    session: Session
    admission: Admission
    head: bytes
    layers_then: tuple[int, ...]
    state_reset: str
    detail: bool
    is_first: bool
    output: BatchOutput | None = None
    index: int = 0
    refs: slice = field(default_factory=lambda: slice(0))
    state: bytes = b""
    publishes: int = NOTHING
    has_router_gram: bool = False
    detail_start: int = 0


@dataclass(slots=True)
class _Group:
    """The plans of one number of experts and the arrays their batch is built from."""

    plans: list[Plan] = field(default_factory=list)
    first_slot: dict[int, int] = field(default_factory=dict)
    rows: list[F32] = field(default_factory=list)
    slots_used: int = 0

    def slots_of(self, plan: Plan) -> range | list[int]:
        """The arena rows of the chunk's layers, the session's rows being added on first sight."""
        session = plan.session
        first = self.first_slot.get(id(session))
        if first is None:
            first = self.first_slot[id(session)] = self.slots_used
            self.rows.append(session.packed)
            self.slots_used += len(session.layers)
        if plan.chunk.layers == session.layers:
            return range(first, first + len(session.layers))
        position = {layer: index for index, layer in enumerate(session.layers)}
        return [first + position[layer] for layer in plan.chunk.layers]


def logits_of(chunk: LogitsChunk) -> F32:
    """The chunk's logits as float32[T·L, E]."""
    fields = chunk.fields
    layers = len(chunk.layers)
    matrix = unpack(
        fields["logits"], chunk.steps, layers, chunk.experts, fields["encoding"], fields["top_m"]
    )
    return matrix.reshape(chunk.rows, chunk.experts)


def non_finite(chunks: Sequence[LogitsChunk]) -> set[int]:
    """The indices of the chunks whose logits hold NaN or infinity."""
    dense = [chunk for chunk in chunks if chunk.fields["encoding"] == "F16"]
    if len(dense) == len(chunks):
        # The exponent bits of float16 are all ones in NaN and infinity: one pass over the joined bytes.
        bits = np.frombuffer(b"".join([chunk.fields["logits"] for chunk in chunks]), "<u2")
        if not bool(((bits & 0x7C00) == 0x7C00).any()):
            return set()
    return {
        index for index, chunk in enumerate(chunks) if not bool(np.isfinite(logits_of(chunk)).all())
    }


def execute(plans: Sequence[Plan], config: TopologyConfig) -> None:
    """Run the kernel for every plan and give each its output and the session's state after it."""
    groups: dict[int, _Group] = {}
    for plan in plans:
        groups.setdefault(plan.chunk.experts, _Group()).plans.append(plan)
    for experts, group in groups.items():
        _execute_group(group, experts, config)


def _execute_group(group: _Group, experts: int, config: TopologyConfig) -> None:
    slots: list[int] = []
    for plan in group.plans:
        plan.refs = slice(len(slots), len(slots) + len(plan.chunk.layers))
        slots.extend(group.slots_of(plan))
    arena = np.concatenate(group.rows) if group.rows else initial_rows(0, experts)
    gram, gram_index = _router_grams(group.plans, experts, config)
    chunks = [plan.chunk for plan in group.plans]
    batch = ChunkBatch.build(
        _logits(chunks, experts),
        [chunk.steps for chunk in chunks],
        [len(chunk.layers) for chunk in chunks],
        slots,
        top_k=[chunk.top_k for chunk in chunks],
        apply=_apply(group.plans),
        ambiguity=_ambiguity(chunks),
        detail=[plan.detail for plan in group.plans],
        gram_index=gram_index,
    )
    _, output = step_many(
        config.control, arena, batch, router_gram=gram, kernel=config.kernel, out=arena
    )
    running: dict[int, F32] = {}
    for index, plan in enumerate(group.plans):
        plan.output, plan.index = output, index
        plan.detail_start = int(batch.detail_start[index])
        head = _publish(plan, output, config.cadence)
        plan.state = head + _packed_after(plan, output.state, running).tobytes()


def _publish(plan: Plan, output: BatchOutput, cadence: Cadence) -> bytes:
    """Decide what the plan publishes; returns the session's head with the drift since then."""
    chunk, session = plan.chunk, plan.session
    if cadence.follows_change:
        rows = output.layer[plan.refs]
        step = moved(rows[:, LAYER["delta_w_hat"]], rows[:, LAYER["tokens"]])
        session.drift = np.float32(session.drift + step)
    if plan.admission.tokens_applied:
        plan.publishes = cadence.decide(
            chunk.position_start, chunk.steps, plan.is_first, session.drift
        )
    if plan.publishes:
        session.drift = np.float32(0)
    start = HEAD_AT["drift"]
    return plan.head[:start] + struct.pack("<f", session.drift) + plan.head[start + 4 :]


def _packed_after(plan: Plan, state: F32, running: dict[int, F32]) -> F32:
    """The session's whole matrix right after this chunk, for the layers it had then."""
    rows = state[plan.refs]
    session = plan.session
    if plan.chunk.layers == session.layers:
        running[id(session)] = rows
        return rows
    position = {layer: index for index, layer in enumerate(session.layers)}
    everything = np.array(running.get(id(session), session.packed))
    everything[[position[layer] for layer in plan.chunk.layers]] = rows
    running[id(session)] = everything
    return everything[[position[layer] for layer in plan.layers_then]]


def _logits(chunks: Sequence[LogitsChunk], experts: int) -> F32:
    if all(chunk.fields["encoding"] == "F16" for chunk in chunks):
        packed = b"".join([chunk.fields["logits"] for chunk in chunks])
        return np.frombuffer(packed, "<f2").astype(np.float32).reshape(-1, experts)
    return np.concatenate([logits_of(chunk) for chunk in chunks])


def _apply(plans: Sequence[Plan]) -> npt.NDArray[np.uint8] | None:
    if all(plan.admission.apply is None for plan in plans):
        return None
    return np.concatenate(
        [
            np.ones(plan.chunk.rows, np.uint8)
            if plan.admission.apply is None
            else plan.admission.apply.reshape(-1)
            for plan in plans
        ]
    )


def _ambiguity(chunks: Sequence[LogitsChunk]) -> F32 | None:
    scales = [chunk.entropy_scale for chunk in chunks]
    supplied = [chunk.ambiguity is not None for chunk in chunks]
    if not any(scales) and not any(supplied):
        return None
    steps = np.array([chunk.steps for chunk in chunks])
    ambiguity = np.full((int(steps.sum()), 3), np.nan, np.float32)
    start = 0
    for chunk, given in zip(chunks, supplied, strict=True):
        if given:
            ambiguity[start : start + chunk.steps] = chunk.ambiguity
        start += chunk.steps
    # All entropies in one go: the scale is per chunk, its entropies are consecutive.
    scaled = np.repeat(np.array(scales, np.float32), steps)
    joined = b"".join([chunk.fields["token_entropy"] for chunk in chunks if chunk.entropy_scale])
    uses_entropy = scaled > 0
    ambiguity[uses_entropy, 0] = np.clip(np.frombuffer(joined, "<f4") * scaled[uses_entropy], 0, 1)
    return ambiguity


def _router_grams(
    plans: Sequence[Plan], experts: int, config: TopologyConfig
) -> tuple[F32 | None, npt.NDArray[np.int32] | None]:
    """The Gram matrices these plans need, stacked, and each (chunk, layer)'s place in the stack."""
    if not config.router_grams:
        return None, None
    stack: list[F32] = []
    base: dict[int, int] = {}
    index: list[int] = []
    for plan in plans:
        chunk = plan.chunk
        known = config.router_gram(chunk.fields["model"], chunk.fields["model_revision"])
        if known is None or known.gram.shape[1] != experts:
            index.extend([-1] * len(chunk.layers))
            continue
        if id(known) not in base:
            base[id(known)] = sum(len(matrices) for matrices in stack)
            stack.append(known.gram)
        plan.has_router_gram = True
        start = base[id(known)]
        index.extend(
            start + known.index[layer] if layer in known.index else -1 for layer in chunk.layers
        )
    if not stack:
        return None, None
    return np.concatenate(stack), np.array(index, np.int32)
