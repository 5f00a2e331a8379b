"""One worker process: the real StreamWorker between a simulated Faust and a simulated broker."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import DEAD_LETTER, ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.app.decoding import LogitsDecoder
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.app.worker import StreamWorker
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.settings import Settings
from routekeel.streams.topology.changelog import MemoryStore, StateStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source
from routekeel.streams.topology.watermark import Watermark
from routekeel.streams.wire.path import compiled_path
from tests.simulation.broker import Broker
from tests.simulation.edges import SimOutput, SimStateLog
from tests.simulation.faust import SimFaust, topic_id
from tests.simulation.turns import Process


class Faults(NamedTuple):
    """How often (0…1) what goes wrong in a process that lives."""

    gap: float = 0.0
    repeat: float = 0.0
    send_error: float = 0.0
    topic_away: float = 0.0
    stop_writing: float = 0.0
    full_disk: float = 0.0


class Disk:
    """A process's stores by partition, which may outlive it; without room a commit is refused."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.full = 0.0
        self.refused = 0
        self._stores: dict[int, SimDatabase] = {}

    def store(self, partition: int) -> StateStore:
        """The store of a partition."""
        return self._stores.setdefault(partition, SimDatabase(self))


class SimDatabase(MemoryStore):
    """A local database on such a disk."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        if self._disk.rng.random() < self._disk.full:
            self._disk.refused += 1
            raise OSError("the disk is full")
        super().commit(changes, watermark, position)


class Member:
    """A worker with its tasks."""

    def __init__(
        self,
        process: Process,
        broker: Broker,
        settings: Settings,
        config: TopologyConfig,
        ids: FixedSchemaIds,
        rng: random.Random,
        faults: Faults,
        disk: Disk,
    ) -> None:
        self.disk = disk
        disk.full = faults.full_disk
        self.process, self.broker, self.rng, self.faults = process, broker, rng, faults
        self.settings = settings
        self.output = SimOutput(process, broker, rng)
        self.output.error_share = faults.send_error
        self.state_log = SimStateLog(process, broker, rng)
        self.state_log.stop_share = faults.stop_writing
        topic = settings.topics.logits
        self.faust = SimFaust(process, broker, topic, rng, faults.gap, faults.repeat)
        decoder = LogitsDecoder(ids)
        self._direct_look_ups(decoder)
        telemetry = Encoder(TELEMETRY, ids.register(TELEMETRY, ""))
        weights = Encoder(WEIGHTS, ids.register(WEIGHTS, ""))
        logits_id = ids.register(ROUTER_LOGITS, "")
        builder = OutputBuilder(config, telemetry.encode, weights.encode)
        letters = Encoder(DEAD_LETTER, ids.register(DEAD_LETTER, ""))

        def processor(source: Source, store: StateStore) -> PartitionProcessor:
            compiled = compiled_path(source, config, telemetry, weights, logits_id)
            return PartitionProcessor(source, config, decoder.decode, builder, store, compiled)

        metrics = WorkerMetrics()
        self.partitions = Partitions(
            settings.topics.logits,
            self.state_log,
            disk.store,
            processor,
            metrics,
        )
        self.worker = StreamWorker(
            settings, self.faust, self.partitions, decoder, self.output, letters, metrics,
            self._topic_id, self._first_record, self._clock,
        )  # fmt: skip
        self.faust.start()
        process.spawn(self._watch())

    def _direct_look_ups(self, decoder: LogitsDecoder) -> None:
        """The real decoder asks the registry in a thread; threads would not follow the seed."""

        async def resolve(values: Any) -> None:
            await self.process.turn("resolve schemas")
            for value in values:
                if value and len(value) >= 5 and value[0] == 0:
                    decoder._look_up(int.from_bytes(value[1:5], "big", signed=True))

        decoder.resolve = resolve  # type: ignore[method-assign]

    async def _topic_id(self) -> str:
        found = await topic_id(self.process, self.broker, self.settings.topics.logits)
        if self.rng.random() < self.faults.topic_away:
            raise ServiceUnavailable("the broker does not answer", "wait for it")
        return found

    async def _first_record(self, partition: int, offset: int) -> int | None:
        await self.process.turn(f"look at {partition} from {offset}")
        return offset if offset < len(self.broker.logs[partition]) else None

    def _clock(self) -> float:
        """Time passes by the seed: a checkpoint may be due at any batch."""
        return self.rng.random() * 3

    @property
    def failed(self) -> BaseException | None:
        """Why the process has to end, if it has to."""
        if self.process.failure is not None:
            return self.process.failure
        if self.worker.failed.done():
            return self.worker.failed.result()
        return self.partitions.failure()

    async def _watch(self) -> None:
        while True:
            await self.process.turn("watch")
            await self.worker.check_topic()
            if self.rng.random() < 0.5:
                await self.worker.checkpoint_now()
            else:
                await self.worker.checkpoint_if_due()

    def commit(self) -> None:
        """Faust commits what the partitions say is durable."""
        self.faust.commit(self.partitions.committable)

    def die(self, stopped: bool) -> None:
        """kill -9, or SIGSTOP for so long that only the client's buffers ever get out."""
        self.process.kill()
        self.broker.leave(self.output.buffered, stopped)
        if self.state_log.writing is not None:
            self.broker.leave_changelog(*self.state_log.writing, stopped)
