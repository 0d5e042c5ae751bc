"""Is the candidate better than the champion, and is it good enough? Pure: values in, a `GateDecision` out."""

from airflow_provider_mlops.evaluation.gate import check_rules, decide
from airflow_provider_mlops.evaluation.importance import Importance
from airflow_provider_mlops.evaluation.values import (
    Finding,
    GateDecision,
    GatePolicy,
    GateVerdict,
    Predictions,
    Reason,
    Rule,
    RuleOutcome,
    Task,
)

__all__ = [
    "Finding",
    "GateDecision",
    "GatePolicy",
    "GateVerdict",
    "Importance",
    "Predictions",
    "Reason",
    "Rule",
    "RuleOutcome",
    "Task",
    "check_rules",
    "decide",
]
