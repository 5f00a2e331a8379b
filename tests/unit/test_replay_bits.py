"""What the replay's audit takes for equal: the same bits, NULL and NaN included, and nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from routekeel.streams.history.replay_audit import _differing

NAN = float("nan")
NEXT = 1.0000001192092896  # the float32 above 1


@pytest.mark.parametrize(
    ("stored", "expected", "differing"),
    [
        ([0.0, None, NAN, 1.0], [0.0, None, NAN, 1.0], []),
        ([0.0, None, NAN, 1.0], [-0.0, None, NAN, NEXT], [0, 3]),
        ([None, 0.0], [0.0, None], [0, 1]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_floats_are_compared_to_the_bit(
    stored: list[Any], expected: list[Any], differing: list[int], nested: bool
) -> None:
    kind = pa.list_(pa.float32()) if nested else pa.float32()
    columns = [
        pa.array([None if nested and v is None else [v] if nested else v for v in values], kind)
        for values in (stored, expected)
    ]
    assert _differing(*columns).tolist() == differing
    assert _differing(*(column.slice(1) for column in columns)).tolist() == [
        row - 1 for row in differing if row
    ]


def test_lists_of_other_lengths_differ() -> None:
    kind = pa.list_(pa.float32())
    assert _differing(pa.array([[0.0], []], kind), pa.array([[], [0.0]], kind)).tolist() == [0, 1]
