"""
Drift is not harm: what one judged window calls for.

| input drift | predictions moved | estimated | realized | action |
|---|---|---|---|---|
| bad_data | any | any | any | quarantine |
| any | any | any | drop, while a deployment bakes | roll back |
| no | no | ok | drop | retrain: the concept changed, and the estimate did not see it |
| any | any | any | drop | retrain |
| any | any | drop | unknown | retrain |
| any | any | drop | ok | investigate: the estimate is wrong |
| any | yes | ok or unknown | ok or unknown | investigate |
| yes | no or unknown | ok or unknown | ok or unknown | explain |
| no, insufficient, no_data | no or unknown | ok or unknown | ok or unknown | none |

The first row that fits counts. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Action", "Harm", "judge"]


class Action(StrEnum):
    """What a window calls for."""

    NONE = "none"
    EXPLAIN = "explain"
    INVESTIGATE = "investigate"
    RETRAIN = "retrain"
    ROLL_BACK = "roll_back"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Harm:
    """What a window calls for, why as a code, and why in words."""

    action: Action
    reason: str
    sentence: str


_BAD_DATA = Harm(Action.QUARANTINE, "bad_data", "The data broke its contract; it says nothing about the model.")
_ROLL_BACK = Harm(
    Action.ROLL_BACK, "roll_back_first", "The performance fell while a deployment is under way: roll it back first."
)
_CONCEPT = Harm(
    Action.RETRAIN,
    "concept_drift",
    "The performance fell though neither inputs nor predictions moved: the concept changed. Train on the newest "
    "labels, and mistrust the estimate, which saw nothing.",
)
_DROP = Harm(Action.RETRAIN, "performance_drop", "The performance fell by more than is tolerated.")
_ESTIMATED = Harm(Action.RETRAIN, "performance_drop", "The estimated performance fell by more than is tolerated.")
_ESTIMATE_WRONG = Harm(
    Action.INVESTIGATE, "estimate_wrong", "The estimate saw a drop, the labels saw none: mistrust the estimate."
)
_PREDICTIONS = Harm(Action.INVESTIGATE, "predictions_moved", "The predictions moved; no drop of performance is known.")
_DRIFT_ONLY = Harm(Action.EXPLAIN, "drift_only", "The inputs moved; no drop of performance is known.")
_NO_HARM = Harm(Action.NONE, "no_harm", "Nothing moved by more than is tolerated.")


def judge(verdict: str, *, prediction_drift: bool | None, estimated: str, realized: str, baking: bool) -> Harm:
    """
    Return what a window calls for, see the table of this module.

    :param verdict: of the input: ``drift`` | ``no_drift`` | ``insufficient`` | ``bad_data`` | ``no_data``.
    :param prediction_drift: whether the predictions moved; ``None`` when nobody looked.
    :param estimated: performance without labels: ``ok`` | ``drop`` | ``unknown``.
    :param realized: performance with labels: ``ok`` | ``drop`` | ``unknown``.
    :param baking: a deployment of this model is under way.
    """
    moved = verdict == "drift" or bool(prediction_drift)
    table = (
        (verdict == "bad_data", _BAD_DATA),
        (realized == "drop" and baking, _ROLL_BACK),
        (realized == "drop" and verdict == "no_drift" and estimated == "ok" and not moved, _CONCEPT),
        (realized == "drop", _DROP),
        (estimated == "drop" and realized == "unknown", _ESTIMATED),
        (estimated == "drop", _ESTIMATE_WRONG),
        (bool(prediction_drift), _PREDICTIONS),
        (verdict == "drift", _DRIFT_ONLY),
        (verdict == "no_drift", _NO_HARM),
        (True, Harm(Action.NONE, verdict, "The window holds too little data to tell.")),
    )
    return next(harm for fits, harm in table if fits)
