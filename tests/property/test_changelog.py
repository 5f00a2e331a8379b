"""Reading the changelog back, against the definition: whatever was torn, late or compacted away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routekeel.operators.state import initial_rows
from routekeel.streams.topology.changelog import ChangelogRecord, MemoryStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.session import Session
from routekeel.streams.topology.version import Version
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark
from tests.stream.checkpoints import checkpoint_records

KEYS = [b"a", b"b", b"c"]
Change = tuple[bytes, bool]


def value_at(key: bytes, offset: int) -> bytes:
    """What the deterministic operators make of a session at an offset."""
    session = Session(key, b"", 2, (0,), initial_rows(1, 2), 0, offset, offset)
    return session.encode()


def history(steps: list[Change]) -> list[dict[bytes, tuple[Version, bytes | None]]]:
    """states[n]: every key's last change after n records of the log."""
    states: list[dict[bytes, tuple[Version, bytes | None]]] = [{}]
    for offset, (key, evicted) in enumerate(steps):
        change = (Version(0, offset), None if evicted else value_at(key, offset))
        states.append({**states[-1], key: change})
    return states


def checkpoint(
    states: list[dict[bytes, tuple[Version, bytes | None]]], first: int, end: int
) -> list[ChangelogRecord]:
    """What a writer that applied records first … end−1 since its last checkpoint writes."""
    before, after = states[first], states[end]
    changed = {key: change for key, change in after.items() if before.get(key) != change}
    return list(
        checkpoint_records(
            {key: value for key, (_, value) in changed.items()},
            {key: version for key, (version, _) in changed.items()},
            Watermark("log", 0, end - 1),
        )
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Change], list[ChangelogRecord], int]:
    """A log, and what several writers left of it in the changelog; the highest watermark written.

    Each writer goes on from some checkpoint that was complete, may be cut off anywhere, and its
    records may come after those of a later writer: a process that was stopped and woke up.
    """
    steps = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=12))
    states = history(steps)
    written: list[ChangelogRecord] = []
    durable = 0
    late: list[ChangelogRecord] = []
    for _ in range(draw(st.integers(1, 5))):
        first = durable
        end = draw(st.integers(first, len(steps)))
        if end == first:
            continue
        records = checkpoint(states, first, end)
        kept = draw(st.integers(0, len(records)))
        if draw(st.booleans()):
            written += records[:kept]
            if kept == len(records):
                durable = end
        else:
            late += records[:kept]
        if late and draw(st.booleans()):
            written += late
            late = []
    written += late
    marks = [Watermark.decode(r.value) for r in written if r.key == WATERMARK_KEY and r.value]
    return steps, written, max((mark.applied_offset for mark in marks), default=-1)


def read_back(records: list[tuple[int, ChangelogRecord]], store: MemoryStore) -> MemoryStore:
    reader = ChangelogReader(store)
    for offset, record in records:
        reader.feed(offset, record.key, record.value, record.headers)
    return store


@given(runs())
def test_reading_back_gives_the_state_at_the_highest_watermark(
    run: tuple[list[Change], list[ChangelogRecord], int],
) -> None:
    steps, written, applied = run
    store = read_back(list(enumerate(written)), MemoryStore())
    expected = {k: v for k, (_, v) in history(steps)[applied + 1].items() if v is not None}
    assert dict(store.items()) == expected
    assert (store.watermark.applied_offset if store.watermark else -1) == applied


@given(runs(), st.data())
def test_a_store_that_was_kept_reads_on_from_its_position(
    run: tuple[list[Change], list[ChangelogRecord], int], data: st.DataObject
) -> None:
    _, written, _ = run
    whole = read_back(list(enumerate(written)), MemoryStore())
    cut = data.draw(st.integers(0, len(written)))
    store = read_back(list(enumerate(written))[:cut], MemoryStore())
    store = read_back(list(enumerate(written))[store.position + 1 :], store)
    assert dict(store.items()) == dict(whole.items())
    assert store.watermark == whole.watermark
