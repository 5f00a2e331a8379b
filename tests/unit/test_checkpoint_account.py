"""A checkpoint waits until it is small beside the input, but not for ever, and not when all is quiet."""

from __future__ import annotations

import pytest

from routekeel.streams.app.checkpoint_account import CheckpointAccount
from routekeel.streams.settings.tree import WorkerSettings

KB = 1000
POLICY = WorkerSettings(
    checkpoint_interval_s=1.0,
    checkpoint_interval_max_s=10.0,
    checkpoint_share_max=0.25,
    checkpoint_bytes_max=1000 * KB,
)


@pytest.mark.parametrize(
    ("waited_s", "quiet_s", "input_kb", "dirty_kb", "due"),
    [
        (0.9, 0.0, 4000, 1, False),  # not that often
        (1.0, 0.0, 4000, 900, True),  # small beside the input
        (1.0, 0.0, 3000, 900, False),  # not small: wait for more input
        (9.9, 0.0, 3000, 900, False),
        (10.0, 0.0, 3000, 900, True),  # waited long enough
        (0.1, 0.0, 1, 1000, True),  # too much to hold back
        (1.5, 0.2, 100, 90, False),
        (1.5, 0.3, 100, 90, True),  # nothing comes any more
        (0.9, 0.9, 100, 90, False),
    ],
)
def test_when_a_checkpoint_is_due(
    waited_s: float, quiet_s: float, input_kb: int, dirty_kb: int, due: bool
) -> None:
    account = CheckpointAccount(checkpointed_at=100.0)
    account.applied(input_kb * KB, 100.0 + waited_s - quiet_s)
    assert account.is_due(POLICY, dirty_kb * KB, 100.0 + waited_s) is due


@pytest.mark.parametrize(
    ("pause_s", "quiet_s", "due"),
    [(0.05, 0.25, True), (0.3, 1.1, False), (0.3, 1.2, True), (5.0, 1.9, False), (5.0, 2.0, True)],
)
def test_nothing_more_comes_when_it_has_been_quiet_for_several_pauses(
    pause_s: float, quiet_s: float, due: bool
) -> None:
    account = CheckpointAccount(checkpointed_at=100.0)
    account.applied(100 * KB, 101.0)
    account.applied(100 * KB, 101.0 + pause_s)
    assert account.is_due(POLICY, 90 * KB, 101.0 + pause_s + quiet_s) is due


def test_a_checkpoint_starts_the_account_anew() -> None:
    account = CheckpointAccount(checkpointed_at=0.0)
    account.applied(5000 * KB, 1.0)
    account.checkpointed(2.0)
    account.applied(10 * KB, 3.1)
    assert not account.is_due(POLICY, 5 * KB, 3.2)


@pytest.mark.parametrize("pause_s", [0.04, 0.1, 0.3, 0.9, 1.2])
@pytest.mark.parametrize("at_once", [1, 200])
def test_two_hundred_sessions_of_a_large_model_write_less_than_half_their_input(
    pause_s: float, at_once: int
) -> None:
    """48 layers × 128 experts, one token a chunk: 12.9 KB in, 50 KB of state. One after the other or in
    lockstep, a token of each every `pause_s`; a checkpoint may also come while nothing does.
    """
    chunk, state, sessions = 12_900, 4 * 48 * 262 + 300, 200
    pause_s *= at_once / sessions
    account, written, read = CheckpointAccount(0.0), 0, 0
    policy = WorkerSettings()
    touched: set[int] = set()
    now, tick_s, index = 0.0, 0.1, 0
    next_chunk_at, next_tick_at = 0.0, 0.0
    while now < 60:
        now = min(next_chunk_at, next_tick_at)
        if now == next_chunk_at:
            next_chunk_at += pause_s
            for _ in range(at_once):
                touched.add(index % sessions)
                index += 1
            account.applied(at_once * chunk, now)
            read += at_once * chunk
        else:
            next_tick_at += tick_s
        if touched and account.is_due(policy, len(touched) * state, now):
            written, touched = written + len(touched) * state, set()
            account.checkpointed(now)
    assert 0 < written <= 0.5 * read
