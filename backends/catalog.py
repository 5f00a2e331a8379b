"""The engines by name. A row names a module; it is imported only when somebody asks for it.

So that `import routekeel.backends.catalog` costs nothing inside a worker that uses another engine.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from routekeel.backends.base import Backend, BackendError


class UnknownBackendError(BackendError, LookupError):
    """No row of that name."""


class EngineMissingError(BackendError, ImportError):
    """The row exists, the engine's package is not installed."""


@dataclass(frozen=True)
class Row:
    """Where a backend lives: `module` has `open_backend`; `extra` installs its engine."""

    module: str
    summary: str
    packages: tuple[str, ...] = ()
    extra: str | None = None


CATALOG: dict[str, Row] = {
    "reference": Row("routekeel.backends.reference", "Mixtral forward pass in plain NumPy"),
    "mlx": Row(
        "routekeel.backends.mlx",
        "mlx-lm with the router gates wrapped",
        packages=("mlx", "mlx_lm"),
        extra="mlx",
    ),
}


def names() -> tuple[str, ...]:
    """The names that `load` accepts."""
    return tuple(CATALOG)


def row_of(name: str) -> Row:
    """The row of `name`. Raises UnknownBackendError, with the nearest name if there is one."""
    try:
        return CATALOG[name]
    except KeyError:
        near = difflib.get_close_matches(name, CATALOG, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(CATALOG)}"
        raise UnknownBackendError(f"no backend is called {name!r}; {hint}") from None


def load(name: str, checkpoint: Path | None = None) -> Backend:
    """Open the backend `name` on `checkpoint` (a folder; None is the bundled tinymoe).

    Raises UnknownBackendError, or EngineMissingError with the extra to install. An ImportError from
    anywhere else than the engine's own packages is a fault of ours and passes through.
    """
    row = row_of(name)
    try:
        module = importlib.import_module(row.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in row.packages or row.extra is None:
            raise
        raise EngineMissingError(
            f"the {name} backend needs {missing}, which is not installed: "
            f"pip install 'routekeel[{row.extra}]'"
        ) from error
    return cast(Backend, module.open_backend(checkpoint))
