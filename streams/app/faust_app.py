"""Makes the Faust app from the settings: broker, security, fetch sizes, timeouts, coalesced delivery."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import faust
from faust.auth import SASLCredentials, SSLCredentials
from mode import CrashingSupervisor

from routekeel.streams.app.transport import (
    CoalescingScheduler,
    CommittableOffset,
    WatermarkTransport,
)
from routekeel.streams.errors import ConfigurationError
from routekeel.streams.settings import KafkaSettings, Settings

# Batches, not records: enough to overlap fetching with work, few enough to bound memory.
BUFFERED_BATCHES = 4
# A topic that was deleted and made anew is seen when the metadata are asked for again.
METADATA_AGE_S = 5.0


def create_app(settings: Settings, committable_offset: CommittableOffset) -> faust.App:
    """A Faust app with routekeel's transport; agents are added by the worker.

    The `exactly_once` guarantee stays off: it does not cover what is sent outside Faust's own
    transaction. Exactness comes from the watermark and deterministic ids (docs/ARCHITECTURE.md).
    """
    worker = settings.worker
    servers = ";".join(
        f"kafka://{server.strip()}" for server in settings.kafka.bootstrap_servers.split(",")
    )
    app = faust.App(
        worker.app_id,
        broker=servers,
        broker_credentials=credentials(settings.kafka),
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=settings.topics.partitions,
        # No table is registered: what the assignor makes of this, app/standby.py acts upon.
        table_standby_replicas=worker.standby_replicas,
        datadir=str(worker.store_dir),
        agent_supervisor=CrashingSupervisor,
        ConsumerScheduler=CoalescingScheduler,
        stream_buffer_maxsize=BUFFERED_BATCHES,
        stream_wait_empty=False,
        consumer_max_fetch_size=worker.fetch_bytes_max,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        broker_max_poll_records=worker.batch_records_max,
        broker_commit_interval=worker.commit_interval_s,
        broker_session_timeout=worker.session_timeout_s,
        broker_heartbeat_interval=worker.heartbeat_interval_s,
        broker_request_timeout=max(30.0, worker.session_timeout_s * 2),
        autodiscover=False,
    )
    app.finalize()
    app.transport = WatermarkTransport(
        app.conf.broker_consumer, app, committable_offset=committable_offset
    )
    return app


def credentials(kafka: KafkaSettings) -> SASLCredentials | SSLCredentials | None:
    """Faust's form of the security settings; None for plain text."""
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = tls_context(kafka) if kafka.security_protocol.endswith("SSL") else None
    if kafka.security_protocol == "SSL":
        return SSLCredentials(context)
    password = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
    return SASLCredentials(
        mechanism=kafka.sasl_mechanism,
        username=kafka.sasl_username,
        password=password,
        ssl_context=context,
    )


def tls_context(kafka: KafkaSettings) -> ssl.SSLContext:
    """A TLS context that checks the broker, with the client's certificate where one is set.

    Raises ConfigurationError where a file cannot be read or holds something else.
    """
    try:
        context = ssl.create_default_context(
            cafile=str(kafka.ssl_ca_file) if kafka.ssl_ca_file else None
        )
        if kafka.ssl_certificate_file:
            _show_certificate(kafka, context)
    except OSError as error:  # ssl.SSLError is one
        files = [kafka.ssl_ca_file, kafka.ssl_certificate_file, kafka.ssl_key_file]
        named = ", ".join(str(file) for file in files if file)
        raise ConfigurationError(
            f"TLS cannot be set up from {named}: {error}",
            "check kafka.ssl_ca_file, kafka.ssl_certificate_file, kafka.ssl_key_file and "
            "kafka.ssl_key_password",
        ) from error
    return context


def _show_certificate(kafka: KafkaSettings, context: ssl.SSLContext) -> None:
    password: Callable[[], str] | None = None
    if kafka.ssl_key_password is not None:
        password = kafka.ssl_key_password.get_secret_value
    context.load_cert_chain(
        str(kafka.ssl_certificate_file), str(kafka.ssl_key_file or "") or None, password
    )
