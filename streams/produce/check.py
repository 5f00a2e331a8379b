"""Checks a chunk as the producer would, so that a bad line of a file is told by line and field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routekeel.schemas.limits import SEQUENCE_MAX
from routekeel.streams.produce.chunk import Chunk
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.sdk.identity import check_session, chunk_moment, request_head
from routekeel.streams.sdk.intake import pack_logits
from routekeel.streams.sdk.layout import Layouts, Ranks
from routekeel.streams.sdk.optional import (
    OptionalFields,
    check_integer,
    optional_tail,
)
from routekeel.streams.sdk.refusal import Refused

_OPTIONAL = frozenset(OptionalFields.__annotations__)


class ChunkCheck:
    """The checks of a producer with these defaults (model, backend, top_k, …)."""

    def __init__(self, config: SdkConfig, defaults: Mapping[str, Any]) -> None:
        self._config = config
        self._defaults = defaults
        self._layouts = Layouts(config.encoding, config.top_m, Ranks())

    def check(self, chunk: Chunk) -> tuple[str, Refused] | None:
        """(field, refusal) of the first thing that is wrong, None where nothing is."""
        fields = {**self._defaults, **chunk.fields}
        at = "session_id"
        try:
            check_session(chunk.session_id)
            at = "logits"
            shape, data = pack_logits(chunk.logits, self._config.encoding, self._config.top_m)
            at = "layers" if fields.get("layers") is not None else "logits"
            layers, kind = fields.get("layers"), fields.get("router_kind", "softmax")
            self._layouts.get(shape, layers, fields.get("top_k"), kind, len(data))
            at = "position_start"
            chunk_moment(
                fields.get("event_time_us", 1_000_000_000_000_000),
                fields.get("phase", "decode"),
                fields["position_start"],
            )
            at = "request_id"
            request_head(
                0,
                chunk.session_id,
                fields.get("request_id", ""),
                fields.get("model", ""),
                fields.get("model_revision", ""),
                fields.get("backend", ""),
                "",
                fields.get("producer_epoch", 0),
            )
            at = "sequence"
            check_integer("sequence", fields.get("sequence", 0), 0, SEQUENCE_MAX)
            for name in _OPTIONAL & fields.keys():
                at = name
                optional_tail(shape, {name: fields[name]})
        except Refused as refused:
            named = refused.message.split(" ", 1)[0]
            return (named if named in fields else at), refused
        return None
