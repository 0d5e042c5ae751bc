"""What a model's journal says about its trainings and its judged windows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.journal import kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta

    from airflow_provider_mlops.journal import Entry

__all__ = ["Attempt", "Check", "History", "Outcome", "history"]


class Outcome(StrEnum):
    """How far a training came."""

    REQUESTED = "requested"
    RUNNING = "running"
    TRAINED = "trained"  # a model exists; the gate has not spoken
    PASSED = "passed"
    REFUSED = "refused"  # by the gate, or it had too few rows to tell
    FAILED = "failed"
    LOST = "lost"  # no end was recorded within the lease


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One training, from the request on.

    :param key: request key, see `retraining.request_key`.
    :param owner: who asked; ``None`` for a training that nobody asked the policy about.
    :param began_at: when it was requested, or last started.
    :param ended_at: when it finished, failed or was lost; ``None`` while it is in flight.
    """

    key: str
    owner: str | None
    requested_at: datetime
    began_at: datetime
    run_id: str | None = None
    outcome: Outcome = Outcome.REQUESTED
    ended_at: datetime | None = None

    @property
    def in_flight(self) -> bool:
        """Whether its end is still to come."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class Check:
    """One judged window, as ``drift.checked`` recorded it. *baking*: a deployment was under way."""

    window: str
    verdict: str
    variation: str
    prediction_drift: bool | None
    estimated: str
    realised: str
    baking: bool


@dataclass(frozen=True, slots=True)
class History:
    """
    The fold of a model's journal.

    :param attempts: oldest first.
    :param checks: the windows judged since the last training was asked for and since the last promotion, oldest first;
        a window that was judged twice stands once, with its last judgement.
    :param quarantined: digests of data that broke its contract.
    :param deploying: names of the deployments under way.
    :param follow_up: a request was turned away because a training was in flight: look again when that ends.
    """

    attempts: tuple[Attempt, ...] = ()
    checks: tuple[Check, ...] = ()
    quarantined: frozenset[str] = frozenset()
    deploying: frozenset[str] = frozenset()
    follow_up: bool = False

    def in_flight(self) -> Attempt | None:
        """Return the training whose end is still to come."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.in_flight), None)

    def last_of(self, key: str) -> Attempt | None:
        """Return the newest training of *key*."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.key == key), None)

    def last_end(self) -> datetime | None:
        """Return when a training ended last."""
        return max((attempt.ended_at for attempt in self.attempts if attempt.ended_at), default=None)

    def setbacks(self) -> int:
        """Return how many trainings in a row, up to the newest, were refused, failed or lost."""
        count = 0
        for attempt in reversed(self.attempts):
            if attempt.outcome is Outcome.PASSED:
                break
            count += attempt.outcome in (Outcome.REFUSED, Outcome.FAILED, Outcome.LOST)
        return count


def history(entries: Iterable[Entry], now: datetime, *, lease: timedelta) -> History:
    """
    Fold a model's *entries*, oldest first, as they look at *now*.

    :param lease: a training without a recorded end for so long is lost.
    :raises DataError: an entry lacks what its kind must carry.
    """
    folded = History()
    for entry in entries:
        fold = _FOLDS.get(entry.record.kind)
        if fold is None:
            continue
        try:
            folded = fold(folded, entry.record.payload, entry.record.at)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Entry {entry.sequence} of {entry.stream} cannot be read as {entry.record.kind!r}: {error!r}."
            ) from error
    return replace(folded, attempts=tuple(_lost(attempt, now, lease) for attempt in folded.attempts))


def _lost(attempt: Attempt, now: datetime, lease: timedelta) -> Attempt:
    if attempt.in_flight and now >= attempt.began_at + lease:
        return replace(attempt, outcome=Outcome.LOST, ended_at=attempt.began_at + lease)
    return attempt


def _decided(old: History, payload: Mapping[str, Any], at: datetime) -> History:
    if not payload["binding"]:
        return old
    if payload["verdict"] != "train":
        return replace(old, follow_up=old.follow_up or payload["reason"] == "running")
    attempt = Attempt(payload["key"], payload["owner"], requested_at=at, began_at=at)
    return replace(old, attempts=(*old.attempts, attempt), checks=(), follow_up=False)


def _started(old: History, payload: Mapping[str, Any], at: datetime) -> History:
    last = old.last_of(payload["key"])
    if last is not None and last.outcome in (Outcome.REQUESTED, Outcome.RUNNING, Outcome.FAILED):
        again = replace(last, run_id=payload["run_id"], outcome=Outcome.RUNNING, began_at=at, ended_at=None)
        return _put(old, last, again)
    new = Attempt(payload["key"], None, requested_at=at, began_at=at, run_id=payload["run_id"], outcome=Outcome.RUNNING)
    return replace(old, attempts=(*old.attempts, new), checks=(), follow_up=False)


def _ended(old: History, payload: Mapping[str, Any], at: datetime, outcome: Outcome) -> History:
    last = _of_run(old, payload["run_id"]) or old.last_of(payload["key"])
    if last is None:
        new = Attempt(payload["key"], None, requested_at=at, began_at=at, run_id=payload["run_id"])
        return replace(old, attempts=(*old.attempts, replace(new, outcome=outcome, ended_at=at)))
    return _put(old, last, replace(last, run_id=payload["run_id"], outcome=outcome, ended_at=at))


def _judged(old: History, payload: Mapping[str, Any], at: datetime) -> History:
    last = _of_run(old, payload["run_id"])
    if last is None:
        return old
    outcome = Outcome.PASSED if payload["verdict"] == "passed" else Outcome.REFUSED
    return _put(old, last, replace(last, outcome=outcome, ended_at=last.ended_at or at))


def _checked(old: History, payload: Mapping[str, Any], _at: datetime) -> History:
    check = Check(
        window=payload["window"],
        verdict=payload["verdict"],
        variation=payload["variation"],
        prediction_drift=payload["prediction_drift"],
        estimated=payload["estimated_performance"],
        realised=payload["realised_performance"],
        baking=bool(old.deploying),
    )
    by_window = {known.window: known for known in old.checks} | {check.window: check}
    return replace(old, checks=tuple(by_window.values()))


def _of_run(old: History, run_id: str | None) -> Attempt | None:
    return next((attempt for attempt in reversed(old.attempts) if run_id and attempt.run_id == run_id), None)


def _put(old: History, last: Attempt, new: Attempt) -> History:
    return replace(old, attempts=tuple(new if attempt is last else attempt for attempt in old.attempts))


_FOLDS: dict[str, Callable[[History, Mapping[str, Any], datetime], History]] = {
    kinds.RETRAINING_DECIDED: _decided,
    kinds.TRAINING_STARTED: _started,
    kinds.TRAINING_FINISHED: lambda old, payload, at: _ended(old, payload, at, Outcome.TRAINED),
    kinds.TRAINING_FAILED: lambda old, payload, at: _ended(old, payload, at, Outcome.FAILED),
    kinds.GATE_DECIDED: _judged,
    kinds.DRIFT_CHECKED: _checked,
    kinds.DATA_QUARANTINED: lambda old, payload, _at: replace(
        old, quarantined=old.quarantined | {payload["data_digest"]}
    ),
    kinds.PROMOTION_DONE: lambda old, _payload, _at: replace(old, checks=()),
    kinds.ROLLOUT_STARTED: lambda old, payload, _at: replace(old, deploying=old.deploying | {payload["name"]}),
    kinds.ROLLOUT_FINISHED: lambda old, payload, _at: replace(old, deploying=old.deploying - {payload["name"]}),
}
