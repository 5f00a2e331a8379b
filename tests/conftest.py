"""For runs with several processes: the tests on the local stack share one, so they stay together."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One group for all that need the stack (pytest-xdist's --dist loadgroup)."""
    for item in items:
        if item.get_closest_marker("stack") is not None:
            item.add_marker(pytest.mark.xdist_group("stack"))
