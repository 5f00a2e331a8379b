"""Every example in a docstring of streams/ and infra/ runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules_with_examples() -> list[str]:
    """Import names of the files that hold a `>>>`."""
    paths = [path for folder in ("streams", "infra") for path in (ROOT / folder).rglob("*.py")]
    return [
        "routekeel." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(paths)
        if ">>> " in path.read_text(encoding="utf-8")
    ]


def test_there_are_examples() -> None:
    assert len(modules_with_examples()) > 5


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
