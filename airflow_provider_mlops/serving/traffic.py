"""
Who answered what: exact shares of traffic, and the counts that a rollout is judged by.

One event loop, no locks. The counts begin anew when the shares change, so a client's error counts once per step.

Slow answers come in runs, whoever asks: while a process is stalled, everything that it was asked is late. So what is
compared is not answers but spans of time in which several versions answered: each adds, per version, how the answers
that ended in it were spread over the latency bins. A run of late answers weighs one span then, however many they are.
"""

from __future__ import annotations

import bisect
import collections
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.rollout.analysis import LATENCY_EDGES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Shares", "Traffic"]

_SPAN = 1.0  # seconds
_CLIENTS_KEPT = 200_000  # beyond it new clients are still answered and judged, but no longer told apart in number


class Shares:
    """
    Deals requests out by weight, as evenly as whole requests can be.

    After n requests each version has had its share of n, less than one request more or less (two versions; smooth
    weighted round robin in general). A version that is not ready earns no credit, so it is not flooded afterwards.

    >>> shares = Shares({"1": 3, "2": 1})
    >>> [shares.pick({"1", "2"}) for _ in range(4)]
    ['1', '1', '2', '1']
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = {version: weight for version, weight in weights.items() if weight > 0}
        self._credit = dict.fromkeys(self.weights, 0.0)

    def pick(self, ready: Collection[str]) -> str | None:
        """Return the version in *ready* whose turn it is, or ``None`` when none of them has a weight."""
        able = [version for version in self.weights if version in ready]
        if not able:
            return None
        total = sum(self.weights[version] for version in able)
        for version in able:
            self._credit[version] += self.weights[version] / total
        # The tiny handicap makes equal credits a matter of order, not of rounding.
        chosen = max(able, key=lambda version: round(self._credit[version], 9))
        self._credit[chosen] -= 1
        return chosen


class _Arm:
    """What one version has answered since the counts began."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.exposure = 0
        self.first_errors = 0
        self.clients: set[str] = set()
        self.clients_with_error: set[str] = set()
        self.latency = [0] * (len(LATENCY_EDGES) + 1)
        self.predictions: dict[str, float] = {}
        self.pace = [0.0] * (len(LATENCY_EDGES) + 1)
        self.span = collections.Counter[int]()  # latency bins of the answers that ended in the present span

    def close_span(self, *, shared: bool) -> None:
        """Add the span that is over to the pace, if other versions answered in it too."""
        if shared and (answers := self.span.total()):
            for index, count in self.span.items():
                self.pace[index] += count / answers
        self.span.clear()


class Traffic:
    """
    Counts answers per version and client.

    A client is at risk until its first error from any version: with shares dealt out per request every client meets
    every version, and only then is the canary's part of the first errors, under no fault, its part of the exposure.
    """

    def __init__(self) -> None:
        self._arms: dict[str, _Arm] = {}
        self._failed: set[str] = set()
        self._span = 0
        self.counter = ""
        self.restart()

    def restart(self) -> None:
        """Begin all counts anew, under a new identity."""
        self._arms = {}
        self._failed = set()
        self.counter = uuid.uuid4().hex

    def record(
        self,
        version: str,
        *,
        client: str,
        failed: bool,
        seconds: float | None,
        at: float,
        predictions: Mapping[str, float] | None = None,
    ) -> None:
        """
        Count one answer.

        :param failed: status 500 or above, or no answer.
        :param seconds: how long it took; ``None`` while the version warms up.
        :param at: when it ended, seconds on a clock that never goes back.
        :param predictions: what it predicted, as `rollout.predictions.spread` says it; ``None`` when unknown.
        """
        if (span := int(at // _SPAN)) != self._span:
            shared = sum(bool(arm.span) for arm in self._arms.values()) > 1
            for arm in self._arms.values():
                arm.close_span(shared=shared)
            self._span = span
        arm = self._arms.setdefault(version, _Arm())
        at_risk = client not in self._failed
        arm.requests += 1
        arm.exposure += at_risk
        if len(arm.clients) < _CLIENTS_KEPT:
            arm.clients.add(client)
        if seconds is not None:
            index = bisect.bisect_left(LATENCY_EDGES, seconds)
            arm.latency[index] += 1
            arm.span[index] += 1
        for name, share in (predictions or {}).items():
            arm.predictions[name] = arm.predictions.get(name, 0.0) + share
        if failed:
            arm.errors += 1
            arm.first_errors += at_risk
            if len(self._failed) < _CLIENTS_KEPT:
                arm.clients_with_error.add(client)
                self._failed.add(client)

    def counts(self, version: str) -> dict[str, Any]:
        """Return the counts of one version as plain JSON values, with the names of `rollout.analysis.Counts`."""
        arm = self._arms.get(version) or _Arm()
        return {
            "requests": arm.requests,
            "errors": arm.errors,
            "exposure": arm.exposure,
            "first_errors": arm.first_errors,
            "clients": len(arm.clients),
            "clients_at_risk": len(arm.clients - self._failed),
            "clients_with_error": len(arm.clients_with_error),
            "latency": list(arm.latency),
            "pace": list(arm.pace),
            "predictions": dict(arm.predictions),
        }
