"""The catalog names engines without importing them, and its errors say what to do next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from routekeel.backends import catalog
from routekeel.backends.base import BackendError, Capabilities, CapabilityError, GenerateRequest
from routekeel.backends.checkpoint import open_checkpoint


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(catalog.UnknownBackendError, match="did you mean 'reference'"):
        catalog.load("referense")


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(catalog.UnknownBackendError, match="there are: reference, mlx"):
        catalog.load("zzzzzz")


def test_a_missing_engine_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] in ("mlx", "mlx_lm")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "routekeel.backends.mlx", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_NoMlx(), *sys.meta_path])
    with pytest.raises(catalog.EngineMissingError, match=r"pip install 'routekeel\[mlx\]'"):
        catalog.load("mlx")


class _NoMlx:
    """An import hook under which the engine is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in ("mlx", "mlx_lm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_an_import_error_of_our_own_is_not_taken_for_a_missing_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = catalog.Row("routekeel.backends.no_such_module", "", packages=("mlx",), extra="mlx")
    monkeypatch.setitem(catalog.CATALOG, "broken", row)
    with pytest.raises(ModuleNotFoundError) as raised:
        catalog.load("broken")
    assert not isinstance(raised.value, BackendError)


def test_the_catalog_imports_no_engine() -> None:
    program = (
        "import sys, routekeel.backends.catalog as c; c.names();"
        "print([m for m in ('mlx', 'mlx_lm', 'torch', 'transformers') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_is_not_declared_is_refused() -> None:
    with pytest.raises(CapabilityError, match="the mlx backend has no control"):
        Capabilities(router_logits=True).require("control", "mlx")
    Capabilities(control=True).require("control", "mlx")


def test_requests_that_no_engine_could_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        GenerateRequest("s", "r", "")
    with pytest.raises(ValueError, match="negative"):
        GenerateRequest("s", "r", "a", max_new_tokens=-1)
    for chunk_tokens in (0, 4097):
        with pytest.raises(ValueError, match=r"1…4096"):
            GenerateRequest("s", "r", "a", chunk_tokens=chunk_tokens)


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make tinymoe"):
        open_checkpoint(tmp_path)
