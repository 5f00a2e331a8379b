"""What the audit calls missing, and what it calls pending, against counting by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routekeel.streams.history.audit import AuditReport, PartitionAudit, judge
from routekeel.streams.history.audit_blocks import Held
from routekeel.streams.history.groups import GroupState

GONE = GroupState()


def judged(
    start: int,
    end: int,
    held: set[int],
    worker: GroupState = GONE,
    sink: GroupState = GONE,
    weights_missing: int = 0,
) -> PartitionAudit:
    found = PartitionAudit(0, start, end)
    last = max(held, default=-1)
    counts = Held(len(held), 0, len(held), last, weights_missing=weights_missing)
    judge(found, counts, worker, sink, sink)
    return found


@given(st.integers(0, 20), st.integers(0, 60), st.data())
def test_without_anybody_alive_everything_absent_is_missing(
    start: int, length: int, data: st.DataObject
) -> None:
    end = start + length
    held = data.draw(st.sets(st.integers(start, end - 1))) if length else set()
    found = judged(start, end, held)
    assert (found.missing, found.pending) == (length - len(held), 0)


@given(st.integers(1, 60), st.integers(0, 60), st.booleans(), st.data())
def test_pending_is_what_somebody_alive_has_before_it(
    end: int, committed: int, sink_behind: bool, data: st.DataObject
) -> None:
    committed = min(committed, end)
    held = data.draw(st.sets(st.integers(0, end - 1)))
    worker = GroupState(True, {0: committed}, {0: end})
    sink = GroupState(True, {0: 0}, {0: 1 if sink_behind else 0})
    found = judged(0, end, held, worker, sink)
    after = max(held, default=-1) + 1
    pending = {
        offset
        for offset in range(after, end)
        if offset >= max(committed, after) or (sink_behind and offset < committed)
    }
    assert found.pending == len(pending)
    assert found.missing == len(set(range(end)) - held - pending)


def test_a_hole_below_the_last_row_is_missing_even_while_all_are_alive() -> None:
    worker = GroupState(True, {0: 10}, {0: 10})
    sink = GroupState(True, {0: 4}, {0: 9})
    found = judged(0, 10, {0, 1, 3, 4}, worker, sink)
    assert (found.missing, found.pending) == (1, 5)


def test_weights_are_pending_while_the_sink_is_behind_and_missing_when_it_is_not() -> None:
    behind = GroupState(True, {0: 4}, {0: 9})
    caught_up = GroupState(True, {0: 9}, {0: 9})
    held = set(range(10))
    assert judged(0, 10, held, GONE, behind, weights_missing=3).pending == 3
    assert judged(0, 10, held, GONE, caught_up, weights_missing=3).weights_missing == 3


def test_the_report_adds_up_and_has_the_documented_keys() -> None:
    one = PartitionAudit(0, 5, 15, rows=8, dlq=1, missing=1, missing_first=[9])
    two = PartitionAudit(1, 0, 4, rows=4, duplicated=2)
    report = AuditReport("logits", "id", (one, two))
    json = report.to_json()
    assert {k: json[k] for k in ("ok", "events", "rows", "missing", "duplicated", "dlq")} == {
        "ok": False, "events": 14, "rows": 12, "missing": 1, "duplicated": 2, "dlq": 1
    }  # fmt: skip
    assert "partition 0: 1 missing, the first at 9" in report.render()
    assert AuditReport("logits", "id", (PartitionAudit(0, 0, 3, rows=2, dlq=1),)).ok
