"""What the chaos verdict takes for a record without a route: only what the settings leave out."""

from __future__ import annotations

import pytest

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.cadence import Cadence
from routekeel.streams.topology.config import TopologyConfig
from tests.chaos.verdict import unpublished
from tests.stream.chunks import chunk_fields


@pytest.mark.parametrize(("every", "quiet"), [(1, 0), (8, 2), (16, 4)])
def test_only_what_was_applied_and_is_not_due_has_no_route(every: int, quiet: int) -> None:
    config = TopologyConfig(kernel="numpy", cadence=Cadence(every, 1 if every == 1 else 64))
    driver = TopologyDriver(config)
    for start in (0, 4, 8, 12, 16, 20, 20):  # the last comes twice, and is not applied again
        driver.append(chunk_fields("a", start, 4))
    driver.append_raw(b"a", b"poison")
    driver.run()
    assert unpublished({0: driver}) == quiet
