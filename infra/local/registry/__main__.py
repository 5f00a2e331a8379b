"""`python -m routekeel.infra.local.registry`: runs the registry until SIGTERM or SIGINT.

Started by the local stack once the broker answers. It ends when its topic cannot be read any more:
a registry that answers from an old state would be worse than none.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from aiohttp import web

from routekeel.infra.local.contract import LOOPBACK
from routekeel.infra.local.logs import log_to_file
from routekeel.infra.local.registry.app import Registry
from routekeel.infra.local.registry.store import Store

SHUTDOWN_S = 10.0
logger = logging.getLogger("routekeel.registry")


async def serve(bootstrap: str, port: int) -> int:
    """Read the topic, listen, and end in order. The exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = Store(bootstrap)
    await store.open()
    runner = web.AppRunner(
        Registry(store).application(), access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    logger.info("listening on %s:%d, broker %s", LOOPBACK, port, bootstrap)
    endings = [asyncio.create_task(event.wait()) for event in (stop, store.failed)]
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    for ending in endings:
        ending.cancel()
    await runner.cleanup()
    await store.close()
    logger.info("ended")
    return 1 if store.failed.is_set() else 0


def main() -> None:
    """Start from the command line."""
    parser = argparse.ArgumentParser(prog="routekeel.infra.local.registry", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the stack's state directory")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bootstrap", required=True, help="the broker's address")
    options = parser.parse_args()
    log_to_file(options.state.resolve() / "log" / "registry.log")
    try:
        status = asyncio.run(serve(options.bootstrap, options.port))
    except Exception:
        logger.exception("the registry failed")
        raise SystemExit(1) from None
    raise SystemExit(status)


if __name__ == "__main__":
    main()
