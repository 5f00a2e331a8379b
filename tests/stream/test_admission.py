"""Repeats, overlaps, gaps and interleaved requests: what is applied, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.session import Session
from tests.stream.chunks import chunk_fields


def new_driver() -> TopologyDriver:
    return TopologyDriver(TopologyConfig())


def only_state(driver: TopologyDriver) -> Session:
    (value,) = driver.states().values()
    return Session.decode(value)


def test_a_repeat_leaves_the_state_byte_identical() -> None:
    driver = new_driver()
    driver.append(chunk_fields("s", 0))
    driver.run()
    before = only_state(driver).packed.tobytes()
    driver.append(chunk_fields("s", 0))
    driver.run()
    assert only_state(driver).packed.tobytes() == before
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 0]
    assert [t["rows_repeated"] for t in driver.telemetry()] == [0, 6]
    assert len(driver.weights()) == 1


def test_the_same_positions_from_another_producer_are_a_repeat() -> None:
    driver = new_driver()
    driver.append(chunk_fields("s", 0))
    driver.append(chunk_fields("s", 0, producer_epoch=2, sequence=0))
    driver.run()
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 0]


def test_overlapping_rows_apply_their_new_part_only() -> None:
    overlapping, plain = new_driver(), new_driver()
    overlapping.append(chunk_fields("s", 0, 4))
    overlapping.append(chunk_fields("s", 2, 4, sequence=1))
    plain.append(chunk_fields("s", 0, 6))
    overlapping.run()
    plain.run()
    assert only_state(overlapping).packed.tobytes() == only_state(plain).packed.tobytes()
    assert [t["tokens_applied"] for t in overlapping.telemetry()] == [4, 2]
    assert overlapping.telemetry()[1]["rows_repeated"] == 4


def test_gaps_are_counted_and_marked() -> None:
    driver = new_driver()
    driver.append(chunk_fields("s", 0, 3, sequence=0))
    driver.append(chunk_fields("s", 8, 3, sequence=4))
    driver.run()
    second = driver.telemetry()[1]
    assert (second["positions_missing"], second["sequences_missing"], second["tokens_applied"]) == (
        5,
        3,
        3,
    )


def test_a_reordered_sequence_with_new_positions_is_applied() -> None:
    driver = new_driver()
    driver.append(chunk_fields("s", 0, request_id="r1", sequence=0))
    driver.append(chunk_fields("s", 0, request_id="r3", sequence=2))
    driver.append(chunk_fields("s", 0, request_id="r2", sequence=1))
    driver.append(chunk_fields("s", 0, request_id="r2", sequence=1))
    driver.run()
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 3, 3, 0]


def test_interleaved_requests_keep_their_own_positions_and_share_the_route() -> None:
    driver = new_driver()
    for start in (0, 3, 6):
        for request in ("r1", "r2"):
            driver.append(chunk_fields("s", start, request_id=request, sequence=len(driver.log)))
    driver.run()
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3] * 6
    assert [t["positions_missing"] for t in driver.telemetry()] == [0] * 6
    assert [r.position for r in only_state(driver).requests] == [8, 8]


def test_a_pipeline_stage_sends_its_own_layers_only() -> None:
    staged, whole = new_driver(), new_driver()
    for start in (0, 3):
        staged.append(chunk_fields("s", start, layers=[0], sequence=2 * start, worker_id="stage-0"))
        staged.append(chunk_fields("s", start, layers=[1], sequence=2 * start, worker_id="stage-1"))
        whole.append(chunk_fields("s", start))
    staged.run()
    whole.run()
    np.testing.assert_array_equal(only_state(staged).packed, only_state(whole).packed)
    assert [t["positions_missing"] for t in staged.telemetry()] == [0] * 4
    assert only_state(staged).layers == (0, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "model-b"}, "model_changed"),
        ({"model_revision": "r2"}, "model_changed"),
        ({"experts": 8}, "experts_changed"),
    ],
)
def test_another_model_or_width_starts_the_state_anew(
    changes: dict[str, object], reason: str
) -> None:
    driver, fresh = new_driver(), new_driver()
    driver.append(chunk_fields("s", 0))
    driver.append(chunk_fields("s", 3, **changes))
    fresh.append(chunk_fields("s", 3, **changes))
    driver.run()
    fresh.run()
    assert driver.telemetry()[1]["state_reset"] == reason
    assert only_state(driver).packed.tobytes() == only_state(fresh).packed.tobytes()


def test_the_number_of_requests_and_producers_is_bounded() -> None:
    driver = TopologyDriver(TopologyConfig(requests_max=3))
    for index in range(10):
        driver.append(
            chunk_fields("s", 0, request_id=f"r{index}", worker_id=f"w{index}", sequence=0)
        )
    driver.run()
    state = only_state(driver)
    assert [r.request_id for r in state.requests] == [b"r7", b"r8", b"r9"]
    assert len(state.producers) == 3


def test_a_probe_is_passed_through_with_its_provenance() -> None:
    driver = new_driver()
    norms = {
        "dx_norm": np.array([1, 1, 2], "<f4").tobytes(),
        "dy_norm": np.array([0.5, 0.25, 2], "<f4").tobytes(),
        "dw_norm": np.array([0.1, 0.2, 0.2], "<f4").tobytes(),
        "drift_dx_norm": np.array([2], "<f4").tobytes(),
        "drift_dy_norm": np.array([3], "<f4").tobytes(),
    }
    probe = {"step": 0, "layers": [1], "epsilon": 0.01, "basis_id": "b", "directions": 3, **norms}
    driver.append(chunk_fields("s", 0, probe=probe))
    driver.append(chunk_fields("s", 3))
    driver.run()
    probed, plain = driver.telemetry()
    columns = {n: np.frombuffer(probed[n], "<f4").tolist() for n in ("l_perp", "g_probe", "l_para")}
    assert {n: v[1] for n, v in columns.items()} == pytest.approx(
        {"l_perp": 0.5, "g_probe": 0.1, "l_para": 1.5}
    )
    assert all(np.isnan(v[0]) for v in columns.values())
    assert (probed["provenance_probe"], plain["provenance_probe"]) == ("measured", "unavailable")
    assert np.isnan(np.frombuffer(plain["l_perp"], "<f4")).all()


def test_a_number_used_twice_with_other_layers_is_a_repeat_and_harms_nothing() -> None:
    driver = new_driver()
    driver.append(chunk_fields("s", 0, layers=[7]))
    driver.append(chunk_fields("s", 0, layers=[0, 1]))
    driver.append(chunk_fields("s", 3, layers=[0, 1], sequence=9))
    driver.run()
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 0, 3]
    assert only_state(driver).layers == (0, 1, 7)
