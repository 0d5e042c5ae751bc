"""
What each kind of record carries: one function per kind, whose keyword arguments are the payload's keys.

Promotion and retraining decide by these keys, so operators build payloads here and nowhere else. Pure.
Times are ISO 8601 text, fractions are 0..1, an optional key that does not apply is ``None``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = [
    "Performance",
    "approval_answered",
    "data_quarantined",
    "drift_checked",
    "gate_decided",
    "model_registered",
    "model_smoke_tested",
    "override_used",
    "promotion_abandoned",
    "promotion_done",
    "promotion_leased",
    "promotion_pending",
    "retraining_decided",
    "rollout_advanced",
    "rollout_finished",
    "rollout_started",
    "training_failed",
    "training_finished",
    "training_started",
]

Performance = Literal["ok", "drop", "unknown"]
"""*drop*: the interval excludes the tolerance; *unknown*: no labels, no estimate, or too few rows."""


def drift_checked(
    *,
    window: str,
    verdict: str,
    reason: str,
    sentence: str,
    columns: Sequence[str] = (),
    variation: str = "known",
    prediction_drift: bool | None = None,
    estimated_performance: Performance = "unknown",
    realized_performance: Performance = "unknown",
    report_uri: str | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return the payload of ``drift.checked``: one window was judged.

    :param window: what names the judged data, its digest or its window's end; judged twice, it counts once.
    :param verdict: ``drift`` | ``no_drift`` | ``insufficient`` | ``bad_data`` | ``no_data``.
    :param columns: the columns that moved most, most first.
    :param variation: ``unknown`` when the natural variation could not be estimated; such drift never starts training.
    :param prediction_drift: whether the predictions' distribution moved; ``None`` when it was not looked at.
    :param estimated_performance: without labels.
    :param realized_performance: with labels.
    """
    return {
        "window": window,
        "verdict": str(verdict),
        "reason": reason,
        "sentence": sentence,
        "columns": list(columns),
        "variation": variation,
        "prediction_drift": prediction_drift,
        "estimated_performance": estimated_performance,
        "realized_performance": realized_performance,
        "report_uri": report_uri,
        "numbers": dict(numbers or {}),
    }


def data_quarantined(*, data_digest: str, reason: str, sentence: str, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Return the payload of ``data.quarantined``: this data broke its contract and must not be trained on."""
    return {"data_digest": data_digest, "reason": reason, "sentence": sentence, "columns": list(columns)}


def retraining_decided(
    *,
    verdict: str,
    reason: str,
    sentence: str,
    numbers: Mapping[str, Any],
    key: str,
    trigger: str,
    owner: str,
    binding: bool = True,
) -> dict[str, Any]:
    """
    Return the payload of ``retraining.decided``.

    :param verdict: ``train`` | ``wait`` | ``blocked``.
    :param key: request key of what would be trained, see `retraining.request_key`.
    :param trigger: ``schedule`` | ``new_data`` | ``monitor`` | ``manual``.
    :param owner: who asked, the same for every attempt of one request (a DAG run).
    :param binding: whether a ``train`` is acted on; a decision that is only noted (``mode: observe``) counts nowhere.
    """
    return {
        "verdict": str(verdict),
        "reason": reason,
        "sentence": sentence,
        "numbers": dict(numbers),
        "key": key,
        "trigger": str(trigger),
        "owner": owner,
        "binding": binding,
    }


def training_started(
    *, key: str, run_id: str, data_digest: str | None = None, job: str | None = None
) -> dict[str, Any]:
    """Return the payload of ``training.started``. *run_id* is MLflow's, *job* the name of the job that trains."""
    return {"key": key, "run_id": run_id, "data_digest": data_digest, "job": job}


def training_finished(
    *, key: str, run_id: str, metrics: Mapping[str, float] | None = None, model_uri: str | None = None
) -> dict[str, Any]:
    """Return the payload of ``training.finished``: the run holds a model."""
    return {"key": key, "run_id": run_id, "metrics": dict(metrics or {}), "model_uri": model_uri}


def training_failed(*, key: str, run_id: str | None, reason: str, sentence: str) -> dict[str, Any]:
    """Return the payload of ``training.failed``. *reason* is the job's phase or the code of the error."""
    return {"key": key, "run_id": run_id, "reason": reason, "sentence": sentence}


def gate_decided(
    *,
    verdict: str,
    reason: str,
    sentence: str,
    digest: str,
    run_id: str,
    champion: str | None,
    version: str | None = None,
    numbers: Mapping[str, Any] | None = None,
    report_uri: str | None = None,
    rows_digest: str | None = None,
    judged_before: int = 0,
    model_uri: str | None = None,
) -> dict[str, Any]:
    """
    Return the payload of ``gate.decided``: the candidate of *run_id* was judged.

    :param verdict: ``passed`` | ``refused`` | ``underpowered``.
    :param digest: digest of the whole decision; a promotion must bring the same.
    :param champion: version that it was compared with; ``None`` for a first model.
    :param version: version of the candidate, when it is registered already.
    :param rows_digest: names the evaluation rows.
    :param judged_before: how many other candidates the same rows had judged.
    :param model_uri: the model that was scored: a run may hold several.
    """
    return {
        "verdict": str(verdict),
        "reason": reason,
        "sentence": sentence,
        "digest": digest,
        "rows_digest": rows_digest,
        "judged_before": judged_before,
        "run_id": run_id,
        "model_uri": model_uri,
        "champion": champion,
        "version": version,
        "numbers": dict(numbers or {}),
        "report_uri": report_uri,
    }


def model_registered(
    *, version: str, run_id: str, source: str, data_digest: str | None = None, gate_digest: str | None = None
) -> dict[str, Any]:
    """Return the payload of ``model.registered``. A version's first such record fixes its place in the order."""
    return {
        "version": version,
        "run_id": run_id,
        "source": source,
        "data_digest": data_digest,
        "gate_digest": gate_digest,
    }


def model_smoke_tested(
    *, version: str, passed: bool, reason: str, sentence: str, numbers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the payload of ``model.smoke_tested``: the exact artifact was started and probed."""
    return {
        "version": version,
        "passed": passed,
        "reason": reason,
        "sentence": sentence,
        "numbers": dict(numbers or {}),
    }


def approval_answered(
    *,
    version: str,
    approved: bool,
    chosen: Sequence[str],
    responded_by: Mapping[str, str | None] | None,
    at: str | None,
    gate_digest: str | None,
) -> dict[str, Any]:
    """
    Return the payload of ``approval.answered``: a person was asked whether *version* may be promoted.

    :param chosen: what was answered, in the words that were offered.
    :param responded_by: ``id`` and ``name`` of the person; ``None``: nobody answered in time and the default counts.
    :param at: when it was answered.
    :param gate_digest: digest of the gate decision that was shown as evidence.
    """
    return {
        "version": version,
        "approved": approved,
        "chosen": list(chosen),
        "responded_by": None if responded_by is None else dict(responded_by),
        "at": at,
        "gate_digest": gate_digest,
    }


def promotion_leased(*, owner: str, token: int, until: datetime) -> dict[str, Any]:
    """Return the payload of ``promotion.leased``: *owner* alone may move aliases until *until*, or a higher *token*."""
    return {"owner": owner, "token": token, "until": until.isoformat()}


def promotion_pending(
    *,
    alias: str,
    version: str,
    previous: str | None,
    token: int,
    gate_digest: str | None,
    rollback: bool,
    sentence: str | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """
    Return the payload of ``promotion.pending``: *alias* is about to move from *previous* to *version*.

    :param run_id: the run that made *version*, by which another registry's version of this number is told from it.
    :param sentence: why, when the gate's decision does not say it.
    """
    return {
        "alias": alias,
        "version": version,
        "previous": previous,
        "token": token,
        "gate_digest": gate_digest,
        "rollback": rollback,
        "sentence": sentence,
        "run_id": run_id,
    }


def promotion_done(
    *,
    alias: str,
    version: str | None,
    previous: str | None,
    token: int,
    rollback: bool,
    adopted: bool = False,
    run_id: str | None = None,
) -> dict[str, Any]:
    """
    Return the payload of ``promotion.done``: *alias* points at *version*, read back.

    :param version: ``None`` only when *adopted*: the alias was deleted from outside.
    :param adopted: the alias was moved from outside, and this was accepted.
    :param run_id: the run that made an *adopted* version; of any other its ``promotion.pending`` says it.
    """
    return {
        "alias": alias,
        "version": version,
        "previous": previous,
        "token": token,
        "rollback": rollback,
        "adopted": adopted,
        "run_id": run_id,
    }


def promotion_abandoned(*, alias: str, version: str, token: int, reason: str, sentence: str) -> dict[str, Any]:
    """Return the payload of ``promotion.abandoned``: the promotion with *token* ended without moving the alias."""
    return {"alias": alias, "version": version, "token": token, "reason": reason, "sentence": sentence}


def rollout_started(
    *,
    name: str,
    version: str,
    stable_version: str | None,
    strategy: str,
    plan: Mapping[str, Any] | None = None,
    began_at: str | None = None,
) -> dict[str, Any]:
    """
    Return the payload of ``rollout.started``. *name* is the deployment's; until it finishes the version bakes.

    :param began_at: ISO 8601; tells this rollout of the version from another, as in the two below.
    """
    return {
        "name": name,
        "version": version,
        "began_at": began_at,
        "stable_version": stable_version,
        "strategy": strategy,
        "plan": dict(plan or {}),
    }


def rollout_advanced(
    *, name: str, version: str, phase: str, step: int, weight: int, sentence: str, began_at: str | None = None
) -> dict[str, Any]:
    """Return the payload of ``rollout.advanced``. *weight* is the new version's share of the traffic in per cent."""
    return {
        "name": name,
        "version": version,
        "began_at": began_at,
        "phase": str(phase),
        "step": step,
        "weight": weight,
        "sentence": sentence,
    }


def rollout_finished(
    *, name: str, version: str, phase: str, reason: str, sentence: str, began_at: str | None = None
) -> dict[str, Any]:
    """Return the payload of ``rollout.finished``: *phase* is the final one."""
    return {
        "name": name,
        "version": version,
        "began_at": began_at,
        "phase": str(phase),
        "reason": reason,
        "sentence": sentence,
    }


def override_used(*, what: str, why: str, version: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """Return the payload of ``override.used``: the safety *what* was switched off by a person, who said *why*."""
    return {"what": what, "why": why, "version": version, "run_id": run_id}
