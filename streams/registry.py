"""The schema registry as the settings describe it, for worker, sink and replay alike."""

from __future__ import annotations

from routekeel.schemas.registry import SchemaIds
from routekeel.streams.settings import Settings


def registry_of(settings: Settings, *, retries: int = 2) -> SchemaIds:
    """The registry's client: address, account and timeout of the section `registry`.

    Over https it is checked with `kafka.ssl_ca_file` where that is set, as the SDK does: a private CA
    signs for the brokers and the registry beside them.
    """
    registry = settings.registry
    return SchemaIds(
        registry.url,
        user=registry.username or "",
        password=registry.password.get_secret_value() if registry.password else "",
        ca_location=str(settings.kafka.ssl_ca_file or ""),
        timeout_s=registry.timeout_s,
        retries=retries,
    )
