"""The stack that chaos is done to: its store and its broker on small disks, where those can be mounted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from routekeel.infra.local.stack import LocalStack
from routekeel.operators.config import RouterConfig
from routekeel.streams.app.web import exercise_controller
from tests.chaos.clocks import Clocks, ClocksMissing
from tests.chaos.disk import NotMounted, SmallDisk
from tests.chaos.schedule import CLOCK_STEP, SERVICES
from tests.stack.conftest import config_at
from tests.stack.services import kill_service

STATE_DISK, STORE_DISK, BROKER_DISK = "full disk: state", "full disk: store", "full disk: broker"
DISK_MIB = {STATE_DISK: 512, STORE_DISK: 2048, BROKER_DISK: 1024}


@dataclass(frozen=True)
class Bench:
    """A running stack for chaos. `disks` are those of the services, by the fault that fills them; `clocks`
    are everybody's; `impossible` says which kinds of faults cannot be had here, and why."""

    stack: LocalStack
    folder: Path
    disks: dict[str, SmallDisk]
    clocks: Clocks | None
    impossible: dict[str, str]

    def restart_broker(self) -> None:
        """kill -9 of Kafka, and up again."""
        kill_service(self.stack, "kafka")
        self.stack.up()

    def keep_logs(self, folder: Path) -> None:
        """Copy what the services have written, which goes with the stack."""
        shutil.copytree(
            self.stack.config.state_dir / "log", folder / "services", dirs_exist_ok=True
        )


@contextmanager
def chaos_bench(folder: Path) -> Iterator[Bench]:
    """A stack of its own under `folder`. However this ends, nothing runs and nothing is mounted after it."""
    state = folder / "state"
    stack = LocalStack(config_at(state))
    disks: dict[str, SmallDisk] = {}
    impossible: dict[str, str] = {}
    with ExitStack() as cleanup:
        cleanup.callback(stack.wipe)
        try:
            for kind, name in ((STORE_DISK, "clickhouse"), (BROKER_DISK, "kafka")):
                disks[kind] = SmallDisk(state / name, DISK_MIB[kind])
                cleanup.callback(disks[kind].close)
        except NotMounted as error:
            impossible = dict.fromkeys(DISK_MIB, str(error))
        clocks = None
        try:
            clocks = Clocks(folder / "clocks")
            cleanup.enter_context(_environment(clocks.environment(SERVICES)))
        except ClocksMissing as error:
            impossible[CLOCK_STEP] = str(error)
        cleanup.callback(stack.down)
        # Compiled once and kept on disk, so that members start at their usual speed.
        exercise_controller(RouterConfig(), "auto")
        stack.up()
        yield Bench(stack, folder, disks, clocks, impossible)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """More in this process's environment, which the stack's services inherit whenever they are started."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
