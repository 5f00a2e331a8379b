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


def test_a_checkpoint_starts_the_account_anew() -> None:
    account = CheckpointAccount(checkpointed_at=0.0)
    account.applied(5000 * KB, 1.0)
    account.checkpointed(2.0)
    account.applied(10 * KB, 3.1)
    assert not account.is_due(POLICY, 5 * KB, 3.2)


def test_two_hundred_sessions_of_a_large_model_write_less_than_half_their_input() -> None:
    """48 layers × 128 experts, one token a chunk: 12.9 KB in, 50 KB of state, whatever the rate."""
    chunk, state, sessions = 12_900, 4 * 48 * 262 + 300, 200
    for rate in (300, 1_000, 5_000):
        account, written, read = CheckpointAccount(0.0), 0, 0
        policy = WorkerSettings()
        touched: set[int] = set()
        for index in range(rate * 30):
            now = index / rate
            touched.add(index % sessions)
            account.applied(chunk, now)
            read += chunk
            dirty = len(touched) * state
            if account.is_due(policy, dirty, now):
                written, touched = written + dirty, set()
                account.checkpointed(now)
        assert 0 < written <= 0.5 * read
