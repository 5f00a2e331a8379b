"""The benchmark's document is written from the report alone, and says where this app is behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.cpu import ROWS
from tests.bench.tables import sheets, worse
from tests.bench.write_docs import write


def report() -> dict[str, Any]:
    """A report as a run leaves it, with numbers that are easy to find again."""
    emit = {"p50_us": 4.0, "p99_us": 5.0, "p999_us": 6.0}
    kinds = ("tight", "tight_accepted", "tight_dropped", "paced", "copy")
    workers = {
        "events_per_s": 7.0, "events_per_s_range": [6.0, 8.0], "worker_cpu_us_per_event": 1.0,
        "broker_cpu_us_per_event": 1.0, "worker_cores": 1.0, "broker_cores": 0.5,
    }  # fmt: skip
    stored = {
        "rows": 10.0, "megabytes": 1.0, "rows_per_s": 90.0, "direct_rows_per_s": 100.0,
        "alone_rows_per_s": 120.0, "cpu_us_per_row": 3.0,
    }  # fmt: skip
    return {
        "cases": [
            {
                "shape": "T=8 L=4 E=8 F16", "events": 1000, "sessions": 10, "megabytes": 1.0,
                "events_per_s": {"routekeel": 3000.0, "loop": 2000.0, "quix": 4321.0},
                "events_per_s_range": {n: [1.0, 2.0] for n in ("routekeel", "loop", "quix")},
                "cpu_us_per_event": {"routekeel": 10.0, "loop": 20.0, "quix": 30.0},
                "broker_cpu_us_per_event": {"routekeel": 1.0, "loop": 1.0, "quix": 1.0},
                "rss_mb": {"routekeel": 300.0, "loop": 250.0, "quix": 400.0},
            }
        ],
        "cpu": [
            {
                "shape": "T=8", "samples": 9, "us_per_event": dict.fromkeys(ROWS, 1.5),
                "share": dict.fromkeys(ROWS, 0.1),
            }
        ],
        "sessions": {
            "shape": "T=8", "ratio": 1.25,
            "cases": [
                {
                    "sessions": 1000, "cpu_us_per_event": 9.0, "cpu_us_range": [8.0, 9.5],
                    "events_per_s": 1.0, "rss_mb": 1.0,
                }
            ],
        },
        "workers": {
            "shape": "T=8", "gain": 1.75,
            "cases": [{"workers": count, **workers} for count in (1, 2)],
        },
        "sink": {
            "shape": "T=8",
            "shared": {**stored, "share": 0.5, "share_range": [0.4, 0.6]},
            "apart": {**stored, "rows_per_s": 100.0, "share": 0.9, "share_range": [0.88, 0.92]},
        },
        "recovery": [
            {
                "case": "L=4 E=8 × 10", "records": 30, "bytes": 2**20,
                "kinds": {"cold, memory": {"records_read": 30, "seconds": 1.25, "cpu_s": 1.0}},
            }
        ],
        "sdk_emit": {
            "bytes": 12288, "rate": 2000, "cases": [{"broker": "healthy", **dict.fromkeys(kinds, emit)}],
        },
        "versions": {"numba": "1.2.3"},
        "again": {"sink": {"date": "2003-02-01"}},
        "machine": {
            "processor": "a processor", "cores": 2, "memory_gib": 1.0, "system": "Linux", "python": "3.11",
            "date": "2001-02-03", "load_before": 0.1,
        },
        "facts": {"repeats": 3, "partitions": 4, "every": 8, "checkpoint_s": 1.0},
    }  # fmt: skip


def test_the_document_holds_every_table_and_what_is_worse(tmp_path: Path) -> None:
    path = tmp_path / "BENCHMARKS.md"
    write(report(), path)
    text = path.read_text(encoding="utf-8")
    for sheet in sheets(report()):
        assert f"### {sheet.title}" in text
        assert all(len(row) == len(sheet.heads) for row in sheet.rows)
    for words in (
        "2001-02-03",
        "a processor",
        "numba 1.2.3",
        "1.50×",
        "0.69×",
        "90% (88%–92%)",
        "`--only sink`): 2003-02-01",
        "8.0–9.5",
        "| 1.25 |",
    ):
        assert words in text
    assert "{" not in text
    for sentence in worse(report()):
        assert f"- {sentence}" in text


def test_only_what_is_worse_is_called_worse() -> None:
    assert worse(report()) == [
        "T=8 L=4 E=8 F16: quix has 4,321.0 events/s, routekeel 3,000.0.",
        "T=8 L=4 E=8 F16: loop has 250.0 MB of peak memory, routekeel 300.0.",
        "The sink, store and sink on the same cores: inserted directly the store takes 100 rows/s, "
        "from the sink 90.",
    ]
