"""What the demo stores and draws is what was measured: no invented outcome, the model's own top-k."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from routekeel.backends.base import GenerateRequest, ModelFacts, RouterChunk
from routekeel.backends.tinymoe.prompts import PROMPTS
from routekeel.streams.demo.page import page_data
from routekeel.streams.demo.publish import publish_prompts, session_name

FACTS = ModelFacts("fake", "model", "r", "softmax", (0, 1), 4, 3, 16)


class Engine:
    """Two chunks per prompt, one of the prompt and one generated."""

    facts = FACTS

    def generate(self, request: GenerateRequest) -> Iterator[RouterChunk]:
        for start, phase in ((0, "prefill"), (1, "decode")):
            yield RouterChunk(
                request.session_id, request.request_id, start, (0, 1),
                np.zeros((1, 2, 4), np.float32), np.zeros(1, np.int32), None, 5, phase,  # type: ignore[arg-type]
            )  # fmt: skip


class Recorder:
    """A producer that keeps what it is told and refuses every tenth chunk."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def emit_logits(self, session_id: str, logits: Any, **fields: Any) -> bool:
        self.told.append({"session_id": session_id, **fields})
        return len(self.told) % 10 != 0


def test_no_outcome_is_claimed_that_nobody_observed() -> None:
    engine: Any = Engine()
    producer: Any = Recorder()
    done = publish_prompts(engine, producer, "run", lambda prompt, chunk: None)
    assert (done.chunks, done.refused) == (2 * len(PROMPTS), 2 * len(PROMPTS) // 10)
    assert {told["session_id"] for told in producer.told} == {
        session_name("run", prompt) for prompt in PROMPTS
    }
    assert not any({"success", "judge_score"} & told.keys() for told in producer.told)


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_the_page_counts_as_many_experts_as_the_model_activates(top_k: int) -> None:
    base = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]
    row = {
        "session_id": "demo-a", "layer": 0, "phase": "decode", "token_id": 1, "a_star": 0.5,
        "beta": 1.0, "lam": 1.0, "route_entropy": 1.0, "g_base": 0.1, "g_controlled": 0.1,
        "flip_base": 0, "flip_controlled": 0,
    }  # fmt: skip
    frame = pd.DataFrame(
        [
            row | {"position": at, "w_base": np.array(w, np.float32), "w_hat": np.array(base[0])}
            for at, w in enumerate(base)
        ]
    )
    client = SimpleNamespace(query_df=lambda *_, **__: frame)
    (session,) = page_data(client, "db", "demo-", str, {"a": "clear"}, top_k)
    (layer,) = session["layers"]
    expected = {1: [1, 0, 0, 1], 2: [1, 1, 1, 1], 3: [1, 2, 2, 1], 4: [2, 2, 2, 2]}[top_k]
    assert layer["load"] == expected
    assert layer["load_controlled"] == [2] * top_k + [0] * (4 - top_k)
