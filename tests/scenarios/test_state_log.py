"""The state log: offsets tell a writer that it was alone, and a reader gets what is there, once, in order."""

from __future__ import annotations

import asyncio

import pytest

from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.watermark import Watermark
from tests.scenarios.changelog_records import Remembering, at, checkpoint, nothing
from tests.scenarios.edges import Edges

MANY = [f"session-{number}" for number in range(200)]


async def test_a_writer_alone_gets_consecutive_offsets(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first, second = logs.client(), checkpoint(1), checkpoint(2, MANY)
        size = sum(len(key) + len(value or b"") for key, value, _ in second)
        assert (await log.write(1, first))[0] == len(first) - 1
        assert await log.write(1, second) == (len(first) + len(second) - 1, size)
        assert (await log.write(2, first))[0] == len(first) - 1  # partitions count for themselves


async def test_another_writer_is_seen_by_the_offsets_and_reviewed(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        owner, late = logs.client(), logs.client()
        reader = Remembering()
        own, foreign, after = checkpoint(5), checkpoint(3, ["b", "c"]), checkpoint(6, ["a"])
        mark = Watermark("log-1", applied_offset=5)
        last, _ = await owner.write(0, own)
        reader.store.commit({}, mark, reader.wrote(own, last, mark))
        assert reader.foreign_writes == 0
        await late.write(0, foreign)
        last, _ = await owner.write(0, after)
        assert last == len(own) + len(foreign) + len(after) - 1
        mark = mark._replace(applied_offset=6)
        reader.store.commit({}, mark, reader.wrote(after, last, mark))
        assert reader.foreign_writes == 1
        logs.append(0, checkpoint(4))  # above the end that is asked for
        await owner.review(0, reader, last + 1)
        assert reader.reviewed == at(len(own), foreign + after)
        assert (reader.fed, reader.next_offset) == ([], last + 1)
        # Old ones lie over these keys; the foreign watermark is below the owner's next one.
        assert reader.late == {b"b", b"c", b"gone-3"}


async def test_two_that_write_at_once_keep_their_orders(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        written = [checkpoint(1, MANY), checkpoint(2, MANY)]
        ends = await asyncio.gather(*(logs.client().write(0, records) for records in written))
        reader = Remembering()
        await logs.client().recover(0, reader, nothing)
        assert [read.offset for read in reader.fed] == list(range(sum(map(len, written))))
        for records, (last, _) in zip(written, ends, strict=True):
            mine = [read for read in reader.fed if read.record in records]
            assert [read.record for read in mine] == records
            assert mine[-1].offset == last


async def test_recovery_reads_what_is_new(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first, second = logs.client(), checkpoint(1), checkpoint(2, MANY)
        store = MemoryStore()
        reader = Remembering(store)
        await log.recover(0, reader, nothing)
        assert (reader.fed, reader.next_offset) == ([], 0)
        await log.write(0, first)
        await log.recover(0, reader, nothing)
        assert reader.fed == at(0, first)
        # A process that has only the store goes on where it says.
        await log.write(0, second)
        told: list[tuple[int, int]] = []
        taking_over = Remembering(store)
        await logs.client().recover(0, taking_over, lambda *progress: told.append(progress))
        assert taking_over.fed == at(len(first), second)
        assert told[0] == (0, len(second)) and told[-1] == (len(second), len(second))
        assert told == sorted(told)


async def test_recovery_ends_at_the_end_it_found(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first, late = logs.client(), checkpoint(1), checkpoint(2)
        await log.write(0, first)
        reader = Remembering()
        appended = False

        def progress(read: int, total: int) -> None:
            nonlocal appended
            if not appended:  # the end has been asked for, and nothing was read
                appended = True
                logs.append(0, late)

        await log.recover(0, reader, progress)
        assert appended and reader.fed == at(0, first)
        assert reader.next_offset == len(first)
        await log.recover(0, reader, nothing)
        assert reader.fed == at(0, first + late)


async def test_offsets_that_nothing_is_left_at_count_as_read(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first, second = logs.client(), checkpoint(1), checkpoint(2)
        await log.write(0, first)
        end = len(first) + await asyncio.to_thread(logs.leave_out, 0)
        reader, reviewing = Remembering(), Remembering()
        await log.recover(0, reader, nothing)
        await log.review(0, reviewing, end)
        assert reader.fed == reviewing.reviewed == at(0, first)
        assert reader.next_offset == reviewing.next_offset == end
        last, _ = await log.write(0, second)
        assert last == end + len(second) - 1
        await log.recover(0, reader, nothing)
        assert reader.fed == at(0, first) + at(end, second)


async def test_a_store_of_a_longer_log_is_no_store_of_this_one(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first = logs.client(), checkpoint(1)
        await log.write(0, first)
        store = MemoryStore()
        store.commit({}, Watermark("log-1", applied_offset=9), len(first))
        with pytest.raises(ValueError, match="ahead of the changelog"):
            await log.recover(0, Remembering(store), nothing)
