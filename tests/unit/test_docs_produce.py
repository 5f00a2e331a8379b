"""docs/PRODUCE.md says what the reader of chunk files does: its examples are read, its table is whole."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np

from routekeel.streams.produce.check import ChunkCheck
from routekeel.streams.produce.ndjson import KNOWN, BadLine, read_ndjson
from routekeel.streams.sdk.config import SdkConfig

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "PRODUCE.md").read_text(encoding="utf-8")
DEFAULTS = {"top_k": 2, "model": "unknown", "backend": "file"}


def read(lines: str) -> tuple[list[object], list[BadLine]]:
    bad: list[BadLine] = []
    check = ChunkCheck(SdkConfig(), DEFAULTS)
    return list(read_ndjson(io.BytesIO(lines.encode()), check, bad.append)), bad


def test_the_examples_are_chunks() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, re.S)
    chunks, bad = read(block)
    assert not bad
    lines = [json.loads(line) for line in block.splitlines()]
    assert len(chunks) == len(lines) == 2
    for chunk, line in zip(chunks, lines, strict=True):
        assert chunk.session_id == line["session_id"]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(chunk.logits, line["logits"])  # type: ignore[attr-defined]


def test_the_table_names_every_field_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", TEXT, re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == KNOWN


def test_bad_lines_are_told_by_number_and_field() -> None:
    good = '{"session_id": "s", "position_start": 0, "logits": [[[1, 2]]]}'
    chunks, bad = read(f'{good}\n{good[:-1]}, "ambiguty": {{}}}}\nno json\n\n{good}\n')
    assert len(chunks) == 2
    assert [(b.line, b.field) for b in bad] == [(2, "ambiguty"), (3, "")]
    assert "did you mean ambiguity?" in bad[0].message
