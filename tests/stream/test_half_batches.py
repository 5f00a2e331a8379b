"""A batch that fails half-way leaves states that are ahead of the watermark: no checkpoint may have them."""

from __future__ import annotations

from unittest import mock

import pytest

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.config import TopologyConfig
from tests.stream.chunks import chunk_fields


def test_no_checkpoint_follows_a_batch_that_failed() -> None:
    driver = TopologyDriver(TopologyConfig(), compiled=True)
    for start in (0, 3):
        for session in range(4):
            driver.append(chunk_fields(f"s{session}", start))
    driver.append_raw(driver.log[7].key, driver.log[7].value)  # a repeat: it goes the plain way
    driver.apply(driver.log[:4])
    driver.checkpoint()
    kept = driver.states()
    failing = mock.patch.object(driver.processor._reference, "run", side_effect=RuntimeError("bug"))
    with failing, pytest.raises(RuntimeError, match="bug"):
        driver.apply(driver.log[4:])
    with pytest.raises(AssertionError, match="half-way"):
        driver.processor.checkpoint()
    driver.crash()
    assert driver.states() == kept
    driver.run()
    whole = TopologyDriver(TopologyConfig(), log=driver.log)
    whole.run()
    assert driver.states() == whole.states()
