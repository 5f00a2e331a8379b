"""Records to be sent as columns: thousands go out at once, and hardly any is looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Headers = list[tuple[str, bytes]]
NO_VALUE = -1


class Output(NamedTuple):
    """What one accepted record led to: the framed Telemetry and, where rows were applied, Weights."""

    offset: int
    key: bytes
    telemetry: bytes
    weights: bytes | None


@dataclass(frozen=True, slots=True)
class RecordBlock:
    """Records of one topic's partition in order.

    `keys` by record; `data` uint8, where their values are; `spans` int64[n, 2], start and end of each in
    it, the start NO_VALUE for a tombstone; `headers` of those records that have any, by index.
    """

    keys: Sequence[bytes | None]
    data: Bytes
    spans: I64
    headers: dict[int, Headers]

    @classmethod
    def of(
        cls,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: dict[int, Headers] | None = None,
    ) -> RecordBlock:
        """Keys and values as objects.

        >>> block = RecordBlock.of([b"a", None], [b"one", None])
        >>> block.spans.tolist(), block.size
        ([[0, 3], [-1, 3]], 4)
        """
        data, spans = joined(values)
        return cls(keys, data, spans, headers or {})

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sizes(self) -> I64:
        """int64[n]: the bytes of each record's value."""
        sizes: I64 = np.where(self.spans[:, 0] == NO_VALUE, 0, self.spans[:, 1] - self.spans[:, 0])
        return sizes

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        return int(self.sizes.sum()) + sum(map(len, filter(None, self.keys)))

    def records(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        """(key, value) one by one."""
        data = self.data.tobytes()
        for key, (start, end) in zip(self.keys, self.spans.tolist(), strict=True):
            yield key, None if start == NO_VALUE else data[start:end]


def joined(parts: Sequence[bytes | None]) -> tuple[Bytes, I64]:
    """Parts end to end, and int64[n, 2] where each one is, the start NO_VALUE for None."""
    try:
        data = b"".join(parts)  # type: ignore[arg-type]
        present: Sequence[Any] = parts
    except TypeError:  # there is a None, which is rare: asking each one first takes twice the time
        present = [part or b"" for part in parts]
        data = b"".join(present)
    ends = np.cumsum(np.fromiter(map(len, present), np.int64, len(present)))
    spans = np.empty((len(present), 2), np.int64)
    spans[:, 1] = ends
    spans[1:, 0], spans[:1, 0] = ends[:-1], 0
    if present is not parts:
        spans[[part is None for part in parts], 0] = NO_VALUE
    return np.frombuffer(data, np.uint8), spans


class Outputs(Sequence[Output]):
    """What a batch's accepted records led to, in log order.

    `data` uint8 holds the Telemetry and Weights of each, end to end; `cuts` int64[n, 3] says where in it
    the Telemetry begins, where it ends and the Weights begin, and where those end: there, if there are none.
    """

    __slots__ = ("_cuts", "_data", "_keys", "_offsets")

    def __init__(
        self, offsets: Sequence[int], keys: Sequence[bytes], data: Bytes, cuts: I64
    ) -> None:
        self._offsets, self._keys, self._data, self._cuts = offsets, keys, data, cuts

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """Several, one after the other."""
        shifts = np.cumsum([0, *(len(part._data) for part in parts)])
        cuts = [part._cuts + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
        return cls(
            [offset for part in parts for offset in part._offsets],
            [key for part in parts for key in part._keys],
            np.concatenate([np.empty(0, np.uint8), *(part._data for part in parts)]),
            np.concatenate([np.empty((0, 3), np.int64), *cuts]),
        )

    def __len__(self) -> int:
        return len(self._offsets)

    # Without slices, which nobody asks for.
    def __getitem__(self, index: int) -> Output:  # type: ignore[override]
        start, middle, end = self._cuts[index].tolist()
        telemetry = self._data[start:middle].tobytes()
        weights = self._data[middle:end].tobytes() if end > middle else None
        return Output(self._offsets[index], self._keys[index], telemetry, weights)

    def telemetry(self) -> RecordBlock:
        """Every Telemetry record."""
        return RecordBlock(self._keys, self._data, self._cuts[:, :2], {})

    def weights(self) -> RecordBlock:
        """The Weights records of those that have one."""
        spans = self._cuts[:, 1:]
        having = spans[:, 1] > spans[:, 0]
        if having.all():
            return RecordBlock(self._keys, self._data, spans, {})
        keys = [self._keys[index] for index in np.flatnonzero(having).tolist()]
        return RecordBlock(keys, self._data, spans[having], {})


class OutputColumns:
    """Collects what the records of a batch lead to, from whichever way they take, in any order."""

    def __init__(self, records: int) -> None:
        self._cuts = np.full((records, 3), -1, np.int64)
        self._parts: list[Bytes] = []
        self._size = 0

    def add_all(self, indices: I64, data: Bytes, ends: I64) -> None:
        """Those of `indices`, end to end in `data`; `ends` int64[n, 2] of each Telemetry and Weights."""
        self._cuts[indices[1:], 0] = ends[:-1, 1] + self._size
        self._cuts[indices[:1], 0] = self._size
        self._cuts[indices, 1:] = ends + self._size
        self._append(data)

    def add(self, index: int, output: Output) -> None:
        """That of one record."""
        data = np.frombuffer(output.telemetry + (output.weights or b""), np.uint8)
        middle = self._size + len(output.telemetry)
        self._cuts[index] = self._size, middle, self._size + len(data)
        self._append(data)

    def _append(self, data: Bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    def of(self, taken: Sequence[int], offsets: Sequence[int], keys: Sequence[bytes]) -> Outputs:
        """Those of the records at `taken`, whose offsets and keys are given. Raises AssertionError where
        one of them has none, or another one has.
        """
        cuts = self._cuts
        has = cuts[:, 0] >= 0
        if int(has.sum()) != len(taken) or not has[taken].all():
            raise AssertionError(
                f"{len(taken)} records were taken, {int(has.sum())} have an output"
            )
        data = (
            self._parts[0]
            if len(self._parts) == 1
            else np.concatenate([np.empty(0, np.uint8), *self._parts])
        )
        return Outputs(offsets, keys, data, cuts[has])
