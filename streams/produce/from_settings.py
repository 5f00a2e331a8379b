"""The SDK's configuration out of the settings tree, for the commands that produce and read."""

from __future__ import annotations

from pydantic import SecretStr

from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.settings import Settings


def sdk_config(settings: Settings) -> SdkConfig:
    """An SdkConfig that says what the settings say."""
    kafka, registry, topics, sdk = settings.kafka, settings.registry, settings.topics, settings.sdk
    return SdkConfig(
        bootstrap_servers=kafka.bootstrap_servers,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=_text(kafka.sasl_password),
        ssl_ca_file=_text(kafka.ssl_ca_file),
        ssl_certificate_file=_text(kafka.ssl_certificate_file),
        ssl_key_file=_text(kafka.ssl_key_file),
        ssl_key_password=_text(kafka.ssl_key_password),
        registry_url=registry.url,
        registry_username=registry.username,
        registry_password=_text(registry.password),
        registry_timeout_s=registry.timeout_s,
        topic=topics.logits,
        telemetry_topic=topics.telemetry,
        weights_topic=topics.weights,
        record_bytes_max=topics.record_bytes_max,
        buffer_bytes=sdk.buffer_bytes,
        linger_ms=sdk.linger_ms,
        compression=sdk.compression,
        encoding=sdk.encoding,
        top_m=sdk.top_m,
        options=sdk.options,
    )


def _text(value: object) -> str | None:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return None if value is None else str(value)
