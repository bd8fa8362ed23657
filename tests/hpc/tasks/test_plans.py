"""Every task against its plan: what is stated before torch is loaded is what the task then builds."""

import pytest

from hpc.config.plan import plan_of
from hpc.config.sizes import sizes
from hpc.task import build_task
from launch.options.compose import composed
from launch.options.conf import choices


@pytest.mark.parametrize("task", choices("task"))
def test_a_task_builds_the_players_of_its_plan(task):
    config = composed([f"task={task}", "smoke=true"])
    plan, job = plan_of(config.task), build_task(config)
    players = job.players()
    assert set(players) == set(plan.players)
    for stage in sizes(config).stages:
        assert {phase.player for phase in job.phases(stage.clock)} <= set(players)
    for player in players:
        assert player.isidentifier(), "it is part of a key: players.NAME.optim.lr"
        job.groups(player)
