"""What the local stack is asked for and what it answers: plain values without behaviour.

Apart from the orchestration so that a caller can hold a status or an endpoint without
importing a Kafka client or a process library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Health = Literal["healthy", "starting", "unhealthy", "stopped"]
SERVICES: tuple[str, ...] = ("kafka", "registry", "clickhouse")
LOOPBACK = "127.0.0.1"

# Called with (service, phase, detail). Phases: "prepare", "start", "healthy", "running",
# "stopping", "stopped", "failed". Calls come from several threads, one at a time.
OnEvent = Callable[[str, str, str], None]


@dataclass(frozen=True)
class StackConfig:
    """Where the stack keeps its state and which ports it would like to have.

    A taken port is replaced by a free one; the choice is kept for the next start.
    """

    state_dir: Path = Path(".routekeel")
    kafka_port: int = 9092
    registry_port: int = 8081
    clickhouse_port: int = 8123
    kafka_heap_mb: int = 512
    partitions_default: int = 6
    clickhouse_memory_mb: int | None = None  # None: half of the machine's memory, 1 to 8 GiB
    database: str = "routekeel"
    username: str = "routekeel"
    start_timeout_s: float = 90.0
    stop_timeout_s: float = 30.0


@dataclass(frozen=True)
class ServiceStatus:
    """One service as seen now. `pid`, `port`, `age_s` and `rss_mb` are None when unknown."""

    name: str
    pid: int | None
    host: str
    port: int | None
    health: Health
    age_s: float | None
    rss_mb: float | None
    log: Path
    detail: str = ""


@dataclass(frozen=True)
class Endpoints:
    """How to reach a running stack. The password is left out of `repr`."""

    kafka_bootstrap: str
    registry_url: str
    clickhouse_host: str
    clickhouse_port: int
    clickhouse_username: str
    clickhouse_password: str = field(repr=False)
    clickhouse_database: str = "routekeel"
