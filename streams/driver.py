"""The topology in memory: a log of real bytes, batches of any size, crashes at any point.

For tests, simulation and replay: the same code as in the worker, without Kafka, Faust or a clock. A
crash keeps what was durable (outputs sent, a prefix of the checkpoint's records) and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from routekeel.schemas.codec import Decoder, Encoder
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds, SchemaRegistry
from routekeel.streams.topology.changelog import ChangelogRecord, MemoryStore, StateStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.decoding import decode_or_refuse
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.record_block import Output
from routekeel.streams.topology.records import DeadLetter, Source, SourceRecord
from routekeel.streams.wire.path import compiled_path

SOURCE = Source("routekeel.logits", "log-1", 0)


@dataclass
class TopologyDriver:
    """One partition's topology. `log` is the input, `sent` and `changelog` what was written.

    With the source and the registry of a real run, the bytes are those the worker must have written.
    It goes the plain way, so that it can be the oracle of the compiled one, which `compiled` asks for.
    """

    config: TopologyConfig = field(default_factory=lambda: TopologyConfig(kernel="numpy"))
    source: Source = SOURCE
    log: list[SourceRecord] = field(default_factory=list)
    sent: list[Output] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    changelog: list[ChangelogRecord] = field(default_factory=list)
    ids: SchemaRegistry = field(default_factory=FixedSchemaIds)
    compiled: bool = False

    def __post_init__(self) -> None:
        self._logits = Encoder(ROUTER_LOGITS, self.ids.register(ROUTER_LOGITS, "logits-value"))
        self._telemetry = Encoder(TELEMETRY, self.ids.register(TELEMETRY, "telemetry-value"))
        self._weights = Encoder(WEIGHTS, self.ids.register(WEIGHTS, "weights-value"))
        self._decoder = Decoder(ROUTER_LOGITS, self.ids)
        self.telemetry_decoder = Decoder(TELEMETRY, self.ids)
        self.weights_decoder = Decoder(WEIGHTS, self.ids)
        self.processor = self._start(MemoryStore())

    def _start(self, store: StateStore) -> PartitionProcessor:
        reader = ChangelogReader(store)
        for offset, record in enumerate(self.changelog):
            reader.feed(offset, record.key, record.value, record.headers)
        return self.processor_on(store)

    def processor_on(self, store: StateStore) -> PartitionProcessor:
        """A worker's processor that goes on from this store."""
        builder = OutputBuilder(self.config, self._telemetry.encode, self._weights.encode)
        compiled = compiled_path(
            self.source, self.config, self._telemetry, self._weights, self._logits.schema_id
        )
        return PartitionProcessor(
            self.source,
            self.config,
            self._decode,
            builder,
            store,
            compiled if self.compiled else None,
        )

    def _decode(self, value: bytes) -> Mapping[str, Any]:
        return decode_or_refuse(self._decoder, value)

    def append(self, fields: Mapping[str, Any], timestamp_ms: int | None = None) -> int:
        """Append a RouterLogits record to the log; returns its offset."""
        at = int(fields["event_time_us"]) // 1000 if timestamp_ms is None else timestamp_ms
        return self.append_raw(fields["session_id"].encode(), self._logits.encode(fields), at)

    def append_raw(self, key: bytes | None, value: bytes | None, timestamp_ms: int = 0) -> int:
        """Append any bytes to the log; returns the offset."""
        offset = len(self.log)
        self.log.append(SourceRecord(offset, timestamp_ms, key, value, ()))
        return offset

    def run(self, batch_sizes: Sequence[int] = (), *, checkpoint: bool = True) -> None:
        """Apply everything not applied yet, in batches of these sizes (the rest as one), then checkpoint."""
        sizes = list(batch_sizes)
        while (start := self.processor.watermark.applied_offset + 1) < len(self.log):
            size = sizes.pop(0) if sizes else len(self.log) - start
            self.apply(self.log[start : start + max(1, size)])
        if checkpoint:
            self.checkpoint()

    def apply(self, records: Sequence[SourceRecord]) -> None:
        """Apply one batch and send its outputs."""
        result = self.processor.apply(records)
        self.sent += result.outputs
        self.dead_letters += result.dead_letters

    def checkpoint(self) -> None:
        """Write the changes to the changelog and make them the committed state."""
        if self.processor.is_dirty:
            self.changelog += self.processor.checkpoint()
            self.processor.checkpointed(len(self.changelog) - 1)

    def crash(self, *, torn_records: int = 0) -> None:
        """Lose everything in memory, after the first `torn_records` records of an unfinished checkpoint."""
        if torn_records:
            self.changelog += self.processor.checkpoint()[:-1][:torn_records]
        self.processor = self._start(MemoryStore())

    def telemetry(self) -> list[dict[str, Any]]:
        """Decoded Telemetry records, repeats dropped by id as a consumer does."""
        return [self.telemetry_decoder.decode(s.telemetry) for s in self._distinct()]

    def weights(self) -> list[dict[str, Any]]:
        """Decoded Weights records, repeats dropped."""
        return [self.weights_decoder.decode(s.weights) for s in self._distinct() if s.weights]

    def distinct_bytes(self) -> list[tuple[int, bytes, bytes | None]]:
        """(offset, telemetry bytes, weights bytes) without repeats."""
        return [(s.offset, s.telemetry, s.weights) for s in self._distinct()]

    def states(self) -> dict[bytes, bytes]:
        """Every session's committed state."""
        store = MemoryStore()
        reader = ChangelogReader(store)
        for offset, record in enumerate(self.changelog):
            reader.feed(offset, record.key, record.value, record.headers)
        return dict(store.items())

    def _distinct(self) -> list[Output]:
        highest, kept = -1, []
        for sent in self.sent:
            if sent.offset > highest:
                highest = sent.offset
                kept.append(sent)
        return kept
