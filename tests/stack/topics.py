"""A topic deleted and made anew while others use it: same name, another log."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka.admin import AdminClient, NewTopic

from routekeel.streams.settings import Settings
from routekeel.streams.topics import admin_client, describe
from tests.stack.system import wait_until


def recreate(settings: Settings, *names: str, meanwhile: Callable[[], None] | None = None) -> None:
    """Delete topics and make them anew, empty, under new ids; `meanwhile` runs while they are gone."""
    admin: AdminClient = admin_client(settings)
    before = describe(settings, names)
    for future in admin.delete_topics(list(names)).values():
        future.result()
    wait_until(lambda: not describe(settings, names), "the deletion")
    if meanwhile is not None:
        meanwhile()
    new = [NewTopic(name, before[name].partitions, 1) for name in names]
    for future in admin.create_topics(new).values():
        future.result()
    wait_until(lambda: len(describe(settings, names)) == len(names), "the creation")
