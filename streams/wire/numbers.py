"""What the encoder needs beside the kernel's output: counts, positions, provenances, per chunk.

The vectorised twin of `topology.outputs._add_provenance` for chunks without probe and flip distance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.operators.contract import BatchOutput
from routekeel.schemas.records.telemetry import PROVENANCE
from routekeel.streams.wire import admit
from routekeel.streams.wire import layout as at
from routekeel.streams.wire.decode import NULL
from routekeel.streams.wire.output_program import NUMBERS

CODE = {symbol: index for index, symbol in enumerate(PROVENANCE.symbols)}
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def entropy_scales(values: I64, chosen: I64) -> npt.NDArray[np.float32]:
    """1/ln vocabulary where the predictive component comes from the token entropies, else 0."""
    vocabulary = values[chosen, at.VOCABULARY]
    usable = (values[chosen, at.TOKEN_ENTROPY] != NULL) & (values[chosen, at.PREDICTIVE] == NULL)
    sizes, place = np.unique(vocabulary, return_inverse=True)
    scales = [1 / math.log(size) if size > 1 else 0.0 for size in sizes.tolist()]
    found: npt.NDArray[np.float32] = np.array(scales, np.float32)[place]
    return np.where(usable, found, np.float32(0))


def numbers_of(batch: Any, chosen: I64, output: BatchOutput, known: Bools | None) -> I64:
    """The encoder's computed numbers, one row per chunk."""
    values = batch.columns.values[chosen]
    derived, none = CODE["derived"], CODE["unavailable"]
    mask = output.ambiguity_mask.astype(np.int64)
    from_entropy = (mask == 1) & (values[:, at.PREDICTIVE] == NULL)
    exact = (values[:, at.ENCODED] != at.F16_TOP_M) & _is_softmax(batch, chosen)
    hidden = np.where(known, derived, none) if known is not None else none
    judged = (values[:, at.SUCCESS] != NULL) | (values[:, at.JUDGE_SCORE] != NULL)
    columns: dict[str, Any] = {
        "source_offset": batch.offsets[chosen],
        "tokens_applied": values[:, at.STEPS],
        "positions_missing": batch.marks[chosen, admit.POSITIONS_MISSING],
        "sequences_missing": batch.marks[chosen, admit.SEQUENCES_MISSING],
        "ambiguity_mask": mask,
        "position_last": values[:, at.POSITION_START] + values[:, at.STEPS] - 1,
        "provenance_ambiguity": np.where(
            mask == 0, none, np.where(from_entropy, CODE["measured"], CODE["proxy"])
        ),
        "provenance_route": np.where(exact, derived, CODE["proxy"]),
        "provenance_hidden": hidden,
        "provenance_flip_distance": hidden,
        "provenance_latency": np.where(values[:, at.LATENCY] != NULL, CODE["measured"], none),
        "provenance_quality": np.where(judged, CODE["measured"], none),
    }
    numbers = np.empty((len(chosen), len(columns)), np.int64)
    for index, column in enumerate(columns[name] for name in NUMBERS):
        numbers[:, index] = column
    return numbers


def _is_softmax(batch: Any, chosen: I64) -> Bools:
    """Whether the chunk's router is a plain softmax."""
    starts, sizes = batch.columns.starts, batch.columns.values[chosen, at.ROUTER_KIND]
    ends = starts[chosen, at.ROUTER_KIND + 1].astype(np.int64)
    word = b"softmax"
    found: Bools = sizes == len(word)
    for index, byte in enumerate(word):
        place = np.maximum(ends - len(word) + index, 0)
        found &= batch.columns.buffer[place] == byte
    return found
