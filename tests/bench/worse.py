"""What is worse here: every figure in which this app is behind a contender, or behind what it promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .cpu import CLIENT, SENDING
from .tables import CORES, EMITTED

SESSIONS_MAX = 1.2  # × the CPU of an event, with the most sessions against the fewest
STATE_LOG_MAX = 0.5  # × the input
WEIGHTS_MAX = 1.0  # × the input
KERNEL_SHARE_MIN = 0.35  # of this app's CPU, at the small shape
EXPONENTIAL_MIN, EXPONENTIAL_EXPERTS = 5.0, 128  # × the scalar softmax


def worse(report: dict[str, Any]) -> list[str]:
    """The sentences, in the order of the tables."""
    return [
        *(sentence for case in report["cases"] for sentence in (*_behind(case), *_bytes(case))),
        *_kernel(report["cpu"][0]),
        *_exponential(report["exponential"]),
        *_sessions(report["sessions"]),
        *(sentence for one in report["sink"] for sentence in _sink(one)),
        *(f"Memory: {sentence}" for sentence in report["soak"]["broken"]),
        *_emit(report["sdk_emit"]),
    ]


def _behind(case: dict[str, Any]) -> Iterator[str]:
    for key, what, lower in (
        ("events_per_s", "events/s", False),
        ("cpu_us_per_event", "µs of CPU an event", True),
        ("broker_cpu_us_per_event", "µs of the broker's CPU an event", True),
        ("rss_mb", "MB of peak memory", True),
    ):
        own = case[key].get("routekeel")
        for name, value in case[key].items():
            if own is not None and (value < own if lower else value > own):
                yield f"{case['shape']}: {name} has {value:,.1f} {what}, routekeel {own:,.1f}."


def _bytes(case: dict[str, Any]) -> Iterator[str]:
    if not case["bytes"]:
        return
    plain = {what: of["plain"] for what, of in case["bytes"].items()}
    log, weights = (plain[what] / plain["logits"] for what in ("state log", "weights"))
    if log > STATE_LOG_MAX:
        yield f"{case['shape']}: the state log takes {log:.2f}× the input, more than {STATE_LOG_MAX}×."
    if weights >= WEIGHTS_MAX:
        yield f"{case['shape']}: the weights take {weights:.2f}× the input, not less than it."


def _kernel(report: dict[str, Any]) -> Iterator[str]:
    share = report["share"]["kernel"]
    if share < KERNEL_SHARE_MIN:
        yield (
            f"{report['shape']}: of this app's CPU {share:.0%} is the kernel's, less than {KERNEL_SHARE_MIN:.0%}; "
            f"{report['share'][SENDING]:.0%} goes into sending, {report['share'][CLIENT]:.0%} into fetching."
        )


def _exponential(report: dict[str, Any]) -> Iterator[str]:
    for case in report["cases"]:
        if case["experts"] == EXPONENTIAL_EXPERTS and case["ratio"] < EXPONENTIAL_MIN:
            yield (
                f"The exponential: {case['ratio']:.1f}× the scalar softmax at {case['experts']} experts, "
                f"less than {EXPONENTIAL_MIN:.0f}×."
            )


def _sessions(report: dict[str, Any]) -> Iterator[str]:
    few, many = report["cases"][0]["sessions"], report["cases"][-1]["sessions"]
    if report["ratio"] > SESSIONS_MAX:
        yield (
            f"Cost by sessions: with {many:,} live sessions an event takes {report['ratio']:.2f}× the CPU "
            f"that it takes with {few:,}, more than {SESSIONS_MAX}×. It then changes a session of its own, "
            f"which goes to the state log: {report['cases'][-1]['state_records_per_event']:.2f} records for "
            f"an event against {report['cases'][0]['state_records_per_event']:.2f}."
        )


def _sink(report: dict[str, Any]) -> Iterator[str]:
    for way, where in CORES.items():
        stored = report.get(way)
        if stored and stored["rows_per_s"] < stored["direct_rows_per_s"]:
            yield (
                f"The sink, {report['shape']}, {where}: inserted directly the store takes "
                f"{stored['direct_rows_per_s']:,.0f} rows/s, from the sink {stored['rows_per_s']:,.0f}."
            )


def _emit(report: dict[str, Any]) -> Iterator[str]:
    for case in report["cases"]:
        copy = case["kinds"]["copy"]["p50_us"]
        above = [
            f"{found['p50_us']:.1f} ({EMITTED[kind].format(rate=report['rate'])})"
            for kind, found in case["kinds"].items()
            if found["p50_us"] > copy
            and "_" in kind  # accepted and dropped apart: "all" is their mixture
        ]
        if above:
            yield (
                f"emit_logits, {case['broker']}: a plain copy of the bytes takes {copy:.1f} µs at the median, "
                f"an emit {', '.join(above)}."
            )
