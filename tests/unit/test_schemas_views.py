"""Matrices and views of decoded records."""

from __future__ import annotations

import numpy as np
import pytest

from routekeel.schemas.errors import BadShape
from routekeel.schemas.logits import pack
from routekeel.schemas.matrices import matrix, nested
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.views import RouterLogitsView, SourceId, TelemetryView, WeightsView
from tests.golden.examples import example

T, L, E = 3, 2, 4


def test_a_matrix_has_the_declared_shape_and_dtype() -> None:
    value = example(TELEMETRY)
    assert matrix(TELEMETRY, "load", value).shape == (L, E)
    assert matrix(TELEMETRY, "load", value).dtype == np.dtype("<u2")
    rows = nested(TELEMETRY, "token_rows")
    assert matrix(rows, "w_hat", value["token_rows"], value).shape == (T, L, E)
    assert not matrix(TELEMETRY, "load", value).flags.writeable


@pytest.mark.parametrize("change", [{"beta": b"123"}, {"layers": [1]}, {"beta": None}])
def test_a_wrong_length_names_the_field_and_the_axes(change: dict[str, object]) -> None:
    with pytest.raises(BadShape, match=r"Weights\.beta"):
        matrix(WEIGHTS, "beta", example(WEIGHTS) | change)


def test_a_negative_axis_is_a_wrong_shape() -> None:
    value = example(WEIGHTS) | {"experts": -1, "w_hat": b""}
    with pytest.raises(BadShape):
        matrix(WEIGHTS, "w_hat", value)


@pytest.mark.parametrize("name", ["session_id", "nothing"])
def test_a_field_that_is_no_matrix_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        matrix(WEIGHTS, name, example(WEIGHTS))


def test_a_view_gives_attributes_arrays_and_the_id() -> None:
    value = example(TELEMETRY)
    view = TelemetryView(value)
    assert view.session_id == value["session_id"]
    assert view.provenance_route in ("unavailable", "measured", "derived", "proxy")
    assert view.g_base.shape == (L,)
    assert view.token_rows.w_hat.shape == (T, L, E)
    assert view.id == SourceId(
        value["source_topic_id"], value["source_partition"], value["source_offset"]
    )
    assert "g_base" in dir(view)
    with pytest.raises(AttributeError, match="Telemetry has no field"):
        _ = view.g_bass


def test_nan_stays_nan_and_absent_is_none() -> None:
    value = example(WEIGHTS) | {"beta": np.array([np.nan, 1], "<f4").tobytes()}
    view = WeightsView(value)
    assert np.isnan(view.beta).tolist() == [True, False]
    assert TelemetryView(example(TELEMETRY, sparse=True)).token_rows is None
    assert WeightsView(value).id == WeightsView(value).id


def test_logits_unpack_from_their_view() -> None:
    logits = np.arange(T * L * E, dtype=np.float32).reshape(T, L, E)
    value = example(ROUTER_LOGITS) | {"encoding": "F16", "logits": pack(logits, "F16")}
    assert np.array_equal(RouterLogitsView(value).matrix, logits)
    assert "session_id=" in repr(RouterLogitsView(value))
