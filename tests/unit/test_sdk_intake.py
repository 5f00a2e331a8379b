"""Logits of every array library: packed like schemas.logits.pack, or refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from routekeel.schemas.limits import VALUES_MAX
from routekeel.schemas.logits import pack
from routekeel.streams.sdk.intake import pack_logits
from routekeel.streams.sdk.refusal import Refused

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
DTYPES = st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", "<i4", "|u1"])


def reason(logits: Any, encoding: str = "F16") -> str:
    with pytest.raises(Refused) as caught:
        pack_logits(logits, encoding, 4)
    return caught.value.reason


@given(st.data(), DTYPES, st.sampled_from(["F16", "F32", "TOPM_F16"]))
@settings(max_examples=150, deadline=None)
def test_packs_like_the_reference_or_refuses_with_it(
    data: st.DataObject, dtype: str, encoding: str
) -> None:
    array = data.draw(hnp.arrays(dtype, SHAPES))
    top_m = min(4, array.shape[2])
    try:
        expected = pack(array, encoding, top_m if encoding == "TOPM_F16" else 0)
    except ValueError:
        assert reason(array, encoding) in ("non_finite", "out_of_range")
    else:
        assert pack_logits(array, encoding, 4) == (array.shape, expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ["F16", "F32", "TOPM_F16"])
def test_one_bad_value_anywhere_is_found(dtype: str, bad: float, encoding: str) -> None:
    for index in np.ndindex(2, 3, 5):
        array = np.full((2, 3, 5), -65504.0, dtype)
        array[index] = bad
        assert reason(array, encoding) == "non_finite"


def test_every_float16_pattern_is_judged_like_isfinite() -> None:
    patterns = np.arange(65536, dtype="<u2").view("<f2")
    for value in patterns[~np.isfinite(patterns)][::37]:
        assert reason(np.array([[[1, value, -1]]], "<f2")) == "non_finite"
    finite = patterns[np.isfinite(patterns)]
    assert (
        pack_logits(finite[: 62 * 1024].reshape(62, 1, 1024), "F16", 0)[1]
        == finite[: 62 * 1024].tobytes()
    )


def test_a_strided_view_is_packed_in_its_own_order() -> None:
    base = np.arange(48, dtype="<f2").reshape(4, 3, 4)
    view = base[::2, :, ::-1]
    assert pack_logits(view, "F16", 0)[1] == np.ascontiguousarray(view).tobytes()


@pytest.mark.parametrize(
    "shape", [(3, 4), (1, 1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (4097, 1, 1)]
)
def test_shape(shape: tuple[int, ...]) -> None:
    assert reason(np.zeros(shape, np.float16)) == "invalid_shape"


def test_out_of_range_is_told_from_infinity() -> None:
    assert reason(np.full((1, 1, 2), 65536.0)) == "out_of_range"
    assert pack_logits(np.full((1, 1, 2), 65504.0), "F16", 0)
    assert reason(np.full((1, 1, 2), 1e39), "F32") == "out_of_range"


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((1, 1, 2), complex),
        np.zeros((1, 1, 2), bool),
        np.full((1, 1, 2), "x"),
        [[["x"]]],
        [[[1], [1, 2]]],
        np.array([[[None]]]),
    ],
    ids=["complex", "bool", "text", "text in lists", "ragged", "objects"],
)
@pytest.mark.parametrize("encoding", ["F16", "F32", "TOPM_F16"])
def test_what_is_no_array_of_reals(logits: Any, encoding: str) -> None:
    assert reason(logits, encoding) == "unknown_dtype"


def test_what_is_no_array_at_all() -> None:
    assert reason(object()) == reason(None) == reason(3.0) == "invalid_shape"


def test_lists_are_arrays() -> None:
    assert pack_logits([[[1.5, -2]]], "F16", 0) == ((1, 1, 2), np.array([1.5, -2], "<f2").tobytes())


class HostTensor:
    """What the SDK may rely on of a torch tensor: detach, float and __array__."""

    dtype = "torch.bfloat16"

    def __init__(self, values: list[Any], widened: bool = False) -> None:
        self.values, self.widened = values, widened

    def detach(self) -> HostTensor:
        return self

    def float(self) -> HostTensor:
        return HostTensor(self.values, widened=True)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if not self.widened:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return np.array(self.values, np.float32)


def test_bfloat16_is_widened() -> None:
    assert pack_logits(HostTensor([[[1.0, 2.0]]]), "F16", 0)[1] == np.array([1, 2], "<f2").tobytes()


def test_a_tensor_that_is_elsewhere_is_refused() -> None:
    class DeviceTensor(HostTensor):
        dtype = "torch.float16"

        def detach(self) -> HostTensor:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    assert reason(DeviceTensor([])) == "unknown_dtype"


def test_mlx_arrays() -> None:
    mx = pytest.importorskip("mlx.core")
    expected = np.array([[[1.5, -2.0]]], "<f2").tobytes()
    for dtype in (mx.float16, mx.float32, mx.bfloat16):
        assert pack_logits(mx.array([[[1.5, -2.0]]], dtype=dtype), "F16", 0) == (
            (1, 1, 2),
            expected,
        )


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    expected = np.array([[[1.5, -2.0]]], "<f2").tobytes()
    for dtype in (torch.float16, torch.float32, torch.bfloat16):
        tensor = torch.tensor([[[1.5, -2.0]]], dtype=dtype, requires_grad=True)
        assert pack_logits(tensor, "F16", 0) == ((1, 1, 2), expected)


def test_more_values_than_the_stream_unpacks_are_refused() -> None:
    tokens = VALUES_MAX // (64 * 128)
    zeros = np.zeros((1, 1, 1), np.float16)
    shape, _ = pack_logits(np.broadcast_to(zeros, (tokens, 64, 128)), "TOPM_F16", 1)
    assert shape == (tokens, 64, 128)
    with pytest.raises(Refused) as refused:
        pack_logits(np.broadcast_to(zeros, (tokens + 1, 64, 128)), "TOPM_F16", 1)
    assert refused.value.reason == "invalid_shape"
