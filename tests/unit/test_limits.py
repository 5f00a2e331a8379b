"""Every queue, cache and label has a limit with a name: the table in docs/ARCHITECTURE.md and the code.

The scan goes by how such things are made. A new one without a bound fails here; where it is bounded
by something that cannot grow with the input, it is listed with the reason.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.label_set import LABEL_VALUES_MAX, OTHER
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.metrics import SinkMetrics
from routekeel.streams.topology.records import BatchCounts

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("operators", "schemas", "backends", "infra", "streams")
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
ROW = re.compile(
    r"^\| (?P<what>[^|]+) \| `(?P<name>[^`]+)` \| (?P<default>[\d,.]+)(?: (?P<unit>\w+))? "
    r"\| (?P<then>[^|]*)\| (?P<counter>[^|]*)\|$"
)
BOUNDED_OTHERWISE = {
    "schemas/compiled.py:encoder": "the declared records",
    "schemas/compiled.py:_item_encoder": "the declared kinds",
    "schemas/compiled.py:_alone": "the declared fields",
    "schemas/compiled.py:range_check": "the declared records",
    "schemas/avro.py:reader_schema": "the declared records",
    "schemas/matrices.py:_declared": "the declared matrices",
    "schemas/views.py:_fields": "the declared records",
    "streams/wire/program.py:program_of": "the declared records",
    "streams/wire/program.py:index_of": "the declared records",
    "streams/sinks/core.py:deque": "BUFFERED_BYTES_MAX pauses reading",
    "streams/sinks/batch.py:deque": "BUFFERED_BYTES_MAX pauses reading",
    "streams/app/batch_sender.py:deque": "output.py's QUEUE_BYTES_MAX, changelog_topic.py's WRITE_BLOCKS",
    "streams/app/changelog_topic.py:deque": "WRITE_BLOCKS",
    "streams/topology/changelog_reader.py:deque": "the records of one checkpoint of our own",
    "streams/sinks/membership.py:deque": "commits under way, COMMIT_LOST_AFTER_S apart; each gets an answer",
    "streams/sdk/reader.py:deque": "one answer of consume()",
    "backends/engine_thread.py:SimpleQueue": "each caller waits for its own call's result",
}
LABELS = {"reason", "topic", "partition", "table"}


def rows() -> list[dict[str, str]]:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    found = [ROW.match(line) for line in lines]
    unread = [line for line, match in zip(lines, found, strict=True) if match is None]
    assert not unread, f"not of the table's form: {unread}"
    return [match.groupdict() for match in found if match is not None]


def value_of(name: str) -> Any:
    """A constant as path:NAME, or a setting's default."""
    if ":" in name:
        path, constant = name.split(":")
        module = "routekeel." + path.removesuffix(".py").replace("/", ".")
        return getattr(importlib.import_module(module), constant)
    section, option = name.split(".")
    return getattr(getattr(Settings(), section), option)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_the_table_says_what_the_code_does(row: dict[str, str]) -> None:
    said = float(row["default"].replace(",", "")) * UNITS.get(row["unit"] or "", 1)
    assert value_of(row["name"]) == said


def test_the_counters_of_the_table_exist() -> None:
    pages = generate_latest(WorkerMetrics().registry) + generate_latest(SinkMetrics().registry)
    for row in rows():
        for counter in re.findall(r"`([^`]+)`", row["counter"]):
            assert f"# HELP routekeel_{counter} ".encode() in pages, counter


def made_without_bound(path: Path) -> Iterator[str]:
    """Caches, queues and pools of a module that nothing bounds where they are made."""
    place = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                call = decorator.func if isinstance(decorator, ast.Call) else decorator
                bounded = isinstance(decorator, ast.Call) and not any(
                    isinstance(k.value, ast.Constant) and k.value.value is None
                    for k in decorator.keywords
                )
                if ast.unparse(call).split(".")[-1] in ("cache", "lru_cache") and not bounded:
                    yield f"{place}:{node.name}"
        elif isinstance(node, ast.Call):
            function = node.func.value if isinstance(node.func, ast.Subscript) else node.func
            name = ast.unparse(function).split(".")[-1]
            given = len(node.args) + len(node.keywords)
            if name in ("Queue", "LifoQueue", "PriorityQueue", "ThreadPoolExecutor") and not given:
                yield f"{place}:{name}"
            if name == "SimpleQueue":
                yield f"{place}:{name}"
            made = {ast.unparse(k.value) for k in node.keywords if k.arg == "default_factory"}
            if (name == "deque" and not given) or "deque" in made:
                yield f"{place}:deque"


def test_every_cache_and_queue_is_bounded_or_says_why_it_need_not_be() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {name for path in paths for name in made_without_bound(path)}
    assert found == set(BOUNDED_OTHERWISE)


def test_the_scan_sees_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "m.py"
    module.write_text(
        "@cache\ndef a(): ...\n@functools.lru_cache\ndef b(): ...\n@lru_cache(maxsize=None)\n"
        "def c(): ...\n@lru_cache(maxsize=8)\ndef d(): ...\nq = asyncio.Queue()\nr = Queue(9)\n"
        "p = ThreadPoolExecutor()\nx = deque[int]()\ny = deque(maxlen=3)\nz = SimpleQueue()\n"
    )
    found = {name.partition(":")[2] for name in made_without_bound(module)}
    assert found == {"a", "b", "c", "Queue", "ThreadPoolExecutor", "deque", "SimpleQueue"}


def test_labels_are_of_the_known_kinds() -> None:
    for registry in (WorkerMetrics().registry, SinkMetrics().registry):
        for collector in list(registry._collector_to_names):
            assert set(getattr(collector, "_labelnames", ())) <= LABELS


def test_reasons_beyond_the_limit_are_counted_as_other() -> None:
    metrics = WorkerMetrics()
    for number in range(LABEL_VALUES_MAX + 20):
        metrics.count(BatchCounts(dead_letters={f"reason-{number}": 2}))
    samples = {
        sample.labels["reason"]: sample.value
        for sample in next(iter(metrics.dead_letters.collect())).samples
        if sample.name.endswith("_total")
    }
    assert len(samples) == LABEL_VALUES_MAX + 1
    assert samples[OTHER] == 40
    assert sum(samples.values()) == 2 * (LABEL_VALUES_MAX + 20)
