"""For runs with several processes: the tests of a file on the local stack stay together.

Each process has a stack of its own; they wait for brokers and timeouts most of the time, so two files
at once take little more than one.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One group per file of those that need the stack (pytest-xdist's --dist loadgroup)."""
    for item in items:
        if item.get_closest_marker("stack") is not None:
            item.add_marker(pytest.mark.xdist_group(f"stack {item.path.stem}"))
