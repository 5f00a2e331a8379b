"""The Faust edge: where reading begins, what a seek means, what a batch is, and who owns what when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError

from tests.scenarios.edges import LIMIT_S, PARTITIONS, Edges
from tests.scenarios.listener import Batch, Listener, joined, until


def values(start: int, end: int) -> list[bytes]:
    """Of the records at these offsets."""
    return [b"%d" % number for number in range(start, end)]


async def test_batches_are_runs_of_one_partition(edges: Edges) -> None:
    async with edges.group() as group:
        for partition in range(PARTITIONS):
            group.publish(partition, values(0, 30))
        async with joined(Listener(group)) as worker:
            batches: list[Batch] = []
            while sum(len(batch.offsets) for batch in batches) < 30 * PARTITIONS:
                batches.append(await worker.next())
        for partition in range(PARTITIONS):
            mine = [batch for batch in batches if batch.partition == partition]
            assert [offset for batch in mine for offset in batch.offsets] == list(range(30))
            assert [value for batch in mine for value in batch.values] == values(0, 30)
            assert len(mine) > 1  # more than one batch: there was something to hold together


async def test_reading_begins_at_what_the_group_committed(edges: Edges) -> None:
    async with edges.group() as group:
        for partition in (0, 1, 2):
            group.publish(partition, values(0, 12))
        async with joined(Listener(group)) as first:
            assert await first.position(3) == 0
            handled = 0
            while handled < 36:
                handled += len((await first.next()).offsets)
            # Of 2 nothing is durable; of 3 something is said to be, but nothing was handled.
            first.durable |= {0: 7, 1: 12, 3: 5}
            await until_acknowledged(first)
            await first.member.commit()
            first.durable[0] = 4
            await first.member.commit()  # never backwards
        async with joined(Listener(group)) as second:
            # Of these there is nothing to read; the others may have been read from already.
            assert [await second.position(p) for p in (1, 3)] == [12, 0]
            firsts: dict[int, int] = {}
            while len(firsts) < 2:
                batch = await second.next()
                firsts.setdefault(batch.partition, batch.offsets[0])
            assert firsts == {0: 7, 2: 0}


async def until_acknowledged(worker: Listener) -> None:
    """Until the agent has come back for more: a batch counts as handled then."""
    worker.group.publish(2, [b"another"])
    await worker.next(2)


async def test_after_a_seek_reading_goes_on_there(edges: Edges) -> None:
    async with edges.group() as group:
        group.publish(0, values(0, 60))
        async with joined(Listener(group)) as worker:
            assert await worker.read(0, 0, 60) == values(0, 60)
            await worker.seek(0, 20)
            # All was delivered before: nothing old can come between.
            assert (await worker.next()).offsets[0] == 20
            assert await worker.read(0, 20, 60) == values(20, 60)
            await worker.seek(0, 0)
            assert await worker.read(0, 0, 60) == values(0, 60)


class SeeksAtOnce(Listener):
    """Seeks as soon as it has its partitions, as a worker does whose watermark is further on."""

    async def _assigned(self, app: Any, assigned: set[Any], **_: Any) -> None:
        await super()._assigned(app, assigned)
        self.start = asyncio.ensure_future(self._start())

    async def _start(self) -> int | None:
        """Where reading would have begun."""
        position = await self.position(0)
        await self.seek(0, 20)
        return position


async def test_a_seek_at_the_assignment_may_be_undone(edges: Edges) -> None:
    async with edges.group() as group:
        group.publish(0, values(0, 60))
        async with joined(SeeksAtOnce(group)) as first:
            # Nothing is committed that Faust could go back to.
            assert await first.read(0, 20, 60) == values(20, 60)
            first.durable[0] = 10
            await until_acknowledged(first)
            await first.member.commit()
        second = SeeksAtOnce(group)
        async with joined(second):
            batch = await second.next(0)
            assert batch.offsets[0] in (10, 20)
            assert (await second.start or 0) >= 10
            end = batch.offsets[-1] + 1
            assert await second.read(0, end, 60) == values(end, 60)


async def test_what_was_fetched_before_a_seek_comes_after_it(edges: Edges) -> None:
    async with edges.group() as group:
        group.publish(0, values(0, 200))
        async with joined(Listener(group)) as worker:
            first = await worker.next()
            end = first.offsets[-1] + 1
            async with asyncio.timeout(LIMIT_S):  # until something was fetched ahead
                while (await worker.position(0) or 0) <= end + 10:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await worker.seek(0, 0)
            stale = await worker.next()
            assert stale.offsets[0] == end
            # The worker's rule reads everything all the same, whatever comes between.
            assert await worker.read(0, 0, 200) == values(0, 200)


async def test_reading_begins_where_retention_left_something(edges: Edges) -> None:
    async with edges.group() as group:
        group.publish(0, values(0, 30))
        async with joined(Listener(group)) as worker:
            assert await worker.earliest(0) == 0
            assert await worker.read(0, 0, 30) == values(0, 30)
            group.remove_below(0, 12)
            assert await worker.earliest(0) == 12
            await worker.seek(0, 5)  # removed: reading goes on at the start
            assert (await worker.next()).offsets[0] == 12
            worker.durable[0] = 5
            await worker.read(0, 13, 30)
        async with joined(Listener(group)) as again:
            assert (await again.next()).offsets[0] == 12


async def test_a_partition_is_given_up_before_another_has_it(edges: Edges) -> None:
    async with edges.group() as group:
        for partition in range(PARTITIONS):
            group.publish(partition, values(0, 10))
        journal: list[tuple[str, str, set[int]]] = []
        async with joined(Listener(group, "one", journal)) as one:
            assert one.assigned == set(range(PARTITIONS))
            two = Listener(group, "two", journal)
            joining = asyncio.ensure_future(two.member.start())
            await until(lambda: bool(two.assigned) and bool(one.assigned - two.assigned))
            await until(lambda: not one.assigned & two.assigned)
            await joining
            assert one.assigned | two.assigned == set(range(PARTITIONS))
            # Who stops is asked for nothing any more.
            journal.append(("two", "given up", set(two.assigned)))
            await two.member.stop()
            await until(lambda: one.assigned == set(range(PARTITIONS)))
    owners: dict[int, str] = {}
    for name, what, partitions in journal:
        for partition in partitions:
            if what == "assigned":
                assert owners.setdefault(partition, name) == name, journal
            elif what == "revoked":
                assert owners[partition] == name, journal
            else:
                del owners[partition]
    # Everything is given up in every rebalance, what one keeps included.
    taken = [
        partitions for name, what, partitions in journal if (name, what) == ("one", "given up")
    ]
    assert set(range(PARTITIONS)) in taken


async def test_asking_for_a_partition_that_is_not_ones_own_raises(edges: Edges) -> None:
    async with edges.group() as group, joined(Listener(group)) as worker:
        with pytest.raises(IllegalStateError):
            await worker.position(PARTITIONS)
        with pytest.raises(IllegalStateError):
            await worker.seek(PARTITIONS, 0)
