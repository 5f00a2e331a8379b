"""The worker asks for the id of its topic: one that is not there is an error, never another log."""

from __future__ import annotations

import pytest

from routekeel.streams import topics
from routekeel.streams.app.run import current_topic_id
from routekeel.streams.errors import ConfigurationError
from routekeel.streams.settings import Settings
from routekeel.streams.topics import TopicInfo


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, TopicInfo]:
    """What the broker knows."""
    found: dict[str, TopicInfo] = {}
    monkeypatch.setattr(topics, "describe", lambda settings, names: found)
    return found


async def test_the_id_is_the_brokers(known: dict[str, TopicInfo]) -> None:
    settings = Settings()
    known[settings.topics.logits] = TopicInfo(settings.topics.logits, "id-1", 4)
    assert await current_topic_id(settings) == "id-1"


async def test_a_topic_that_a_broker_does_not_know_is_not_a_new_log(
    known: dict[str, TopicInfo],
) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        await current_topic_id(Settings())
