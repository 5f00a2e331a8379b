"""Does to a rig what a schedule says. Every fault has a thread of its own, so that they overlap."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer

from tests.chaos.bench import BROKER_DISK
from tests.chaos.clocks import Clocks
from tests.chaos.disk import SmallDisk, keep_maps
from tests.chaos.rig import Over, Rig
from tests.chaos.schedule import Fault, Schedule

STORM_WORKERS = 3
STORM_SINKS = 6
FAULT_S = 600.0
CLOSE_S = 120.0
POLL_S = 0.05


class Conductor:
    """Starts each fault when `sent()` chunks have been sent. Errors of faults are raised at the end."""

    def __init__(
        self,
        rig: Rig,
        schedule: Schedule,
        disks: Mapping[str, SmallDisk],
        clocks: Clocks | None,
    ) -> None:
        self._rig = rig
        self._schedule = schedule
        self._disks = disks
        self._clocks = clocks
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def run(self, sent: Callable[[], int], done: Callable[[], bool]) -> None:
        """Conduct all faults, and wait until the last one is over."""
        for fault in self._schedule.faults:
            while sent() < fault.at_chunk and not done():
                time.sleep(POLL_S)  # a thread of this process counts; there is no event to await
            thread = threading.Thread(target=self._guarded, args=(fault,), name=fault.kind)
            self._threads.append(thread)
            thread.start()
        for thread in self._threads:
            thread.join(FAULT_S)
            assert not thread.is_alive(), f"the fault '{thread.name}' did not come to its end"
        if self._errors:
            raise self._errors[0]

    def close(self) -> None:
        """Wait until no fault does anything any more, once the rig is closed."""
        for thread in self._threads:
            thread.join(CLOSE_S)

    def _guarded(self, fault: Fault) -> None:
        try:
            self._perform(fault)
        except Over:
            pass
        except BaseException as error:
            self._errors.append(error)

    def _perform(self, fault: Fault) -> None:
        rig = self._rig
        match fault.kind:
            case "kill worker" | "kill sink":
                rig.kill(fault.target)
            case "kill broker" | "kill store" | "kill registry" | "store away" | "broker away":
                rig.kill_service(fault.target, fault.seconds)
            case "pause 30 s" | "pause past session":
                rig.pause(fault.target, fault.seconds)
            case "worker storm":
                for _ in range(STORM_WORKERS):
                    name = f"worker-storm-{next(self._numbers)}"
                    rig.pass_through(name, fault.seconds / STORM_WORKERS)
            case "sink storm":
                self._sink_storm(fault.seconds / STORM_SINKS)
            case "full disk: state" | "full disk: store" | "full disk: broker":
                self._fill(fault)
            case "clock step":
                self._step_clock(fault)
            case _:
                raise ValueError(f"no such kind of fault: {fault.kind}")

    def _step_clock(self, fault: Fault) -> None:
        """Two steps: to the wrong time of day, and back."""
        assert self._clocks is not None, "the schedule has what is not possible here"
        self._rig.say(f"the clock of {fault.target} steps {fault.offset_s:+,.0f} s")
        self._clocks.set(fault.target, fault.offset_s)
        try:
            self._rig.wait(fault.seconds)
        finally:  # the services outlive this run
            self._clocks.set(fault.target, 0)
        self._rig.say(f"the clock of {fault.target} is right again")

    def _fill(self, fault: Fault) -> None:
        disk = self._disks[fault.kind]
        if fault.kind == BROKER_DISK:
            keep_maps(disk.folder)
        disk.fill()
        self._rig.say(f"{fault.kind} for {fault.seconds:.0f} s")
        self._rig.wait(fault.seconds)
        disk.free()
        self._rig.say(f"{fault.kind}: room again")
        if fault.kind == BROKER_DISK:
            # Kafka ends where its log folder fails; starting it again is its supervisor's job.
            self._rig.revive("kafka")

    def _sink_storm(self, each_s: float) -> None:
        """Members of the sinks' group that take partitions over, do nothing and leave, one by one."""
        settings = self._rig.settings
        topics = [settings.topics.telemetry, settings.topics.weights, settings.topics.dlq]
        for number in range(STORM_SINKS):
            consumer = Consumer(
                settings.kafka.client_config()
                | {
                    "group.id": settings.sink.group_id,
                    "session.timeout.ms": int(settings.sink.session_timeout_s * 1000),
                    "partition.assignment.strategy": "range",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "latest",
                }
            )
            consumer.subscribe(topics)
            self._rig.say(f"member {number} joins the sinks")
            deadline = time.monotonic() + each_s
            while time.monotonic() < deadline:
                if self._rig.is_over:
                    break
                consumer.consume(100, timeout=0.2)
            consumer.close()
