"""What a record leads to fits a topic: outputs of the largest chunks, rows per token, dead letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from routekeel.schemas.codec import Decoder, Encoder
from routekeel.schemas.limits import LAYERS_MAX, ROUTES_MAX, VALUES_MAX
from routekeel.schemas.records import DEAD_LETTER
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.driver import SOURCE, TopologyDriver
from routekeel.streams.settings import load_settings
from routekeel.streams.topology.cadence import Cadence
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.dead_letter import ENVELOPE_BYTES, dead_letter
from routekeel.streams.topology.from_settings import topology_config
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.records import DeadLetter, SourceRecord
from routekeel.streams.topology.sizes import largest_output_bytes, telemetry_bytes
from tests.stream.chunks import chunk_fields

RECORD_BYTES_MAX = load_settings(None, {}, {}).settings.topics.record_bytes_max
TEXTS = ("request_id", "model", "model_revision", "worker_id", "backend", "router_kind")


def sparse(steps: int, layers: int, experts: int, top_m: int, **changes: Any) -> dict[str, Any]:
    """A valid TOPM_F16 chunk whose logits are the same in every row."""
    row = np.concatenate(
        [
            np.linspace(3, 1, top_m).astype("<f2").view("u1"),
            np.arange(top_m).astype("<u2").view("u1"),
            np.array([0.5], "<f4").view("u1"),
        ]
    )
    return {
        **chunk_fields("s", 0, 1),
        **{"steps": steps, "layers": list(range(layers)), "experts": experts, "top_k": 1},
        **{"encoding": "TOPM_F16", "top_m": top_m, "token_entropy": None},
        "logits": row.tobytes() * (steps * layers),
        **changes,
    }


def test_defaults_leave_room_for_whatever_a_valid_chunk_leads_to() -> None:
    assert largest_output_bytes(requests_max=1024) < RECORD_BYTES_MAX
    assert TopologyConfig().record_bytes_max == RECORD_BYTES_MAX


@pytest.mark.parametrize("layers", [LAYERS_MAX, 32])
def test_the_largest_session_stays_below_the_bound(layers: int) -> None:
    driver = TopologyDriver(TopologyConfig(kernel="numpy", cadence=Cadence(1, 1)))
    names = dict.fromkeys(TEXTS, "é" * 512)
    for number in range(3):  # three requests and producers, each with its own positions per layer
        own = {"request_id": f"{number}" + "x" * 1023, "worker_id": f"{number}" + "y" * 1023}
        chunk = sparse(1, layers, ROUTES_MAX // layers, 1, **{**names, **own})
        ahead = {"layers": chunk["layers"][::2], "logits": chunk["logits"][: layers * 4]}
        driver.append({**chunk, "sequence": 2 * number})
        driver.append({**chunk, **ahead, "sequence": 2 * number + 1, "position_start": 1})
    driver.run()
    assert not driver.dead_letters
    bound = largest_output_bytes(requests_max=3)
    assert all(len(sent.weights or b"") <= bound for sent in driver.sent)
    assert all(len(sent.telemetry) <= bound for sent in driver.sent)
    assert len(driver.states()[b"s"]) <= bound
    assert len(driver.sent[-1].weights or b"") > bound // 2  # the bound is no empty one


def sampled(record_bytes_max: int) -> tuple[TopologyDriver, list[None]]:
    config = TopologyConfig(kernel="numpy", token_rows_share=1.0, record_bytes_max=record_bytes_max)
    driver, left_out = TopologyDriver(config), []
    builder = OutputBuilder(
        config, driver._telemetry.encode, driver._weights.encode, lambda: left_out.append(None)
    )
    driver.processor._reference._builder = builder
    return driver, left_out


def test_rows_per_token_that_would_not_fit_are_left_out_and_counted() -> None:
    tokens = 700
    assert tokens * 48 * 128 <= VALUES_MAX
    driver, left_out = sampled(RECORD_BYTES_MAX)
    chunk = sparse(tokens, 48, 128, 16)
    assert len(chunk["logits"]) < RECORD_BYTES_MAX / 4  # the input is small, its rows are not
    driver.append(chunk)
    driver.append(sparse(5, 48, 128, 16, position_start=tokens, sequence=1))
    driver.run()
    first, second = driver.telemetry()
    assert (first["token_rows"], first["tokens_applied"], len(left_out)) == (None, tokens, 1)
    assert second["token_rows"]["steps"] == 5
    assert all(len(sent.telemetry) <= RECORD_BYTES_MAX for sent in driver.sent)


def test_the_size_with_rows_per_token_is_known_before_they_are_made() -> None:
    bound = telemetry_bytes(40, 16, 64, token_rows=True)
    chunk = sparse(40, 16, 64, 2, token_ids=b"\0" * 160)
    fits, none_left_out = sampled(bound)
    tight, left_out = sampled(bound - 1)
    for driver in (fits, tight):
        driver.append(chunk)
        driver.run()
    assert (len(none_left_out), len(left_out)) == (0, 1)
    size = len(fits.sent[0].telemetry)
    assert bound - 40_000 < size <= bound
    assert tight.telemetry()[0]["token_rows"] is None


LETTERS = Encoder(DEAD_LETTER, 1)


def letter_of(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> tuple[bytes | None, bytes, dict[str, Any]]:
    record = SourceRecord(7, 1_000, key, value, headers)
    key, data = dead_letter(
        SOURCE, DeadLetter(record, "bad_body", "why"), "worker", LETTERS.encode, 2**20
    )
    ids = FixedSchemaIds()
    ids.register(DEAD_LETTER, "")
    assert len(data) + len(key or b"") + ENVELOPE_BYTES <= 2**20
    return key, data, Decoder(DEAD_LETTER, ids).decode(data)


def test_a_letter_that_fits_is_whole() -> None:
    value = b"v" * (2**20 - 2 * ENVELOPE_BYTES)
    key, _, fields = letter_of(b"k", value, [("h", b"1"), ("n", None)])
    assert (key, fields["key"], fields["value"]) == (b"k", b"k", value)
    assert (fields["header_names"], fields["header_values"]) == (["h", "n"], [b"1", None])
    assert fields["error_message"] == "why"


def test_a_record_near_the_limit_leaves_its_value_out_and_says_so() -> None:
    value = b"v" * (2**20 - 100)
    key, _, fields = letter_of(b"k", value, [("h", b"1")])
    assert (key, fields["key"], fields["value"]) == (b"k", b"k", None)
    assert (fields["value_bytes"], fields["header_values"]) == (len(value), [b"1"])
    assert fields["error_message"] == "why (the value is too large for the dead letters)"


def test_headers_and_a_key_near_the_limit_are_left_out_too() -> None:
    _, _, fields = letter_of(b"k", b"v", [("h", b"1" * 2**20)])
    assert (fields["header_names"], fields["header_values"], fields["key"]) == ([], [], b"k")
    key, _, fields = letter_of(b"k" * (2**20 - 100), b"v", [])
    assert (key, fields["key"]) == (None, None)
    assert "the key is too large" in fields["error_message"]
    assert "headers" not in fields["error_message"]


def test_a_topic_too_small_for_the_largest_models_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topology_config(load_settings(None, {}, {}).settings)
    assert not caplog.records
    topology_config(load_settings(None, {"topics.record_bytes_max": 2**20}, {}).settings)
    (record,) = caplog.records
    assert "topics.record_bytes_max is 1048576" in record.getMessage()
