"""Topic ids: a recreated topic has another one, and where there is none the app is told so."""

from __future__ import annotations

import pytest

from routekeel.streams.errors import ConfigurationError
from tests.scenarios.edges import Edges


async def test_a_recreated_topic_has_another_id(edges: Edges) -> None:
    async with edges.group() as group:
        before = await group.topic_id()
        assert before and await group.topic_id() == before

        async def gone() -> None:
            with pytest.raises(ConfigurationError, match="does not exist"):
                await group.topic_id()

        await group.recreate_topic(gone)
        after = await group.topic_id()
        assert after and after != before
