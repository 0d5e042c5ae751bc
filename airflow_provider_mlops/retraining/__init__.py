"""Should the model be trained now? The policy, what it reads from the journal, and how a request is made."""

from airflow_provider_mlops.retraining.harm import Action, Harm, judge
from airflow_provider_mlops.retraining.history import Attempt, Check, History, Outcome, history, open_attempt
from airflow_provider_mlops.retraining.policy import (
    RetrainDecision,
    RetrainPolicy,
    Trigger,
    Verdict,
    decide,
    request_key,
)
from airflow_provider_mlops.retraining.request import close, request

__all__ = [
    "Action",
    "Attempt",
    "Check",
    "Harm",
    "History",
    "Outcome",
    "RetrainDecision",
    "RetrainPolicy",
    "Trigger",
    "Verdict",
    "close",
    "decide",
    "history",
    "judge",
    "open_attempt",
    "request",
    "request_key",
]
