"""A stopped process that wakes up writes what it had; a store that was kept must not fall for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology import changelog_reader
from routekeel.streams.topology.changelog import ChangelogRecord, MemoryStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark
from tests.stream.chunks import chunk_fields


def feed(reader: ChangelogReader, log: list[ChangelogRecord]) -> ChangelogReader:
    """Read on to the end of the log."""
    for offset in range(reader.next_offset, len(log)):
        reader.feed(offset, *log[offset])
    return reader


def checkpoints(sessions: str, sessions_max: int) -> Iterator[list[ChangelogRecord]]:
    """One checkpoint per record of a log in which these sessions take turns."""
    driver = TopologyDriver(TopologyConfig(kernel="numpy", sessions_max=sessions_max))
    for index, session in enumerate(sessions):
        driver.append(chunk_fields(session, 3 * index))
        before = len(driver.changelog)
        driver.run()
        yield driver.changelog[before:]


def test_a_late_session_does_not_come_back_after_its_eviction() -> None:
    first, second, evicting = checkpoints("aab", sessions_max=1)
    assert [record.key for record in evicting] == [b"a", b"b", WATERMARK_KEY]
    log = first + second + evicting
    kept = MemoryStore()
    feed(ChangelogReader(kept), log)
    log += second  # the stopped process's own copy of what its successor has written, too
    for store in (kept, MemoryStore()):
        feed(ChangelogReader(store), log)
        assert {key for key, _ in store.items()} == {b"b"}


def test_a_torn_tail_is_kept_as_pending_until_a_later_watermark() -> None:
    first, second, third = checkpoints("abc", sessions_max=9)
    log = first + second[:-1]  # the watermark never arrived
    follower = ChangelogReader(MemoryStore())
    feed(follower, log)
    assert (follower.torn, follower.next_offset, follower.store.position) == (1, 3, 1)
    log += second + third
    feed(follower, log)
    whole = feed(ChangelogReader(MemoryStore()), log)
    assert dict(follower.store.items()) == dict(whole.store.items())
    assert (follower.torn, follower.store.position) == (0, len(log) - 1)
    assert follower.records == len(log), "no record was read twice"


def test_what_an_owner_wrote_between_another_writers_records_is_read_again() -> None:
    base, ours, theirs, later = checkpoints("abcd", sessions_max=9)
    reader = feed(ChangelogReader(MemoryStore()), list(base))
    # The other process was ahead of us: its checkpoint came first, and then it went on.
    log = base + ours + theirs + ours
    mark = Watermark.decode(ours[-1].value or b"")
    changes = {record.key: record.value for record in ours[:-1]}
    position = reader.wrote(ours, len(log) - 1, mark)
    reader.store.commit(changes, mark, position)
    assert (position, reader.foreign_writes) == (len(base) - 1, 1)
    log += later
    feed(reader, log)
    whole = feed(ChangelogReader(MemoryStore()), log)
    assert {key for key, _ in reader.store.items()} == {b"a", b"b", b"c", b"d"}
    assert dict(reader.store.items()) == dict(whole.store.items())


def test_an_owner_that_writes_alone_never_reads_its_own_records() -> None:
    log: list[ChangelogRecord] = []
    reader = ChangelogReader(MemoryStore())
    for records in checkpoints("abab", sessions_max=9):
        log += records
        mark = Watermark.decode(records[-1].value or b"")
        position = reader.wrote(records, len(log) - 1, mark)
        reader.store.commit({r.key: r.value for r in records[:-1]}, mark, position)
    assert (position, reader.next_offset, reader.foreign_writes) == (len(log) - 1, len(log), 0)


def test_a_crash_loop_does_not_pile_up_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog_reader, "PENDING_FOLDED_AT", 8)
    first, second = checkpoints("ab", sessions_max=9)
    reader = feed(ChangelogReader(MemoryStore()), list(first))
    log = list(first)
    for _ in range(50):
        log += second[:-1]
    feed(reader, log)
    assert reader.torn <= 8
    assert reader._position() == len(first) - 1
    log += second
    feed(reader, log)
    assert {key for key, _ in reader.store.items()} == {b"a", b"b"}


def test_an_old_record_within_a_checkpoint_is_the_newest_all_the_same() -> None:
    first, second, third = checkpoints("aaa", sessions_max=9)
    for log in (
        [*first, *second, third[0], second[0], third[1]],  # old: its watermark stands before it
        [*first, third[0], second[0], third[1]],  # of two pending ones the newer is the older
    ):
        reader = feed(ChangelogReader(MemoryStore()), log)
        assert reader.store.get(b"a") == third[0].value
        assert reader.late == {b"a"}
        mark = Watermark.decode(third[-1].value or b"")
        reader.wrote(third, len(log) + 1, mark)
        assert not reader.late, "written again"
    reader = feed(ChangelogReader(MemoryStore()), [*first, *second, second[0], *third])
    assert not reader.late, "what is newer lies over it"


def test_an_old_watermark_is_written_again() -> None:
    first, second = checkpoints("ab", sessions_max=9)
    reader = feed(ChangelogReader(MemoryStore()), [*first, *second, first[-1]])
    assert reader.late == {WATERMARK_KEY}
    feed(reader, [*first, *second, first[-1], second[-1]])
    assert not reader.late
