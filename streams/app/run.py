"""Runs one stream worker from start to end: assembling it, watching it, stopping it cleanly."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from routekeel.schemas.codec import Encoder
from routekeel.schemas.errors import RegistryUnavailable
from routekeel.schemas.records import DEAD_LETTER, ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import subject_of
from routekeel.streams.app.changelog_topic import ChangelogTopic
from routekeel.streams.app.decoding import LogitsDecoder
from routekeel.streams.app.faust_app import create_app
from routekeel.streams.app.gap_watch import first_record_of
from routekeel.streams.app.lag import LagWatch
from routekeel.streams.app.lifecycle import (
    checkpoint,
    failed,
    start_app,
    stop_app,
    stop_on_signals,
)
from routekeel.streams.app.lifecycle import watch as watch_over
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.moment import Moment
from routekeel.streams.app.output import OutputProducer
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.app.progress import WorkerProgress, worker_progress
from routekeel.streams.app.recovery_progress import RecoveryProgress
from routekeel.streams.app.rocksdb_store import RocksDbStore
from routekeel.streams.app.web import exercise_controller, serve, web_app
from routekeel.streams.app.worker import StreamWorker
from routekeel.streams.errors import ConfigurationError, RoutekeelError, ServiceUnavailable
from routekeel.streams.registry import registry_of
from routekeel.streams.runtime_file import runtime_file
from routekeel.streams.settings import Settings
from routekeel.streams.topics import changelog_topic, require
from routekeel.streams.topology.changelog import MemoryStore, StateStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.from_settings import topology_config
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source
from routekeel.streams.wire.path import compiled_path, warm_up

log = logging.getLogger(__name__)

GC_ALLOCATIONS = 200_000


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What a worker did until it ended, and when it had its first batch in hand, if any."""

    records: int
    seconds: float
    first_batch: Moment | None


def run_worker(
    settings: Settings,
    *,
    until_idle_s: float | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_progress: Callable[[WorkerProgress], None] | None = None,
) -> WorkerResult:
    """Run a worker until SIGTERM, Ctrl-C, idleness (where asked for) or an error. Blocking.

    `on_progress` is told a few times a second how far it is. Raises ServiceUnavailable when Kafka or
    the registry cannot be reached at the start, ConfigurationError when a topic is missing, a folder
    cannot be written or the port is taken, WorkerFailed when something broke later.
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
    warm_up(config)
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

    runner, address = await _serve(settings, web_app(metrics.registry, health))
    log.info("metrics and health at %s (controller check: %s)", address, controller)
    stop = stop_on_signals()
    _calm_garbage_collector()
    try:

        def tell() -> None:
            if on_progress is not None:
                on_progress(
                    worker_progress(worker.records_applied, watch, partitions, metrics, progress)
                )

        with runtime_file(settings.stack.state_dir, "worker", address):
            if await start_app(worker, stop):
                if on_ready is not None:
                    on_ready(address)
                await watch_over(settings, worker, watch, stop, until_idle_s, tell)
                await checkpoint(worker)
        return WorkerResult(worker.records_applied, time.monotonic() - started, worker.first_batch)
    except RoutekeelError:
        raise
    except Exception as error:
        raise failed(error) from error
    finally:
        await runner.cleanup()
        await stop_app(worker)
        await partitions.close()
        worker.output.close()


async def _serve(settings: Settings, pages: web.Application) -> tuple[web.AppRunner, str]:
    host, port = settings.worker.web_host, settings.worker.web_port
    try:
        runner, port = await serve(pages, host, port)
    except OSError as error:
        raise ConfigurationError(
            f"the worker's pages cannot be served on {host}:{port}: {error.strerror}",
            "set worker.web_port to a free port, or to 0 for any",
        ) from error
    return runner, f"http://{host}:{port}"


def _calm_garbage_collector() -> None:
    """A batch's thousands of records hold no cycles; looking for some took a quarter of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)


def _assemble(
    settings: Settings, config: TopologyConfig, metrics: WorkerMetrics, progress: RecoveryProgress
) -> tuple[StreamWorker, Partitions]:
    ids = registry_of(settings)
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

    partitions = Partitions(
        topics.logits, ChangelogTopic(settings), new_store, new_processor, metrics, progress
    )
    app = create_app(settings, lambda topic, partition: partitions.committable(partition))
    output = OutputProducer(settings)
    worker = StreamWorker(
        settings, app, partitions, decoder, output, dead_letter, metrics,
        lambda: current_topic_id(settings), first_record_of(settings),
    )  # fmt: skip
    return worker, partitions


async def current_topic_id(settings: Settings) -> str:
    """Kafka's id of the logits topic as it is now.

    Raises ConfigurationError where the topic is not there, ServiceUnavailable where the broker is not.
    """
    topic = settings.topics.logits
    found = await asyncio.get_running_loop().run_in_executor(None, require, settings, [topic])
    return found[topic].topic_id
