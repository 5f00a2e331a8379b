"""From framed bytes to fields: schema ids resolved outside the hot path, errors sorted by whose fault.

An id the registry does not know is the record's fault and goes to the DLQ. A registry that does not
answer is not: the batch waits, so that nothing good is ever dead-lettered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    wait_random_exponential,
)

from routekeel.schemas.codec import HEADER_BYTES, Decoder, schema_id_of
from routekeel.schemas.errors import BadFraming, RegistryUnavailable, UnknownSchemaId
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import SchemaRegistry
from routekeel.streams.topology.decoding import decode_or_refuse
from routekeel.streams.topology.records import Refusal

log = logging.getLogger(__name__)

RESOLVED_KEPT_MAX = 4096


class LogitsDecoder:
    """Decodes RouterLogits. `resolve` must have been awaited for the values first."""

    def __init__(self, ids: SchemaRegistry) -> None:
        self._ids = ids
        self._decoder = Decoder(ROUTER_LOGITS, ids)
        self._resolved: set[int] = set()

    async def resolve(self, values: Iterable[bytes | None]) -> None:
        """Fetch the schemas of ids not known yet; waits as long as the registry is away."""
        # By the framing's five bytes first: a batch of thousands has one kind of them, or a few.
        heads = {value[:HEADER_BYTES] for value in values if value}
        ids = {schema_id for head in heads if (schema_id := _schema_id(head)) is not None}
        if len(self._resolved) + len(ids - self._resolved) > RESOLVED_KEPT_MAX:
            self._resolved.clear()  # before this batch's ids, which have to be there when it is decoded
        for schema_id in ids - self._resolved:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(RegistryUnavailable),
                wait=wait_random_exponential(multiplier=0.2, max=5.0),
                before_sleep=before_sleep_log(log, logging.WARNING),
            ):
                with attempt:
                    await asyncio.get_running_loop().run_in_executor(None, self._look_up, schema_id)

    def _look_up(self, schema_id: int) -> None:
        try:
            self._ids.writer(schema_id)
        except UnknownSchemaId:
            return  # looked up again with the next batch: it may have been registered by then
        self._resolved.add(schema_id)

    def decode(self, value: bytes) -> Mapping[str, Any]:
        """The record's fields. Raises Refusal; asks nobody."""
        schema_id = _schema_id(value)
        if schema_id is not None and schema_id not in self._resolved:
            raise Refusal("unknown_schema_id", str(UnknownSchemaId(schema_id)))
        return decode_or_refuse(self._decoder, value)


def _schema_id(value: bytes) -> int | None:
    try:
        return schema_id_of(value)
    except BadFraming:
        return None
