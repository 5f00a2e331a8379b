"""What the numbers were measured on: the commit, versions, cores, date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = (
    "faust-streaming", "quixstreams", "bytewax", "confluent-kafka", "aiokafka", "fastavro", "numba", "numpy",
    "clickhouse-connect", "chdb", "py-spy",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """The packages that matter here."""
    return {name: version(name) for name in PACKAGES}


def machine() -> dict[str, str | int | float]:
    """Commit, processor, cores, memory, system, Python, the day, and how busy the machine was before."""
    return {
        "commit": commit(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit's short hash, with "-dirty" where files have changed since; "unknown" without git."""
    try:
        found = _git("rev-parse", "--short", "HEAD")
        # What the benchmark writes itself changes no figure.
        changed = _git("status", "--porcelain", "--", ".", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found}-dirty" if changed else found


def _git(*arguments: str) -> str:
    line = ("git", "-C", str(ROOT), *arguments)
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
