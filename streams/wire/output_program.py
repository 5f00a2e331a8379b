"""Telemetry and Weights as programs for the compiled encoder: one operation per field, in order.

What is the same in every record of a partition is encoded once by the record's own encoder and
copied; what a chunk passes on is copied as the producer encoded it (both schemas declare such a
field alike, which is checked here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.operators.columns import CHUNK, LAYER
from routekeel.schemas.compiled import encode_field
from routekeel.schemas.fields import Field, Record
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.records.telemetry import LAYER_FIELDS
from routekeel.streams.topology.outputs import PASSED_THROUGH, PROBE_COLUMNS, RENAMED
from routekeel.streams.wire.program import index_of

# Operations: (code, argument). COPY takes a stretch of the constants, SPAN an input field, the
# others a column.
(
    COPY,
    SPAN,
    NUMBER,
    SHARE,
    CLARITY,
    LAYER_COLUMN,
    LAYER_NAN,
    LOAD,
    ROUTE,
    STATE,
) = range(10)
# Numbers computed per record (columns of the encoder's int64 table).
NUMBERS = (
    "source_offset",
    "tokens_applied",
    "positions_missing",
    "sequences_missing",
    "ambiguity_mask",
    "position_last",
    "provenance_ambiguity",
    "provenance_route",
    "provenance_hidden",
    "provenance_flip_distance",
    "provenance_latency",
    "provenance_quality",
)
NUMBER_AT = {name: index for index, name in enumerate(NUMBERS)}
_SHARES = {
    "a_star": "a_star",
    "a_exogenous": "a_exogenous",
    "ambiguity_predictive": "predictive",
    "ambiguity_paraphrase": "paraphrase",
    "ambiguity_specification": "specification",
    "ambiguity_routing": "routing",
}
_LAYER_NAMES = {f.name for f in LAYER_FIELDS}


@dataclass(frozen=True)
class OutputProgram:
    """`operations` int32[n, 3]: code, argument, end of a constant; `constants` uint8."""

    operations: npt.NDArray[np.int32]
    constants: npt.NDArray[np.uint8]


class _Builder:
    def __init__(self, record: Record, header: bytes, fixed: Mapping[str, Any]) -> None:
        self._record, self._fixed = record, fixed
        self._constants = bytearray(header)
        self._operations: list[list[int]] = [[COPY, 0, len(header)]]

    def constant(self, field: Field) -> None:
        data = encode_field(field, self._fixed[field.name])
        start = len(self._constants)
        self._constants += data
        last = self._operations[-1]
        if last[0] == COPY and last[2] == start:
            last[2] = len(self._constants)
        else:
            self._operations.append([COPY, start, len(self._constants)])

    def add(self, code: int, argument: int = 0) -> None:
        self._operations.append([code, argument, 0])

    def span(self, field: Field, source: str) -> None:
        sent = ROUTER_LOGITS.field(source)
        assert (sent.kind, sent.nullable) == (field.kind, field.nullable), field.name
        self.add(SPAN, index_of(ROUTER_LOGITS)[source])

    def done(self) -> OutputProgram:
        return OutputProgram(
            np.array(self._operations, np.int32), np.frombuffer(bytes(self._constants), np.uint8)
        )


def telemetry_program(header: bytes, fixed: Mapping[str, Any]) -> OutputProgram:
    """The program of Telemetry; `fixed` has the fields that are the same in every record."""
    build = _Builder(TELEMETRY, header, fixed)
    for field in TELEMETRY.fields:
        name = field.name
        if name in fixed:
            build.constant(field)
        elif name in PROBE_COLUMNS:
            build.add(LAYER_NAN)
        elif name in _LAYER_NAMES:
            build.add(LAYER_COLUMN, LAYER[RENAMED.get(name, name)])
        elif name == "position":
            build.span(field, "position_start")
        elif name in PASSED_THROUGH:
            build.span(field, name)
        elif name in _SHARES:
            build.add(SHARE, CHUNK[_SHARES[name]])
        elif name == "clarity":
            build.add(CLARITY, CHUNK["a_star"])
        elif name in ("load", "load_controlled"):
            build.add(LOAD, int(name == "load_controlled"))
        elif name == "provenance_sensitivity":
            build.add(NUMBER, NUMBER_AT["provenance_route"])
        else:
            build.add(NUMBER, NUMBER_AT[name])
    return build.done()


def weights_program(
    header: bytes, fixed: Mapping[str, Any], *, route_in: str, with_state: bool
) -> OutputProgram:
    """The program of Weights; the route goes into the field `route_in`, the state where wanted."""
    build = _Builder(WEIGHTS, header, fixed)
    for field in WEIGHTS.fields:
        name = field.name
        if name == route_in:
            build.add(ROUTE, int(field.nullable))
        elif name == "state" and with_state:
            build.add(STATE, int(field.nullable))
        elif name in fixed:
            build.constant(field)
        elif name in ("beta", "lam"):
            build.add(LAYER_COLUMN, LAYER["beta_last" if name == "beta" else "lambda_last"])
        elif name == "position":
            build.add(NUMBER, NUMBER_AT["position_last"])
        elif name == "source_offset":
            build.add(NUMBER, NUMBER_AT[name])
        else:
            build.span(field, name)
    return build.done()
