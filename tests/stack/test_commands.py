"""The commands as a person runs them, one after another, on the synthetic load whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.cli.main import app
from routekeel.streams.produce.chunk import Chunk
from routekeel.streams.produce.synthetic import SyntheticLoad
from tests.stack.system import System, end_of
from tests.stack.terminal import on_terminal

pytestmark = pytest.mark.stack
LOAD = SyntheticLoad(5, 6, shape=(3, 2, 8), seed=9)
TOKEN_ROWS = len(LOAD) * 3 * 2


@pytest.fixture(scope="module")
def running(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    local_stack.up()
    flags = {"worker.token_rows_share": 1.0}
    made = System(local_stack, tmp_path_factory.mktemp("commands"), "commands", **flags)
    yield made
    made.close()


def command(
    running: System, *words: str, stdin: str | None = None, code: int = 0, **flags: Any
) -> Any:
    """Run a command with --json in this process: its one JSON object."""
    line = running.line(*words, "--json", **flags)
    result = CliRunner().invoke(app, line[line.index(words[0]) :], input=stdin)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def as_line(chunk: Chunk) -> str:
    """A chunk as docs/PRODUCE.md describes a line."""
    fields = chunk.fields
    ambiguity = {"predictive": np.asarray(fields["ambiguity"]["predictive"], float).tolist()}
    return json.dumps(
        {
            "session_id": chunk.session_id,
            "logits": chunk.logits.astype(float).tolist(),
            **{name: fields[name] for name in ("request_id", "model", "position_start", "top_k")},
            "ambiguity": ambiguity,
        }
    )


def test_topics_are_created_left_alone_and_reconfigured(running: System) -> None:
    created = command(running, "topics")
    assert {topic["action"] for topic in created["topics"]} == {"created"}
    assert {t["action"] for t in command(running, "topics")["topics"]} == {"unchanged"}
    changed = command(running, "topics", **{"topics.dlq_retention_h": 5})
    dlq = running.settings.topics.dlq
    assert {t["name"] for t in changed["topics"] if t["action"] == "reconfigured"} == {dlq}
    refused = command(running, "topics", code=2, **{"topics.partitions": 3})
    assert "4 partitions" in refused["error"] and "topics.partitions=4" in refused["hint"]


def test_up_and_status_of_a_stack_that_runs(running: System, local_stack: LocalStack) -> None:
    before = {service.name: service.pid for service in local_stack.status()}
    for words in (["up"], ["status"]):
        found = command(running, *words)
        assert found["ok"] is True
        assert {s["name"]: s["pid"] for s in found["services"]} == before
        assert {s["health"] for s in found["services"]} == {"healthy"}
        assert all(s["rss_mb"] > 1 and s["age_s"] > 0 for s in found["services"])


def test_a_file_and_standard_input_are_published(running: System, tmp_path: Path) -> None:
    lines = [as_line(chunk) for chunk in LOAD]
    file = tmp_path / "chunks.jsonl"
    file.write_text("\n".join(lines[:20]) + '\n{"session_id": "s"}\n', encoding="utf-8")
    found = command(running, "produce", str(file), code=1)
    assert (found["ok"], found["delivered"], found["bad_lines"]) == (False, 20, 1)
    assert found["bad_lines_first"] == ["line 21, position_start: is missing (missing_field)"]
    found = command(running, "produce", "-", stdin="\n".join(lines[20:]))
    assert (found["ok"], found["delivered"], found["undelivered"]) == (True, 10, 0)
    assert end_of(running.settings, running.settings.topics.logits) == len(LOAD)


def test_worker_and_sink_show_on_a_terminal_how_they_go(running: System) -> None:
    code, out, seen = on_terminal(running, "worker", "--until-idle", "1")
    assert (code, out) == (0, ""), seen
    assert f"applied {len(LOAD)} records" in seen
    assert "records/s · lag 0 · sessions 5 · DLQ 0" in seen
    code, out, seen = on_terminal(running, "sink", "--until-idle", "1")
    assert (code, out) == (0, ""), seen
    assert "rows/s · lag 0 · dead letters 0" in seen
    layers_and_tokens = 2 * 2 * len(LOAD) + TOKEN_ROWS  # telemetry and weights by layer, tokens
    assert f"inserted {layers_and_tokens + len(LOAD)} rows" in seen  # and a snapshot per chunk


def test_a_sink_with_json_writes_one_object_and_no_line(running: System) -> None:
    code, out, seen = on_terminal(running, "sink", "--until-idle", "0.5", "--json")
    assert code == 0
    (line,) = out.strip().splitlines()
    found = json.loads(line)
    assert (found["ok"], found["idle"], sum(found["rows"].values())) == (True, True, 0)
    assert "rows/s" not in seen


def test_the_stored_rows_are_the_loads_truth(running: System) -> None:
    """w, its entropy and the flips of every token, from the seed alone, against ClickHouse."""
    found = command(
        running,
        "sql",
        "SELECT session_id, position, layer, w_base, route_entropy, flip_base, a_star "
        "FROM telemetry_tokens ORDER BY session_id, layer, position",
    )
    assert found["columns"][:3] == ["session_id", "position", "layer"]
    assert len(found["rows"]) == TOKEN_ROWS
    stored = {(s, p, layer): rest for s, p, layer, *rest in found["rows"]}
    for session in range(LOAD.sessions):
        chunks = [LOAD.chunk(session, chunk) for chunk in range(LOAD.chunks_per_session)]
        z = np.concatenate([chunk.logits for chunk in chunks]).astype(np.float64)
        ambiguity = np.concatenate([c.fields["ambiguity"]["predictive"] for c in chunks])
        w = np.exp(z - z.max(axis=-1, keepdims=True))
        w /= w.sum(axis=-1, keepdims=True)
        entropy = -(w * np.log(w)).sum(axis=-1)
        winner = w.argmax(axis=-1)
        for position in range(len(z)):
            for layer in range(2):
                w_base, h, flip, a_star = stored[LOAD.session_id(session), position, layer]
                assert np.allclose(w_base, w[position, layer], atol=1e-3)
                assert h == pytest.approx(entropy[position, layer], abs=1e-3)
                changed = position > 0 and winner[position, layer] != winner[position - 1, layer]
                assert bool(flip) == changed
                assert a_star == pytest.approx(float(ambiguity[position]), abs=1e-4)


def test_the_audit_agrees_plain_and_with_a_replay(running: System) -> None:
    plain = command(running, "audit")
    counts = {
        name: plain[name] for name in ("ok", "events", "rows", "missing", "duplicated", "dlq")
    }
    assert counts == {
        "ok": True, "events": len(LOAD), "rows": len(LOAD), "missing": 0, "duplicated": 0, "dlq": 0
    }  # fmt: skip
    replay = command(running, "audit", "--replay")
    assert (replay["ok"], replay["records"]) == (True, len(LOAD))
    assert replay["rows"]["telemetry_tokens"] == TOKEN_ROWS


def test_the_schemas_agree() -> None:
    result = CliRunner().invoke(app, ["schemas", "--check", "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"], found["problems"]) == (0, True, [])
    assert {r["name"] for r in found["records"]} >= {"RouterLogits", "Telemetry", "Weights"}
