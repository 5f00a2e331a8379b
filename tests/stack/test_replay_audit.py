"""`routekeel audit --replay` on real services: right bits are right, and one wrong bit is found."""

from __future__ import annotations

import json

import pytest

from routekeel.streams.history.audit import audit
from routekeel.streams.history.replay_audit import audit_replay
from routekeel.streams.history.store import connect
from tests.chaos.feed import Feed
from tests.stack.system import MakeSystem, System

pytestmark = pytest.mark.stack
IDLE = ("--until-idle", "2")
EVENTS = 3_000


def run(made: System) -> System:
    """Have a system apply and store poison, repeats and gaps."""
    settings = made.prepare()
    feed = Feed(settings, seed=7, chunks=EVENTS, sessions=60, rate=1e9)
    feed.start()
    feed.join(60)
    # Small batches here, large ones in the replay: borders must not show.
    for command, flags in (("worker", {"worker.batch_records_max": 70}), ("sink", {})):
        process = made.start(command, *IDLE, **flags)
        assert process.wait(120) == 0, made.log_of(process)
    return made


@pytest.fixture
def running(system: MakeSystem) -> System:
    """A system that has applied and stored all that, with sampled sessions."""
    return run(system("replay-audit", **{"worker.token_rows_share": 0.1}))


def test_every_bit_is_compared(running: System) -> None:
    settings = running.settings
    report = audit_replay(settings)
    assert report.ok, report.render()
    assert report.records >= EVENTS
    assert report.rows["dead_letters"] > 0 and report.rows["telemetry_tokens"] > 0
    assert report.rows["telemetry"] == 3 * (report.records - report.rows["dead_letters"])
    _a_range_is_compared_alone(running)
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    offset = client.command(
        "SELECT max(source_offset) FROM weights WHERE source_partition = 1 AND layer = 2"
    )
    # The smallest change that a stored float can have: its last bit.
    client.command(f"""ALTER TABLE weights UPDATE beta = reinterpretAsFloat32(
        bitXor(reinterpretAsUInt32(assumeNotNull(beta)), 1)) WHERE source_partition = 1
        AND layer = 2 AND source_offset = {offset} SETTINGS mutations_sync = 2""")
    client.command(f"""ALTER TABLE telemetry DELETE WHERE source_partition = 1 AND layer = 0
        AND source_offset = {offset} SETTINGS mutations_sync = 2""")
    client.command("""ALTER TABLE dead_letters UPDATE error_class = 'other'
        WHERE source_partition = 0 SETTINGS mutations_sync = 2""")
    letters = client.command("SELECT count() FROM dead_letters WHERE source_partition = 0")
    found = audit_replay(settings)
    places = [(d.table, d.source_offset, d.column) for d in found.differences]
    assert ("weights", offset, "beta") in places
    assert ("telemetry", offset, f"row ({offset}, 0)") in places
    assert found.differing == 2 + int(str(letters))


def _a_range_is_compared_alone(running: System) -> None:
    process = running.start(
        "audit", "--replay", "--partition", "2", "--from", "100", "--to", "300", "--json"
    )
    assert process.wait(60) == 0, running.log_of(process)
    report = json.loads(running.log_of(process).strip().splitlines()[-1])
    assert (report["ok"], report["records"]) == (True, 200)


def test_a_route_is_missing_where_the_cadence_has_one_and_nowhere_else(system: MakeSystem) -> None:
    every, state_every = 6, 16
    made = run(
        system(
            "audit-cadence",
            **{"worker.weights_every_tokens": every, "worker.state_every_tokens": state_every},
        )
    )
    report = audit(made.settings)
    assert report.ok, report.render()
    client = connect(made.settings.clickhouse, database=made.settings.clickhouse.database)
    applied = client.query(
        "SELECT DISTINCT source_offset, position, steps FROM telemetry "
        "WHERE source_partition = 1 AND tokens_applied > 0 AND state_reset = ''"
    ).result_rows
    due = {
        offset
        for offset, position, steps in applied
        if any(
            position < token <= position + steps
            and (token % every == 0 or token % state_every == 0)
            for token in range(position + 1, position + steps + 1)
        )
    }
    assert 0 < len(due) < len(applied)
    client.command(
        "ALTER TABLE weights DELETE WHERE source_partition = 1 SETTINGS mutations_sync = 2"
    )
    found = audit(made.settings)
    assert not found.ok
    # Where the state began anew a route is due as well, whatever the position.
    anew = client.command(
        "SELECT uniqExact(source_offset) FROM telemetry "
        "WHERE source_partition = 1 AND tokens_applied > 0 AND state_reset != ''"
    )
    assert found.partitions[1].weights_missing == len(due) + int(str(anew))
