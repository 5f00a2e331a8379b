"""Runs one stream worker from start to end: assembling it, watching it, stopping it cleanly."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from routekeel.schemas.codec import Encoder
from routekeel.schemas.errors import RegistryUnavailable
from routekeel.schemas.records import DEAD_LETTER, ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.app.changelog_topic import ChangelogTopic
from routekeel.streams.app.decoding import LogitsDecoder
from routekeel.streams.app.faust_app import create_app
from routekeel.streams.app.lag import LagWatch
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.output import OutputProducer
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.app.progress import WorkerProgress, worker_progress
from routekeel.streams.app.recovery_progress import RecoveryProgress
from routekeel.streams.app.rocksdb_store import RocksDbStore
from routekeel.streams.app.web import exercise_controller, serve, web_app
from routekeel.streams.app.worker import StreamWorker
from routekeel.streams.errors import ConfigurationError, RoutekeelError, ServiceUnavailable
from routekeel.streams.settings import Settings
from routekeel.streams.topics import changelog_topic, describe, require
from routekeel.streams.topology.changelog import MemoryStore, StateStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.from_settings import topology_config
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source
from routekeel.streams.wire.path import compiled_path

log = logging.getLogger(__name__)

TICK_S = 0.25
GC_ALLOCATIONS = 200_000


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What a worker did until it ended; busy from its first batch to its last checkpoint."""

    records: int
    seconds: float
    busy_s: float
    busy_cpu_s: float


class WorkerFailed(RoutekeelError):
    """The worker ended because of an error; a supervisor should start it again."""


def run_worker(
    settings: Settings,
    *,
    until_idle_s: float | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_progress: Callable[[WorkerProgress], None] | None = None,
) -> WorkerResult:
    """Run a worker until SIGTERM, Ctrl-C, idleness (where asked for) or an error. Blocking.

    `on_progress` is told a few times a second how far it is. Raises ServiceUnavailable when Kafka or
    the registry cannot be reached at the start, ConfigurationError when a topic is missing or the
    store's folder cannot be made, WorkerFailed when something broke later.
    """
    topics = settings.topics
    require(
        settings,
        [topics.logits, topics.telemetry, topics.weights, topics.dlq, changelog_topic(settings)],
    )
    _make_folder(settings.worker.store_dir)
    return asyncio.run(_run(settings, until_idle_s, on_ready, on_progress))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the folder {path}: {error.strerror}",
            "set worker.store_dir to a folder that can be written",
        ) from error


async def _run(
    settings: Settings,
    until_idle_s: float | None,
    on_ready: Callable[[str], None] | None,
    on_progress: Callable[[WorkerProgress], None] | None,
) -> WorkerResult:
    started = time.monotonic()
    config = topology_config(settings)
    controller = exercise_controller(config.control, config.kernel)  # compiles the kernel, too
    metrics = WorkerMetrics()
    progress = RecoveryProgress(metrics)
    worker, partitions = _assemble(settings, config, metrics, progress)
    watch = LagWatch(settings, partitions, metrics)

    def health() -> dict[str, Any]:
        checked = exercise_controller(config.control, config.kernel)
        stalled = watch.stalled_for(worker.progress_at) > settings.worker.stall_timeout_s
        return {
            "ok": bool(checked["ok"]) and not stalled and not worker.failed.done(),
            "controller": checked,
            "ready": bool(partitions.assigned) and set(partitions.ready()) == partitions.assigned,
            "partitions": sorted(partitions.assigned),
            "lag": watch.lag,
            "stalled": stalled,
            "records": worker.records_applied,
        }

    runner, port = await serve(
        web_app(metrics.registry, health), settings.worker.web_host, settings.worker.web_port
    )
    address = f"http://{settings.worker.web_host}:{port}"
    runtime_file = _write_runtime_file(settings, address)
    log.info("metrics and health at %s (controller check: %s)", address, controller)
    stop = _stop_on_signals()
    _calm_garbage_collector()
    try:
        await worker.app.start()
        if on_ready is not None:
            on_ready(address)

        def tell() -> None:
            if on_progress is not None:
                on_progress(
                    worker_progress(worker.records_applied, watch, partitions, metrics, progress)
                )

        await _watch(settings, worker, watch, stop, until_idle_s, tell)
        await asyncio.wait_for(worker.checkpoint_now(), 30)
        first, last = worker.first_batch, worker.last_durable
        busy = (last.at_s - first.at_s, last.cpu_s - first.cpu_s) if first and last else (0.0, 0.0)
        return WorkerResult(worker.records_applied, time.monotonic() - started, *busy)
    finally:
        runtime_file.unlink(missing_ok=True)
        await runner.cleanup()
        await _stop_app(worker)
        await partitions.close()


def _calm_garbage_collector() -> None:
    """A batch's thousands of records hold no cycles; looking for some took a quarter of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)


def _assemble(
    settings: Settings, config: TopologyConfig, metrics: WorkerMetrics, progress: RecoveryProgress
) -> tuple[StreamWorker, Partitions]:
    registry = settings.registry
    ids = SchemaIds(
        registry.url,
        user=registry.username or "",
        password=registry.password.get_secret_value() if registry.password else "",
        timeout_s=registry.timeout_s,
    )
    topics = settings.topics
    try:
        logits_id = ids.register(ROUTER_LOGITS, subject_of(topics.logits))
        telemetry = Encoder(TELEMETRY, ids.register(TELEMETRY, subject_of(topics.telemetry)))
        weights = Encoder(WEIGHTS, ids.register(WEIGHTS, subject_of(topics.weights)))
        dead_letter = Encoder(DEAD_LETTER, ids.register(DEAD_LETTER, subject_of(topics.dlq)))
    except RegistryUnavailable as error:
        raise ServiceUnavailable(
            f"the schema registry does not answer: {error.reason}",
            "routekeel up, or set registry.url",
        ) from error
    decoder = LogitsDecoder(ids)
    builder = OutputBuilder(
        config, telemetry.encode, weights.encode, metrics.token_rows_left_out.inc
    )

    def new_store(partition: int) -> StateStore:
        if settings.worker.store == "memory":
            return MemoryStore()
        return RocksDbStore(
            settings.worker.store_dir / settings.worker.app_id / f"partition-{partition}"
        )

    def new_processor(source: Source, store: StateStore) -> PartitionProcessor:
        compiled = compiled_path(source, config, telemetry, weights, logits_id)
        return PartitionProcessor(source, config, decoder.decode, builder, store, compiled)

    async def topic_id() -> str:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, describe, settings, [topics.logits])
        return found[topics.logits].topic_id if topics.logits in found else ""

    partitions = Partitions(
        topics.logits, ChangelogTopic(settings), new_store, new_processor, metrics, progress
    )
    app = create_app(settings, lambda topic, partition: partitions.committable(partition))
    output = OutputProducer(settings)
    worker = StreamWorker(
        settings, app, partitions, decoder, output, dead_letter, metrics, topic_id
    )
    return worker, partitions


async def _watch(
    settings: Settings,
    worker: StreamWorker,
    watch: LagWatch,
    stop: asyncio.Event,
    until_idle_s: float | None,
    tell: Callable[[], None],
) -> None:
    """Return when asked to stop or idle long enough; raise WorkerFailed when something broke."""
    next_checkpoint = 0.0
    while not stop.is_set():
        await _either(stop, worker.failed)
        failure = worker.failed.result() if worker.failed.done() else worker.partitions.failure()
        failure = failure or worker.app.crash_reason
        if failure is not None:
            raise _failed(failure)
        now = time.monotonic()
        if now >= next_checkpoint:
            await worker.checkpoint_now()
            next_checkpoint = now + settings.worker.checkpoint_interval_s
            await watch.refresh()
            await worker.check_topic()
        tell()
        if watch.stalled_for(worker.progress_at) > settings.worker.stall_timeout_s:
            raise WorkerFailed(
                f"records wait (lag {watch.lag}) but none was applied for {settings.worker.stall_timeout_s:.0f} s",
                "start the worker again; it goes on where the changelog says",
            )
        if until_idle_s is not None and watch.idle_for(worker.progress_at) >= until_idle_s:
            return


async def _either(stop: asyncio.Event, failed: asyncio.Future[BaseException]) -> None:
    """Wait for a stop or a failure, at most one tick."""
    stopping = asyncio.create_task(stop.wait())
    waiting: list[asyncio.Future[Any]] = [stopping, failed]
    await asyncio.wait(waiting, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def _failed(failure: BaseException) -> RoutekeelError:
    if isinstance(failure, RoutekeelError):
        return failure
    log.error("the worker failed", exc_info=failure)
    text = (
        failure.args[0].str()
        if isinstance(failure, KafkaException)
        else f"{type(failure).__name__}: {failure}"
    )
    return WorkerFailed(
        f"the worker failed: {text}", "start it again; it goes on where the changelog says"
    )


async def _stop_app(worker: StreamWorker) -> None:
    try:
        await asyncio.wait_for(worker.app.stop(), 20)
    except (TimeoutError, Exception):
        log.warning("Faust did not stop cleanly", exc_info=True)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _write_runtime_file(settings: Settings, address: str) -> Path:
    """Where to find this worker's pages, for scripts and tests; removed at the end."""
    folder = settings.stack.state_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"worker-{os.getpid()}.json"
    path.write_text(json.dumps({"pid": os.getpid(), "url": address}), encoding="utf-8")
    return path
