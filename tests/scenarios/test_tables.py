"""The store: an insert is all of its rows or none, once per token, and the tables say how far they are."""

from __future__ import annotations

from dataclasses import replace

from routekeel.schemas.tables import DEAD_LETTERS_TABLE, TELEMETRY_TABLE, WEIGHTS_TABLE
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.dedupe import TableProgress
from routekeel.streams.sinks.outcomes import Done, Failed, Fault, RefusedByStore
from tests.scenarios.edges import Edges, Tables
from tests.scenarios.inserts import LETTERS_ROUTE, LOG_ID, TELEMETRY_ROUTE, insert
from tests.unit.sink_records import letter_fields, telemetry_fields

LAYERS = 2


def telemetry(first: int, *source_offsets: int, partition: int = 0, log_id: str = LOG_ID) -> Insert:
    """Telemetry of these source offsets, in the log from `first` on."""
    records = [telemetry_fields(n, layers=LAYERS, partition=partition) for n in source_offsets]
    return insert(TELEMETRY_ROUTE, TELEMETRY_TABLE, first, records, partition, log_id)


def rows(tables: Tables) -> int:
    """Records of telemetry, by their rows."""
    count = tables.count(TELEMETRY_TABLE)
    assert count % LAYERS == 0
    return count // LAYERS


async def test_a_token_that_was_seen_adds_nothing(edges: Edges) -> None:
    async with edges.tables() as tables:
        first, second = telemetry(0, 10, 11), telemetry(2, 12)
        for action in (first, second, first, second):
            assert tables.insert(action) == Done()
        assert rows(tables) == 3
        # The token is what counts: the same rows under another one come a second time.
        assert tables.insert(replace(second, token="another")) == Done()
        assert rows(tables) == 4


async def test_an_insert_that_did_not_get_there_leaves_nothing(edges: Edges) -> None:
    async with edges.tables() as tables:
        action = telemetry(0, 10, 11)
        outcome = tables.insert(action, "down")
        assert isinstance(outcome, Failed) and not outcome.unknown
        assert rows(tables) == 0 and not tables.has(action)
        assert tables.insert(action) == Done()
        assert rows(tables) == 2


async def test_an_insert_whose_answer_is_lost_is_there_and_may_be_sent_again(edges: Edges) -> None:
    async with edges.tables() as tables:
        action = telemetry(0, 10, 11)
        outcome = tables.insert(action, "lost")
        assert isinstance(outcome, Failed) and outcome.unknown
        assert rows(tables) == 2 and tables.has(action)
        assert not tables.has(telemetry(2, 12))
        assert tables.insert(action) == Done()
        assert rows(tables) == 2


async def test_a_refused_row_refuses_its_insert_and_its_token_stays_free(edges: Edges) -> None:
    async with edges.tables() as tables:
        tables.refuse_long_requests(16)
        records = [
            telemetry_fields(n, layers=LAYERS, request_id=request)
            for n, request in enumerate(("short", "far too long for it", "short"))
        ]
        action = insert(TELEMETRY_ROUTE, TELEMETRY_TABLE, 0, records)
        for _ in range(2):
            outcome = tables.insert(action)
            assert isinstance(outcome, RefusedByStore) and outcome.fault is Fault.DATA
        assert rows(tables) == 0
        found = tables.progress(TELEMETRY_ROUTE, LOG_ID, [0])[0][TELEMETRY_TABLE.name]
        assert found == TableProgress(-1, -1, {})
        assert tables.insert(insert(TELEMETRY_ROUTE, TELEMETRY_TABLE, 0, records[:1])) == Done()
        tables.refuse_long_requests(None)
        assert tables.insert(action) == Done()
        assert rows(tables) == 1 + 3


async def test_progress_is_the_largest_offsets(edges: Edges) -> None:
    async with edges.tables() as tables:
        route, table = TELEMETRY_ROUTE, TELEMETRY_TABLE.name
        nothing = TableProgress(-1, -1, {})
        assert tables.progress(route, LOG_ID, [0, 1])[1] == dict.fromkeys(
            [filled.name for filled in route.tables], nothing
        )
        other = telemetry_fields(3, layers=LAYERS, topic_id="logits-2")
        for action in (
            telemetry(5, 10, 12),
            insert(route, TELEMETRY_TABLE, 7, [other]),
            telemetry(2, 7),  # a former owner's, late
            telemetry(4, 20, partition=1),
            telemetry(90, 11, log_id="telemetry-0"),  # of the log before
        ):
            assert tables.insert(action) == Done()
        # Sources are the whole table's, whichever log or partition brought them.
        sources = {("logits-1", 0): 12, ("logits-1", 1): 20, ("logits-2", 0): 3}
        found = tables.progress(route, LOG_ID, [0, 1, 2])
        assert {partition: tables_of[table] for partition, tables_of in found.items()} == {
            0: TableProgress(7, 7, sources),
            1: TableProgress(4, 4, sources),
            2: TableProgress(-1, -1, sources),
        }
        assert all(set(each) == {filled.name for filled in route.tables} for each in found.values())
        assert tables.count(WEIGHTS_TABLE) == 0


async def test_the_letters_it_has_are_known(edges: Edges) -> None:
    async with edges.tables() as tables:
        letters = [letter_fields(n) for n in (3, 9, 5)]
        action = insert(LETTERS_ROUTE, DEAD_LETTERS_TABLE, 0, letters)
        keys = [("logits-1", 0, n) for n in (3, 4, 5, 10)] + [("logits-2", 0, 3)]
        assert tables.known_letters(keys) == frozenset()
        assert tables.insert(action) == Done()
        asked = frozenset(keys)
        assert tables.known_letters(keys) & asked == {("logits-1", 0, 3), ("logits-1", 0, 5)}
        assert tables.insert(action) == Done()
        assert tables.count(DEAD_LETTERS_TABLE) == 3
