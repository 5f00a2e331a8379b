"""Logging of the stack's Python services: to a file that rolls over and stays bounded.

Standard error stays for what happens before and outside of logging, such as a failed import.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from routekeel.infra.local.files import LOG_BYTES_MAX

GENERATIONS = 2


def log_to_file(path: Path) -> None:
    """Send every logger's records of level INFO and above to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=GENERATIONS)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
