"""The outer edge of operators: configuration, batches, state, purity, and who may import what."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routekeel.operators.catalog import AGGREGATES, COUNTERS, METRICS
from routekeel.operators.columns import CHUNK_COLUMNS, LAYER_COLUMNS, MEAN_COLUMNS, ROW_COLUMNS
from routekeel.operators.config import DEFAULT, PACKED, PRESETS, STRICT, ConfigError, RouterConfig
from routekeel.operators.contract import BatchError, Chunk, ChunkBatch
from routekeel.operators.state import RouterState, initial_rows, state_width
from routekeel.operators.step import compiled_kernel_exists, step, step_many

OPERATORS = Path(__file__).parents[2] / "operators"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"spike_distance": 1.5}, "spike_distance"),
        ({"beta_min": 0.0}, "beta_min"),
        ({"beta_min": 2.0}, "beta_max"),
        ({"lambda_max": 1.1}, "lambda_max"),
        ({"lambda_min": -0.1}, "lambda_min"),
        ({"activation": float("nan")}, "activation"),
        ({"g_target": 0.9}, "g_target"),
        ({"k_i": -1.0}, "k_i"),
        ({"pi_mode": "both"}, "pi_mode"),
        ({"schedule_knee": 0.0}, "schedule_knee"),
        ({"spike_count": 2.5}, "spike_count"),
        ({"hold_ticks": 0}, "hold_ticks"),
        ({"alpha_routing": -1.0}, "alpha_routing"),
        ({"k_p": "much"}, "k_p"),
    ],
)
def test_a_bad_parameter_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RouterConfig(**changes)


def test_presets_and_round_trip() -> None:
    assert PRESETS == {"default": DEFAULT, "strict": STRICT}
    assert STRICT.schedule_knee == 0.7
    assert RouterConfig.from_dict(STRICT.to_dict()) == STRICT
    assert set(DEFAULT.to_dict()) == set(PACKED)
    with pytest.raises(ConfigError, match="no_such"):
        RouterConfig.from_dict({"no_such": 1})


@pytest.mark.parametrize(
    "arguments",
    [
        {"logits": np.zeros((5, 4))},
        {"slots": [0]},
        {"ambiguity": np.zeros((2, 3))},
        {"apply": np.ones(5)},
        {"top_k": 0},
        {"top_k": [1, 2]},
        {"chunk_layers": [1, 1]},
        {"chunk_tokens": [-1]},
    ],
)
def test_a_batch_that_does_not_fit_is_refused(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "logits": np.zeros((6, 4)),
        "chunk_tokens": [3],
        "chunk_layers": [2],
        "slots": [0, 1],
    }
    ChunkBatch.build(**good)
    with pytest.raises(BatchError):
        ChunkBatch.build(**(good | arguments))


def test_arrays_over_received_bytes_are_taken_as_they_are() -> None:
    received = b"\0" + np.arange(24, dtype=np.float32).tobytes()
    logits = np.frombuffer(received, dtype=np.float32, offset=1).reshape(6, 4)
    batch = ChunkBatch.build(logits, [3], [2], [0, 1], ambiguity=np.full((3, 3), 0.5))
    arena, _ = step_many(DEFAULT, initial_rows(2, 4), batch, kernel="numba")
    plain, _ = step_many(DEFAULT, initial_rows(2, 4), batch, kernel="numpy")
    assert arena.tobytes() == plain.tobytes()


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
def test_inputs_are_never_changed_unless_out_is_the_arena(kernel: Any) -> None:
    arena = initial_rows(3, 4)
    batch = ChunkBatch.build(np.eye(4)[:2], [2], [1], [1], ambiguity=np.full((2, 3), 0.8))
    after, output = step_many(DEFAULT, arena, batch, kernel=kernel)
    assert not arena.any()
    assert not after[[0, 2]].any()
    assert output.state.tobytes() == after[1:2].tobytes()
    same, _ = step_many(DEFAULT, arena, batch, kernel=kernel, out=arena)
    assert same is arena
    assert arena.tobytes() == after.tobytes()


def test_without_numba_the_numpy_kernel_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ChunkBatch.build(np.eye(4)[:2], [2], [1], [0], ambiguity=np.full((2, 3), 0.8))
    compiled, _ = step_many(DEFAULT, initial_rows(1, 4), batch, kernel="auto")
    compiled_kernel_exists.cache_clear()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "routekeel.operators.kernels", None)
        without.delattr("routekeel.operators.kernels", raising=False)
        assert not compiled_kernel_exists()
        plain, _ = step_many(DEFAULT, initial_rows(1, 4), batch, kernel="auto")
    compiled_kernel_exists.cache_clear()
    assert plain.tobytes() == compiled.tobytes()


@pytest.mark.parametrize("slots", [[-1], [2]])
def test_slots_outside_the_arena_are_refused(slots: list[int]) -> None:
    batch = ChunkBatch.build(np.zeros((1, 4)), [1], [1], slots)
    with pytest.raises(BatchError, match="slots"):
        step_many(DEFAULT, initial_rows(2, 4), batch)
    with pytest.raises(BatchError, match="arena"):
        step_many(DEFAULT, initial_rows(2, 5), batch)


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
def test_two_chunks_of_one_session_in_a_batch_follow_each_other(kernel: Any) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(12, 5)).astype(np.float32)
    supplied = rng.random((6, 3)).astype(np.float32)
    both = ChunkBatch.build(z, [4, 2], [2, 2], [0, 1, 0, 1], ambiguity=supplied)
    together, output = step_many(DEFAULT, initial_rows(2, 5), both, kernel=kernel)
    state = RouterState.initial(2, 5)
    for place, (start, end) in enumerate(((0, 4), (4, 6))):
        part = z.reshape(6, 2, 5)[start:end]
        state, _ = step(DEFAULT, state, Chunk(part, supplied[start:end]), kernel=kernel)
        assert output.state[2 * place : 2 * place + 2].tobytes() == state.packed.tobytes()
    assert together.tobytes() == state.packed.tobytes()


def test_state_refuses_foreign_bytes_and_is_read_only() -> None:
    state = RouterState.initial(2, 4)
    assert state.packed.shape == (2, state_width(4))
    with pytest.raises(ValueError, match="read-only"):
        state.w_hat[0, 0] = 1
    for data in (b"", b"RKS1", b"nope" + state.to_bytes()[4:], state.to_bytes()[:-4]):
        with pytest.raises(ValueError, match="router state"):
            RouterState.from_bytes(data)


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
def test_aggregates_are_those_of_the_rows(kernel: Any) -> None:
    rng = np.random.default_rng(11)
    z = rng.normal(size=(9, 2, 6)).astype(np.float32)
    supplied = rng.random((9, 3)).astype(np.float32)
    _, output = step(DEFAULT, RouterState.initial(2, 6), Chunk(z, supplied, top_k=2), kernel=kernel)
    rows = output.rows.reshape(9, 2, -1)
    values = rows[..., : len(MEAN_COLUMNS)].astype(np.float64)
    hidden = np.isnan(values).all(axis=0)
    counts = np.maximum(1, (~np.isnan(values)).sum(axis=0))
    mean = np.where(hidden, np.nan, np.nansum(values, axis=0) / counts)
    np.testing.assert_allclose(output.layer[:, : len(MEAN_COLUMNS)], mean, rtol=1e-5, atol=1e-6)
    assert {MEAN_COLUMNS[place] for place in np.flatnonzero(hidden[0])} == {
        "g_hidden_base",
        "g_hidden_controlled",
        "flip_distance",
    }
    order = np.argsort(-z, axis=-1)[..., :2]
    for layer in range(2):
        counts = np.bincount(order[:, layer].ravel(), minlength=6)
        assert output.load_base[layer].tolist() == counts.tolist()
        assert output.layer_column("load_max_over_mean_base")[layer] == pytest.approx(
            counts.max() / counts.mean()
        )
    assert output.layer_column("margin_min")[0] == rows[:, 0, ROW_COLUMNS.index("margin")].min()
    assert output.layer_column("beta_last")[1] == rows[8, 1, ROW_COLUMNS.index("beta")]


def test_every_column_is_in_the_catalogue() -> None:
    for name in {*ROW_COLUMNS, *LAYER_COLUMNS, *CHUNK_COLUMNS}:
        assert name in METRICS or name in AGGREGATES or name in COUNTERS, name
    assert set(AGGREGATES.values()) <= set(METRICS)
    for metric in METRICS.values():
        assert (OPERATORS.parent / metric.file).is_file(), metric


def test_operators_import_nothing_impure() -> None:
    allowed = {"numpy", "numba", "llvmlite", "scipy", "routekeel", "__future__"}
    allowed |= {"math", "dataclasses", "typing", "hashlib", "functools", "collections"}
    allowed |= {"struct", "types", "operator"}
    for file in OPERATORS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, (file.name, name)
                assert not name.startswith("routekeel.") or name.startswith("routekeel.operators")
