"""Which rows of a chunk are new: repeats, overlaps and gaps, decided by sequence and position.

A repeat is a chunk whose producer, epoch and sequence were seen, or rows whose positions the request
has already applied at that layer. Overlapping rows (preemption, speculative decoding) apply their new
part only. Everything here depends on the log alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routekeel.operators.state import initial_rows
from routekeel.streams.topology.chunk import LogitsChunk
from routekeel.streams.topology.session import Producer, Request, Session


@dataclass(slots=True)
class Admission:
    """The verdict on one chunk. `apply` is u8[T, L] or None when every row is new."""

    apply: npt.NDArray[np.uint8] | None
    rows_repeated: int
    tokens_applied: int
    positions_missing: int
    sequences_missing: int


def admit(session: Session, chunk: LogitsChunk, requests_max: int) -> Admission:
    """Decide on the chunk's rows and move the session's sequences and positions on.

    `session` is changed in place (the caller owns it); `requests_max` bounds both lists, the least
    recently used entry goes first.
    """
    tokens, n_layers = chunk.steps, len(chunk.layers)
    if chunk.layers != session.layers:
        # Before the repeats: a number that was used twice may come with layers never seen.
        extend_layers(session, chunk.layers)
    repeat, sequences_missing = _sequence(session, chunk, requests_max)
    if repeat:
        return Admission(np.zeros((tokens, n_layers), np.uint8), tokens * n_layers, 0, 0, 0)
    request = _request(session, chunk.request_id, requests_max)
    last = chunk.position_start + tokens - 1
    if request.by_layer is None and chunk.layers == session.layers:
        known = request.position
        request.position = max(known, last)
        missing = max(0, chunk.position_start - known - 1) if known >= 0 else 0
        if known < chunk.position_start:
            return Admission(None, 0, tokens, missing, sequences_missing)
        new = max(0, last - known)
        apply = np.zeros((tokens, n_layers), np.uint8)
        apply[tokens - new :] = 1
        return Admission(apply, (tokens - new) * n_layers, new, 0, sequences_missing)
    return _admit_by_layer(session, request, chunk, sequences_missing)


def _admit_by_layer(
    session: Session, request: Request, chunk: LogitsChunk, sequences_missing: int
) -> Admission:
    tokens, start = chunk.steps, chunk.position_start
    last = start + tokens - 1
    if request.by_layer is None:
        request.by_layer = dict.fromkeys(session.layers, request.position)
    known = np.array([request.by_layer.get(layer, -1) for layer in chunk.layers])
    apply = (np.arange(start, last + 1)[:, None] > known[None, :]).astype(np.uint8)
    gaps = np.where(known >= 0, start - known - 1, 0)
    for layer in chunk.layers:
        request.by_layer[layer] = max(request.by_layer.get(layer, -1), last)
    request.position = max(request.position, last)
    positions = {request.by_layer.get(layer, -1) for layer in session.layers}
    if len(positions) == 1:
        request.position, request.by_layer = positions.pop(), None
    applied = int(apply.sum())
    return Admission(
        None if applied == apply.size else apply,
        apply.size - applied,
        int(apply.any(axis=1).sum()),
        max(0, int(gaps.max())),
        sequences_missing,
    )


def _sequence(session: Session, chunk: LogitsChunk, producers_max: int) -> tuple[bool, int]:
    producers = session.producers
    for index, producer in enumerate(producers):
        if producer.epoch == chunk.producer_epoch and producer.worker_id == chunk.worker_id:
            if index != len(producers) - 1:
                producers.append(producers.pop(index))
            return producer.admit(chunk.sequence)
    if len(producers) >= producers_max:
        del producers[0]
    producers.append(Producer(chunk.worker_id, chunk.producer_epoch, chunk.sequence))
    return False, 0


def _request(session: Session, request_id: bytes, requests_max: int) -> Request:
    requests = session.requests
    for index, request in enumerate(requests):
        if request.request_id == request_id:
            if index != len(requests) - 1:
                requests.append(requests.pop(index))
            return request
    if len(requests) >= requests_max:
        del requests[0]
    request = Request(request_id, -1)
    requests.append(request)
    return request


def extend_layers(session: Session, layers: tuple[int, ...]) -> None:
    """Give the session a fresh state row for every layer id that it did not have."""
    new = sorted(set(layers) - set(session.layers))
    if not new:
        return
    merged = tuple(sorted({*session.layers, *new}))
    packed = initial_rows(len(merged), session.experts)
    place = {layer: index for index, layer in enumerate(merged)}
    packed[[place[layer] for layer in session.layers]] = session.packed
    for request in session.requests:
        if request.by_layer is None and request.position >= 0:
            request.by_layer = dict.fromkeys(session.layers, request.position)
    session.layers, session.packed = merged, packed
