"""
Is the new version as healthy as the one beside it? Pure: counts in, a finding out.

Both arms answer at the same time, so load, time of day and a slow database hit both alike. All tests are *e-values*:
the product, over the looks, of how much better a fault explains the look than no fault does. Such a product reaches
``1/alpha`` with a probability of at most ``alpha`` however often one looks (Ville's inequality), so a look costs
nothing and the shares of traffic may change in between.

One look holds ``e`` events in both arms, ``x`` of them in the canary, and ``w``, the canary's share of what could have
had an event. If the canary's rate is ``g`` times the stable one's, an event is the canary's with probability
``theta(g) = g w / (g w + 1 - w)``.

* *Roll back*, errors: H0 ``g <= 1``; slowness: H0 ``g <= 1.5``, since one machine may be a little slower than another.
* *Pass a step*: H0 ``g >= 3``, the mirrored test.
* *Pass a step without errors*: with (nearly) no errors in either arm the mirrored test sees no events and never
  passes. A step then passes when an upper confidence bound of the canary's share of errors lies below
  ``max_error_rate``. The bound is looked at more than once, so look ``j`` spends ``.05/(j(j+1))`` (their sum is .05);
  a look is taken only when the requests have grown by a tenth, and are so many that a step without an error passes.

Errors come in clusters: one broken caller fails a hundred times. Hence an error counts once per client and step, at
the client's first, and only requests of clients without an error so far are at risk (a sequential log-rank test).

Slow answers come in runs: while one process is stalled, whatever it was asked is late, whoever asked. Hence slowness is
counted by spans of time in which both versions answered, and the event of a span is the *share* of its answers that
were slow, 0..1. The products stay test martingales if spans are independent: for ``f`` in 0..1 with mean ``p``,
``E exp(a f) <= 1 + p (e^a - 1)`` by convexity, just as if the span were one answer, slow with probability ``p``.
A run of slow answers so weighs as many events as it lasts spans; both versions are seen in the same spans, so what
stalls the whole machine, or depends on the load of the moment, falls upon both.

*Predictions* are compared by how far the two spreads of a step are apart, see `rollout.predictions`. A new version is
meant to predict differently, so the hypothesis is that the distance is at most ``max_prediction_shift``, and it is
refuted by a lower confidence bound. Look ``j`` of the rollout spends ``.01/(j(j+1))``; a look is taken only when the
answers have grown by a tenth, and are so many that the largest distance would be seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.rollout.predictions import distance, margin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mlops.rollout.plan import RolloutPlan

__all__ = [
    "LATENCY_EDGES",
    "Counts",
    "Finding",
    "FindingVerdict",
    "Tally",
    "e_value",
    "error_bound",
    "judge",
    "log_products",
    "slow_edge",
]

LATENCY_EDGES: tuple[float, ...] = tuple(round(0.001 * 1.2**k, 6) for k in range(61))
"""Upper edges of the latency bins in seconds, 1 ms to 56 s, each a fifth above the last; one more bin is open."""

_ALPHA = 0.02
_FAULTS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_SLOW_RATIO = 1.5
_HEALTHY = (0.5, 0.8, 1.0, 1.2)
_TOLERATED_RATIO = 3.0
_PASS = 20.0
_BOUND_ALPHA = 0.05
_PREDICTION_ALPHA = 0.01
_MIN_TIMED = 200  # answers of the stable arm from which its p95 can be read
_MIN_CLIENTS = 3  # one or two broken callers stop nothing
_MIN_REQUESTS = 20  # fewer say nothing about a ceiling


@dataclass(frozen=True, slots=True)
class Counts:
    """
    What one version has answered since its counters began.

    :param requests: answers.
    :param errors: answers with a status of 500 or above, and requests that got none.
    :param exposure: requests of clients without an error so far. A target whose clients stay on one version may
        give its clients at risk instead: any measure that both arms share.
    :param first_errors: clients whose first error of the step was this version's.
    :param clients_with_error: distinct clients that had any error from this version.
    :param latency: answers per bin of `LATENCY_EDGES`, warm-up left out; empty when unknown.
    :param pace: per bin of `LATENCY_EDGES`, the share of the answers that fell into it, summed over the spans of time
        in which both versions answered; empty when unknown. All bins together are the number of these spans.
    :param predictions: what was predicted, per bin of `rollout.predictions`; an answer's bins add up to 1.
    """

    requests: float = 0
    errors: float = 0
    exposure: float = 0
    first_errors: float = 0
    clients_with_error: float = 0
    latency: tuple[float, ...] = ()
    pace: tuple[float, ...] = ()
    predictions: Mapping[str, float] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether every count is a finite number >= 0. Metric systems answer NaN for "nothing there"."""
        numbers = (self.requests, self.errors, self.exposure, self.first_errors, self.clients_with_error)
        return all(
            math.isfinite(number) and number >= 0
            for number in (*numbers, *self.latency, *self.pace, *self.predictions.values())
        )


class FindingVerdict(StrEnum):
    """What a look says about the new version."""

    UNHEALTHY = "unhealthy"
    """Proved worse than the stable version, or over a ceiling."""

    HEALTHY = "healthy"
    """Proved good enough for the next step."""

    UNDECIDED = "undecided"
    """Neither is proved yet."""

    NO_DATA = "no_data"
    """No request has been answered, so nothing can be said."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A look's verdict with its reason code, a sentence and the numbers behind it."""

    verdict: FindingVerdict
    reason: str
    sentence: str
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Tally:
    """
    The evidence so far: small, JSON-able, and enough to go on after a crash.

    :param counter: identity of the counters that *seen* was read from; other counters begin at zero.
    :param seen: ``{"canary" | "stable": [requests, errors, exposure, first_errors, spans, slow]}`` at the last look.
    :param error_logs: log products of the error test, one per fault size; they run through the whole rollout.
    :param slow_logs: the same for slowness.
    :param health_logs: log products of the pass test, of this step.
    :param slow_bin: answers in later latency bins are slow; ``None`` until the stable version's p95 is known.
    :param requests: the canary's answers in this step; *errors* and *clients_with_error* likewise.
    :param stable_requests: the stable version's answers in this step.
    :param predictions: by arm, what was predicted in this step; since the counters began anew, if they have.
    :param prediction_looks: looks at which their bound has been spent, in the whole rollout; *prediction_answers*: the
        answers of the arm that had fewer, at the last of them in this step.
    :param bound_looks: looks at which the confidence bound has been spent; *bound_requests*: requests at the last.
    """

    counter: str = ""
    seen: Mapping[str, tuple[float, ...]] | None = None
    error_logs: tuple[float, ...] = (0.0,) * len(_FAULTS)
    slow_logs: tuple[float, ...] = (0.0,) * len(_FAULTS)
    health_logs: tuple[float, ...] = (0.0,) * len(_HEALTHY)
    slow_bin: int | None = None
    requests: float = 0
    errors: float = 0
    clients_with_error: float = 0
    stable_requests: float = 0
    stable_errors: float = 0
    predictions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prediction_looks: int = 0
    prediction_answers: float = 0
    bound_looks: int = 0
    bound_requests: float = 0

    def next_step(self) -> Tally:
        """Return the tally with which the next step begins: what a step counts is zero again."""
        return Tally(
            error_logs=self.error_logs,
            slow_logs=self.slow_logs,
            slow_bin=self.slow_bin,
            prediction_looks=self.prediction_looks,
        )

    def freeze(self, stable: Counts | None) -> Tally:
        """Return the tally with the stable version's p95 taken from *stable*, unless it is known or cannot be."""
        if self.slow_bin is not None or stable is None or not stable.usable:
            return self
        return replace(self, slow_bin=slow_edge(stable.latency))

    def look(self, counter: str, canary: Counts, stable: Counts | None) -> Tally:
        """
        Return the tally after one more look at counters that only ever grow.

        Counters with another identity, or lower than before, have begun anew and are taken as they are. A look with a
        number that is none (NaN, negative) changes nothing.
        """
        arms = {"canary": canary} if stable is None else {"canary": canary, "stable": stable}
        if not all(counts.usable for counts in arms.values()):
            return self
        seen = {arm: self._row(counts) for arm, counts in arms.items()}
        gained = {arm: self._gained(arm, counter, row) for arm, row in seen.items()}
        requests, errors, exposure, first_errors, spans, slow = gained["canary"]
        after = replace(
            self,
            counter=counter,
            seen=seen,
            requests=self.requests + requests,
            errors=self.errors + errors,
            clients_with_error=max(self.clients_with_error, canary.clients_with_error),
        )
        if stable is None:
            return after
        other = gained["stable"]
        rate = {"events": first_errors + other[3], "canary_events": first_errors, "share": _share(exposure, other[2])}
        pace = {"events": slow + other[5], "canary_events": slow, "share": _share(spans, other[4])}
        return replace(
            after,
            stable_requests=self.stable_requests + other[0],
            stable_errors=self.stable_errors + other[1],
            error_logs=log_products(self.error_logs, ratios=_FAULTS, null_ratio=1, **rate),
            slow_logs=log_products(
                self.slow_logs, ratios=[g * _SLOW_RATIO for g in _FAULTS], null_ratio=_SLOW_RATIO, **pace
            ),
            health_logs=log_products(self.health_logs, ratios=_HEALTHY, null_ratio=_TOLERATED_RATIO, **rate),
            predictions={"canary": dict(canary.predictions), "stable": dict(stable.predictions)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a plain JSON mapping."""
        seen = None if self.seen is None else {arm: list(row) for arm, row in self.seen.items()}
        return {**asdict(self), "seen": seen, **{name: list(getattr(self, name)) for name in _LOGS}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tally:
        """Return the tally that `to_dict` wrote."""
        known = {field.name for field in fields(cls)}
        plain = {key: value for key, value in values.items() if key in known}
        if plain.get("seen") is not None:
            plain["seen"] = {arm: tuple(row) for arm, row in plain["seen"].items()}
        return cls(**{**plain, **{name: tuple(plain[name]) for name in _LOGS if name in plain}})

    def _row(self, counts: Counts) -> tuple[float, ...]:
        spans, slow = 0.0, 0.0
        if self.slow_bin is not None:
            spans, slow = sum(counts.pace), sum(counts.pace[self.slow_bin + 1 :])
        return (counts.requests, counts.errors, counts.exposure, counts.first_errors, spans, slow)

    def _gained(self, arm: str, counter: str, row: tuple[float, ...]) -> tuple[float, ...]:
        before = (self.seen or {}).get(arm)
        if before is None or counter != self.counter or row[0] < before[0]:
            return row
        return tuple(max(0.0, new - old) for new, old in zip(row, before, strict=True))


_LOGS = ("error_logs", "slow_logs", "health_logs")


def log_products(
    logs: Sequence[float],
    *,
    events: float,
    canary_events: float,
    share: float,
    ratios: Sequence[float],
    null_ratio: float,
) -> tuple[float, ...]:
    """
    Return the log products after one more look, one per ratio.

    :param logs: log products before the look, shape ``(len(ratios),)``.
    :param events: events in both arms, >= 0; *canary_events* of them in the canary.
    :param share: the canary's share of what could have had an event, 0..1. At 0 or 1 there is nothing to compare, and
        the look says nothing.
    :param ratios: rate of the canary over rate of the stable arm under each alternative.
    :param null_ratio: the same under the hypothesis that is to be refuted.
    """
    if not 0 < share < 1 or events <= 0:
        return tuple(logs)
    stable_events = events - canary_events
    null = _theta(null_ratio, share)
    return tuple(
        log
        + canary_events * math.log(_theta(ratio, share) / null)
        + stable_events * math.log((1 - _theta(ratio, share)) / (1 - null))
        for log, ratio in zip(logs, ratios, strict=True)
    )


def e_value(logs: Sequence[float]) -> float:
    """
    Return the mean of the products; may be ``inf``.

    >>> round(e_value((0.0, 0.0)), 6)
    1.0
    """
    highest = max(logs)
    if highest > 700:  # beyond what a float holds, and far beyond every threshold
        return math.inf
    return sum(math.exp(log) for log in logs) / len(logs)


def error_bound(errors: float, requests: float, alpha: float) -> float:
    """
    Return the upper confidence bound (Clopper and Pearson) of a share of errors, 0..1.

    :param errors: failed answers, 0..*requests*.
    :param requests: answers.
    :param alpha: probability with which the bound may be too low, 0..1.

    >>> round(error_bound(0, 100, 0.05), 4)
    0.0295
    """
    if requests <= errors:
        return 1.0
    from scipy.special import betaincinv  # noqa: PLC0415 - a server without rollouts never needs it

    return float(betaincinv(errors + 1, requests - errors, 1 - alpha))


def slow_edge(latency: Sequence[float]) -> int | None:
    """Return the first bin with at most 5 % of the answers above it, or ``None`` with fewer than 200 answers."""
    total = sum(latency)
    if total < _MIN_TIMED:
        return None
    above = total
    for index, count in enumerate(latency):
        above -= count
        if above <= 0.05 * total:
            return index
    return len(latency) - 1


def judge(plan: RolloutPlan, tally: Tally) -> tuple[Finding, Tally]:
    """Return what the evidence says now, and the tally with what this look has spent of the confidence bound."""
    numbers = {
        "requests": tally.requests,
        "errors": tally.errors,
        "stable_requests": tally.stable_requests,
        "stable_errors": tally.stable_errors,
        "e_errors": _finite(e_value(tally.error_logs)),
        "e_slow": _finite(e_value(tally.slow_logs)),
        "e_healthy": _finite(e_value(tally.health_logs)),
    }
    if (stop := ceiling(plan, tally)) is not None:
        return Finding(FindingVerdict.UNHEALTHY, stop[0], stop[1], numbers), tally
    if (worse := _worse(tally, numbers)) is not None:
        return worse, tally
    moved, tally = _judge_predictions(plan, tally, numbers)
    if moved is not None:
        return moved, tally
    if tally.requests == 0:
        return Finding(FindingVerdict.NO_DATA, "no_data", "No request has reached the new version yet.", numbers), tally
    if tally.requests < plan.min_requests_per_step:
        text = f"{tally.requests:.0f} of the {plan.min_requests_per_step} requests that this step needs are answered."
        return Finding(FindingVerdict.UNDECIDED, "too_few_requests", text, numbers), tally
    return _judge_health(plan, tally, numbers)


def _worse(tally: Tally, numbers: dict[str, float]) -> Finding | None:
    """Return a finding when the new version is shown to fail more often, or to be slower, than the stable one."""
    faults, slowness = numbers["e_errors"], numbers["e_slow"]
    if faults >= 1 / _ALPHA:
        text = (
            f"The new version fails more often than the stable one: {tally.errors:.0f} of {tally.requests:.0f} answers "
            f"in this step against {tally.stable_errors:.0f} of {tally.stable_requests:.0f} "
            f"(e-value {faults:.3g}, limit {1 / _ALPHA:.0f})."
        )
        return Finding(FindingVerdict.UNHEALTHY, "more_errors", text, numbers)
    if slowness >= 1 / _ALPHA and tally.slow_bin is not None:
        text = (
            f"The new version is slower: in too many spans of time its answers took longer than "
            f"{_edge_text(tally.slow_bin)}, the stable version's 95th percentile, more often than the stable version's "
            f"own (e-value {slowness:.3g}, limit {1 / _ALPHA:.0f})."
        )
        return Finding(FindingVerdict.UNHEALTHY, "slower", text, numbers)
    return None


def _judge_predictions(plan: RolloutPlan, tally: Tally, numbers: dict[str, float]) -> tuple[Finding | None, Tally]:
    """Return a finding when the versions surely predict too differently, and the tally with what this look spent."""
    canary, stable = tally.predictions.get("canary", {}), tally.predictions.get("stable", {})
    answers = [sum(canary.values()), sum(stable.values())]
    if tally.prediction_answers <= min(answers) < 1.1 * tally.prediction_answers:
        return None, tally
    look = tally.prediction_looks + 1
    spare = margin(canary, stable, _PREDICTION_ALPHA / (look * (look + 1)))
    if spare >= 1 - plan.max_prediction_shift:
        return None, tally
    spent = replace(tally, prediction_looks=look, prediction_answers=min(answers))
    shift = distance(canary, stable)
    if shift - spare <= plan.max_prediction_shift:
        return None, spent
    text = (
        f"The new version predicts otherwise: {answers[0]:.0f} of its answers and {answers[1]:.0f} of the stable "
        f"version's are {shift:.2f} apart, surely {shift - spare:.2f} (0..1; limit {plan.max_prediction_shift:.2f})."
    )
    numbers = {**numbers, "prediction_shift": shift, "prediction_shift_at_least": shift - spare}
    return Finding(FindingVerdict.UNHEALTHY, "other_predictions", text, numbers), spent


def ceiling(plan: RolloutPlan, tally: Tally) -> tuple[str, str] | None:
    """Return the reason code and sentence of a hard stop by errors, or ``None``; holds without a stable version."""
    if tally.requests < _MIN_REQUESTS:
        return None
    share = tally.errors / tally.requests
    answers = f"{tally.errors:.0f} of {tally.requests:.0f} answers of the new version failed"
    if share > plan.error_ceiling and tally.clients_with_error >= _MIN_CLIENTS:
        text = f"{answers}, from {tally.clients_with_error:.0f} clients: above the ceiling of {plan.error_ceiling:.0%}."
        return "error_ceiling", text
    if tally.errors >= tally.requests and tally.stable_errors <= tally.stable_requests / 2:
        return "all_failed", f"{answers}: it has answered nothing well."
    return None


def _judge_health(plan: RolloutPlan, tally: Tally, numbers: dict[str, float]) -> tuple[Finding, Tally]:
    health = e_value(tally.health_logs)
    if health >= _PASS:
        text = (
            f"The new version's share of failing clients is below {_TOLERATED_RATIO:.0f} times the stable one's "
            f"(e-value {_finite(health):.3g}, limit {_PASS:.0f}) after {tally.requests:.0f} answers."
        )
        return Finding(FindingVerdict.HEALTHY, "as_healthy_as_stable", text, numbers), tally
    if tally.bound_looks and tally.requests < 1.1 * tally.bound_requests:
        text = f"Nothing is proved after {tally.requests:.0f} answers of the new version."
        return Finding(FindingVerdict.UNDECIDED, "not_proved", text, numbers), tally
    spent = replace(tally, bound_looks=tally.bound_looks + 1, bound_requests=tally.requests)
    alpha = _BOUND_ALPHA / (spent.bound_looks * (spent.bound_looks + 1))
    if (best := error_bound(0, tally.requests, alpha)) >= plan.max_error_rate:
        text = (
            f"{tally.requests:.0f} answers of the new version prove nothing yet: even without an error its share of "
            f"errors may be as high as {best:.2%}."
        )
        return Finding(FindingVerdict.UNDECIDED, "not_proved", text, numbers), tally
    bound = error_bound(tally.errors, tally.requests, alpha)
    numbers = {**numbers, "error_bound": bound}
    if bound < plan.max_error_rate:
        text = (
            f"The new version's share of errors is below {bound:.2%} (limit {plan.max_error_rate:.2%}) "
            f"after {tally.requests:.0f} answers."
        )
        return Finding(FindingVerdict.HEALTHY, "few_errors", text, numbers), spent
    text = (
        f"Nothing is proved after {tally.requests:.0f} answers of the new version: "
        f"its share of errors may be as high as {bound:.2%}."
    )
    return Finding(FindingVerdict.UNDECIDED, "not_proved", text, numbers), spent


def _theta(ratio: float, share: float) -> float:
    return ratio * share / (ratio * share + 1 - share)


def _share(canary: float, stable: float) -> float:
    return canary / (canary + stable) if canary + stable > 0 else 0.0


def _finite(value: float) -> float:
    return min(value, 1e300)  # JSON has no infinity


def _edge_text(index: int) -> str:
    return f"{LATENCY_EDGES[min(index, len(LATENCY_EDGES) - 1)] * 1000:.0f} ms"
