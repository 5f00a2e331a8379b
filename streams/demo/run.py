"""The demo from start to end: stack, topics, tables, worker, sink, engine; then the figures and the page.

Whatever happens, Ctrl-C included, it stops what it started (unless it was asked to keep it running).
"""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.live import Live

from routekeel.backends.base import Backend
from routekeel.backends.catalog import EngineMissingError
from routekeel.backends.catalog import load as load_backend
from routekeel.backends.tinymoe.prompts import PROMPTS
from routekeel.infra.local.stack import LocalStack
from routekeel.streams.demo.latency import RowWatch
from routekeel.streams.demo.live import LiveRoutes
from routekeel.streams.demo.page import page_data, write_page
from routekeel.streams.demo.processes import Child, wait_until_ready
from routekeel.streams.demo.publish import Published, publish_prompts
from routekeel.streams.demo.summary import Stored, by_kind, stored, summary_view
from routekeel.streams.errors import RoutekeelError
from routekeel.streams.history.store import apply_schema, connect
from routekeel.streams.produce.from_settings import sdk_config
from routekeel.streams.sdk.producer import Producer
from routekeel.streams.settings import Settings
from routekeel.streams.topics import ensure_topics

READY_TIMEOUT_S = 120.0
ROWS_TIMEOUT_S = 60.0
VERSIONS = (
    "routekeel",
    "faust-streaming",
    "aiokafka",
    "confluent-kafka",
    "chdb",
    "numba",
    "mlx",
    "mlx-lm",
    "numpy",
)

Reload = Callable[[], Settings]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line decides: the engine, and whether everything stays up afterwards."""

    backend: str = "mlx"
    keep: bool = False


def run_demo(
    local: LocalStack, reload: Reload, options: DemoOptions, console: Console
) -> dict[str, Any]:
    """Run the demo; returns the report that demo.json holds. `reload` reads the settings again."""
    state_dir = local.config.state_dir
    run = time.strftime("%Y%m%d-%H%M%S")
    with ExitStack() as cleanup:
        settings = _start_stack(local, reload, options, console, cleanup)
        client = connect(settings.clickhouse)
        apply_schema(client, settings.clickhouse)
        ensure_topics(settings)
        backend = open_backend(options.backend, console)
        with console.status(
            "starting the worker and the sink (the first time compiles the kernel, about 30 s)"
        ):
            _start_children(settings, backend, state_dir, options, cleanup)
        prefix = f"demo-{run}-"
        watching = cleanup.enter_context(ExitStack())
        published, dropped, seconds, watch = _publish(
            settings, client, backend, run, console, watching
        )
        if not watch.wait_for(published.chunks - dropped, ROWS_TIMEOUT_S):
            console.print(
                "[yellow]not every chunk had rows in time; see the logs in .routekeel/log[/]"
            )
        watching.close()
        database = settings.clickhouse.database
        found = _settle(client, database, prefix, published.chunks - dropped)
        report = _report(published, found, dropped, seconds, watch, backend)
        columns, rows = by_kind(client, database, prefix)
        kinds = {prompt.id: prompt.kind for prompt in PROMPTS}
        sessions = page_data(
            client,
            database,
            prefix,
            lambda token: backend.decode([token]),
            kinds,
            backend.facts.top_k,
        )
        write_page(state_dir / "demo.html", sessions, report, backend.facts.top_k)
        (state_dir / "demo.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        console.print(summary_view(report, columns, rows))
        if options.keep:
            cleanup.pop_all()  # only a demo that went well is left running
    return report


def _start_stack(
    local: LocalStack, reload: Reload, options: DemoOptions, console: Console, cleanup: ExitStack
) -> Settings:
    running = all(service.health == "healthy" for service in local.status())
    if not running:
        cleanup.callback(_stop_to_the_end, lambda: local.down())
        with console.status(
            "starting Kafka, the schema registry and the ClickHouse engine"
        ) as status:
            local.up(
                on_event=lambda service, phase, detail: status.update(
                    f"{service}: {phase} {detail}"
                )
            )
    return reload()


def _start_children(
    settings: Settings, backend: Backend, state_dir: Path, options: DemoOptions, cleanup: ExitStack
) -> None:
    common = {"stack.state_dir": str(state_dir)}
    worker = {"token_rows_share": 1.0, **_router_matrix(backend, state_dir)}
    # What the worker runs with, for `routekeel audit --replay --config`.
    (state_dir / "demo.yaml").write_text(yaml.safe_dump({"worker": worker}), encoding="utf-8")
    flags = {f"worker.{name}": json.dumps(value) for name, value in worker.items()}
    children = [
        Child("worker", state_dir, {**common, **flags}, outlive=options.keep),
        Child("sink", state_dir, {**common, "sink.batch_interval_s": "0.3"}, outlive=options.keep),
    ]
    for child in children:
        cleanup.callback(_stop_to_the_end, child.stop)
    for child in children:
        wait_until_ready(child, state_dir, READY_TIMEOUT_S)


def _router_matrix(backend: Backend, state_dir: Path) -> dict[str, Any]:
    """The model's W·Wᵀ in a file, so that hidden-space G and flip distance can be derived."""
    if not backend.capabilities.router_matrix:
        return {}
    path = (state_dir / "router_gram.npz").resolve()
    facts = backend.facts
    np.savez(path, layers=np.array(facts.layers, np.int32), gram=backend.router_gram())
    row = {"model": facts.model, "model_revision": facts.model_revision, "path": str(path)}
    return {"router_matrices": [row]}


def open_backend(name: str, console: Console) -> Backend:
    """The engine; where mlx is not to be had, the NumPy one, and said so."""
    try:
        return load_backend(name)
    except (EngineMissingError, ImportError, OSError) as error:
        if name != "mlx":
            raise RoutekeelError(str(error)) from error
        console.print(
            f"[yellow]mlx is not usable here ({error}); the NumPy reference engine runs the model instead[/]"
        )
        return load_backend("reference")


def _publish(
    settings: Settings,
    client: Any,
    backend: Backend,
    run: str,
    console: Console,
    watching: ExitStack,
) -> tuple[Published, int, float, RowWatch]:
    prefix, facts = f"demo-{run}-", backend.facts
    watch = RowWatch(client, settings.clickhouse.database, prefix)
    live = LiveRoutes(settings, prefix)
    watching.callback(live.stop)
    watching.callback(watch.stop)
    live.start()
    watch.start()
    made = {"chunks": 0, "tokens": 0}
    producer = Producer(
        sdk_config(settings),
        model=facts.model,
        model_revision=facts.model_revision,
        backend=facts.backend,
        top_k=facts.top_k,
        router_kind=facts.router_kind,
    )
    with producer, _live(console, live, made) as refresh:
        started = time.monotonic()

        def on_chunk(prompt: Any, chunk: Any) -> None:
            made["chunks"] += 1
            made["tokens"] += chunk.steps
            refresh()

        published = publish_prompts(backend, producer, run, on_chunk)
        producer.flush(10.0)
        seconds = time.monotonic() - started
        while (
            live.failure is None
            and live.chunks < published.chunks
            and time.monotonic() - started < seconds + 10
        ):
            time.sleep(0.05)
            refresh()
        dropped = producer.stats().dropped_total
    return published, dropped, seconds, watch


@contextmanager
def _live(console: Console, live: LiveRoutes, made: dict[str, int]) -> Iterator[Callable[[], None]]:
    def picture() -> Any:
        return live.render(
            f"{made['chunks']} chunks, {made['tokens']} tokens generated; {live.chunks} chunks back as telemetry"
        )

    with Live(
        picture(), console=console, refresh_per_second=8, transient=not console.is_terminal
    ) as display:
        yield lambda: display.update(picture())


def _settle(client: Any, database: str, prefix: str, chunks: int) -> Stored:
    """The stored counts, once weights have caught up with telemetry (they are inserted apart)."""
    deadline = time.monotonic() + 10
    while True:
        found = stored(client, database, prefix)
        if (
            found.chunks >= chunks and found.weights_rows >= found.telemetry_rows
        ) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _report(
    published: Published,
    found: Stored,
    dropped: int,
    seconds: float,
    watch: RowWatch,
    backend: Backend,
) -> dict[str, Any]:
    return {
        "sessions": found.sessions,
        "chunks": found.chunks,
        "routing_decisions": found.routing_decisions,
        "telemetry_rows": found.telemetry_rows,
        "weights_rows": found.weights_rows,
        "dlq": found.dlq,
        "dropped": dropped,
        "missing": published.chunks - dropped - found.chunks - found.dlq,
        "duplicated": found.duplicated,
        "events_per_s": round(published.chunks / seconds, 1),
        "tokens_per_s": round(published.tokens / seconds, 1),
        "latency_p50_ms": watch.percentile_ms(50),
        "latency_p95_ms": watch.percentile_ms(95),
        "backend": backend.facts.backend,
        "model": f"{backend.facts.model}@{backend.facts.model_revision}",
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kafka": "4.1.1"}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _stop_to_the_end(stop: Callable[[], object]) -> None:
    """Stop one thing. From here to the process's end Ctrl-C, pressed once more, changes nothing: what was
    started has to be stopped, and that has begun.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop()
