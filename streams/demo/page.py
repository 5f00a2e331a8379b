"""Writes demo.html: one self-contained page with every session's routes over its tokens.

The data are the per-token rows that ClickHouse holds; page.html draws them. Nothing is loaded from
anywhere, so the file can be kept or sent.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

TOKENS = """
SELECT session_id, layer, position, phase, token_id, a_star, beta, lam, route_entropy, g_base, g_controlled,
       flip_base, flip_controlled, w_base, w_hat
FROM `{database}`.telemetry_tokens
WHERE startsWith(session_id, {{prefix:String}}) AND applied = 1
ORDER BY session_id, layer, position
"""
CURVES = ("route_entropy", "g_base", "g_controlled", "beta", "lam")

DecodeToken = Callable[[int], str]


def page_data(
    client: Any,
    database: str,
    prefix: str,
    decode: DecodeToken,
    kinds: Mapping[str, str],
    top_k: int,
) -> list[dict[str, Any]]:
    """One entry per session: tokens with their text, and per layer the curves and both heat maps.

    The load counts each token's `top_k` experts, as many as the model activates.
    """
    frame = client.query_df(TOKENS.format(database=database), parameters={"prefix": prefix})
    sessions: list[dict[str, Any]] = []
    for session, rows in frame.groupby("session_id", sort=True):
        layers = []
        for layer, part in rows.groupby("layer", sort=True):
            base, hat = np.stack(part["w_base"].to_list()), np.stack(part["w_hat"].to_list())
            layers.append(
                {
                    "layer": int(layer),
                    "experts": int(base.shape[1]),
                    "base": _bytes(base),
                    "controlled": _bytes(hat),
                    "flip_base": part["flip_base"].astype(int).tolist(),
                    "flip_controlled": part["flip_controlled"].astype(int).tolist(),
                    "load": _load(base, top_k),
                    "load_controlled": _load(hat, top_k),
                    **{name: [_number(v) for v in part[name]] for name in CURVES},
                }
            )
        first = rows[rows["layer"] == rows["layer"].min()]
        name = str(session).removeprefix(prefix)
        sessions.append(
            {
                "session": name,
                "kind": kinds.get(name, ""),
                "tokens": [decode(int(token)) for token in first["token_id"]],
                "phase": [str(phase) for phase in first["phase"]],
                "a_star": [_number(v) for v in first["a_star"]],
                "layers": layers,
            }
        )
    return sessions


def write_page(
    path: Path, sessions: list[dict[str, Any]], report: dict[str, Any], top_k: int
) -> None:
    """Write the page."""
    template = (
        resources.files("routekeel.streams.demo").joinpath("page.html").read_text(encoding="utf-8")
    )
    data = json.dumps(
        {"sessions": sessions, "report": report, "top_k": top_k},
        ensure_ascii=False,
        allow_nan=False,
    )
    # "</" would end the script element that the data stands in.
    path.write_text(template.replace("/*DATA*/null", data.replace("</", "<\\/")), encoding="utf-8")


def _bytes(weights: Any) -> str:
    return base64.b64encode(
        np.round(np.clip(weights, 0, 1) * 255).astype(np.uint8).tobytes()
    ).decode()


def _load(weights: Any, top_k: int) -> list[int]:
    chosen = np.argsort(-weights, axis=1, kind="stable")[:, :top_k]
    return [int(count) for count in np.bincount(chosen.reshape(-1), minlength=weights.shape[1])]


def _number(value: Any) -> float | None:
    return None if value is None or value != value else round(float(value), 4)
