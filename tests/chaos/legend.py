"""What the words of docs/RELIABILITY.md mean: the faults, and the settings that a seed draws."""

from __future__ import annotations

from tests.chaos.policy import CHECKPOINTS, ROUTES
from tests.chaos.schedule import BROKER_AWAY_S, CLOCK_STEP, CLOCK_STEPS_S, CLOCK_WRONG_S

MEANING = {
    "kill worker": "kill -9 of a worker, started again",
    "kill sink": "kill -9 of a sink, started again",
    "kill broker": "kill -9 of Kafka, up again within seconds",
    "kill store": "kill -9 of the ClickHouse engine, up again within seconds",
    "kill registry": "kill -9 of the schema registry, up again within seconds",
    "pause 30 s": "SIGSTOP of a worker or sink for 30 s",
    "pause past session": "SIGSTOP for 1.2 to 2 session timeouts: the process wakes after others took over",
    "worker storm": "three more workers join and leave, one after another, within seconds",
    "sink storm": "six members join the sinks' group, take partitions, do nothing and leave",
    "store away": "kill -9 of the ClickHouse engine, away for long",
    "broker away": "kill -9 of Kafka, away for {:.0f} to {:.0f} s, many times what a client waits for".format(
        *BROKER_AWAY_S
    ),
    "full disk: state": "no room left where the workers keep their RocksDB",
    "full disk: store": "no room left where the ClickHouse engine keeps its tables",
    "full disk: broker": "no room left where Kafka keeps its log: it ends, and is started again once there is",
    CLOCK_STEP: "the time of day of a worker, of a sink or of the services steps {} s, and back after "
    "{:.0f} to {:.0f} s".format(
        " or ".join(f"{step:+,.0f}" for step in CLOCK_STEPS_S), *CLOCK_WRONG_S
    ),
}


def settings_lines() -> list[str]:
    """The groups of settings under their names in the table of the runs."""
    lines = ["| column | value | settings |", "|---|---|---|"]
    for column, groups in (("checkpoints", CHECKPOINTS), ("routes", ROUTES)):
        for name, flags in groups.items():
            shown = ", ".join(
                f"{key.split('.')[1]} {_value(value)}" for key, value in flags.items()
            )
            lines.append(f"| {column} | {name} | {shown} |")
    lines.append("| state | memory, rocksdb | worker.store |")
    lines.append("| standbys | 0, 1 | worker.standby_replicas |")
    lines.append("| sessions s | 6 / 10, 40 / 40 | session timeouts of worker / sink |")
    return lines


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)
