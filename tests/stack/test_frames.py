"""Frames of the stored history hold what the records' bytes say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from routekeel import telemetry_frame, weights_frame
from routekeel.infra.local.stack import LocalStack
from routekeel.schemas.tables import TABLES, TELEMETRY_TABLE, WEIGHTS_TABLE
from routekeel.streams.errors import ConfigurationError, ServiceUnavailable
from routekeel.streams.history.store import apply_schema, connect
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.block import Block, Item
from routekeel.streams.sinks.payload import FORMAT, build_payload
from routekeel.streams.topology.records import Source, SourceRecord
from tests.stack.system import System
from tests.unit.sink_records import START_MS, telemetry_fields, weights_fields

pytestmark = pytest.mark.stack
# The rows' times are fixed: with a TTL they would be gone one day.
FOR_EVER = {table.name: 0 for table in TABLES}
CHUNKS, LAYERS, EXPERTS = 60, 3, 8
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def stored(
    local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Records, Records]]:
    local_stack.up()
    settings = System(local_stack, tmp_path_factory.mktemp("frames"), "frames").settings
    client = connect(settings.clickhouse)
    apply_schema(client, settings.clickhouse, FOR_EVER)
    shape = {"layers": LAYERS, "experts": EXPERTS, "seed": 5}
    telemetry = [telemetry_fields(offset, **shape) for offset in range(CHUNKS)]
    weights = [weights_fields(offset, **shape) for offset in range(CHUNKS)]
    for table, rows in ((TELEMETRY_TABLE, telemetry), (WEIGHTS_TABLE, weights)):
        items = [
            Item(SourceRecord(i, START_MS + i, b"k", b"v", ()), fields, None, 1, 1)
            for i, fields in enumerate(rows)
        ]
        payload = build_payload(table, Block.of(items), Source("log", "log-1", 0))
        names = [column.name for column in table.filled]
        place = f"{settings.clickhouse.database}.{table.name}"
        client.raw_insert(place, names, payload.data, fmt=FORMAT)
    yield settings, telemetry, weights
    client.command(f"DROP DATABASE {settings.clickhouse.database}")
    client.close()


def test_a_session_in_pandas(stored: tuple[Settings, Records, Records]) -> None:
    settings, telemetry, _ = stored
    session = telemetry[0]["session_id"]
    mine = [record for record in telemetry if record["session_id"] == session]
    frame = telemetry_frame(session_id=session, settings=settings)
    assert list(frame.columns) == [column.name for column in TELEMETRY_TABLE.columns]
    assert frame.source_offset.tolist() == [r["source_offset"] for r in mine for _ in range(LAYERS)]
    assert frame.layer.tolist() == [layer for r in mine for layer in r["layers"]]
    expected = np.concatenate([np.frombuffer(r["g_base"], "<f4") for r in mine])
    np.testing.assert_allclose(frame.g_base.to_numpy(), expected, atol=5.1e-7, rtol=1e-6)


def test_routes_in_arrow_and_pandas(stored: tuple[Settings, Records, Records]) -> None:
    settings, _, weights = stored
    record = weights[7]
    at = record["source_offset"]
    choice: dict[str, Any] = {"first_offset": at, "end_offset": at + 1, "settings": settings}
    table = weights_frame(arrow=True, **choice)
    expected = np.frombuffer(record["w_hat"], "<f4").reshape(LAYERS, EXPERTS)
    np.testing.assert_allclose(np.array(table["w_hat"].to_pylist()), expected, atol=5.1e-5)
    frame = weights_frame(columns=["layer", "w_hat"], **choice)
    assert list(frame.columns) == ["layer", "w_hat"]
    assert all(isinstance(route, np.ndarray) for route in frame.w_hat)


def test_unknown_stays_unknown(stored: tuple[Settings, Records, Records]) -> None:
    settings, telemetry, _ = stored
    table = telemetry_frame(arrow=True, settings=settings, columns=["source_offset", "g_probe"])
    unknown = {
        r["source_offset"] for r in telemetry if np.isnan(np.frombuffer(r["g_probe"], "<f4")).all()
    }
    nulls = {row["source_offset"] for row in table.to_pylist() if row["g_probe"] is None}
    assert unknown <= nulls
    assert table["g_probe"].null_count == sum(
        int(np.isnan(np.frombuffer(r["g_probe"], "<f4")).sum()) for r in telemetry
    )


def test_times_limits_and_layers(stored: tuple[Settings, Records, Records]) -> None:
    settings, telemetry, _ = stored
    times = sorted(record["event_time_us"] for record in telemetry)
    since, until = (datetime.fromtimestamp(times[i] / 1e6, UTC) for i in (10, 20))
    frame = telemetry_frame(
        since=since, until=until, layer=telemetry[0]["layers"][1], settings=settings
    )
    inside = [r for r in telemetry if times[10] <= r["event_time_us"] < times[20]]
    assert sorted(frame.source_offset) == sorted(r["source_offset"] for r in inside)
    assert len(telemetry_frame(limit=5, settings=settings)) == 5
    assert telemetry_frame(session_id="nobody", settings=settings).empty


def test_wrong_use_and_an_absent_store_are_said(stored: tuple[Settings, Records, Records]) -> None:
    settings = stored[0]
    with pytest.raises(ConfigurationError, match="no column 'nonsense'"):
        telemetry_frame(columns=["nonsense"], settings=settings)
    with pytest.raises(ConfigurationError, match="no option 'sesion_id'"):
        telemetry_frame(sesion_id="s", settings=settings)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="time zone"):
        telemetry_frame(since=datetime(2026, 1, 1), settings=settings)
    away = settings.model_copy(
        update={"clickhouse": settings.clickhouse.model_copy(update={"port": 1})}
    )
    with pytest.raises(ServiceUnavailable, match="ClickHouse"):
        weights_frame(settings=away)
