"""The report as tables: what each section of the benchmark found, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .sheet import Sheet


def _case(case: dict[str, Any]) -> Sheet:
    own = case["events_per_s"].get("routekeel")
    rows = []
    for name, rate in case["events_per_s"].items():
        low, high = case["events_per_s_range"][name]
        ratio = "" if name == "routekeel" or own is None else f"{own / rate:.2f}×"
        rows.append(
            (name, f"{rate:,.0f}", f"{low:,.0f}–{high:,.0f}", ratio, f"{case['cpu_us_per_event'][name]:.1f}",
             f"{case['broker_cpu_us_per_event'][name]:.1f}", f"{case['rss_mb'][name]:,.0f}")
        )  # fmt: skip
    heads = (
        "contender",
        "events/s",
        "range",
        "routekeel is",
        "CPU µs/event",
        "broker CPU µs/event",
        "peak MB",
    )
    title = f"{case['shape']}: {case['events']:,} events ({case['megabytes']:,.0f} MB) of {case['sessions']:,} sessions"
    return Sheet(title, heads, rows)


def _written(cases: list[dict[str, Any]]) -> Sheet:
    """What this app writes beside its input, before compression; and what the broker stores of it all."""
    rows = []
    for case in cases:
        plain = {what: of["plain"] for what, of in case["bytes"].items()}
        shares = (plain[what] / plain["logits"] for what in ("state log", "weights", "telemetry"))
        stored = (f"{of['stored'] / 1e6:,.1f}" for of in case["bytes"].values())
        title = f"{case['shape']}, {case['events']:,} events of {case['sessions']:,} sessions"
        rows.append(
            (title, f"{plain['logits'] / 1e6:,.1f}", *(f"{share:.2f}×" for share in shares), " / ".join(stored))
        )  # fmt: skip
    heads = (
        "routekeel, before compression", "logits, MB", "state log / logits", "weights / logits",
        "telemetry / logits", f"stored by the broker (lz4), MB: {' / '.join(cases[0]['bytes'])}",
    )  # fmt: skip
    return Sheet("What the state log and the weights cost", heads, rows)


def _sessions(report: dict[str, Any]) -> Sheet:
    rows = [
        (f"{c['sessions']:,}", f"{c['cpu_us_per_event']:.1f}",
         "–".join(f"{cost:.1f}" for cost in c["cpu_us_range"]),
         f"{c['events_per_s']:,.0f}", f"{c['state_records_per_event']:.2f}", f"{c['rss_mb']:,.0f}")
        for c in report["cases"]
    ]  # fmt: skip
    title = (
        f"Cost by live sessions, {report['shape']}: the last is {report['ratio']:.2f}× the first"
    )
    head = ("sessions", "CPU µs/event", "range", "events/s", "state records/event", "resident MB")
    return Sheet(title, head, rows)


def _workers(report: dict[str, Any]) -> Sheet:
    rows = [
        (str(c["workers"]), f"{c['events_per_s']:,.0f}",
         "–".join(f"{rate:,.0f}" for rate in c["events_per_s_range"]),
         f"{c['worker_cpu_us_per_event']:.1f}", f"{c['worker_cores']:.2f}",
         f"{c['broker_cpu_us_per_event']:.1f}", f"{c['broker_cores']:.2f}")
        for c in report["cases"]
    ]  # fmt: skip
    heads = (
        "workers",
        "events/s",
        "range",
        "CPU µs/event",
        "cores",
        "broker CPU µs/event",
        "broker cores",
    )
    title = f"Two workers against one, {report['shape']}: {report['gain']:.2f}×, broker on the same cores"
    return Sheet(title, heads, rows)


def _sink(report: dict[str, Any]) -> Sheet:
    ways = [report[way] for way in CORES if way in report]

    def row(name: str, cell: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
        return (name, *(cell(way) for way in ways))

    rows = [
        row("routekeel sink", lambda way: f"{way['rows_per_s']:,.0f}"),
        row("the same Arrow batches, inserted directly", lambda way: f"{way['direct_rows_per_s']:,.0f}"),
        row("share", lambda way: f"{way['share']:.0%} ({_range(way)})"),
        row("the sink alone: inserts answered at once", lambda way: f"{way['alone_rows_per_s']:,.0f}"),
        row("the sink's own CPU, µs a row", lambda way: f"{way['cpu_us_per_row']:.1f}"),
        row("stored bytes an event", lambda way: f"{way['stored_bytes'] / way['events']:,.0f}"),
    ]  # fmt: skip
    first = ways[0]
    title = (
        f"Sink, {report['shape']}: {first['rows']:,.0f} rows, {first['megabytes']:,.0f} MB of Arrow"
    )
    return Sheet(title, ("rows/s", *(CORES[way] for way in CORES if way in report)), rows)


CORES = {
    "shared": "store and sink on the same cores",
    "apart": "half of the cores for the store, half for sink and broker",
}


def _range(way: dict[str, Any]) -> str:
    low, high = way["share_range"]
    return f"{low:.0%}–{high:.0%}"


def recovery_sheet(cases: list[dict[str, Any]]) -> Sheet:
    """How long taking over all partitions takes, by what the worker has of their state."""
    rows = [
        (f"{case['case']} sessions, {kind}", f"{case['records']:,}", f"{case['bytes'] / 2**20:,.0f}",
         f"{found['records_read']:,.0f}", f"{found['seconds']:.2f}", f"{found['cpu_s']:.2f}")
        for case in cases
        for kind, found in case["kinds"].items()
    ]  # fmt: skip
    heads = ("who takes over", "log records", "log MiB", "records read", "seconds", "CPU s")
    return Sheet("Taking over all partitions: from the assignment until all are ready", heads, rows)


def soak_sheet(result: dict[str, Any]) -> Sheet:
    """What the state of very many sessions takes, and whether it stays that way."""
    last, soak = result["samples"][-1], result["soak"]
    rows = [
        ("checkpoints", f"{result['checkpoints']:,}"),
        ("evictions", f"{result['evicted']:,}"),
        ("tombstones", f"{result['tombstones']:,}"),
        ("base: MiB resident before the first session", f"{result['base_bytes'] / 2**20:,.0f}"),
        ("live state, MiB", f"{last['live'] / 2**20:,.0f}"),
        ("resident, MiB", f"{last['rss'] / 2**20:,.0f}"),
        ("above the base, of the live state, at most", f"{result['ratio']:.2f}×"),
        ("growth after the first quarter", f"{result['drift']:.1%}"),
    ]
    title = (
        f"Memory, T={soak['tokens']} L={soak['layers']} E={soak['experts']}: {result['chunks']:,} chunks of "
        f"{soak['sessions']:,} sessions, {soak['churn']:.0%} of them replaced each round, in one partition"
    )
    return Sheet(title, ("memory store, no broker", ""), rows)


def exponential_sheet(report: dict[str, Any]) -> Sheet:
    """The kernel's softmax against a scalar one, and how exact both are."""
    rows = [
        (f"{c['experts']} experts", f"{c['scalar']:.2f}", f"{c['lanes']:.2f}", f"{c['ratio']:.1f}×",
         f"{c['scalar_error']:.1e}", f"{c['lanes_error']:.1e}")
        for c in report["cases"]
    ]  # fmt: skip
    heads = ("softmax of a row", "scalar, M rows/s", "lanes, M rows/s", "lanes / scalar",
             "relative error, scalar", "relative error, lanes")  # fmt: skip
    title = (
        "The exponential: eight lanes of a polynomial against `math.exp` compiled by numba; errors are the "
        f"largest of a weight against float64, that of e^x alone {report['exp_ulp']:.2f} ulp"
    )
    return Sheet(title, heads, rows)


def _threads(cases: list[dict[str, Any]]) -> Sheet:
    rows = [
        (f"{c['shape']}, batches of {c['chunks']:,}, {c['what']}", f"{c['one_per_s']:,.0f}",
         f"{c['two_per_s']:,.0f}", f"{c['gain']:.2f}× ({c['gain_range'][0]:.2f}–{c['gain_range'][1]:.2f})")
        for c in cases
    ]  # fmt: skip
    heads = ("", "one thread, events/s", "two threads, events/s", "two threads / one thread")
    return Sheet(
        "What a second thread would give, for batches of two partitions in memory", heads, rows
    )


def _cpu(report: dict[str, Any]) -> Sheet:
    rows = [
        (row, f"{us:.2f}", f"{report['share'][row]:.1%}")
        for row, us in report["us_per_event"].items()
    ]
    title = f"Where this app's CPU goes, {report['shape']} ({report['samples']:,} samples)"
    return Sheet(title, ("", "µs/event", "share"), rows)


def emit_sheet(report: dict[str, Any]) -> Sheet:
    """What an emit costs by what became of it: the median of a loop that mostly drops is that of a drop."""
    rows = []
    for case in report["cases"]:
        for kind, found in case["kinds"].items():
            load = EMITTED[kind].format(rate=report["rate"])
            whole = case["kinds"][kind.partition("_")[0]]["emits"]
            over = case["over_healthy"].get(kind)
            rows.append(
                (f"{case['broker']}, {load}", f"{found['emits']:,}", f"{found['emits'] / whole:.1%}",
                 *(f"{found[p]:.1f}" for p in ("p50_us", "p99_us", "p999_us")),
                 "" if over is None else f"{over:.2f}×")
            )  # fmt: skip
    heads = (
        "broker, and how often is emitted",
        "emits",
        "share",
        "p50",
        "p99",
        "p99.9",
        "p50, × healthy",
    )
    return Sheet(f"emit_logits, {report['bytes']:,} bytes, µs", heads, rows)


EMITTED = {
    "tight": "tight loop: all",
    "tight_accepted": "tight loop: accepted",
    "tight_dropped": "tight loop: dropped",
    "paced": "{rate:,}/s: all",
    "paced_accepted": "{rate:,}/s: accepted",
    "paced_dropped": "{rate:,}/s: dropped",
    "copy": "a plain copy of the bytes",
}


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """Every table of the report, in reading order."""
    cases = report["cases"]
    written = [case for case in cases if case["bytes"]]
    return [
        *(_case(case) for case in cases),
        *([_written(written)] if written else []),
        *(_cpu(one) for one in report["cpu"]),
        exponential_sheet(report["exponential"]),
        _threads(report["threads"]),
        _sessions(report["sessions"]),
        _workers(report["workers"]),
        *(_sink(one) for one in report["sink"]),
        recovery_sheet(report["recovery"]),
        soak_sheet(report["soak"]),
        emit_sheet(report["sdk_emit"]),
    ]
