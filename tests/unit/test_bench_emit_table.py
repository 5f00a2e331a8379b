"""The benchmark's table of emit_logits: what became of the emits, and ratios to the healthy broker."""

from __future__ import annotations

from typing import Any

from tests.bench.sdk_emit import by_outcome, percentiles, with_ratios
from tests.bench.tables import emit_sheet


def case(
    broker: str, tight: list[tuple[bool, int]], paced: list[tuple[bool, int]]
) -> dict[str, Any]:
    kinds = {**by_outcome("tight", tight), **by_outcome("paced", paced)}
    return {"broker": broker, "kinds": kinds | {"copy": percentiles([1000])}}


def test_what_an_emit_costs_is_told_by_what_became_of_it() -> None:
    drops = [(False, 3000)] * 9
    healthy = case("healthy", [(True, 40_000), *drops], [(True, 20_000)])
    away = case("no broker", [(True, 20_000), *drops], [(True, 30_000), (False, 5000)])
    cases = with_ratios([healthy, away])
    # A kind that the healthy broker did not have is compared with nothing.
    assert cases[1]["over_healthy"] == {
        "tight": 1.0, "tight_accepted": 0.5, "tight_dropped": 1.0, "paced": 0.875, "paced_accepted": 1.5,
        "copy": 1.0,
    }  # fmt: skip
    rows = emit_sheet({"bytes": 12_288, "rate": 2_000, "cases": cases}).rows
    assert [row[:4] for row in rows] == [
        ("healthy, tight loop: all", "10", "100.0%", "3.0"),
        ("healthy, tight loop: accepted", "1", "10.0%", "40.0"),
        ("healthy, tight loop: dropped", "9", "90.0%", "3.0"),
        ("healthy, 2,000/s: all", "1", "100.0%", "20.0"),
        ("healthy, 2,000/s: accepted", "1", "100.0%", "20.0"),
        ("healthy, a plain copy of the bytes", "1", "100.0%", "1.0"),
        ("no broker, tight loop: all", "10", "100.0%", "3.0"),
        ("no broker, tight loop: accepted", "1", "10.0%", "20.0"),
        ("no broker, tight loop: dropped", "9", "90.0%", "3.0"),
        ("no broker, 2,000/s: all", "2", "100.0%", "17.5"),
        ("no broker, 2,000/s: accepted", "1", "50.0%", "30.0"),
        ("no broker, 2,000/s: dropped", "1", "50.0%", "5.0"),
        ("no broker, a plain copy of the bytes", "1", "100.0%", "1.0"),
    ]
    assert rows[10][-1] == "1.50×" and rows[11][-1] == ""
