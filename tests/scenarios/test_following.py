"""A standby follows state logs: it is fed what is written while it follows, and nothing after its stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from routekeel.streams.app.partitions import StateLog
from tests.scenarios.changelog_records import Remembering, at, checkpoint
from tests.scenarios.edges import LIMIT_S, Edges


class Following:
    """What `followed` was told; the edge may do so from a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.records = 0

    def followed(self, records: int, behind: int) -> None:
        self._loop.call_soon_threadsafe(self._told.put_nowait, (records, behind))

    async def until(self, count: int, behind: int = 0) -> None:
        """Until so many records were fed and so many are said to be left."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                records, left = await self._told.get()
                self.records += records
                if (self.records, left) == (count, behind):
                    return


@asynccontextmanager
async def follow(log: StateLog, readers: dict[int, Remembering]) -> AsyncIterator[Following]:
    """Follow until the end of the block; then the readers are the caller's again."""
    stop, following = threading.Event(), Following()
    task = asyncio.ensure_future(log.follow(readers, stop, following.followed))
    try:
        yield following
    finally:
        stop.set()
        async with asyncio.timeout(LIMIT_S):
            await task


async def test_it_is_fed_what_is_written_until_it_stops(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first, second = logs.client(), checkpoint(1), checkpoint(2)
        await log.write(0, first)
        readers = {0: Remembering(), 3: Remembering()}
        async with follow(logs.client(), readers) as following:
            await following.until(len(first))
            await log.write(3, first)
            await log.write(0, second)
            await following.until(2 * len(first) + len(second))
        logs.append(0, checkpoint(3))
        assert readers[0].fed == at(0, first + second)
        assert readers[3].fed == at(0, first)
        # Whoever takes over reads on from there.
        assert readers[0].store.position == len(first + second) - 1


async def test_it_is_not_told_of_offsets_that_nothing_is_left_at(edges: Edges) -> None:
    async with edges.state_logs() as logs:
        log, first, second = logs.client(), checkpoint(1), checkpoint(2)
        await log.write(0, first)
        left_out = await asyncio.to_thread(logs.leave_out, 0)
        reader = Remembering()
        async with follow(logs.client(), {0: reader}) as following:
            await following.until(len(first), behind=left_out)
            assert reader.next_offset == len(first)
            await log.write(0, second)
            await following.until(len(first) + len(second))
        assert reader.fed == at(0, first) + at(len(first) + left_out, second)
