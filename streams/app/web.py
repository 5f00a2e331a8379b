"""The worker's two pages: /metrics for Prometheus and /health for whoever restarts it.

/health exercises the controller on a small fixed chunk and compares with the other kernel's result:
a process that answers but cannot compute is not healthy. It also looks at progress, not only at life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import Chunk
from routekeel.operators.state import RouterState
from routekeel.operators.step import Kernel, step

TOLERANCE = 1e-5

Health = Callable[[], dict[str, Any]]
"""Gives {"ok": bool, …}; must not block."""


def exercise_controller(config: RouterConfig, kernel: Kernel) -> dict[str, Any]:
    """Run the controller on a fixed chunk: {"ok", "kernel", "difference"} against the NumPy kernel."""
    logits = np.linspace(-2, 2, 3 * 2 * 8, dtype=np.float32).reshape(3, 2, 8)
    chunk = Chunk(logits, ambiguity=np.full((3, 3), 0.8, np.float32))
    state = RouterState.initial(2, 8)
    after, _ = step(config, state, chunk, kernel=kernel)
    expected, _ = step(config, state, chunk, kernel="numpy")
    difference = float(np.abs(after.w_hat - expected.w_hat).max())
    sums = float(np.abs(after.w_hat.sum(axis=1) - 1).max())
    return {
        "ok": difference <= TOLERANCE and sums <= TOLERANCE,
        "kernel": kernel,
        "difference": difference,
    }


def web_app(registry: CollectorRegistry, health: Health) -> web.Application:
    """The pages as an aiohttp application."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def healthy(_: web.Request) -> web.Response:
        report = health()
        return web.json_response(report, status=200 if report["ok"] else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/health", healthy)
    return app


async def serve(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start serving; returns the runner (to clean up) and the port taken. OSError where it is not free."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, int(runner.addresses[0][1])
