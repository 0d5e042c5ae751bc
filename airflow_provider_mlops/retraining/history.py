"""What a model's journal says about its trainings and its judged windows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.journal import kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta

    from airflow_provider_mlops.journal import Entry

__all__ = ["Attempt", "Check", "History", "Outcome", "history", "open_attempt"]


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
    realized: str
    baking: bool


@dataclass(frozen=True, slots=True)
class History:
    """
    The fold of a model's journal.

    :param attempts: oldest first.
    :param checks: the windows judged since the last training was asked for and since the last promotion, oldest first;
        a window that was judged twice stands once, with its last judgment.
    :param quarantined: digests of data that broke its contract.
    :param follow_up: a request was turned away because a training was in flight: look again when that ends.
    """

    attempts: tuple[Attempt, ...] = ()
    checks: tuple[Check, ...] = ()
    quarantined: frozenset[str] = frozenset()
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
    book = _read(entries)
    return History(
        attempts=tuple(_lost(attempt, now, lease) for attempt in book.attempts),
        checks=tuple(book.checks.values()),
        quarantined=frozenset(book.quarantined),
        follow_up=book.follow_up,
    )


def open_attempt(entries: Iterable[Entry], *, key: str, owner: str) -> Attempt | None:
    """
    Return the newest training of *key*, or that *owner* asked for, whose end is not recorded.

    :raises DataError: an entry lacks what its kind must carry.
    """
    attempts = reversed(_read(entries).attempts)
    return next((a for a in attempts if a.in_flight and (a.key == key or a.owner == owner)), None)


def _read(entries: Iterable[Entry]) -> _Book:
    book = _Book()
    for entry in entries:
        write = _WRITERS.get(entry.record.kind)
        if write is None:
            continue
        try:
            write(book, entry.record.payload, entry.record.at)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Entry {entry.sequence} of {entry.stream} cannot be read as {entry.record.kind!r}: {error!r}."
            ) from error
    return book


def _lost(attempt: Attempt, now: datetime, lease: timedelta) -> Attempt:
    if attempt.in_flight and now >= attempt.began_at + lease:
        return replace(attempt, outcome=Outcome.LOST, ended_at=attempt.began_at + lease)
    return attempt


@dataclass
class _Book:
    """The history while it is written."""

    attempts: list[Attempt] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)  # by window
    quarantined: set[str] = field(default_factory=set)
    deploying: set[str] = field(default_factory=set)
    follow_up: bool = False

    def decided(self, payload: Mapping[str, Any], at: datetime) -> None:
        if not payload["binding"]:
            return
        if payload["verdict"] == "train":
            self._begin(Attempt(payload["key"], payload["owner"], requested_at=at, began_at=at))
        elif payload["reason"] == "running":
            self.follow_up = True

    def started(self, payload: Mapping[str, Any], at: datetime) -> None:
        run = {"run_id": payload["run_id"], "outcome": Outcome.RUNNING, "began_at": at}
        last = self._find(payload["key"], None)
        if last is not None and self.attempts[last].outcome in (Outcome.REQUESTED, Outcome.RUNNING, Outcome.FAILED):
            self.attempts[last] = replace(self.attempts[last], **run, ended_at=None)
        else:
            self._begin(Attempt(payload["key"], None, requested_at=at, **run))

    def ended(self, payload: Mapping[str, Any], at: datetime, outcome: Outcome) -> None:
        end = {"run_id": payload["run_id"], "outcome": outcome, "ended_at": at}
        last = self._find(payload["key"], payload["run_id"])
        if last is not None:
            self.attempts[last] = replace(self.attempts[last], **end)
        else:
            self.attempts.append(Attempt(payload["key"], None, requested_at=at, began_at=at, **end))

    def judged(self, payload: Mapping[str, Any], at: datetime) -> None:
        last = self._find(None, payload["run_id"])
        if last is not None:
            outcome = Outcome.PASSED if payload["verdict"] == "passed" else Outcome.REFUSED
            ended_at = self.attempts[last].ended_at or at
            self.attempts[last] = replace(self.attempts[last], outcome=outcome, ended_at=ended_at)

    def checked(self, payload: Mapping[str, Any], _at: datetime) -> None:
        self.checks[payload["window"]] = Check(
            window=payload["window"],
            verdict=payload["verdict"],
            variation=payload["variation"],
            prediction_drift=payload["prediction_drift"],
            estimated=payload["estimated_performance"],
            realized=payload["realized_performance"],
            baking=bool(self.deploying),
        )

    def _begin(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        self.checks.clear()  # what they called for is being done
        self.follow_up = False

    def _find(self, key: str | None, run_id: str | None) -> int | None:
        """Return the index of the newest attempt of *run_id*, else of *key*."""
        newest_first = range(len(self.attempts) - 1, -1, -1)
        of_run = (n for n in newest_first if run_id is not None and self.attempts[n].run_id == run_id)
        of_key = (n for n in newest_first if key is not None and self.attempts[n].key == key)
        return next(of_run, next(of_key, None))


_WRITERS: dict[str, Callable[[_Book, Mapping[str, Any], datetime], object]] = {
    kinds.RETRAINING_DECIDED: _Book.decided,
    kinds.TRAINING_STARTED: _Book.started,
    kinds.TRAINING_FINISHED: lambda book, payload, at: book.ended(payload, at, Outcome.TRAINED),
    kinds.TRAINING_FAILED: lambda book, payload, at: book.ended(payload, at, Outcome.FAILED),
    kinds.GATE_DECIDED: _Book.judged,
    kinds.DRIFT_CHECKED: _Book.checked,
    kinds.DATA_QUARANTINED: lambda book, payload, _at: book.quarantined.add(payload["data_digest"]),
    kinds.PROMOTION_DONE: lambda book, _payload, _at: book.checks.clear(),
    kinds.ROLLOUT_STARTED: lambda book, payload, _at: book.deploying.add(payload["name"]),
    kinds.ROLLOUT_FINISHED: lambda book, payload, _at: book.deploying.discard(payload["name"]),
}
