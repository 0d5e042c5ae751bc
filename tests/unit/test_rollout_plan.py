"""A plan is checked where it is written."""

from datetime import timedelta

import pytest

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.rollout import IfInconclusive, RolloutPlan, Strategy


def test_words_become_members():
    plan = RolloutPlan(strategy="canary", weights_percent=[10, 30], if_inconclusive="hold")
    assert (plan.strategy, plan.weights_percent, plan.if_inconclusive) == (
        Strategy.CANARY,
        (10, 30),
        IfInconclusive.HOLD,
    )


def test_a_plan_survives_its_json_form():
    plan = RolloutPlan(weights_percent=(5, 50), bake=timedelta(seconds=7))
    assert RolloutPlan.from_dict(plan.to_dict()) == plan


def test_times_may_be_written_as_in_a_pipeline_file():
    written = {"weights_percent": [10], "step_timeout": "30m", "bake": 90.5}
    assert RolloutPlan.from_dict(written).step_timeout == timedelta(minutes=30)
    assert RolloutPlan.from_dict(written).bake == timedelta(seconds=90.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bake": "5 minutes"}, "bake: expected seconds or a duration such as \"30m\", got '5 minutes'"),
        ({"bake": None}, "bake: expected seconds or a duration"),
        ({"min_requests_per_step": "500"}, "min_requests_per_step: expected a number, got '500'"),
        ({"max_error_rate": True}, "max_error_rate: expected a number, got True"),
        ({"weights_percent": 10}, r"weights_percent: expected a list such as \[10, 50\], got 10"),
        ({"weights_percent": "10, 50"}, "weights_percent: expected a list"),
    ],
)
def test_a_value_of_a_wrong_type_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        RolloutPlan.from_dict({"weights_percent": [10, 30], **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "canery"}, "strategy: 'canery' is none of rolling, blue_green, canary. Did you mean 'canary'"),
        ({"weights_percent": ()}, "A canary needs weights_percent"),
        ({"strategy": "rolling"}, "belong to strategy 'canary', not to 'rolling'"),
        ({"weights_percent": (0, 10)}, r"whole numbers 1..99, got 0"),
        ({"weights_percent": (10, 100)}, r"got 100. 100 follows the last by itself"),
        ({"weights_percent": (10.5,)}, r"got 10.5"),
        ({"weights_percent": (30, 10)}, r"must rise from step to step, got \[30, 10\]"),
        ({"weights_percent": (10, 10)}, r"must rise"),
        ({"min_requests_per_step": 0}, "min_requests_per_step: expected a number >= 1, got 0"),
        ({"max_error_rate": 2}, r"Write 0.02 for two per cent"),
        ({"max_error_rate": 0.5, "error_ceiling": 0.1}, r"max_error_rate <= error_ceiling"),
        ({"step_timeout": timedelta()}, "step_timeout: expected a time > 0"),
        ({"bake": timedelta(-1)}, "bake: expected a time >= 0"),
        ({"bake": timedelta(hours=6)}, "is over before the bake"),
        ({"if_inconclusive": "maybe"}, "if_inconclusive: 'maybe' is none of rollback, hold, promote"),
    ],
)
def test_a_contradiction_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        RolloutPlan(**{"weights_percent": (10, 30), **changes})


def test_an_unknown_key_is_named_with_its_neighbor():
    with pytest.raises(ConfigError, match=r"'weight_percent' is no key.*Did you mean 'weights_percent'"):
        RolloutPlan.from_dict({"weight_percent": [10]})
