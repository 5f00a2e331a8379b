"""One real Kafka node on this machine: KRaft, loopback only, a small heap.

Paths in its configuration are relative to its folder, so that no character in the state
directory's name can break a properties file or a comma-separated list of log folders.
"""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from routekeel.infra.local.contract import LOOPBACK, StackConfig
from routekeel.infra.local.errors import StackError
from routekeel.infra.local.files import tail, write_atomically
from routekeel.infra.local.jars import ensure_jars
from routekeel.infra.local.java import Java, find_java
from routekeel.infra.local.ports import answers

NODE_ID = 1
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
FORMAT_TIMEOUT_S = 60.0
LOG_FILE_MIB = 10
LOG_FILES = 2


def server_properties(config: StackConfig, port: int, controller_port: int) -> str:
    """The broker's configuration; every replication factor is one."""
    rows = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "data",
        "num.partitions": config.partitions_default,
        "auto.create.topics.enable": "false",
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "replica.fetch.max.bytes": MESSAGE_BYTES_MAX,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 2,
        "group.initial.rebalance.delay.ms": 0,
        # After a kill the broker may register again only when its old session has run out.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 1000,
        "log.cleaner.dedupe.buffer.size": 32 * 1024 * 1024,
        "log.index.size.max.bytes": 2 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in rows.items())


def log4j_properties(log: Path) -> str:
    """Warnings to the console, everything to a file that rolls over and stays bounded."""
    return f"""status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ../log/{log.name}
appender.file.filePattern = ../log/{log.name}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = {LOG_FILE_MIB}MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = {LOG_FILES}
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


def new_cluster_id() -> str:
    """A random id in Kafka's form; none begins with '-', which the storage tool takes for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


class KafkaNode:
    """Prepares, formats and describes the broker's process; its parent starts and ends it."""

    name = "kafka"

    def __init__(self, config: StackConfig, state: Path) -> None:
        self.config = config
        self.folder = state / "kafka"
        self.log = state / "log" / "kafka.log"
        self.console = state / "log" / "kafka.console.log"
        self.mark = f"-Droutekeel.state={state}"

    def prepare(self, say: Callable[[str], None]) -> tuple[Java, Path]:
        """Find Java and the jars, which may download them. Raises StackError."""
        java = find_java()
        say(f"Java {java.major} from {java.source}")
        return java, ensure_jars(say)

    def command(self, java: Java, jars: Path, port: int, controller_port: int) -> list[str]:
        """Write the configuration, format the log folder once, and return the command line."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        write_atomically(properties, server_properties(self.config, port, controller_port))
        write_atomically(self.folder / "log4j2.properties", log4j_properties(self.log))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(java, jars)
        heap = f"-Xmx{self.config.kafka_heap_mb}m"
        # The quick compiler only: half the processor time to start (2.4 s against 4.5), and no
        # slower in a local stack's lifetime, since the work is copying and checksums.
        options = [heap, "-XX:TieredStopAtLevel=1", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError"]
        return [*self._java(java, jars, options), self.mark, "kafka.Kafka", properties.name]

    def environment(self) -> dict[str, str]:
        """This process's environment without what would change another JVM's behaviour."""
        dropped = {"KAFKA_OPTS", "KAFKA_HEAP_OPTS", "JAVA_TOOL_OPTIONS", "CLASSPATH"}
        return {key: value for key, value in os.environ.items() if key not in dropped}

    def _java(self, java: Java, jars: Path, options: list[str]) -> list[str]:
        settings = ["-Djava.awt.headless=true", "-Dlog4j2.configurationFile=log4j2.properties"]
        return [str(java.executable), *options, *settings, "-cp", f"{jars}{os.sep}*"]

    def _format(self, java: Java, jars: Path) -> None:
        cluster = new_cluster_id()
        tool = self._java(java, jars, ["-Xmx128m", "-XX:TieredStopAtLevel=1"])
        tool += ["kafka.tools.StorageTool", "format", "--ignore-formatted"]
        tool += ["-t", cluster, "-c", "server.properties"]
        try:
            done = subprocess.run(
                tool,
                cwd=self.folder,
                env=self.environment(),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=FORMAT_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"Kafka's log folder could not be formatted: {error}") from error
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip() or tail([self.log])
            raise StackError(
                f"Kafka's log folder could not be formatted:\n{said}",
                f"If its data are not needed, remove {self.folder} and start again.",
            )

    @staticmethod
    def is_healthy(port: int, timeout_s: float) -> bool:
        """Whether the broker answers a metadata request."""
        if not answers(port):
            return False
        admin = AdminClient(
            {
                "bootstrap.servers": f"{LOOPBACK}:{port}",
                "socket.timeout.ms": int(timeout_s * 1000),
                "log_level": 0,
            }
        )
        try:
            return bool(admin.list_topics(timeout=timeout_s).brokers)
        except KafkaException:
            return False
