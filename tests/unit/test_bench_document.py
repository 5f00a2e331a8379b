"""The benchmark's document is written from the report alone, and says where this app is behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bench.cpu import ROWS
from tests.bench.machine import commit
from tests.bench.sdk_emit import with_ratios
from tests.bench.soak import JUDGED_FROM_BYTES, broken
from tests.bench.tables import sheets
from tests.bench.worse import worse
from tests.bench.write_docs import write


def contenders() -> dict[str, Any]:
    """What all of them were measured at."""
    return {
        "cases": [
            {
                "shape": "T=8 L=4 E=8 F16", "events": 1000, "sessions": 10, "megabytes": 1.0,
                "events_per_s": {"routekeel": 3000.0, "loop": 2000.0, "quix": 4321.0},
                "events_per_s_range": {n: [1.0, 2.0] for n in ("routekeel", "loop", "quix")},
                "cpu_us_per_event": {"routekeel": 10.0, "loop": 20.0, "quix": 30.0},
                "broker_cpu_us_per_event": {"routekeel": 1.0, "loop": 1.0, "quix": 1.0},
                "rss_mb": {"routekeel": 300.0, "loop": 250.0, "quix": 400.0},
                "bytes": {
                    what: {"plain": plain, "stored": 1_500_000}
                    for what, plain in (("logits", 100), ("telemetry", 240), ("weights", 100), ("state log", 55))
                },
            }
        ],
    }  # fmt: skip


def parts() -> dict[str, Any]:
    """What its parts cost alone."""
    return {
        "cpu": [
            {
                "shape": "T=8", "samples": 9, "us_per_event": dict.fromkeys(ROWS, 1.5),
                "share": dict.fromkeys(ROWS, 0.1),
            }
        ],
        "exponential": {
            "exp_ulp": 1.43,
            "cases": [
                {
                    "experts": 128, "scalar": 2.0, "lanes": 9.0, "ratio": 4.5, "scalar_error": 1e-6,
                    "lanes_error": 2e-6,
                }
            ],
        },
        "threads": [
            {
                "shape": "T=8", "what": "decode and kernel", "chunks": 9, "one_per_s": 1.0, "two_per_s": 2.0,
                "gain": 1.87, "gain_range": [1.8, 1.9],
            }
        ],
        "recovery": [
            {
                "case": "L=4 E=8 × 10", "records": 30, "bytes": 2**20,
                "kinds": {"cold, memory": {"records_read": 30, "seconds": 1.25, "cpu_s": 1.0}},
            }
        ],
        "soak": {
            "samples": [{"live": 2**20, "rss": 2**20}],
            "soak": {"tokens": 1, "layers": 2, "experts": 4, "sessions": 5, "churn": 0.05},
            "checkpoints": 1, "evicted": 1, "tombstones": 1, "base_bytes": 2**20, "chunks": 50, "ratio": 2.5,
            "drift": 0.01, "broken": broken(2.5, 0.01, JUDGED_FROM_BYTES),
        },
    }  # fmt: skip


def workers_and_sink() -> dict[str, Any]:
    """What workers and the sink were measured at."""
    workers = {
        "events_per_s": 7.0, "events_per_s_range": [6.0, 8.0], "worker_cpu_us_per_event": 1.0,
        "broker_cpu_us_per_event": 1.0, "worker_cores": 1.0, "broker_cores": 0.5,
    }  # fmt: skip
    stored = {
        "rows": 10.0, "megabytes": 1.0, "rows_per_s": 90.0, "direct_rows_per_s": 100.0,
        "alone_rows_per_s": 120.0, "cpu_us_per_row": 3.0, "stored_bytes": 700.0, "events": 2,
    }  # fmt: skip
    return {
        "sessions": {
            "shape": "T=8", "ratio": 1.25,
            "cases": [
                {
                    "sessions": sessions, "cpu_us_per_event": 9.0, "cpu_us_range": [8.0, 9.5],
                    "events_per_s": 1.0, "rss_mb": 1.0, "state_records_per_event": share,
                }
                for sessions, share in ((1_000, 0.05), (1_000_000, 0.95))
            ],
        },
        "workers": {
            "shape": "T=8", "gain": 1.75,
            "cases": [{"workers": count, **workers} for count in (1, 2)],
        },
        "sink": [
            {
                "shape": "T=8",
                "shared": {**stored, "share": 0.5, "share_range": [0.4, 0.6]},
                "apart": {**stored, "rows_per_s": 100.0, "share": 0.9, "share_range": [0.88, 0.92]},
            }
        ],
    }  # fmt: skip


def emits() -> dict[str, Any]:
    """What an emit cost."""
    emit = {"emits": 20_000, "p50_us": 4.0, "p99_us": 5.0, "p999_us": 6.0}
    kinds = {
        "tight": emit, "tight_accepted": emit | {"emits": 1_230, "p50_us": 8.5}, "copy": emit | {"p50_us": 4.5},
    }  # fmt: skip
    return {
        "sdk_emit": {
            "bytes": 12288, "rate": 2000, "cases": with_ratios([{"broker": "healthy", "kinds": kinds}]),
        },
    }  # fmt: skip


def report() -> dict[str, Any]:
    """A report as a run leaves it, with numbers that are easy to find again."""
    return {
        **contenders(), **parts(), **workers_and_sink(), **emits(),
        "versions": {"numba": "1.2.3"},
        "again": {"sink": {"date": "2003-02-01", "commit": "0ddba11"}},
        "machine": {
            "commit": "c0ffee1-dirty", "processor": "a processor", "cores": 2, "memory_gib": 1.0,
            "system": "Linux", "python": "3.11",
            "date": "2001-02-03", "load_before": 0.1,
        },
        "facts": {"repeats": 3, "partitions": 4, "every": 8, "state_every": 64, "checkpoint_s": 1.0},
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
        "`--only sink`): 2003-02-01, commit 0ddba11",
        "at commit c0ffee1-dirty",
        "| 6.2% | 8.5 |",
        "| 0.55× | 1.00× | 2.40× | 1.5 / 1.5 / 1.5 / 1.5 |",
        "4.5×",
        "1.87× (1.80–1.90)",
        "1.43 ulp",
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
        "T=8 L=4 E=8 F16: the state log takes 0.55× the input, more than 0.5×.",
        "T=8 L=4 E=8 F16: the weights take 1.00× the input, not less than it.",
        "T=8: of this app's CPU 10% is the kernel's, less than 35%; 10% goes into "
        "sending, 10% into fetching.",
        "The exponential: 4.5× the scalar softmax at 128 experts, less than 5×.",
        "Cost by sessions: with 1,000,000 live sessions an event takes 1.25× the CPU that it takes with 1,000, "
        "more than 1.2×. It then changes a session of its own, which goes to the state log: 0.95 records for an "
        "event against 0.05.",
        "The sink, T=8, store and sink on the same cores: inserted directly the store takes 100 rows/s, "
        "from the sink 90.",
        "Memory: above the base it takes 2.50× the live state, more than 2.0×.",
        "emit_logits, healthy: a plain copy of the bytes takes 4.5 µs at the median, an emit 8.5 (tight loop: "
        "accepted).",
    ]


def test_a_bound_of_the_soak_is_judged_where_there_is_enough_to_judge() -> None:
    assert broken(2.5, 0.05, JUDGED_FROM_BYTES - 1) == []
    assert broken(2.0, 0.06, JUDGED_FROM_BYTES) == [
        "it grows by 6.0% after the first quarter, more than 5%."
    ]


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"
