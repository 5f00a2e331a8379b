"""Logits: what cannot be packed or unpacked says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from routekeel.schemas.logits import pack, row_bytes, unpack

ENCODINGS = ("F32", "F16", "TOPM_F16")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_are_not_packed(encoding: str, value: float) -> None:
    logits = np.zeros((2, 3, 4), np.float32)
    logits[1, 2, 3] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        pack(logits, encoding, 2)


@pytest.mark.parametrize("encoding", ["F16", "TOPM_F16"])
def test_float16_overflow_is_refused_and_its_limit_is_not(encoding: str) -> None:
    logits = np.full((1, 1, 2), 65504.0)
    assert unpack(pack(logits, encoding, 2), 1, 1, 2, encoding, 2).max() == 65504.0
    with pytest.raises(ValueError, match="65504"):
        pack(logits * 2, encoding, 2)


def test_topm_ignores_how_small_the_rest_is() -> None:
    logits = np.array([[[3.0, -1e5, -1e5]]])
    back = unpack(pack(logits, "TOPM_F16", 1), 1, 1, 3, "TOPM_F16", 1)
    np.testing.assert_allclose(back, logits, rtol=1e-6)


@pytest.mark.parametrize(
    ("logits", "encoding", "top_m", "message"),
    [
        (np.zeros((2, 2)), "F32", 0, "must be .T, L, E."),
        (np.zeros((1, 1, 4)), "BF16", 0, "unknown encoding"),
        (np.zeros((1, 1, 4)), "TOPM_F16", 0, "top_m"),
        (np.zeros((1, 1, 4)), "TOPM_F16", 5, "top_m"),
        (np.zeros((1, 1, 4), complex), "F32", 0, "real"),
        (np.full((1, 1, 4), 1e300), "F32", 0, "float32"),
    ],
)
def test_what_cannot_be_packed(logits: Any, encoding: str, top_m: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(logits, encoding, top_m)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_wrong_length_says_what_was_expected(encoding: str) -> None:
    size = 2 * 3 * row_bytes(4, encoding, 2)
    with pytest.raises(ValueError, match=f"take {size}"):
        unpack(bytes(size + 1), 2, 3, 4, encoding, 2)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_tokens_are_no_bytes(encoding: str) -> None:
    assert pack(np.zeros((0, 3, 4)), encoding, 2) == b""
    assert unpack(b"", 0, 3, 4, encoding, 2).shape == (0, 3, 4)


def test_ties_go_to_the_lower_expert_in_descending_order() -> None:
    packed = pack(np.array([[[1.0, 2.0, 2.0, 1.0]]]), "TOPM_F16", 3)
    assert np.frombuffer(packed[6:12], "<u2").tolist() == [1, 2, 0]
    assert np.frombuffer(packed[:6], "<f2").tolist() == [2.0, 2.0, 1.0]


def test_integers_and_strided_arrays_pack() -> None:
    logits = np.arange(24).reshape(4, 3, 2).T
    assert np.array_equal(unpack(pack(logits, "F32"), 2, 3, 4, "F32"), logits)
