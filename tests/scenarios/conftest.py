"""Every scenario runs on the simulated edges, once per seed, and once on the real ones."""

from __future__ import annotations

import pytest

from tests.scenarios.edges import Edges
from tests.scenarios.real_edges import RealEdges
from tests.scenarios.simulated_edges import SimulatedEdges
from tests.stack.conftest import local_stack, system

__all__ = ["edges", "local_stack", "system"]

SEEDS = 5
KINDS = [
    *(pytest.param(seed, id=f"simulated-{seed}") for seed in range(SEEDS)),
    pytest.param(None, id="real", marks=pytest.mark.stack),
]


@pytest.fixture(params=KINDS)
async def edges(request: pytest.FixtureRequest) -> Edges:
    """The world of one scenario."""
    if request.param is not None:
        return SimulatedEdges(request.param)
    name = request.node.name.removeprefix("test_").split("[")[0].replace("_", "-")
    return RealEdges(request.getfixturevalue("system")(f"sc-{name}"))
