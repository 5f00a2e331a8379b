"""mlx where no C++ compiler is on the PATH: it runs what it would have compiled, and the same comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlx_lm")

from routekeel.backends.base import GenerateRequest
from routekeel.backends.reference import open_backend as open_reference
from routekeel.backends.tinymoe.prompts import PROMPTS

pytestmark = pytest.mark.backend
TOKENS, TOLERANCE = 3, 5e-5

CHILD = f"""
import shutil, sys
import numpy as np
assert shutil.which("g++") is None
from rich.console import Console
from routekeel.backends.base import GenerateRequest
from routekeel.backends.tinymoe.prompts import PROMPTS
from routekeel.streams.demo.run import open_backend
backend = open_backend("mlx", Console(stderr=True))
assert backend.facts.backend == "mlx"
chunks = backend.generate(GenerateRequest("s", "r", PROMPTS[0].text, {TOKENS}))
np.save(sys.argv[1], np.concatenate([chunk.logits for chunk in chunks]))
"""


def test_it_generates_and_its_logits_are_the_references(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "logits.npy")],
        env=os.environ | {"PATH": str(empty)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "logits.npy")
    request = GenerateRequest("s", "r", PROMPTS[0].text, TOKENS)
    wanted = np.concatenate([chunk.logits for chunk in open_reference().generate(request)])
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= TOLERANCE
