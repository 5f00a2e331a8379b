"""Runs a scenario to its end and has it judged; finds the calmest scenario that still fails."""

from __future__ import annotations

import asyncio
from unittest import mock

from routekeel.streams.topology import intake
from tests.simulation.scenario import Scenario
from tests.simulation.store import SimStore
from tests.simulation.verdict import Result, judge, judge_rows, settings
from tests.simulation.world import World

TURNS_SHOWN = 40


def simulate(scenario: Scenario) -> Result:
    """Run the scenario.

    Raises AssertionError, or what the worker died of, where anything is wrong, with the last turns as a note.
    """
    world = World(scenario)
    try:
        with mock.patch.object(intake, "STRETCH_MIN", scenario.stretch_min):
            asyncio.run(world.run())
        result = Result(
            world.broker, world.ids, world.turns.log, world.deaths, world.rebalances, world.refused
        )
        judge(scenario, result)
        store = SimStore(result.broker, settings(), result.ids, scenario)
        store.run()
        judge_rows(result, store)
        return result
    except Exception as error:
        error.add_note("the last turns:\n  " + "\n  ".join(world.turns.log[-TURNS_SHOWN:]))
        raise


def shrink(scenario: Scenario, error: Exception) -> tuple[Scenario, Exception]:
    """The calmest scenario found that still fails, and how."""
    while True:
        for calmer in scenario.calmer():
            try:
                simulate(calmer)
            except Exception as found:
                scenario, error = calmer, found
                break
        else:
            return scenario, error
