"""Reads a checkpoint folder (config.json, model.safetensors) with nothing but NumPy.

The reference engine must not depend on any inference library, and the revision that every record
carries is computed here, in one place, from the bytes of the weights.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BUNDLED = Path(__file__).resolve().parent / "tinymoe" / "checkpoint"
REVISION_HEX_DIGITS = 12
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the Hugging Face layout; `open_checkpoint` finds the bundled one."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        value: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return value

    @property
    def name(self) -> str:
        """The name that records carry: `model_name` of the config, else the folder's name."""
        return str(self.config.get("model_name", self.folder.name))

    @cached_property
    def revision(self) -> str:
        """First 12 hex digits of the SHA-256 over all weight files, in order of their names."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.glob("*.safetensors")):
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()[:REVISION_HEX_DIGITS]

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Every tensor of model.safetensors as float32.

        The format is a little-endian uint64 header length, a JSON header with dtype, shape and
        byte range of each tensor, then the bytes. Raises ValueError for a dtype NumPy lacks.
        """
        raw = (self.folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header: dict[str, Any] = json.loads(raw[8:start])
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in _DTYPES:
                raise ValueError(f"{name} is {entry['dtype']}, which NumPy cannot read")
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(raw[start + begin : start + end], dtype=_DTYPES[entry["dtype"]])
            tensors[name] = flat.reshape(entry["shape"]).astype(np.float32)
        return tensors


def open_checkpoint(folder: Path | None) -> Checkpoint:
    """The checkpoint in `folder`, or the bundled one. Raises FileNotFoundError if there is none."""
    where = folder or BUNDLED
    for name in ("config.json", "model.safetensors"):
        if not (where / name).is_file():
            raise FileNotFoundError(f"no {name} in {where}: train one with `make tinymoe`")
    return Checkpoint(where)
