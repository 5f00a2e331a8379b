"""Runs a scenario to its end and has it judged; finds the calmest scenario that still fails."""

from __future__ import annotations

import asyncio

from tests.simulation.scenario import Scenario
from tests.simulation.store import SimStore
from tests.simulation.verdict import Result, judge, judge_rows, settings
from tests.simulation.world import World


def simulate(scenario: Scenario) -> Result:
    """Run the scenario. Raises AssertionError, or what the worker died of, where anything is wrong."""
    world = World(scenario)
    asyncio.run(world.run())
    result = Result(world.broker, world.ids, world.turns.log, world.deaths, world.rebalances)
    judge(scenario, result)
    store = SimStore(result.broker, settings(), result.ids, scenario.seed, scenario.store_fault)
    store.run()
    judge_rows(result, store)
    return result


def shrink(scenario: Scenario) -> Scenario:
    """The calmest scenario found that still fails."""
    while True:
        for calmer in scenario.calmer():
            try:
                simulate(calmer)
            except Exception:
                scenario = calmer
                break
        else:
            return scenario
