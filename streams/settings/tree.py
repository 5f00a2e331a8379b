"""The shape of the settings: every option with its type, default, unit and meaning.

Loading (files, variables, flags, the local stack) is in load.py. Names with a unit end in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)


class Section(BaseModel):
    """A group of settings; unknown names are refused, values are never changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(Section):
    """How to reach the brokers. Security settings pass through to librdkafka and aiokafka alike."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Brokers, host:port, comma-separated."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) the brokers and the registry are checked with."
    )
    ssl_certificate_file: Path | None = Field(None, description="Client certificate (PEM).")
    ssl_key_file: Path | None = Field(None, description="Key of the client certificate (PEM).")
    ssl_key_password: SecretStr | None = None

    def client_config(self) -> dict[str, str]:
        """These settings as librdkafka properties (confluent-kafka's configuration)."""
        options = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism if "SASL" in self.security_protocol else None,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self.ssl_key_password.get_secret_value()
            if self.ssl_key_password
            else None,
        }
        return {name: str(value) for name, value in options.items() if value is not None}


class RegistrySettings(Section):
    """The schema registry (Confluent's API)."""

    url: str = "http://127.0.0.1:8081"
    username: str | None = None
    password: SecretStr | None = None
    timeout_s: float = Field(5.0, gt=0)


class ClickHouseSettings(Section):
    """The ClickHouse server, over HTTP."""

    host: str = "127.0.0.1"
    port: int = Field(8123, ge=1, le=65535)
    secure: bool = Field(False, description="Use HTTPS.")
    ssl_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) the server is checked with; else the system's."
    )
    username: str = "routekeel"
    password: SecretStr | None = None
    database: str = "routekeel"
    cluster: str | None = Field(
        None, description="Name of the cluster, for replicated and distributed tables."
    )
    receive_timeout_s: float = Field(
        6.0, gt=0, description="Shorter than the sink's session timeout."
    )


class TopicSettings(Section):
    """Names and shape of the topics; the data topics share one number of partitions."""

    logits: str = "routekeel.logits"
    telemetry: str = "routekeel.telemetry"
    weights: str = "routekeel.weights"
    policy: str = "routekeel.policy"
    alerts: str = "routekeel.alerts"
    dlq: str = "routekeel.dlq"
    partitions: int = Field(4, ge=1, le=10_000)
    replication_factor: int = Field(1, ge=1, le=9)
    logits_retention_h: float = Field(72.0, gt=0)
    output_retention_h: float = Field(72.0, gt=0)
    dlq_retention_h: float = Field(24.0 * 30, gt=0)
    record_bytes_max: int = Field(16 * 2**20, ge=2**20, description="Largest record a topic takes.")


class ControlSettings(Section):
    """Parameters of the control law (operators.RouterConfig has the formulas)."""

    preset: Literal["default", "strict"] = "default"
    parameters: dict[str, float | str] = Field(
        default_factory=dict, description="Single parameters over the preset, e.g. {g_target: 0.1}."
    )
    policy_version: int = Field(
        0, ge=0, description="Written into every output of this configuration."
    )
    arm: str = "shadow"


class RouterMatrixSettings(Section):
    """Where the Gram matrices W Wᵀ of a model's routers are, for hidden-space G and flip distance."""

    model: str
    model_revision: str = Field("", description="Empty: every revision of the model.")
    path: Path = Field(description=".npz with `layers` int32[L] and `gram` float32[L, E, E].")


class WorkerSettings(Section):
    """The stream worker."""

    app_id: str = Field(
        "routekeel", description="Consumer group and prefix of the changelog topic."
    )
    store: Literal["memory", "rocksdb"] = "memory"
    store_dir: Path = Path(".routekeel/worker")
    standby_replicas: int = Field(
        0,
        ge=0,
        le=16,
        description="Workers besides the owner that keep a copy of each partition's state, so that a "
        "takeover reads only the tail. Each costs the state's memory and reading the changelog once "
        "more; a group of one worker gains nothing.",
    )
    kernel: Literal["auto", "numba", "numpy"] = "auto"
    web_host: str = Field("127.0.0.1", description="Where /metrics and /health are served.")
    web_port: int = Field(
        0, ge=0, le=65535, description="0: a free port, written to the log and a file."
    )
    batch_records_max: int = Field(5000, ge=1)
    fetch_bytes_max: int = Field(8 * 2**20, ge=2**16)
    commit_interval_s: float = Field(0.5, gt=0)
    checkpoint_interval_s: float = Field(
        1.0, ge=0, description="How often changed state goes to the changelog, at most."
    )
    checkpoint_interval_max_s: float = Field(
        10.0, gt=0, description="How long a checkpoint may wait to become small beside the input."
    )
    checkpoint_share_max: float = Field(
        0.25, gt=0, description="Small: this share of the bytes read since the last one."
    )
    checkpoint_bytes_max: int = Field(
        64 * 2**20, ge=1, description="Changed bytes that force a checkpoint."
    )
    session_timeout_s: float = Field(10.0, gt=1)
    heartbeat_interval_s: float = Field(2.0, gt=0)
    linger_ms: float = Field(5.0, ge=0)
    session_ttl_s: float = Field(
        3600.0, gt=0, description="A session idle this long in event time is evicted."
    )
    sessions_max_per_partition: int = Field(
        100_000, ge=1, description="The least recent beyond this are evicted."
    )
    requests_max_per_session: int = Field(
        8, ge=1, le=1024, description="Open requests whose positions are kept."
    )
    event_time_skew_max_s: float = Field(
        300.0, ge=0, description="Event times further ahead of the log are clamped."
    )
    token_rows_share: float = Field(
        0.0, ge=0, le=1, description="Share of sessions with per-token rows."
    )
    weights_every_tokens: int = Field(
        8, ge=0, description="A session's route is published every so many tokens; 1: each chunk."
    )
    weights_change: float | None = Field(
        None, gt=0, description="And when some layer's may have moved this far (‖Δŵ‖₂) since."
    )
    weights_precision: Literal["F32", "F16"] = Field("F32", description="Of the published ŵ.")
    state_every_tokens: int = Field(
        64, ge=0, description="The session's exact state goes with the route this often."
    )
    stall_timeout_s: float = Field(
        60.0, gt=0, description="End the process when lag grows and nothing is applied."
    )
    router_matrices: tuple[RouterMatrixSettings, ...] = ()


class SinkSettings(Section):
    """The ClickHouse sink."""

    group_id: str = "routekeel-sink"
    batch_rows_max: int = Field(50_000, ge=1)
    batch_interval_s: float = Field(1.0, gt=0)
    session_timeout_s: float = Field(20.0, gt=1)
    insert_timeout_s: float = Field(8.0, gt=0, description="max_execution_time of an insert.")
    web_host: str = "127.0.0.1"
    web_port: int = Field(0, ge=0, le=65535)
    telemetry_ttl_days: int = Field(90, ge=1)
    weights_ttl_days: int = Field(14, ge=1)


class StackSettings(Section):
    """The local stack (`routekeel up`)."""

    state_dir: Path = Path(".routekeel")
    kafka_port: int = Field(9092, ge=1, le=65535)
    registry_port: int = Field(8081, ge=1, le=65535)
    clickhouse_port: int = Field(8123, ge=1, le=65535)
    kafka_heap_mb: int = Field(512, ge=128)


class SdkSettings(Section):
    """The producer SDK's settings (streams/sdk/config.py reads the same variables without pydantic)."""

    buffer_bytes: int = Field(32 * 2**20, ge=2**16)
    linger_ms: float = Field(5.0, ge=0)
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    encoding: Literal["F32", "F16", "TOPM_F16"] = "F16"
    top_m: int = Field(16, ge=1)
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further librdkafka properties."
    )


class Settings(BaseSettings):
    """The whole tree. `load_settings` fills it; constructing it reads no variables."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    topics: TopicSettings = TopicSettings()
    control: ControlSettings = ControlSettings()
    worker: WorkerSettings = WorkerSettings()
    sink: SinkSettings = SinkSettings()
    stack: StackSettings = StackSettings()
    sdk: SdkSettings = SdkSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: the order of the sources is written down once, in load.py."""
        return (init_settings,)
