"""Columns of a decoded RouterLogits record and offsets of a session's head, as constants.

Numba bakes module-level integers into compiled code, so every name here costs nothing at run time.
"""

from __future__ import annotations

from typing import Final

from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.records.router_logits import ENCODING
from routekeel.streams.topology import session
from routekeel.streams.wire.program import index_of

_C = index_of(ROUTER_LOGITS)
FIELDS: Final = len(_C)
SESSION_ID: Final = _C["session_id"]
REQUEST_ID: Final = _C["request_id"]
MODEL: Final = _C["model"]
MODEL_REVISION: Final = _C["model_revision"]
WORKER_ID: Final = _C["worker_id"]
PRODUCER_EPOCH: Final = _C["producer_epoch"]
SEQUENCE: Final = _C["sequence"]
EVENT_TIME: Final = _C["event_time_us"]
POSITION_START: Final = _C["position_start"]
STEPS: Final = _C["steps"]
LAYERS: Final = _C["layers"]
EXPERTS: Final = _C["experts"]
TOP_K: Final = _C["top_k"]
ROUTER_KIND: Final = _C["router_kind"]
ENCODED: Final = _C["encoding"]
TOP_M: Final = _C["top_m"]
LOGITS: Final = _C["logits"]
TOKEN_IDS: Final = _C["token_ids"]
TOKEN_ENTROPY: Final = _C["token_entropy"]
VOCABULARY: Final = _C["vocabulary_size"]
PREDICTIVE: Final = _C["ambiguity_predictive"]
SPECIFICATION: Final = _C["ambiguity_specification"]
PROBE: Final = _C["probe"]
FLIP_DISTANCE: Final = _C["flip_distance"]
LATENCY: Final = _C["latency_us"]
SUCCESS: Final = _C["success"]
JUDGE_SCORE: Final = _C["judge_score"]
DROPPED_BEFORE: Final = _C["dropped_before"]
assert _C["ambiguity_paraphrase"] == PREDICTIVE + 1
assert SPECIFICATION == PREDICTIVE + 2

F32_DENSE: Final = ENCODING.symbols.index("F32")
F16_DENSE: Final = ENCODING.symbols.index("F16")
F16_TOP_M: Final = ENCODING.symbols.index("TOPM_F16")

HEAD_VERSION: Final = session.VERSION
AT_EPOCH: Final = session.HEAD_AT["log_epoch"]
AT_OFFSET: Final = session.HEAD_AT["last_offset"]
AT_TOUCHED: Final = session.HEAD_AT["touched_us"]
AT_DRIFT: Final = session.HEAD_AT["drift"]
AT_EXPERTS: Final = session.HEAD_AT["experts"]
AT_LAYERS: Final = session.HEAD_AT["layers"]
AT_PRODUCERS: Final = session.HEAD_AT["producers"]
AT_REQUESTS: Final = session.HEAD_AT["requests"]
AT_MODEL: Final = session.HEAD_AT["model"]
AT_REVISION: Final = session.HEAD_AT["model_revision"]
HEAD_SIZE: Final = session.HEAD_SIZE
PRODUCER_SIZE: Final = session.PRODUCER_SIZE
REQUEST_SIZE: Final = session.REQUEST_SIZE
SEQUENCE_WINDOW: Final = session.SEQUENCE_WINDOW
