"""What the benchmark's fairness rests on: one event at a time gives what a batch gives, to the byte."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from routekeel.operators.config import DEFAULT
from routekeel.operators.contract import ChunkBatch
from routekeel.operators.state import initial_rows
from routekeel.operators.step import compiled_kernel_exists, step_many
from routekeel.schemas.logits import pack, unpack
from routekeel.streams.settings import Settings
from routekeel.streams.topology.cadence import NOTHING, ROUTE_AND_STATE
from routekeel.streams.topology.from_settings import topology_config
from tests.bench import cadence, cpu, samples
from tests.bench.cadence import Every
from tests.bench.load import Conversations, Shape, weights_expected
from tests.bench.records import dense

ARRAYS = ("layer", "load_base", "load_controlled", "route", "state", "chunk", "ambiguity_mask")


@pytest.mark.parametrize("shape", [Shape(8, 4, 8), Shape(1, 3, 13), Shape(2, 1, 128)])
def test_one_event_at_a_time_gives_what_a_batch_gives(shape: Shape) -> None:
    if not compiled_kernel_exists():
        pytest.skip("no compiler for the kernel here")
    from tests.bench.one_event import OneEvent

    rng = np.random.default_rng(7)
    kernel = OneEvent(shape.tokens, shape.layers, shape.experts, top_k=2)
    state, expected = (initial_rows(shape.layers, shape.experts) for _ in range(2))
    for _ in range(20):
        rows = shape.tokens * shape.layers
        logits = rng.normal(scale=2, size=(rows, shape.experts)).astype(np.float32)
        ambiguity = np.full((shape.tokens, 3), np.nan, np.float32)
        ambiguity[:, 0] = rng.uniform(size=shape.tokens)
        batch = ChunkBatch.build(
            logits,
            [shape.tokens],
            [shape.layers],
            np.arange(shape.layers),
            ambiguity=ambiguity,
        )
        expected, output = step_many(DEFAULT, expected, batch)
        kernel.step(logits, ambiguity, state)
        assert state.tobytes() == expected.tobytes()
        for name in ARRAYS:
            ours, theirs = getattr(kernel.output, name), getattr(output, name)
            assert ours.tobytes() == theirs.tobytes(), name


def test_top_m_logits_are_spread_as_the_schema_says() -> None:
    logits = np.random.default_rng(1).normal(scale=2, size=(1, 48, 128))
    data = pack(logits, "TOPM_F16", 16)
    assert dense(data, 128, 16).tobytes() == unpack(data, 1, 48, 128, "TOPM_F16", 16).tobytes()


def test_weights_follow_the_setting_and_are_counted_alike() -> None:
    shape, events, sessions = Shape(3, 1, 2), 50, 7
    due = 0
    for session, sequence in Conversations(sessions).turns(events):
        tokens = range(3 * sequence + 1, 3 * sequence + 4)
        due += sequence == 0 or any(token % 8 == 0 for token in tokens)
        assert session < sessions
    assert weights_expected(shape, events, sessions, Every(8, 64)) == due
    assert weights_expected(shape, events, sessions, Every(1, 64)) == events
    assert Every.of(Settings()) == Every(8, 64)


def test_the_peers_put_the_state_where_the_app_puts_it() -> None:
    settings = Settings()
    every = Every.of(settings)
    rule = topology_config(settings).cadence
    for start in range(200):
        for steps in (1, 3, 8, 100):
            for first in (False, True):
                decided = rule.decide(start, steps, first, np.float32(0))
                due = (decided != NOTHING, decided == ROUTE_AND_STATE)
                assert every.due(start, steps, first) == due


def test_conversations_count_every_session_whatever_the_order() -> None:
    talk = Conversations(3)
    spoken = list(talk.turns(4)) + list(talk.at_random(50, np.random.default_rng(0)))
    for session in range(3):
        sequences = [sequence for who, sequence in spoken if who == session]
        assert sequences == list(range(len(sequences)))


def test_stacks_are_sorted_into_rows() -> None:
    inside = ["_run (streams/app/run.py:90)", "_on_batch (streams/app/worker.py:1)"]
    apply = "apply (streams/topology/partition.py:1)"
    assert cpu.classify([*inside, apply, "_run_compiled (operators/step.py:1)"]) == "kernel"
    assert cpu.classify([*inside, "send (streams/app/sender.py:2)"]) == "produce"
    assert cpu.classify([*inside, "getrecord (aiokafka/consumer/fetcher.py:1)"]) == (
        "fetch and parse"
    )
    assert cpu.classify([*inside, "exercise_controller (streams/app/web.py:1)"]) is None
    assert cpu.classify(["<module> (somewhere.py:1)"]) is None
    for module in (cpu, cadence):
        assert doctest.testmod(module).failed == 0


def test_the_state_is_compared_by_its_matrix_and_by_whether_it_is_there() -> None:
    matrix = initial_rows(2, 4).tobytes()
    fields = {"layers": [0, 1], "experts": 4}

    def found(state: bytes) -> bytes:
        return samples.compared({**fields, "state": state}, "state")

    # This app's snapshot has a head before the matrix, the peers' has none.
    assert found(b"requests and producers" + matrix) == found(matrix) != found(b"")
    assert found(matrix[:-1] + b"\x01") != found(matrix)
    with pytest.raises(SystemExit, match=r"2 records compared .* 1 differ"):
        samples.compare("quix", {("w", 0, 0): 1, ("w", 0, 1): 2}, {("w", 0, 0): 1, ("w", 0, 1): 3})
