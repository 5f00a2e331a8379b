"""A standby takes over after kill -9 of the owner: exact, and it read only the state log's tail."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from routekeel.streams.settings import Settings
from routekeel.streams.topics import ensure_topics
from tests.bench.load import Shape, write_events
from tests.stack.exactness import assert_outputs_exact, assert_states_exact, expected
from tests.stack.system import MakeSystem, changelog_topic, end_of, wait_until

pytestmark = pytest.mark.stack
SHAPE = Shape(2, 2, 4)
SMALL = {
    "worker.checkpoint_interval_s": 0.1,
    "worker.checkpoint_share_max": 1e3,
    "worker.batch_records_max": 50,
}


def metric(settings: Settings, process: subprocess.Popen[bytes], name: str) -> float:
    """A metric of a running worker; -1 while its page is not up."""
    runtime: Path = settings.stack.state_dir / "run" / f"worker-{process.pid}.json"
    try:
        url = json.loads(runtime.read_text(encoding="utf-8"))["url"]
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:
            text = page.read().decode()
    except (OSError, ValueError):
        return -1.0
    found = re.search(rf"^routekeel_{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else -1.0


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_a_standby_takes_over_from_the_tail(system: MakeSystem, store: str, tmp_path: Path) -> None:
    running = system(f"standby-{store}", **{"worker.standby_replicas": 1, "worker.store": store})
    settings = running.settings
    ensure_topics(settings)
    workers = [
        running.start("worker", **SMALL, **{"worker.store_dir": str(tmp_path / name)})
        for name in ("first", "second")
    ]
    first, second = workers
    # Written only now: whoever joins first would else do it all, and then there is nothing to follow.
    wait_until(
        lambda: metric(settings, second, "worker_standby_partitions") == 2,
        "both workers to have their share",
        alive=workers,
    )
    write_events(settings, SHAPE, 4000, 60, seed=3)
    wait_until(
        lambda: (
            end_of(settings, settings.topics.telemetry) >= 4000
            and metric(settings, second, "worker_standby_partitions") == 2
            and metric(settings, second, "worker_standby_records_total") > 0
            and metric(settings, second, "worker_standby_lag_records") == 0
        ),
        "the second worker to have followed the first one's partitions",
        alive=workers,
    )
    before = metric(settings, second, "recovery_records_read_total")
    recoveries = metric(settings, second, "worker_recoveries_total")
    running.kill(first)
    log_records = end_of(settings, changelog_topic(settings))
    write_events(settings, SHAPE, 1000, 60, seed=4)
    wait_until(
        lambda: metric(settings, second, "worker_recoveries_total") >= recoveries + 4,
        "the second worker to own all partitions",
        alive=[second],
    )
    read = metric(settings, second, "recovery_records_read_total") - before
    wait_until(
        lambda: end_of(settings, settings.topics.telemetry) >= 5000, "outputs", alive=[second]
    )
    second.terminate()
    assert second.wait(60) == 0, running.log_of(second)
    last = running.start("worker", "--until-idle", "2")
    assert last.wait(120) == 0, running.log_of(last)
    drivers = expected(settings)
    assert_states_exact(settings, drivers)
    assert_outputs_exact(settings, drivers)
    print(f"the takeover read {read:.0f} of {log_records} records of the state log")
    assert read < log_records / 10
