"""The compiled way through a batch has the plain one's bytes, whatever the log holds."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.codec import Decoder, Encoder
from routekeel.schemas.compiled import encode_field
from routekeel.schemas.errors import SchemaError
from routekeel.schemas.logits import pack
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.cadence import Cadence
from routekeel.streams.topology.config import RouterGram, TopologyConfig
from routekeel.streams.wire.decode import NULL, decode
from routekeel.streams.wire.program import index_of, program_of
from tests.stream.chunks import START_US, chunk_fields

CADENCES = {
    "default": Cadence(),
    "each chunk": Cadence(every_tokens=1, state_every_tokens=1),
    "on change": Cadence(every_tokens=0, state_every_tokens=0, change=0.3, precision="F16"),
    "all of them": Cadence(every_tokens=5, state_every_tokens=11, change=0.8),
}


class Traffic:
    """Sessions that go on in most chunks, and do everything else in some."""

    def __init__(self, seed: int, odd: float, sessions: int) -> None:
        self.rng, self.odd, self.sessions = random.Random(seed), odd, sessions
        self.next: dict[str, int] = {}
        self.time_us = START_US

    def chunk(self) -> dict[str, Any]:
        rng = self.rng
        session = f"session-{rng.randrange(self.sessions)}"
        shape = {"layers": [0, 1, 5], "experts": 9} if session.endswith("1") else {"layers": [2, 3]}
        steps, start = rng.randint(1, 9), self.next.get(session, 0)
        self.time_us += rng.randint(0, 2_000_000)
        changes: dict[str, Any] = {**shape, "event_time_us": self.time_us, "sequence": start}
        if rng.random() < self.odd:
            start = self._oddity(changes, start)
        fields = chunk_fields(session, start, steps, **changes)
        self._content(fields)
        self.next[session] = max(self.next.get(session, 0), start + steps)
        return fields

    def _oddity(self, changes: dict[str, Any], start: int) -> int:
        rng = self.rng
        kind = rng.randrange(7)
        if kind == 0:
            start = rng.randint(0, start)
            changes["sequence"] = start
        elif kind == 1:
            start += rng.randint(1, 100)
            changes["sequence"] = start
        elif kind == 2:
            changes["request_id"] = f"request-{rng.randint(2, 12)}"
        elif kind == 3:
            changes["model"] = rng.choice(["model-a", "model-b", "modèle"])
        elif kind == 4:
            changes["layers"] = [rng.choice([0, 2, 7])]
        elif kind == 5:
            changes["worker_id"] = f"worker-{rng.randint(1, 3)}"
        else:
            changes["event_time_us"] += rng.choice([-(10**9), 10**13])
        return start

    def _content(self, fields: dict[str, Any]) -> None:
        """Everything that a chunk may say besides."""
        rng = self.rng
        steps, layers, experts = fields["steps"], len(fields["layers"]), fields["experts"]
        values = np.random.default_rng(rng.randrange(2**32))
        encoding = rng.choice(["F16", "F16", "F32", "TOPM_F16"])
        top_m = rng.randint(1, experts) if encoding == "TOPM_F16" else 0
        logits = values.normal(scale=10 ** rng.uniform(-6, 2), size=(steps, layers, experts))
        fields |= {
            "encoding": encoding,
            "top_m": top_m,
            "logits": pack(logits, encoding, top_m),
            "router_kind": rng.choice(["softmax", "softmax", "sigmoid", "softmaxi"]),
            "success": rng.choice([None, True, False]),
            "judge_score": rng.choice([None, 0.25]),
            "latency_us": rng.choice([None, 1234]),
            "task_type": rng.choice([None, "chat"]),
            "dropped_before": rng.choice([0, 3]),
            "phase": rng.choice(["decode", "prefill"]),
            "top_k": rng.randint(1, experts),
            "vocabulary_size": rng.choice([None, 1, 256, 50_000]),
        }
        if rng.random() < 0.3:
            fields["token_entropy"] = None
        for name in ("ambiguity_predictive", "ambiguity_paraphrase", "ambiguity_specification"):
            if rng.random() < 0.2:
                shares = values.uniform(0, 1, steps).astype("<f4")
                shares[values.uniform(size=steps) < 0.1] = np.nan
                fields[name] = shares.tobytes()


def damaged(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(len(value))
    return rng.choice(
        [
            value[:at],
            value + b"\0",
            value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :],
            b"\0\0\0\3\xe7" + value[5:],
            rng.randbytes(40),
        ]
    )


def both_ways(config: TopologyConfig, seed: int, odd: float, poison: float) -> tuple[int, int]:
    """Run a log plainly in one batch, and compiled in batches of any size; (dead letters, outputs)."""
    rng, traffic = random.Random(seed), Traffic(seed, odd, 12)
    plain, fast = TopologyDriver(config), TopologyDriver(config, compiled=True)
    for _ in range(150):
        fields = traffic.chunk()
        plain.append(fields)
        if rng.random() < poison:
            record = plain.log[-1]
            plain.log[-1] = record._replace(value=damaged(rng, record.value or b""))
    fast.log = plain.log
    plain.run()
    fast.run([rng.randint(1, 40) for _ in range(30)])
    assert fast.sent == plain.sent
    assert fast.dead_letters == plain.dead_letters
    assert fast.states() == plain.states()
    return len(plain.dead_letters), len(plain.sent)


@pytest.mark.parametrize("cadence", CADENCES.values(), ids=CADENCES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
def test_the_compiled_way_has_the_plain_ones_bytes(cadence: Cadence, seed: int) -> None:
    config = TopologyConfig(cadence=cadence, requests_max=3)
    both_ways(config, seed, odd=(seed % 4) / 8, poison=(seed % 3) / 30)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_evictions_come_at_the_same_records(seed: int) -> None:
    config = TopologyConfig(session_ttl_us=9_000_000, sessions_max=5)
    both_ways(config, seed, odd=0.1, poison=0.02)


def test_sampled_sessions_and_known_routers() -> None:
    rng = np.random.default_rng(5)
    matrices = rng.normal(size=(3, 9, 6)).astype(np.float32)
    gram = RouterGram(np.ascontiguousarray(matrices @ matrices.transpose(0, 2, 1)), {0: 0, 1: 2})
    config = TopologyConfig(token_rows_share=0.4, router_grams={("model-a", ""): gram})
    dead, sent = both_ways(config, 77, odd=0.2, poison=0.05)
    assert dead > 0
    assert sent > 100


def test_what_is_plain_goes_the_compiled_way() -> None:
    fast = TopologyDriver(TopologyConfig(), compiled=True)
    for start in range(0, 60, 3):
        for session in ("a", "b"):
            fast.append(chunk_fields(session, start))
    processor: Any = fast.processor
    processor._reference.run = lambda members, *_: ({}, {}) if not members else pytest.fail("odd")
    fast.run([7, 30])
    assert [t["tokens_applied"] for t in fast.telemetry()] == [3] * 40


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_decoded_is_what_fastavro_decodes(data: st.DataObject) -> None:
    ids = FixedSchemaIds()
    schema_id = ids.register(ROUTER_LOGITS, "logits")
    encoder, reference = Encoder(ROUTER_LOGITS, schema_id), Decoder(ROUTER_LOGITS, ids)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    value = encoder.encode(Traffic(rng.randrange(2**32), 0.2, 3).chunk())
    for _ in range(data.draw(st.integers(0, 3))):
        value = damaged(rng, value)
        if not value:
            return
    columns = decode([value], schema_id, program_of(ROUTER_LOGITS))
    try:
        expected = reference.decode(value)
    except SchemaError:
        assert not columns.good[0]
        return
    if columns.good[0]:
        for name, column in index_of(ROUTER_LOGITS).items():
            field, start, end = (
                ROUTER_LOGITS.fields[column],
                *columns.starts[0, column : column + 2],
            )
            number, found = int(columns.values[0, column]), columns.buffer[start:end].tobytes()
            # What is passed on is passed on as it came: it has to be what encoding it again gives.
            assert found == encode_field(field, expected[name])
            if isinstance(expected[name], int):
                assert number == expected[name]
            elif expected[name] is None:
                assert number == NULL
            elif isinstance(expected[name], bytes):
                assert found[len(found) - number :] == expected[name]
