"""
Whether to train now: a pure function of the policy, the model's journal and the time.

A request is looked at in this order, and the first that applies answers it: the same request was granted before; what
it would train was trained already; its data is quarantined; a training is in flight; a person asked; the breaker is
open; nothing calls for it; the cooldown; the budget.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, did_you_mean
from airflow_provider_mlops.journal import payloads
from airflow_provider_mlops.journal.record import canonical
from airflow_provider_mlops.retraining.harm import Action, judge
from airflow_provider_mlops.retraining.history import Outcome, history

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_mlops.journal import Entry
    from airflow_provider_mlops.retraining.harm import Harm
    from airflow_provider_mlops.retraining.history import Check, History

__all__ = ["RetrainDecision", "RetrainPolicy", "Trigger", "Verdict", "decide", "request_key"]

_BUDGET_PERIOD = timedelta(days=30)
_CAUSES = ("schedule", "new_data", "drift", "performance_drop")


class Verdict(StrEnum):
    """The answer to a request."""

    TRAIN = "train"
    WAIT = "wait"  # time, or the next window, may change the answer
    BLOCKED = "blocked"  # a person, other data or another policy must

    @property
    def is_yes(self) -> bool:
        """Whether to train."""
        return self is Verdict.TRAIN


class Trigger(StrEnum):
    """What asks."""

    SCHEDULE = "schedule"
    NEW_DATA = "new_data"
    MONITOR = "monitor"  # a window was judged; whether it calls for a training is decided here
    MANUAL = "manual"  # a person; passes hysteresis, cooldown, budget and breaker, never a running training


@dataclass(frozen=True, slots=True)
class RetrainPolicy:
    """
    When a training starts by itself, and what keeps it from starting too often.

    :param when: causes that may start a training: ``schedule``, ``new_data``, ``drift``, ``performance_drop``. Without
        ``drift``, input drift alone never does.
    :param violating_windows: windows with a cause, the latest among them, that start a training ...
    :param of_last: ... out of this many latest windows. A drop seen with labels does not wait for a second window.
    :param cooldown: shortest time from the end of one training to the next.
    :param max_runs_per_30_days: most trainings in 30 days, of any trigger.
    :param breaker_after: after so many refused, failed or lost trainings in a row only a person can start one.
    :param lease: a training without a recorded end for so long counts as lost; longer than the longest training.
    :raises ConfigError: an unknown cause, or a number that can never hold.
    """

    when: Sequence[str] = ("schedule",)
    violating_windows: int = 2
    of_last: int = 3
    cooldown: timedelta = timedelta(days=3)
    max_runs_per_30_days: int = 5
    breaker_after: int = 3
    lease: timedelta = timedelta(days=2)

    def __post_init__(self) -> None:
        for cause in self.when:
            if cause not in _CAUSES:
                raise ConfigError(
                    f"retrain.when: {cause!r} starts no training; use {', '.join(_CAUSES)}."
                    f"{did_you_mean(cause, _CAUSES)}"
                )
        if not 1 <= self.violating_windows <= self.of_last:
            raise ConfigError(
                f"retrain: {self.violating_windows} violating windows of the last {self.of_last} cannot be. Write 1 or "
                "more, and at most of_last."
            )
        for name in ("max_runs_per_30_days", "breaker_after"):
            if getattr(self, name) < 1:
                raise ConfigError(f"retrain.{name} must be 1 or more, got {getattr(self, name)}.")
        if self.cooldown < timedelta(0) or self.lease <= timedelta(0):
            raise ConfigError(f"retrain: a cooldown of {self.cooldown} and a lease of {self.lease} cannot be.")


@dataclass(frozen=True, slots=True)
class RetrainDecision:
    """
    The answer to a request, with its evidence.

    :param reason: a code: ``schedule`` | ``new_data`` | ``drift`` | ``performance_drop`` | ``concept_drift`` |
        ``manual`` for *train*; what stands against it otherwise.
    :param numbers: what the sentence rests on.
    :param granted_before: the same owner was told to train this before; nothing is to be recorded.
    """

    verdict: Verdict
    reason: str
    sentence: str
    numbers: Mapping[str, Any]
    key: str
    trigger: Trigger
    owner: str
    granted_before: bool = field(default=False)

    def to_payload(self, *, binding: bool = True) -> dict[str, Any]:
        """Return the payload of ``retraining.decided``. *binding*: whether a *train* will be acted on."""
        return payloads.retraining_decided(
            verdict=self.verdict.value,
            reason=self.reason,
            sentence=self.sentence,
            numbers=self.numbers,
            key=self.key,
            trigger=self.trigger.value,
            owner=self.owner,
            binding=binding,
        )


def request_key(model: str, data_digest: str, code_digest: str, hyperparameters: Mapping[str, Any]) -> str:
    """
    Return the key of a training: 64 hexadecimal digits that are the same for the same model, data, code and parameters.

    >>> request_key("rain", "sha256:a", "sha256:b", {"depth": 6})[:8]
    '9258e77e'
    """
    body = {"model": model, "data": data_digest, "code": code_digest, "hyperparameters": dict(hyperparameters)}
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def decide(
    policy: RetrainPolicy,
    entries: Iterable[Entry],
    now: datetime,
    key: str,
    *,
    trigger: Trigger = Trigger.MONITOR,
    owner: str = "",
    data_digest: str | None = None,
) -> RetrainDecision:
    """
    Return whether to train now.

    :param entries: the model's whole stream, oldest first.
    :param now: aware.
    :param key: of what would be trained, see `request_key`.
    :param trigger: what asks.
    :param owner: who asks, the same for every attempt of one request; its own granted request is granted again.
    :param data_digest: of the data that would be trained on, to look it up among the quarantined.
    """
    past = history(entries, now, lease=policy.lease)
    case = _Case(policy, past, now, key, trigger, owner, data_digest)
    for look in (_same_key, _bad_data, _in_flight, _by_hand, _breaker, _called_for, _cooldown, _budget):
        answer = look(case)
        if answer is not None:
            break
    else:
        answer = case.answer(Verdict.TRAIN, *_cause(case))
    return answer


@dataclass(frozen=True, slots=True)
class _Case:
    policy: RetrainPolicy
    past: History
    now: datetime
    key: str
    trigger: Trigger
    owner: str
    data_digest: str | None

    def answer(
        self, verdict: Verdict, reason: str, sentence: str, *, granted_before: bool = False, **numbers: Any
    ) -> RetrainDecision:
        return RetrainDecision(
            verdict, reason, sentence, numbers, self.key, self.trigger, self.owner, granted_before=granted_before
        )


def _same_key(case: _Case) -> RetrainDecision | None:
    last = case.past.last_of(case.key)
    if last is None:
        return None
    if last.in_flight:
        if case.owner and last.owner == case.owner:
            return case.answer(
                Verdict.TRAIN,
                "granted_before",
                "This training was granted to the same request before.",
                granted_before=True,
            )
        return None  # one in flight, whatever its key
    if last.outcome in (Outcome.FAILED, Outcome.LOST):
        if case.trigger is Trigger.MANUAL:
            return None
        return case.answer(
            Verdict.BLOCKED,
            "already_failed",
            f"The same data, code and parameters were trained before: {last.outcome.value}. A person may try again.",
            run_id=last.run_id,
        )
    return case.answer(
        Verdict.BLOCKED,
        "already_trained",
        f"The same data, code and parameters were trained before ({last.outcome.value}, run {last.run_id}).",
        run_id=last.run_id,
    )


def _bad_data(case: _Case) -> RetrainDecision | None:
    if case.data_digest is not None and case.data_digest in case.past.quarantined:
        return case.answer(
            Verdict.BLOCKED,
            "bad_data",
            f"Data {case.data_digest} broke its contract and is not trained on.",
            data_digest=case.data_digest,
        )
    return None


def _in_flight(case: _Case) -> RetrainDecision | None:
    running = case.past.in_flight()
    if running is None:
        return None
    since = running.began_at.isoformat()
    return case.answer(
        Verdict.WAIT,
        "running",
        f"A training is {running.outcome.value} since {since}. Ask again when it has ended.",
        since=since,
        run_id=running.run_id,
    )


def _by_hand(case: _Case) -> RetrainDecision | None:
    if case.trigger is Trigger.MANUAL:
        return case.answer(Verdict.TRAIN, "manual", "A person asked for it.")
    return None


def _breaker(case: _Case) -> RetrainDecision | None:
    setbacks = case.past.setbacks()
    if setbacks < case.policy.breaker_after:
        return None
    return case.answer(
        Verdict.BLOCKED,
        "breaker_open",
        f"The last {setbacks} trainings were refused or failed. Look into them; a training that a person starts and "
        "that passes closes the breaker.",
        setbacks=setbacks,
        breaker_after=case.policy.breaker_after,
    )


def _called_for(case: _Case) -> RetrainDecision | None:
    """Return why nothing calls for a training; ``None`` when something does."""
    if case.trigger is Trigger.MONITOR:
        return _monitored(case)
    if case.trigger.value not in case.policy.when:
        return case.answer(
            Verdict.BLOCKED,
            "not_in_policy",
            f"retrain.when does not hold {case.trigger.value!r}.",
            when=list(case.policy.when),
        )
    return None


def _monitored(case: _Case) -> RetrainDecision | None:
    if not case.past.checks:
        return case.answer(Verdict.WAIT, "no_evidence", "No window was judged since the last training or promotion.")
    latest = case.past.checks[-1]
    harm = _harm(latest)
    if harm.action in (Action.QUARANTINE, Action.ROLL_BACK):
        return case.answer(Verdict.BLOCKED, harm.reason, harm.sentence, window=latest.window)
    if _cause_of(case.policy, latest) is None:
        return _no_cause(case, latest, harm)
    recent = case.past.checks[-case.policy.of_last :]
    violating = sum(_cause_of(case.policy, check) is not None for check in recent)
    if violating >= case.policy.violating_windows or latest.realized == "drop":
        return None
    return case.answer(
        Verdict.WAIT,
        "hysteresis",
        f"{violating} of the last {len(recent)} windows call for a training; it takes "
        f"{case.policy.violating_windows} of {case.policy.of_last}.",
        violating=violating,
        windows=len(recent),
        needed=case.policy.violating_windows,
    )


def _no_cause(case: _Case, latest: Check, harm: Harm) -> RetrainDecision:
    if harm.action is Action.RETRAIN:
        sentence = f"{harm.sentence} retrain.when does not hold 'performance_drop'."
        return case.answer(
            Verdict.BLOCKED, "not_in_policy", sentence, window=latest.window, when=list(case.policy.when)
        )
    if latest.verdict == "drift" and "drift" in case.policy.when:
        sentence = "The inputs moved, but how much they vary in quiet times is not known, so this is no evidence."
        return case.answer(Verdict.WAIT, "variation_unknown", sentence, window=latest.window)
    return case.answer(Verdict.WAIT, harm.reason, harm.sentence, window=latest.window)


def _cooldown(case: _Case) -> RetrainDecision | None:
    ended = case.past.last_end()
    if ended is None or case.now >= ended + case.policy.cooldown:
        return None
    until = (ended + case.policy.cooldown).isoformat()
    return case.answer(
        Verdict.WAIT,
        "cooldown",
        f"The last training ended {ended.isoformat()}; the cooldown lasts until {until}.",
        ended=ended.isoformat(),
        until=until,
    )


def _budget(case: _Case) -> RetrainDecision | None:
    spent = [a.requested_at for a in case.past.attempts if a.requested_at > case.now - _BUDGET_PERIOD]
    if len(spent) < case.policy.max_runs_per_30_days:
        return None
    free = (sorted(spent)[-case.policy.max_runs_per_30_days] + _BUDGET_PERIOD).isoformat()
    return case.answer(
        Verdict.WAIT,
        "budget",
        f"{len(spent)} trainings in 30 days, {case.policy.max_runs_per_30_days} are allowed. The next is free {free}.",
        runs=len(spent),
        max_runs_per_30_days=case.policy.max_runs_per_30_days,
        until=free,
    )


def _cause(case: _Case) -> tuple[str, str]:
    if case.trigger is Trigger.SCHEDULE:
        return "schedule", "It is time by the schedule."
    if case.trigger is Trigger.NEW_DATA:
        return "new_data", "There is new data."
    latest = case.past.checks[-1]
    cause = _cause_of(case.policy, latest) or ""
    harm = _harm(latest)
    if cause == harm.reason:
        return cause, harm.sentence
    return cause, "The inputs moved, and retrain.when holds 'drift'."


def _harm(check: Check) -> Harm:
    return judge(
        check.verdict,
        prediction_drift=check.prediction_drift,
        estimated=check.estimated,
        realized=check.realized,
        baking=check.baking,
    )


def _cause_of(policy: RetrainPolicy, check: Check) -> str | None:
    """Return the cause that *check* gives for a training under *policy*; ``None`` when it gives none."""
    harm = _harm(check)
    if harm.action in (Action.QUARANTINE, Action.ROLL_BACK):
        return None
    if harm.action is Action.RETRAIN and "performance_drop" in policy.when:
        return harm.reason
    if check.verdict == "drift" and check.variation == "known" and "drift" in policy.when:
        return "drift"
    return None
