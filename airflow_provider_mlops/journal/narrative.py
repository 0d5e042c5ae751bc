"""A model's history in sentences: who did what, when and why. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.journal import kinds
from airflow_provider_mlops.journal.port import model_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_mlops.journal.record import Entry, Record

__all__ = ["explain", "sentence_of", "tell"]


def explain(entries: Iterable[Entry], model: str) -> list[str]:
    """
    Return one line per entry of *model*, oldest first: its number, when, who, what, and why where it was recorded.

    Entries of other streams are left out. A payload without the expected keys is shown as it is.
    """
    stream = model_stream(model)
    return [
        f"{entry.sequence}. {entry.record.at:%Y-%m-%d %H:%M:%S} UTC, {entry.record.actor}: {tell(entry.record)}"
        for entry in entries
        if entry.stream == stream
    ]


def tell(record: Record) -> str:
    """Return what happened, and why, as a sentence or two on one line, without control characters."""
    return sentence_of(record.kind, record.payload)


def sentence_of(kind: str, payload: Mapping[str, Any]) -> str:
    """Return what `tell` says of a record with this *kind* and *payload*, whoever wrote it."""
    try:
        text = _SENTENCES[kind](payload)
    except (KeyError, TypeError):
        text = f"{kind}: {dict(payload)}"
    return "".join(char if char.isprintable() else " " for char in text)


def _why(payload: Mapping[str, Any]) -> str:
    return f" {payload['sentence']}" if payload.get("sentence") else ""


def _drift_checked(payload: Mapping[str, Any]) -> str:
    columns = f" Moved most: {', '.join(payload['columns'][:5])}." if payload["columns"] else ""
    performance = [
        f" {name.capitalize()} performance: {payload[f'{name}_performance']}."
        for name in ("estimated", "realized")
        if payload[f"{name}_performance"] != "unknown"
    ]
    return (
        f"window {payload['window']} was judged {payload['verdict']} ({payload['reason']}).{_why(payload)}{columns}"
        + "".join(performance)
    )


def _training_failed(payload: Mapping[str, Any]) -> str:
    run = f"run {payload['run_id']}" if payload["run_id"] else "a training without a run"
    return f"{run} failed ({payload['reason']}).{_why(payload)}"


def _gate_decided(payload: Mapping[str, Any]) -> str:
    against = f"champion {payload['champion']}" if payload["champion"] else "no champion"
    count = payload.get("judged_before", 0) + 1
    reused = f" It was candidate {count} of these rows." if count >= kinds.MANY_CANDIDATES else ""
    return (
        f"the candidate of run {payload['run_id']} was judged against {against}: {payload['verdict']} "
        f"({payload['reason']}).{_why(payload)}{reused}"
    )


def _smoke_tested(payload: Mapping[str, Any]) -> str:
    outcome = (
        "was started and answered as it should" if payload["passed"] else f"failed its probe ({payload['reason']})"
    )
    return f"version {payload['version']} {outcome}.{_why(payload)}"


def _answered(payload: Mapping[str, Any]) -> str:
    who = payload["responded_by"]
    name = f"{who['name'] or who['id']} (id {who['id']})" if who else "nobody in time, so by default"
    at = f" at {payload['at']}" if payload["at"] else ""
    evidence = f", on gate decision {payload['gate_digest']}" if payload["gate_digest"] else ""
    return (
        f"the promotion of version {payload['version']} was {'approved' if payload['approved'] else 'rejected'} by "
        f"{name}{at}: {', '.join(payload['chosen'])}{evidence}."
    )


def _pending(payload: Mapping[str, Any]) -> str:
    what = "roll back" if payload["rollback"] else "promote"
    evidence = f", on gate decision {payload['gate_digest']}" if payload["gate_digest"] else ""
    return (
        f"is about to {what} {payload['alias']} from {payload['previous'] or 'none'} to {payload['version']}{evidence}."
        f"{_why(payload)}"
    )


def _done(payload: Mapping[str, Any]) -> str:
    if payload["adopted"]:
        return (
            f"{payload['alias']} had been moved from {payload['previous']} to {payload['version']} from outside; "
            "this was accepted."
        )
    what = "rolled back" if payload["rollback"] else "promoted"
    return f"{what}: {payload['alias']} is version {payload['version']}, it was {payload['previous'] or 'none'}."


def _override_used(payload: Mapping[str, Any]) -> str:
    whom = f" for version {payload['version']}" if payload["version"] else ""
    return f"switched off the safety {payload['what']!r}{whom}. Reason given: {payload['why']}"


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    kinds.DRIFT_CHECKED: _drift_checked,
    kinds.DATA_QUARANTINED: lambda p: f"data {p['data_digest']} was quarantined ({p['reason']}).{_why(p)}",
    kinds.RETRAINING_DECIDED: lambda p: f"retraining on {p['trigger']}: {p['verdict']} ({p['reason']}).{_why(p)}",
    kinds.TRAINING_STARTED: lambda p: f"training run {p['run_id']} started on data {p['data_digest']}.",
    kinds.TRAINING_FINISHED: lambda p: f"training run {p['run_id']} finished.",
    kinds.TRAINING_FAILED: _training_failed,
    kinds.GATE_DECIDED: _gate_decided,
    kinds.MODEL_REGISTERED: lambda p: f"run {p['run_id']} was registered as version {p['version']}.",
    kinds.MODEL_SMOKE_TESTED: _smoke_tested,
    kinds.APPROVAL_ANSWERED: _answered,
    kinds.PROMOTION_LEASED: lambda p: f"took the promotion lease {p['token']} until {p['until']}.",
    kinds.PROMOTION_PENDING: _pending,
    kinds.PROMOTION_DONE: _done,
    kinds.PROMOTION_ABANDONED: lambda p: (
        f"did not move {p['alias']}{' to ' if p['version'] else ''}{p['version']} ({p['reason']}).{_why(p)}"
    ),
    kinds.ROLLOUT_STARTED: lambda p: f"{p['strategy']} rollout of version {p['version']} to {p['name']} started.",
    kinds.ROLLOUT_ADVANCED: lambda p: f"rollout to {p['name']}: {p['phase']}, {p['weight']} % of traffic.{_why(p)}",
    kinds.ROLLOUT_FINISHED: lambda p: (
        f"rollout of version {p['version']} to {p['name']} ended {p['phase']} ({p['reason']}).{_why(p)}"
    ),
    kinds.OVERRIDE_USED: _override_used,
}
