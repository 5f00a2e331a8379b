"""Logits: what goes in comes out, exactly in the dense encodings, and in mass in the sparse one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from routekeel.schemas.logits import pack, row_bytes, unpack

EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)


def logits(width: int) -> st.SearchStrategy[npt.NDArray[Any]]:
    elements = st.floats(-60000, 60000, width=width)  # type: ignore[arg-type]
    return hnp.arrays(
        {16: np.float16, 32: np.float32, 64: np.float64}[width], SHAPES, elements=elements
    )


def softmax(z: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    shifted = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


@EXAMPLES
@given(logits(16))
def test_float16_logits_come_back_exactly_in_both_dense_encodings(z: npt.NDArray[Any]) -> None:
    for encoding in ("F16", "F32"):
        data = pack(z, encoding)
        assert len(data) == z.shape[0] * z.shape[1] * row_bytes(z.shape[2], encoding)
        back = unpack(data, *z.shape, encoding)
        assert back.dtype == np.float32
        assert np.array_equal(back, z.astype(np.float32))


@EXAMPLES
@given(logits(32))
def test_f16_is_the_nearest_float16(z: npt.NDArray[Any]) -> None:
    assert np.array_equal(unpack(pack(z, "F16"), *z.shape, "F16"), z.astype("<f2").astype("<f4"))


@EXAMPLES
@given(logits(16), st.data())
def test_topm_keeps_the_largest_and_the_mass_of_the_rest(
    z: npt.NDArray[Any], data: st.DataObject
) -> None:
    experts = z.shape[2]
    top_m = data.draw(st.integers(1, experts))
    packed = pack(z, "TOPM_F16", top_m)
    assert len(packed) == z.shape[0] * z.shape[1] * row_bytes(experts, "TOPM_F16", top_m)
    back = unpack(packed, *z.shape, "TOPM_F16", top_m)
    order = np.argsort(-z, axis=2, kind="stable")[:, :, :top_m]
    kept = np.take_along_axis(back, order, axis=2)
    assert np.array_equal(kept, np.take_along_axis(z, order, axis=2).astype(np.float32))
    assert np.isfinite(back).all()
    # z_rest has float32's precision: at |z| = 60000 that is 2⁻⁸ of a logit.
    before, after = (np.take_along_axis(softmax(a), order, axis=2) for a in (z, back))
    scale = max(1.0, float(np.abs(z).max()))
    np.testing.assert_allclose(before, after, atol=1e-6 * scale)


@EXAMPLES
@given(logits(16))
def test_topm_of_all_experts_is_exact(z: npt.NDArray[Any]) -> None:
    experts = z.shape[2]
    back = unpack(pack(z, "TOPM_F16", experts), *z.shape, "TOPM_F16", experts)
    assert np.array_equal(back, z.astype(np.float32))


@EXAMPLES
@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_any_bytes_of_the_right_length_unpack(rows: int, experts: int, data: st.DataObject) -> None:
    top_m = data.draw(st.integers(1, experts))
    size = rows * row_bytes(experts, "TOPM_F16", top_m)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    back = unpack(raw, rows, 1, experts, "TOPM_F16", top_m)
    assert back.shape == (rows, 1, experts)
    ids = np.frombuffer(raw, np.dtype([("z", "<f2", top_m), ("id", "<u2", top_m), ("r", "<f4")]))[
        "id"
    ]
    ids = ids.reshape(rows, top_m)
    for row in range(rows):
        if len(set(ids[row].tolist())) < top_m or ids[row].max() >= experts:
            assert np.isnan(back[row]).all()
