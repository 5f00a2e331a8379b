"""The benchmark's table of emit_logits: a ratio to the healthy broker for both kinds of load."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.sdk_emit import percentiles, print_cases, with_ratios


def case(broker: str, tight_us: int, paced_us: int) -> dict[str, Any]:
    kinds = ("tight_accepted", "tight_dropped", "copy")
    return {
        "broker": broker,
        "tight": percentiles([1000 * tight_us]),
        "paced": percentiles([1000 * paced_us]),
        **{kind: percentiles([1000]) for kind in kinds},
    }


def test_both_medians_are_compared_with_the_healthy_brokers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    cases = with_ratios([case("healthy", 8, 20), case("no broker", 6, 23), case("hanging", 10, 30)])
    ratios = [{k: round(v, 3) for k, v in one["over_healthy"].items()} for one in cases]
    assert ratios == [
        {"tight": 1.0, "paced": 1.0},
        {"tight": 0.75, "paced": 1.15},
        {"tight": 1.25, "paced": 1.5},
    ]
    print_cases({"bytes": 12_288, "rate": 2_000, "cases": cases})
    table = capsys.readouterr().out
    assert table.count("× healthy") == 2 and "2,000/s" in table
    row = next(line for line in table.splitlines() if "no broker" in line)
    assert "0.75" in row and "1.15" in row
