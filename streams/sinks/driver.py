"""Performs a batch's actions one after another: with the lease, with patience, until it is told to
give up. Runs in a thread of its own; everything it touches belongs to the batch or is thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from routekeel.streams.sinks.actions import Action, FindRows, Insert
from routekeel.streams.sinks.backoff import Backoff
from routekeel.streams.sinks.lease import Lease
from routekeel.streams.sinks.outcomes import Failed, Outcome
from routekeel.streams.sinks.work import BatchWork

LEASE_WAIT_S: Final = 0.5


class Edge(Protocol):
    """Where actions meet the world."""

    def perform(self, action: Action) -> Outcome:
        """Do it and say what came of it. Does not raise for what may happen to a service."""
        ...


@dataclass(frozen=True, slots=True)
class Driven:
    """How a batch ended: `finished` with everything in place, or given up before that."""

    work: BatchWork
    finished: bool


def drive(
    work: BatchWork,
    edge: Edge,
    lease: Lease,
    backoff: Backoff,
    give_up: threading.Event,
    clock: Callable[[], float],
    on_failure: Callable[[str], None] = lambda message: None,
) -> Driven:
    """Take the batch through its actions. Returns when it is done, recreated or given up.

    Giving up happens between actions only, and not before an insert with an unknown outcome is
    sure to be over: the caller may hand the partition on as soon as this returns.
    """
    over_at = 0.0
    while not give_up.is_set():
        action = work.next()
        if action is None:
            return Driven(work, not work.recreated)
        if isinstance(action, Insert):
            if not lease.allows(clock()):
                lease.wait(LEASE_WAIT_S)
                continue
            over_at = clock() + lease.terms.insert_bound_s
        if isinstance(action, FindRows) and (rest_s := over_at - clock()) > 0:
            give_up.wait(rest_s)
            continue
        outcome = edge.perform(action)
        work.done(outcome)
        if isinstance(outcome, Failed) or work.next() is action:
            on_failure(work.last_error)
            give_up.wait(backoff.next_s())
        else:
            backoff.reset()
    if work.outcome_unknown and (rest_s := over_at - clock()) > 0:
        threading.Event().wait(rest_s)
    return Driven(work, False)
