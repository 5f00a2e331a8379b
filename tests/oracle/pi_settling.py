"""How the PI's error shrinks on constant rows: the figures of docs/decisions/0007, from 200 seeds.

`python -m tests.oracle.pi_settling` prints them. The rows are those of the test of law 8.
"""

from __future__ import annotations

import json

import numpy as np

from routekeel.operators.config import DEFAULT
from tests.oracle.drive import drive
from tests.property.test_operators_controllers import reachable_rows

TOKENS = 250
ROUNDING = 1e-6


def settling(seeds: int) -> dict[str, float]:
    """Rows looked at, and how many of them have an |e| that grows after the third token."""
    rows = fourth = later = two_apart = 0
    growth = last = 0.0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        experts, a_star = int(rng.integers(2, 13)), float(rng.uniform(0.7, 0.95))
        z = reachable_rows(rng, experts, a_star)
        for mode in ("ceiling", "regulate") if len(z) else ():
            config = DEFAULT.with_changes(pi_mode=mode)
            _, output = drive(np.broadcast_to(z, (TOKENS, *z.shape)), a_star, config)
            error = np.abs(output.row_column("pi_error")).reshape(TOKENS, -1)
            grows = np.diff(error, axis=0) > ROUNDING
            rows += error.shape[1]
            fourth += int(grows[3].sum())
            later += int(grows[4:].any(axis=0).sum())
            two_apart += int((error[5:] - error[3:-2] > ROUNDING).any(axis=0).sum())
            growth = max(growth, float((error[4] / error[3]).max() - 1))
            last = max(last, float(error[-1].max() / DEFAULT.g_target))
    return {
        "rows": rows,
        "fifth_above_fourth": fourth,
        "largest_growth": round(growth, 4),
        "any_later_growth": later,
        "above_two_before": two_apart,
        "last_error_over_target": last,
    }


if __name__ == "__main__":
    print(json.dumps(settling(200)))
