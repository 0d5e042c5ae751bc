"""How a new version takes over traffic: plan, state, evidence, the pure step, and the port to what serves."""

from __future__ import annotations

from airflow_provider_mlops.rollout.advance import advance
from airflow_provider_mlops.rollout.drive import drive
from airflow_provider_mlops.rollout.plan import IfInconclusive, RolloutPlan, Strategy
from airflow_provider_mlops.rollout.state import RolloutPhase, RolloutState
from airflow_provider_mlops.rollout.target import Action, Arm, Observation, Role, Target

__all__ = [
    "Action",
    "Arm",
    "IfInconclusive",
    "Observation",
    "Role",
    "RolloutPhase",
    "RolloutPlan",
    "RolloutState",
    "Strategy",
    "Target",
    "advance",
    "drive",
]
