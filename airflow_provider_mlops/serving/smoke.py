"""Probes a running model server: golden requests, latency, malformed input. Knows HTTP and nothing of Airflow."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import SmokeTestFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Golden", "Probe", "probe", "wait_ready"]

_MALFORMED = (b"{", b"[]", b'{"dataframe_split": {"columns": ["no such column"], "data": [["x"]]}}', b"\xff\xfe")
_WARM_UP = 3  # requests that are not timed


@dataclass(frozen=True, slots=True)
class Golden:
    """
    A request and the answer that it must get.

    :param row: the input columns of one row, as JSON can hold them.
    :param expected: what the scoring job predicted for it: a number, a text, or the probabilities of the classes.
    :param classes: the class of each probability, where known: a server that answers labels must answer the likeliest.
    """

    row: dict[str, Any]
    expected: Any
    classes: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured: seconds until ready, requests that were compared, and latency of one row in milliseconds."""

    requests: int
    latency_p50_ms: float
    latency_p95_ms: float


def wait_ready(address: Callable[[], str | None], *, within: float, alive: Callable[[], bool]) -> tuple[str, float]:
    """
    Wait until ``/ping`` at the server's address answers 200; return the address and the seconds that it took.

    :param address: returns where the server listens, ``None`` while that is not known.
    :param alive: whether the server still runs.
    :raises SmokeTestFailedError: it ended, or is not ready in *within* seconds.
    """
    import httpx

    began = time.monotonic()
    while (waited := time.monotonic() - began) < within:
        ended = not alive()  # before the last look at what it has said
        try:
            url = address()
            if url is not None and httpx.get(f"{url}/ping", timeout=5, trust_env=False).status_code == 200:
                return url, waited
        except httpx.HTTPError:
            pass
        if ended:
            raise SmokeTestFailedError("The server ended before it was ready.")
        time.sleep(0.2)
    raise SmokeTestFailedError(f"The server was not ready within {within:.0f} s.")


def probe(url: str, golden: Sequence[Golden], *, tolerance: float) -> Probe:
    """
    Ask every golden request, one row at a time, then send malformed input.

    :param tolerance: largest difference of two numbers, absolute below 1 and relative above.
    :raises SmokeTestFailedError: an answer differs or is an error, or malformed input is not refused by a 4xx.
    """
    import httpx

    if not golden:
        raise SmokeTestFailedError("There is no golden request: the evaluation rows are empty.")
    latencies = []
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        for number, one in enumerate([*golden[:1]] * _WARM_UP + [*golden]):
            began = time.perf_counter()
            answer = http.post("/invocations", json={"dataframe_records": [one.row]})
            if number >= _WARM_UP:
                latencies.append((time.perf_counter() - began) * 1000)
            if answer.status_code != 200:
                raise SmokeTestFailedError(
                    f"A golden request was answered {answer.status_code}: {answer.text[:300]}\nIts row: {one.row}"
                )
            found = _prediction(answer.text)
            if not _same(found, one, tolerance):
                raise SmokeTestFailedError(
                    f"The server predicts {found!r} where the offline prediction is {one.expected!r} "
                    f"(tolerance {tolerance:g}). Its row: {one.row}"
                )
        for body in _MALFORMED:
            answer = http.post("/invocations", content=body, headers={"Content-Type": "application/json"})
            if not 400 <= answer.status_code < 500:
                raise SmokeTestFailedError(
                    f"Malformed input {body[:60]!r} got {answer.status_code} instead of 4xx: {answer.text[:300]}"
                )
        if http.get("/ping").status_code != 200:
            raise SmokeTestFailedError("The server does not answer any more after malformed input.")
    latencies.sort()
    return Probe(len(golden), _quantile(latencies, 0.5), _quantile(latencies, 0.95))


def _prediction(text: str) -> Any:
    """Return the one prediction of an answer, whatever shape the model gives it."""
    try:
        predictions = json.loads(text)["predictions"]
        first = predictions[0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SmokeTestFailedError(f"The server's answer is no list of predictions: {text[:200]!r}") from error
    if isinstance(first, dict):
        first = list(first.values())
    return first[0] if isinstance(first, list) and len(first) == 1 else first


def _same(found: Any, golden: Golden, tolerance: float) -> bool:
    expected = golden.expected
    if isinstance(expected, list) and not isinstance(found, list):
        if golden.classes is None:
            return False
        # Ties within the tolerance may go to either class.
        best = max(expected)
        likeliest = [one for one, chance in zip(golden.classes, expected, strict=True) if best - chance <= tolerance]
        return found in likeliest
    if isinstance(expected, list):
        return len(found) == len(expected) and all(
            _close(one, other, tolerance) for one, other in zip(found, expected, strict=True)
        )
    return _close(found, expected, tolerance)


def _close(one: Any, other: Any, tolerance: float) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    if not numbers:
        return bool(one == other)
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
