"""Decoded records as objects for readers: fields as attributes, matrices as NumPy arrays.

A view holds the decoded dict and converts a matrix when it is asked for, so that who reads two
fields of a record does not pay for ninety.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import Matrix, Nested
from routekeel.schemas.logits import unpack
from routekeel.schemas.matrices import matrix
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.routes import with_full_route


class SourceId(NamedTuple):
    """The identity of a result: the chunk it was computed from. Repeats of a result share it."""

    topic_id: str
    partition: int
    offset: int


class View:
    """A decoded value of one record (or of a nested one) with its fields as attributes.

    A matrix is a read-only array with the declared dtype, shaped by its axes; NaN stays NaN. An
    enum is its symbol, a time int µs, an absent value None. Raises AttributeError for a name that
    the record does not have, BadShape for a matrix of the wrong length.

    >>> view = View(WEIGHTS, {"layers": [0, 4], "beta": np.array([1, 0.5], "<f4").tobytes()})
    >>> view.beta
    array([1. , 0.5], dtype=float32)
    """

    __slots__ = ("_holder", "_outer", "value")

    def __init__(
        self,
        holder: Record | Nested,
        value: Mapping[str, Any],
        outer: Mapping[str, Any] | None = None,
    ) -> None:
        self._holder = holder
        self._outer = outer
        self.value = value

    def __getattr__(self, name: str) -> Any:
        field = _fields(self._holder).get(name)
        if field is None:
            raise AttributeError(f"{self._holder.name} has no field {name!r}")
        value = self.value[name]
        if value is None:
            return None
        if isinstance(field.kind, Matrix):
            return matrix(self._holder, name, self.value, self._outer)
        if isinstance(field.kind, Nested):
            return View(field.kind, value, self.value)
        return value

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_fields(self._holder)]

    def __repr__(self) -> str:
        shown = ("session_id", "source_offset", "sequence", "position")
        found = ", ".join(f"{key}={self.value[key]!r}" for key in shown if key in self.value)
        return f"<{self._holder.name} {found}>"


class _Result(View):
    __slots__ = ()

    @property
    def id(self) -> SourceId:
        """The source coordinates, by which repeats are told."""
        value = self.value
        return SourceId(value["source_topic_id"], value["source_partition"], value["source_offset"])


class TelemetryView(_Result):
    """A Telemetry value; `view.g_base` is float32[L], `view.load` uint16[L, E]."""

    __slots__ = ()

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__(TELEMETRY, value)


class WeightsView(_Result):
    """A Weights value; `view.w_hat` is float32[L, E]."""

    __slots__ = ()

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__(WEIGHTS, with_full_route(value))


class RouterLogitsView(View):
    """A RouterLogits value; `view.matrix` is the logits as float32[T, L, E]."""

    __slots__ = ()

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__(ROUTER_LOGITS, value)

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """The logits unpacked (see `routekeel.schemas.logits.unpack`). Raises ValueError."""
        value = self.value
        layers, experts = len(value["layers"]), value["experts"]
        encoding, top_m = value["encoding"], value["top_m"]
        return unpack(value["logits"], value["steps"], layers, experts, encoding, top_m)


@cache
def _fields(holder: Record | Nested) -> dict[str, Field]:
    return {field.name: field for field in holder.fields}
