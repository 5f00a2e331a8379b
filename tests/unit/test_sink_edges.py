"""The sink's I/O shell without services: the lease, the driver of a batch, what a store's errors mean."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

from routekeel.schemas.tables import TELEMETRY_TABLE
from routekeel.streams.sinks.actions import FindRows, Insert, Payload
from routekeel.streams.sinks.backoff import Backoff
from routekeel.streams.sinks.driver import Driven, drive
from routekeel.streams.sinks.lease import Lease, LeaseTerms
from routekeel.streams.sinks.outcomes import Done, Failed, Fault, Outcome, RefusedByStore
from routekeel.streams.sinks.store import StoreUnavailable, TableStore, outcome_of
from routekeel.streams.topology.records import Source

TERMS = LeaseTerms(session_s=20.0, execution_s=8.0, transfer_s=4.0)
INSERT = Insert(TELEMETRY_TABLE, "token", Payload(b"rows", 3), Source("t", "id-1", 2), 41)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_insert_may_start_only_while_a_proof_is_young_enough() -> None:
    lease = Lease(TERMS)
    assert not lease.allows(100.0) and lease.due(100.0)
    lease.prove(100.0)
    # 20 s less the margin, less the 12 s that an insert may take.
    assert TERMS.start_window_s == pytest.approx(7.0)
    assert lease.allows(100.0) and lease.allows(107.0)
    assert not lease.allows(107.1) and not lease.allows(99.9)
    assert not lease.due(102.3) and lease.due(102.4)
    lease.prove(90.0)  # an answer that came late proves nothing newer
    assert lease.allows(107.0)
    lease.drop()
    assert not lease.allows(100.0)


def test_waiting_for_the_lease_ends_when_it_is_proved() -> None:
    lease = Lease(TERMS)
    woken = threading.Event()

    def wait() -> None:
        while not lease.allows(5.0):
            lease.wait(30.0)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    lease.prove(5.0)
    assert woken.wait(5)


class Work:
    """A batch of scripted actions, each done again until it did not fail."""

    def __init__(self, actions: Sequence[Any]) -> None:
        self.actions = list(actions)
        self.outcomes: list[Outcome] = []
        self.recreated = self.outcome_unknown = False
        self.last_error = ""

    def next(self) -> Any:
        return self.actions[0] if self.actions else None

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if isinstance(outcome, Failed):
            self.last_error, self.outcome_unknown = outcome.message, outcome.unknown
        else:
            self.actions.pop(0)
            self.outcome_unknown = False


def run(
    work: Work,
    perform: Callable[[Any], Outcome],
    lease: Lease,
    give_up: threading.Event,
    clock: Clock,
    failures: list[str] | None = None,
) -> Driven:
    seen = failures if failures is not None else []
    backoff = Backoff(random.Random(1), initial_s=0.001, largest_s=0.001)
    edge = SimpleNamespace(perform=perform)
    return drive(work, edge, lease, backoff, give_up, clock, seen.append)  # type: ignore[arg-type]


def test_a_batch_is_driven_through_failures_to_its_end() -> None:
    lease, clock = Lease(TERMS), Clock()
    lease.prove(clock.now)
    script = iter([Failed("away"), Failed("still away", unknown=True), Done(), Done()])
    failures: list[str] = []
    work = Work([INSERT, "letters"])
    driven = run(work, lambda action: next(script), lease, threading.Event(), clock, failures)
    assert driven.finished and failures == ["away", "still away"]
    assert [type(o).__name__ for o in work.outcomes] == ["Failed", "Failed", "Done", "Done"]


def test_no_insert_starts_without_a_lease_but_other_actions_do() -> None:
    lease, clock, give_up = Lease(TERMS), Clock(), threading.Event()
    performed: list[Any] = []
    asked = threading.Event()

    def perform(action: Any) -> Outcome:
        performed.append(action)
        asked.set()
        return Done()

    work = Work(["verify", INSERT])
    thread = threading.Thread(target=lambda: run(work, perform, lease, give_up, clock))
    thread.start()
    assert asked.wait(5)
    thread.join(0.2)  # long enough for an insert that should not be there
    assert performed == ["verify"] and thread.is_alive()
    lease.prove(clock.now)
    thread.join(5)
    assert performed == ["verify", INSERT] and not thread.is_alive()


def test_giving_up_waits_until_an_insert_of_unknown_outcome_is_sure_to_be_over() -> None:
    short = LeaseTerms(session_s=2.0, execution_s=0.2, transfer_s=0.1)
    lease, give_up = Lease(short), threading.Event()
    clock = Clock()
    lease.prove(clock.now)

    def perform(action: Any) -> Outcome:
        give_up.set()
        return Failed("connection lost", unknown=True)

    waited: list[float] = []
    event = threading.Event

    class Watched(event):  # type: ignore[valid-type, misc]
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("routekeel.streams.sinks.driver.threading.Event", Watched)
        driven = run(Work([INSERT]), perform, lease, give_up, clock)
    assert not driven.finished
    assert waited == [pytest.approx(short.insert_bound_s)]


def test_a_table_is_asked_only_when_no_attempt_can_be_under_way() -> None:
    lease, clock = Lease(TERMS), Clock()
    lease.prove(clock.now)
    began = clock.now
    asked_at: list[float] = []

    class Patient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.now += timeout or 0.0
            return False

    def perform(action: Any) -> Outcome:
        if action is not INSERT:
            asked_at.append(clock.now)
        return Done()

    assert run(Work([INSERT, FindRows(INSERT)]), perform, lease, Patient(), clock).finished
    assert asked_at == [pytest.approx(began + TERMS.insert_bound_s)]


def error_with(code: int | None, kind: type[Exception] = DatabaseError) -> Any:
    error = kind("Code: … it said so (for url http://secret)")
    if code is not None:
        error.code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (469, RefusedByStore(Fault.DATA, "Code: … it said so")),
        (241, RefusedByStore(Fault.SIZE, "Code: … it said so")),
        (60, Failed("Code: … it said so")),
        (319, Failed("Code: … it said so", unknown=True)),
    ],
)
def test_a_code_says_whose_fault_it_is(code: int, expected: Outcome) -> None:
    assert outcome_of(error_with(code)) == expected


def test_without_a_code_it_may_have_been_done_unless_there_was_no_connection() -> None:
    lost, refused = OperationalError("lost"), OperationalError("refused")
    lost.__cause__ = ProtocolError("Connection aborted.")
    refused.__cause__ = MaxRetryError(
        None, "/", NewConnectionError(None, "refused")  # type: ignore[arg-type]
    )  # fmt: skip
    assert outcome_of(lost) == Failed("lost", unknown=True)
    assert outcome_of(refused) == Failed("refused", unknown=False)


class Client:
    """ClickHouse's client with answers that the test sets."""

    def __init__(self, written: str = "3", found: Any = ()) -> None:
        self.written, self.found = written, found
        self.inserts: list[dict[str, Any]] = []
        self.queries: list[dict[str, Any]] = []

    def raw_insert(self, place: str, columns: Any, data: Any, **options: Any) -> Any:
        self.inserts.append({"place": place, "data": data.read(), **options})
        if isinstance(self.written, Exception):
            raise self.written
        return SimpleNamespace(summary={"written_rows": self.written})

    def query(self, text: str, parameters: Any, settings: Any) -> Any:
        self.queries.append({"text": text, **parameters})
        if isinstance(self.found, Exception):
            raise self.found
        return SimpleNamespace(result_rows=self.found)


def test_an_insert_is_sent_once_with_its_token_and_its_bound() -> None:
    client = Client()
    assert TableStore(client, "db", TERMS).insert(INSERT) == Done()  # type: ignore[arg-type]
    (sent,) = client.inserts
    assert (sent["place"], sent["data"]) == ("`db`.`telemetry`", b"rows")
    settings = sent["settings"]
    assert settings["insert_deduplication_token"] == "token"
    assert (settings["max_execution_time"], settings["async_insert"]) == (8.0, 0)
    assert not client.queries  # rows were written: nothing to confirm


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(1,)], Done()),
        ([], Failed("the server took no rows and gave no reason")),
        (OperationalError("away"), Failed("away", unknown=True)),
    ],
)
def test_a_success_without_rows_is_confirmed_in_the_table(found: Any, expected: Outcome) -> None:
    client = Client(written="0", found=found)
    assert TableStore(client, "db", TERMS).insert(INSERT) == expected  # type: ignore[arg-type]
    (asked,) = client.queries
    assert (asked["topic"], asked["partition"], asked["last"]) == ("id-1", 2, 41)


def test_a_connection_that_breaks_leaves_the_outcome_open() -> None:
    lost: Any = Client(written=ProtocolError("Connection broken"))  # type: ignore[arg-type]
    assert TableStore(lost, "db", TERMS).insert(INSERT) == Failed("Connection broken", unknown=True)
    refused: Any = Client(written=ConnectionRefusedError("refused"))  # type: ignore[arg-type]
    assert TableStore(refused, "db", TERMS).insert(INSERT) == Failed("refused", unknown=False)
    with pytest.raises(StoreUnavailable, match="away"):
        TableStore(Client(found=OperationalError("away")), "db", TERMS).known_letters(  # type: ignore[arg-type]
            TELEMETRY_TABLE, [("id-1", 0, 5)]
        )
