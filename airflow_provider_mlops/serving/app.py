"""
The server of one model version: MLflow's own scoring app, watched.

`/invocations`, `/ping`, `/health` and `/version` are MLflow's. Added are `/metrics` (Prometheus), `/profile` (the live
traffic as a data profile) and `/_rollout/observation` (the counts that a rollout is judged by).

MLflow's app answers 400 when the model's own code fails, so a broken model looks like a client's mistake, and 500 when
a request cannot be parsed in an unforeseen way. Here a fault of the model is 500 and a fault of the request is 400.
"""

from __future__ import annotations

import contextvars
import json
import logging
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.rollout.predictions import spread
from airflow_provider_mlops.serving.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from airflow_provider_mlops.drift.profile import DataProfile

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["PREDICTIONS", "LiveProfile", "Meter", "build_app", "client_of"]

PREDICTIONS = b"x-mlops-predictions"
"""Header: in a request it asks for the one in the answer, which says how the predictions spread, as a JSON object."""

_log = logging.getLogger(__name__)

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PREDICTION_BUCKETS = (
    *(-(10.0**k) for k in range(6, -1, -1)),
    *(tenth / 10 for tenth in range(11)),
    *(10.0**k for k in range(1, 7)),
)
_CLASSES = 50  # labels of classes beyond so many are counted as "other"
_PREDICTIONS_PER_REQUEST = 1000  # of a larger answer every n-th is counted
_PROFILE_ROWS = 1024  # rows are counted in lots: one row at a time costs fifty times as much
_WARM_UP = 20  # first answers, which pay for caches and lazy imports, are not timed


@dataclass(slots=True)
class _Call:
    """What happened while one request was answered."""

    predicted: bool = False
    predictions: dict[str, float] | None = None


_CALL: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("mlops_serving_call", default=None)


class LiveProfile:
    """
    Counts the rows that a model is asked about on the bins of its reference profile. Safe to use from many threads.

    :param layout: the reference profile, or any profile with its bins.
    """

    def __init__(self, layout: DataProfile) -> None:
        from airflow_provider_mlops.drift.profile import ProfileBuilder

        self._builder = ProfileBuilder(layout)
        self._waiting: list[Any] = []
        self._rows = 0
        self._lock = threading.Lock()

    def add(self, data: Any) -> None:
        """Count the rows of a pandas frame; anything else has no columns to count and is left out."""
        if not hasattr(data, "columns"):
            return
        import pyarrow as pa

        batch = pa.RecordBatch.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
        with self._lock:
            if self._waiting and self._waiting[-1].schema != batch.schema:
                self._count()
            self._waiting.append(batch)
            self._rows += batch.num_rows
            if self._rows >= _PROFILE_ROWS:
                self._count()

    def to_json(self) -> str:
        """Return the profile of all rows so far."""
        with self._lock:
            self._count()
            return self._builder.profile().to_json()

    def _count(self) -> None:
        import pyarrow as pa

        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            for batch in pa.Table.from_batches(waiting).combine_chunks().to_batches():
                self._builder.add(batch)


def _peak_memory() -> float:
    """Return the most bytes that this process has held; NaN on systems other than Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * float(peak.split()[1])


class Meter:
    """Measures one model version: Prometheus metrics, live profile, counts for a rollout."""

    def __init__(self, name: str, version: str, profile: LiveProfile | None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.name, self.version, self.profile = name, version, profile
        self.registry = CollectorRegistry()
        labels = {"model": name, "version": version}
        self._requests = Counter(
            "mlops_serving_requests", "Answers by status code.", [*labels, "code"], registry=self.registry
        )
        self._latency = Histogram(
            "mlops_serving_latency_seconds",
            "Time to answer.",
            [*labels],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        ).labels(**labels)
        self._prediction = Histogram(
            "mlops_serving_prediction",
            "Predictions that are numbers.",
            [*labels],
            buckets=_PREDICTION_BUCKETS,
            registry=self.registry,
        ).labels(**labels)
        self._classes = Counter(
            "mlops_serving_classes", "Predictions that are no numbers.", [*labels, "class"], registry=self.registry
        )
        Gauge(
            "mlops_serving_peak_memory_bytes",
            "Most memory that the server has held, where the system tells it.",
            [*labels],
            registry=self.registry,
        ).labels(**labels).set_function(_peak_memory)
        self._labels = labels
        self._known_classes: set[str] = set()
        self._answers = 0
        self.traffic = Traffic()

    def answered(self, status: int, seconds: float, client: str, predictions: Mapping[str, float] | None) -> None:
        """Count one answer to `/invocations`."""
        self._requests.labels(**self._labels, code=str(status)).inc()
        self._latency.observe(seconds)
        self._answers += 1
        timed = seconds if self._answers > _WARM_UP else None
        self.traffic.record(
            self.version,
            client=client,
            failed=status >= 500,
            seconds=timed,
            at=time.perf_counter(),
            predictions=predictions,
        )

    def predicted(self, data: Any, predictions: Any) -> dict[str, float] | None:
        """
        Count what the model was asked and what it said; return how its predictions spread.

        Never fails: to measure must not cost an answer.
        """
        try:
            if self.profile is not None:
                self.profile.add(data)
            self._count_predictions(predictions)
            return spread(predictions)
        except Exception:  # noqa: BLE001 - whatever the data is like, the answer has been found and must be given
            _log.exception("A request of %s version %s could not be measured.", self.name, self.version)
            return None

    def _count_predictions(self, predictions: Any) -> None:
        import numpy as np

        values = np.asarray(predictions)
        if values.ndim > 1:
            values = values[:, -1]  # of several columns (class probabilities) the last
        values = np.atleast_1d(values)
        values = values[:: max(1, len(values) // _PREDICTIONS_PER_REQUEST)]
        if values.dtype.kind in "iuf":
            for value in values[np.isfinite(values)].tolist():
                self._prediction.observe(value)
            return
        for value in map(str, values.tolist()):
            if len(self._known_classes) < _CLASSES:
                self._known_classes.add(value)
            self._classes.labels(**self._labels, **{"class": value if value in self._known_classes else "other"}).inc()


class _Model:
    """The model as MLflow's app sees it, with its faults told apart from those of the request."""

    def __init__(self, model: Any, meter: Meter) -> None:
        self._model = model
        self._meter = meter
        self.metadata = model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

        try:
            predictions = self._model.predict(data, params=params)
        except MlflowException:  # the request does not fit the signature: MLflow's own judgment
            raise
        except Exception as error:
            _log.exception("Version %s of %s failed.", self._meter.version, self._meter.name)
            raise MlflowException(f"The model failed: {error!r}", error_code=INTERNAL_ERROR) from error
        call = _CALL.get()
        spread_ = self._meter.predicted(data, predictions)
        if call is not None:
            call.predicted, call.predictions = True, spread_
        return predictions


class _Watch:
    """Names the version in every answer, measures `/invocations`, and turns what MLflow's app lets through into 4xx."""

    def __init__(self, app: App, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call, status, began = _Call(), 0, time.perf_counter()
        _CALL.set(call)
        names = [
            (b"x-model-name", self._meter.name.encode("ascii", "replace")),
            (b"x-model-version", self._meter.version.encode("ascii", "replace")),
        ]

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *names]
                if call.predictions and any(name == PREDICTIONS for name, _ in scope["headers"]):
                    message["headers"].append((PREDICTIONS, json.dumps(call.predictions).encode()))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if status:
                raise
            fault = ("INTERNAL_ERROR", 500) if call.predicted else ("BAD_REQUEST", 400)
            if call.predicted:
                _log.exception("An answer of version %s could not be written.", self._meter.version)
            await _answer(sending, fault[1], {"error_code": fault[0], "message": f"{type(error).__name__}: {error}"})
        finally:
            if scope["path"] == "/invocations":
                took = time.perf_counter() - began
                self._meter.answered(status or 500, took, client_of(scope), call.predictions)


def client_of(scope: Scope) -> str:
    """Return who asks: the header `X-Client-Id`, else the connection."""
    for name, value in scope["headers"]:
        if name == b"x-client-id":
            return str(value, "latin-1")
    host, port = scope.get("client") or ("", 0)
    return f"{host}:{port}"


def build_app(model: Any, *, name: str, version: str, layout: DataProfile | None = None) -> Any:
    """
    Return the ASGI app that serves *model*.

    :param model: what `mlflow.pyfunc.load_model` returned.
    :param layout: reference profile of the model's training data; without it `/profile` is 404.
    """
    from mlflow.pyfunc import scoring_server
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
    from starlette.responses import Response

    meter = Meter(name, version, None if layout is None else LiveProfile(layout))
    app = scoring_server.init(_Model(model, meter))

    async def metrics(_request: Any) -> Response:
        return Response(generate_latest(meter.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    def profile(_request: Any) -> Response:
        if meter.profile is None:
            text = f"Version {version} of {name} was started without a reference profile, so its traffic has no bins."
            return Response(json.dumps({"message": text}), 404, media_type="application/json")
        return Response(meter.profile.to_json(), media_type="application/json")

    async def observation(_request: Any) -> Response:
        arm = {"percent": 100, "ready": True, "restarts": 0, **meter.traffic.counts(version)}
        body = {"name": name, "counter": meter.traffic.counter, "arms": {version: arm}}
        return Response(json.dumps(body), media_type="application/json")

    app.add_route("/metrics", metrics)
    app.add_route("/profile", profile)
    app.add_route("/_rollout/observation", observation)
    app.add_middleware(_Watch, meter=meter)
    return app


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
