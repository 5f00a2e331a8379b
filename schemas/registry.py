"""Schema ids: the registry behind a cache, and a fixed stand-in for tests and the in-memory driver.

The one thing that callers must be able to tell apart is 'the registry does not know this id', which
condemns the record, from 'the registry did not answer', which condemns nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from routekeel.schemas.avro import schema
from routekeel.schemas.errors import RegistryUnavailable, SchemaRefused, UnknownSchemaId
from routekeel.schemas.fields import Record

UNKNOWN_IDS_MAX = 4096
SCHEMAS_KEPT_MAX = 4096
# Schema not found; incompatible; invalid schema (Confluent's codes).
VERDICTS = frozenset({40403, 409, 40901, 42201})


class SchemaRegistry(Protocol):
    """What producers and consumers need of a registry."""

    def register(self, record: Record, subject: str) -> int:
        """The id of the record's schema under that subject, registering it where it is new."""
        ...

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """The schema that has this id, as its JSON says it."""
        ...


def subject_of(topic: str) -> str:
    """The subject of a topic's values (TopicNameStrategy).

    >>> subject_of("routekeel.logits")
    'routekeel.logits-value'
    """
    return f"{topic}-value"


def canonical(published: Mapping[str, Any]) -> str:
    """The text that is registered: one line, so that equal schemas are equal texts."""
    return json.dumps(published, ensure_ascii=False, separators=(",", ":"))


class FixedSchemaIds:
    """Ids from 1 in order of registration, all in memory; the same laws as `SchemaIds`.

    >>> from routekeel.schemas.records import TELEMETRY, WEIGHTS
    >>> ids = FixedSchemaIds()
    >>> ids.register(TELEMETRY, "a-value"), ids.register(WEIGHTS, "b-value")
    (1, 2)
    >>> ids.register(TELEMETRY, "c-value")
    1
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._schemas: dict[int, Mapping[str, Any]] = {}

    def register(self, record: Record, subject: str) -> int:
        """The id of the record's schema; the same schema has the same id under every subject."""
        return self.add(schema(record))

    def add(self, published: Mapping[str, Any]) -> int:
        """The id of any schema, such as an older version's."""
        text = canonical(published)
        schema_id = self._ids.setdefault(text, len(self._ids) + 1)
        self._schemas.setdefault(schema_id, json.loads(text))
        return schema_id

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """The schema of that id. Raises UnknownSchemaId."""
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise UnknownSchemaId(schema_id) from None


class SchemaIds:
    """A Confluent-compatible registry over HTTP, each answer asked for once.

    `user` and `password` are for basic auth, `ca_location` names a CA file. An id that the registry
    does not know is remembered for `unknown_ttl_s` (a later registration may create it), so that a
    flood of bad records does not become a flood of requests.

    Raises RegistryUnavailable where no answer came (refused, timeout, 401, 5xx).
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        ca_location: str = "",
        timeout_s: float = 5.0,
        retries: int = 2,
        unknown_ttl_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Here and not above: who has fixed ids need not import an HTTP client.
        from confluent_kafka.schema_registry import SchemaRegistryClient

        settings: dict[str, Any] = {"url": url, "timeout": timeout_s, "max.retries": retries}
        settings |= {"retries.wait.ms": 100, "retries.max.wait.ms": 1000}
        if user or password:
            settings["basic.auth.user.info"] = f"{user}:{password}"
        if ca_location:
            settings["ssl.ca.location"] = ca_location
        self.url = url
        self._client = SchemaRegistryClient(settings)
        self._clock = clock
        self._unknown_ttl_s = unknown_ttl_s
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Mapping[str, Any]] = {}
        self._unknown_until: dict[int, float] = {}

    def register(self, record: Record, subject: str) -> int:
        """The id of the record's schema under that subject, registering it where it is new.

        Raises SchemaRefused where the registry calls it invalid or incompatible.
        """
        from confluent_kafka.schema_registry import Schema

        published = schema(record)
        text = canonical(published)
        known = self._ids.get((subject, text))
        if known is not None:
            return known
        status, answer = self._ask(
            lambda: self._client.register_schema(subject, Schema(text, "AVRO"))
        )
        if status:
            raise SchemaRefused(f"the registry refuses {record.name} under {subject}: {answer}")
        if len(self._ids) >= SCHEMAS_KEPT_MAX:
            self._ids.clear()
        self._ids[subject, text] = answer
        self._keep(answer, published)
        return int(answer)

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """The schema of that id. Raises UnknownSchemaId where the registry does not know it."""
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        if schema_id < 1 or self._unknown_until.get(schema_id, -1.0) > self._clock():
            raise UnknownSchemaId(schema_id)
        status, answer = self._ask(lambda: self._client.get_schema(schema_id))
        if status:
            if len(self._unknown_until) >= UNKNOWN_IDS_MAX:
                self._unknown_until.clear()
            self._unknown_until[schema_id] = self._clock() + self._unknown_ttl_s
            raise UnknownSchemaId(schema_id)
        try:
            published: Mapping[str, Any] = json.loads(answer.schema_str)
        except (TypeError, ValueError) as error:
            raise UnknownSchemaId(schema_id) from error
        self._keep(schema_id, published)
        return published

    def _keep(self, schema_id: int, published: Mapping[str, Any]) -> None:
        if len(self._schemas) >= SCHEMAS_KEPT_MAX:
            self._schemas.clear()  # what is still in use is asked for again
        self._schemas[schema_id] = published

    def _ask(self, call: Callable[[], Any]) -> tuple[int, Any]:
        """(0, answer), or (the status of the registry's verdict, its message)."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return 0, call()
        except SchemaRegistryError as error:
            # A bare 404 may come from a proxy or a wrong path; the registry's own has its code.
            if error.error_code in VERDICTS:
                return error.http_status_code, error.error_message
            raise RegistryUnavailable(
                f"{self.url} answered {error.http_status_code}: {error.error_message}"
            ) from error
        except Exception as error:  # the HTTP library's own: refused, timeout, TLS, DNS
            raise RegistryUnavailable(f"{self.url}: {type(error).__name__}: {error}") from error
