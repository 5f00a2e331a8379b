"""`python -m routekeel.infra.local.gateway`: runs the gateway until SIGTERM or SIGINT.

Started by the local stack. The password comes in a file, never on the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from pathlib import Path

from aiohttp import web

from routekeel.infra.local.contract import LOOPBACK
from routekeel.infra.local.gateway.access import Access
from routekeel.infra.local.gateway.app import Gateway
from routekeel.infra.local.gateway.engine import Engine
from routekeel.infra.local.logs import log_to_file

MIB = 1024 * 1024
SHUTDOWN_S = 20.0  # for what runs; less than the stack waits before it kills
KEEPALIVE_S = 3600.0  # clients do not repeat an INSERT over a connection that was closed on them
URL_BYTES_MAX = MIB
QUERY_MEMORY_SHARE = 0.7

logger = logging.getLogger("routekeel.gateway")


def arguments() -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(prog="routekeel.infra.local.gateway", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the stack's state directory")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--username", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--memory-mb", type=int, required=True, help="for the whole engine")
    return parser.parse_args()


async def serve(options: argparse.Namespace, password: str) -> None:
    """Open the engine, listen, and close both in order when asked to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    memory = options.memory_mb * MIB
    engine = Engine(memory, int(memory * QUERY_MEMORY_SHARE))
    engine.create_database(options.database)
    gateway = Gateway(engine, Access(options.username, password), options.database)
    runner = web.AppRunner(
        gateway.application(),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        max_line_size=URL_BYTES_MAX,
        max_field_size=URL_BYTES_MAX,
    )
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, options.port).start()
    logger.info("engine %s listening on %s:%d", engine.version, LOOPBACK, options.port)
    sweeping = asyncio.create_task(gateway.sweep())
    await stop.wait()
    logger.info("ending: finishing what runs")
    sweeping.cancel()
    await runner.cleanup()
    await gateway.close()
    logger.info("ended, data are on disk")


def main() -> None:
    """Start from the command line."""
    options = arguments()
    state = options.state.resolve()
    log_to_file(state / "log" / "clickhouse.log")
    password = options.password_file.resolve().read_text("utf-8").strip()
    if not password:
        raise SystemExit("the password file is empty")
    folder = state / "clickhouse"
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # the engine's path is relative: no character in it can be misread
    try:
        asyncio.run(serve(options, password))
    except Exception:
        logger.exception("the gateway failed")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
