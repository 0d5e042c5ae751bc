"""The kinds of record. What each carries is built in `airflow_provider_mlops.journal.payloads`."""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPROVAL_ANSWERED",
    "DATA_QUARANTINED",
    "DRIFT_CHECKED",
    "GATE_DECIDED",
    "KINDS",
    "MANY_CANDIDATES",
    "MODEL_REGISTERED",
    "MODEL_SMOKE_TESTED",
    "OVERRIDE_USED",
    "PROMOTION_ABANDONED",
    "PROMOTION_DONE",
    "PROMOTION_LEASED",
    "PROMOTION_PENDING",
    "RETRAINING_DECIDED",
    "ROLLOUT_ADVANCED",
    "ROLLOUT_FINISHED",
    "ROLLOUT_STARTED",
    "TRAINING_FAILED",
    "TRAINING_FINISHED",
    "TRAINING_STARTED",
]

DRIFT_CHECKED: Final = "drift.checked"
DATA_QUARANTINED: Final = "data.quarantined"
RETRAINING_DECIDED: Final = "retraining.decided"
TRAINING_STARTED: Final = "training.started"
TRAINING_FINISHED: Final = "training.finished"
TRAINING_FAILED: Final = "training.failed"
GATE_DECIDED: Final = "gate.decided"
MODEL_REGISTERED: Final = "model.registered"
MODEL_SMOKE_TESTED: Final = "model.smoke_tested"
APPROVAL_ANSWERED: Final = "approval.answered"
PROMOTION_LEASED: Final = "promotion.leased"
PROMOTION_PENDING: Final = "promotion.pending"
PROMOTION_DONE: Final = "promotion.done"
PROMOTION_ABANDONED: Final = "promotion.abandoned"
ROLLOUT_STARTED: Final = "rollout.started"
ROLLOUT_ADVANCED: Final = "rollout.advanced"
ROLLOUT_FINISHED: Final = "rollout.finished"
OVERRIDE_USED: Final = "override.used"

MANY_CANDIDATES: Final = 20
"""So many candidates judged by the same rows are told of: one of them may have passed by luck."""

KINDS: Final = (
    DRIFT_CHECKED,
    DATA_QUARANTINED,
    RETRAINING_DECIDED,
    TRAINING_STARTED,
    TRAINING_FINISHED,
    TRAINING_FAILED,
    GATE_DECIDED,
    MODEL_REGISTERED,
    MODEL_SMOKE_TESTED,
    APPROVAL_ANSWERED,
    PROMOTION_LEASED,
    PROMOTION_PENDING,
    PROMOTION_DONE,
    PROMOTION_ABANDONED,
    ROLLOUT_STARTED,
    ROLLOUT_ADVANCED,
    ROLLOUT_FINISHED,
    OVERRIDE_USED,
)
