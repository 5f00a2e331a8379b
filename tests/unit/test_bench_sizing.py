"""The sizing is made from a report alone, and says by what the brokers are sized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench import sizing


def case(shape: str, written: int) -> dict[str, Any]:
    sizes = {"plain": 2_000, "stored": written}
    return {
        "shape": shape, "events": 1, "events_per_s": {"routekeel": 10_000.0},
        "cpu_us_per_event": {"routekeel": 50.0}, "broker_cpu_us_per_event": {"routekeel": 10.0},
        "bytes": dict.fromkeys(("logits", "telemetry", "weights", "state log"), sizes),
    }  # fmt: skip


def report() -> dict[str, Any]:
    shapes = [str(shape) for shape in sizing.SHAPES]
    stored = {
        "rows": 100.0, "events": 10, "stored_bytes": 5_000, "alone_rows_per_s": 500_000.0,
        "direct_rows_per_s": 250_000.0,
    }  # fmt: skip
    return {
        "cases": [case(shapes[0], 100), case(shapes[1], 10_000)],
        "sink": [{"shape": shape, "shared": stored} for shape in shapes],
        "machine": {"cores": 2},
    }


def test_brokers_are_sized_by_what_asks_for_more() -> None:
    rows = {row[0]: row[1:] for row in sizing.sheet_of(report()).rows}
    assert rows["events/s"] == ("312,500", "208,333")
    assert rows["logits in, MB/s before compression"] == ("625", "417")
    assert rows["all topics as one replica stores them (lz4), MB/s"] == ("125", "8,333")
    # 312,500 events × 10 µs × 3 replicas at 60 % load; 8,333 MB/s × 3 at 60 % of 500 MB/s.
    assert rows["brokers, and what decides"] == ("2 (CPU)", "84 (bytes)")
    assert rows["rows/s into ClickHouse"] == ("3,125,000", "2,083,333")
    assert rows["sink processes"] == ("11", "7")
    assert rows["ClickHouse shards of 16 cores, by what 2 take"] == ("3", "2")
    assert rows["stored in ClickHouse, TB/day"] == ("13.5", "9.0")


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "SCALING.md"
    path.write_text(f"before\n{sizing.BEGIN}old\n{sizing.END}after\n", encoding="utf-8")
    table = sizing.sheet_of(report())
    sizing.write(table, path)
    wanted = f"before\n{sizing.BEGIN}{table.markdown()}{sizing.END}after\n"
    assert path.read_text(encoding="utf-8") == wanted
