"""The bare install: what needs the app's packages says so, and how to get them."""

from __future__ import annotations

import sys

import pytest

import routekeel
from routekeel.streams.errors import MissingExtra


@pytest.mark.parametrize("package", ["pandas", "pyarrow", "clickhouse_connect"])
@pytest.mark.parametrize("name", ["telemetry_frame", "weights_frame"])
def test_frames_without_the_app(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "routekeel.streams.history.store", raising=False)
    monkeypatch.delitem(sys.modules, "routekeel.streams.history.sql", raising=False)
    with pytest.raises(MissingExtra) as caught:
        getattr(routekeel, name)()
    assert caught.value.hint == "pip install 'routekeel[app]'"
