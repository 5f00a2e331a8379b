"""The demo as a person runs it: whole, and cut off by Ctrl-C at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.stack, pytest.mark.backend, pytest.mark.timeout(400)]
WHOLE_S = 300
INTERRUPTS = 3
MOMENT_S_MAX = 20.0
AGAIN_S_MAX = 1.5


def demo(state: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROUTEKEEL_")}
    line = [sys.executable, "-m", "routekeel.streams.cli.main", *arguments]
    return subprocess.Popen(
        [*line, "--set", f"stack.state_dir={state}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def running_on(state: Path) -> list[str]:
    """Processes that have to do with this state folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any(str(state) in part for part in line):
            found.append(" ".join(line)[:200])
    return found


def test_the_whole_demo_and_then_a_replay(tmp_path: Path) -> None:
    state = tmp_path / "state"
    try:
        whole = demo(state, "demo", "--json", "--keep")
        out, err = whole.communicate(timeout=WHOLE_S)
        assert whole.returncode == 0, err[-3000:]
        report = json.loads(out.strip().splitlines()[-1])
        assert report == json.loads((state / "demo.json").read_text())
        assert (report["sessions"], report["missing"], report["duplicated"]) == (24, 0, 0)
        assert (report["dropped"], report["dlq"]) == (0, 0)
        assert report["telemetry_rows"] == 4 * report["chunks"]
        # Routes are published every eight tokens, and at a session's first chunk.
        assert 4 * 24 < report["weights_rows"] < report["telemetry_rows"]
        assert report["routing_decisions"] > report["telemetry_rows"]
        page = (state / "demo.html").read_text(encoding="utf-8")
        assert all(f"-{n}" in page for n in ("clear", "ambiguous")) or "ambiguous" in page
        assert "src=" not in page.replace("src=data", "")  # one file, nothing fetched
        replay = demo(state, "audit", "--replay", "--json", "--config", str(state / "demo.yaml"))
        out, err = replay.communicate(timeout=120)
        assert replay.returncode == 0, out + err[-3000:]
        compared = json.loads(out.strip().splitlines()[-1])
        assert compared["records"] == report["chunks"]
        assert compared["rows"]["telemetry_tokens"] == report["routing_decisions"]
    finally:
        down = demo(state, "down")
        down.communicate(timeout=120)
    assert down.returncode == 0
    assert running_on(state) == []


def test_ctrl_c_at_any_moment_leaves_nothing_running(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for number in range(INTERRUPTS):
        moment_s = rng.uniform(0.5, MOMENT_S_MAX)
        started = demo(tmp_path / "state", "demo", "--json")
        time.sleep(moment_s)  # the moment is what is tested
        started.send_signal(signal.SIGINT)
        if number == INTERRUPTS - 1:
            # Somebody who cannot wait presses it again, while it is stopping what it started.
            again_s = rng.uniform(0.0, AGAIN_S_MAX)
            print(f"at {moment_s:.2f} s and {again_s:.2f} s later")
            time.sleep(again_s)
            started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=90)
        assert started.returncode in (130, 0), f"at {moment_s:.2f} s: {err[-3000:]}"
        if started.returncode == 130:
            said = json.loads(out.strip().splitlines()[-1])
            assert said["error"] == "interrupted", f"at {moment_s:.2f} s"
            assert "Traceback" not in err, f"at {moment_s:.2f} s: {err[-3000:]}"
        assert running_on(tmp_path / "state") == [], f"at {moment_s:.2f} s"
