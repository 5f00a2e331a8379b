"""The report as tables, once as data: printed for people and written as Markdown from the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A title, the column heads (the first is text, the others numbers) and the rows."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left", box=None)
        for index, head in enumerate(self.heads):
            table.add_column(head, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        rule = "|".join(["---"] + ["---:"] * (len(self.heads) - 1))
        lines = [" | ".join(self.heads), rule, *(" | ".join(row) for row in self.rows)]
        return f"### {self.title}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


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


def _sessions(report: dict[str, Any]) -> Sheet:
    rows = [
        (f"{c['sessions']:,}", f"{c['cpu_us_per_event']:.1f}",
         "–".join(f"{cost:.1f}" for cost in c["cpu_us_range"]),
         f"{c['events_per_s']:,.0f}", f"{c['rss_mb']:,.0f}")
        for c in report["cases"]
    ]  # fmt: skip
    title = (
        f"Cost by live sessions, {report['shape']}: the last is {report['ratio']:.2f}× the first"
    )
    return Sheet(title, ("sessions", "CPU µs/event", "range", "events/s", "resident MB"), rows)


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
    ways = [report[way] for way in _CORES if way in report]

    def row(name: str, cell: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
        return (name, *(cell(way) for way in ways))

    rows = [
        row("routekeel sink", lambda way: f"{way['rows_per_s']:,.0f}"),
        row("the same Arrow batches, inserted directly", lambda way: f"{way['direct_rows_per_s']:,.0f}"),
        row("share", lambda way: f"{way['share']:.0%} ({_range(way)})"),
        row("the sink alone: inserts answered at once", lambda way: f"{way['alone_rows_per_s']:,.0f}"),
        row("the sink's own CPU, µs a row", lambda way: f"{way['cpu_us_per_row']:.1f}"),
    ]  # fmt: skip
    first = ways[0]
    title = (
        f"Sink, {report['shape']}: {first['rows']:,.0f} rows, {first['megabytes']:,.0f} MB of Arrow"
    )
    return Sheet(title, ("rows/s", *(_CORES[way] for way in _CORES if way in report)), rows)


_CORES = {
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


def _cpu(report: dict[str, Any]) -> Sheet:
    rows = [
        (row, f"{us:.2f}", f"{report['share'][row]:.1%}")
        for row, us in report["us_per_event"].items()
    ]
    title = f"Where this app's CPU goes, {report['shape']} ({report['samples']:,} samples)"
    return Sheet(title, ("", "µs/event", "share"), rows)


def _emit(report: dict[str, Any]) -> Sheet:
    kinds = ("tight", "tight_accepted", "tight_dropped", "paced", "copy")
    rows = [
        (case["broker"],
         *(" / ".join(f"{case[k][p]:.1f}" for p in ("p50_us", "p99_us", "p999_us")) for k in kinds))
        for case in report["cases"]
    ]  # fmt: skip
    heads = ("broker", "tight loop", "accepted", "dropped", f"{report['rate']:,}/s", "plain copy")
    return Sheet(f"emit_logits, {report['bytes']:,} bytes, µs: p50 / p99 / p99.9", heads, rows)


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """Every table of the report, in reading order."""
    found = [_case(case) for case in report["cases"]]
    found += [_cpu(one) for one in report["cpu"]]
    found += [_sessions(report["sessions"]), _workers(report["workers"])]
    found += [_sink(report["sink"]), recovery_sheet(report["recovery"])]
    found += [soak_sheet(report["soak"]), _emit(report["sdk_emit"])]
    return found


def worse(report: dict[str, Any]) -> list[str]:
    """Every figure in which this app is behind a contender, as sentences."""
    found = []
    for case in report["cases"]:
        for key, what, lower in (
            ("events_per_s", "events/s", False),
            ("cpu_us_per_event", "µs of CPU an event", True),
            ("broker_cpu_us_per_event", "µs of the broker's CPU an event", True),
            ("rss_mb", "MB of peak memory", True),
        ):
            own = case[key].get("routekeel")
            for name, value in case[key].items():
                if own is not None and (value < own if lower else value > own):
                    found.append(
                        f"{case['shape']}: {name} has {value:,.1f} {what}, routekeel {own:,.1f}."
                    )
    for way in _CORES:
        stored = report["sink"].get(way)
        if stored and stored["rows_per_s"] < stored["direct_rows_per_s"]:
            found.append(
                f"The sink, {_CORES[way]}: inserted directly the store takes "
                f"{stored['direct_rows_per_s']:,.0f} rows/s, from the sink {stored['rows_per_s']:,.0f}."
            )
    return found
