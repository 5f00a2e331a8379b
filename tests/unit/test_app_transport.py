"""What is changed about Faust's consumer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routekeel.streams.app.faust_app import create_app
from routekeel.streams.app.transport import FETCH_WAIT_MS
from routekeel.streams.settings import load_settings


async def test_a_fetch_waits_shortly_for_partitions_that_have_nothing(tmp_path: Path) -> None:
    settings = load_settings(None, {"worker.store_dir": str(tmp_path)}, {}).settings
    app: Any = create_app(settings, lambda topic, partition: None)
    consumer = app.transport.create_consumer(
        lambda message: None,
        on_partitions_revoked=lambda revoked: None,
        on_partitions_assigned=lambda assigned: None,
    )
    thread = consumer._new_consumer_thread()
    client = thread._create_worker_consumer(app.transport)
    # aiokafka gives it to its fetcher when it starts.
    assert client._fetch_max_wait_ms == FETCH_WAIT_MS
    assert client._fetch_min_bytes == 1
