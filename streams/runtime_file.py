"""A file that says where a running worker or sink serves its pages, for scripts and tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from routekeel.streams.errors import ConfigurationError


@contextmanager
def runtime_file(state_dir: Path, name: str, address: str) -> Iterator[Path]:
    """`run/NAME-PID.json` in the state folder while the block runs.

    Raises ConfigurationError where the folder cannot be made or written.
    """
    folder = state_dir / "run"
    path = folder / f"{name}-{os.getpid()}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"pid": os.getpid(), "url": address}), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror}",
            "set stack.state_dir to a folder that can be written",
        ) from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
