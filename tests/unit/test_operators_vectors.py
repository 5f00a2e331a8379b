"""Every published case of the control law, every intermediate value, on both kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import Chunk
from routekeel.operators.state import RouterState
from routekeel.operators.step import Kernel, step

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "control-law.json").read_text()
)
NAMES = {"flip": "winner_flip_controlled"}


def agrees(got: Any, expected: Any) -> bool:
    """Exact on NULLs, flags and integers, else 1e-5 relative or 1e-6 absolute."""
    if expected is None:
        return bool(np.isnan(got))
    if isinstance(expected, bool | int):
        return bool(got == expected)
    wanted = np.asarray(expected)
    return bool(np.all(np.abs(got - wanted) <= np.maximum(1e-6, 1e-5 * np.abs(wanted))))


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_published_case(case: dict[str, Any], kernel: Kernel) -> None:
    z = np.array(case["router_logits"], dtype=np.float32)[:, None, :]
    supplied = np.full((z.shape[0], 3), np.nan, dtype=np.float32)
    supplied[:, 0] = [np.nan if a is None else a for a in case["ambiguity"]]
    config = RouterConfig.from_dict(case["config"])
    state = RouterState.initial(1, z.shape[-1])
    _, output = step(config, state, Chunk(z, supplied), kernel=kernel)
    wrong = []
    for t, expected in enumerate(case["expected"]):
        for name, value in expected.items():
            column = NAMES.get(name, name)
            got = output.row_w_hat[t] if name == "w_hat" else output.row_column(column)[t]
            if not agrees(got, value):
                wrong.append((t, name, got, value))
    assert not wrong


def test_the_cases_cover_every_branch() -> None:
    seen = [expected for case in CASES for expected in case["expected"]]
    assert any(row["spike"] for row in seen)
    assert any(row["held"] for row in seen)
    assert any(row["pi_error"] < 0 for row in seen)
    assert {case["config"]["pi_mode"] for case in CASES} == {"ceiling", "regulate"}
