"""What the numbers were measured on: versions, cores, date."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = (
    "faust-streaming", "quixstreams", "bytewax", "confluent-kafka", "aiokafka", "fastavro", "numba", "numpy",
    "clickhouse-connect", "chdb", "py-spy",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The packages that matter here."""
    return {name: version(name) for name in PACKAGES}


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory, system, Python, the day, and how busy the machine was before."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
