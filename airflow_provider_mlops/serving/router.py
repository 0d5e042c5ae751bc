"""The front door of one model on one machine: deals requests out to its versions and counts what they answer."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from airflow_provider_mlops.serving.app import PREDICTIONS, client_of
from airflow_provider_mlops.serving.processes import ModelServer, Served
from airflow_provider_mlops.serving.traffic import Shares, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from airflow_provider_mlops.serving.app import Receive, Scope, Send

__all__ = ["ModelRouter", "merge_metrics"]

_log = logging.getLogger(__name__)

_BODY_BYTES = 64 * 1024 * 1024
_BODY_SECONDS = 60.0  # for all of a body: a client that sends a byte now and then must not hold a connection for ever
_DROPPED = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    *("upgrade", "host", "content-length", "content-encoding", "accept-encoding", "date", "server", "expect"),
}
_PATHS = ("/invocations", "/ping", "/health", "/version", "/metrics", "/profile", "/_rollout/observation")


class ModelRouter:
    """
    Serves one model: an ASGI app, and the processes behind it.

    A version that is no longer wanted goes on serving until a wanted one can, so no order of wishes leaves a gap. A
    version whose share has gone to zero answers while none with a share can.

    :param name: the model's name.
    :param folder: where the logs of its servers go.
    :param body_seconds: how long the body of a request may take to arrive.
    """

    def __init__(self, name: str, folder: Path, *, body_seconds: float = _BODY_SECONDS) -> None:
        self.name = name
        self._folder = folder
        self._body_seconds = body_seconds
        self._weights: dict[str, int] = {}
        self._servers: dict[str, ModelServer] = {}  # wanted, by version
        self._leaving: list[ModelServer] = []  # no longer wanted; they answer while nobody else can
        self._stopping: set[asyncio.Task[None]] = set()
        self._shares = Shares({})
        self._traffic = Traffic()
        self._unserved = 0

    def want(self, wishes: Iterable[tuple[Served, int]]) -> None:
        """Make these versions, with these shares in per cent, all that is to serve."""
        wishes = list(wishes)
        weights = {served.version: weight for served, weight in wishes}
        if _positive(weights) != _positive(self._weights):
            self._shares = Shares(weights)
            self._traffic.restart()
        self._weights = weights
        running = {server.served: server for server in (*self._leaving, *self._servers.values())}
        self._servers = {
            served.version: running.pop(served) if served in running else ModelServer(self.name, served, self._folder)
            for served, _weight in wishes
        }
        self._leaving = list(running.values())

    def tend(self) -> None:
        """End the servers that nobody needs any more. Called often; returns at once."""
        if not self._leaving or not (self._able() or not _positive(self._weights)):
            return
        for server in self._leaving:
            task = asyncio.create_task(server.stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
        self._leaving = []

    async def close(self) -> None:
        """End all servers and wait until they are gone."""
        self.want(())
        self.tend()
        await asyncio.gather(*self._stopping)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path, method = scope["path"], scope["method"]
        if path == "/invocations":
            if method != "POST":
                await _respond(send, 405, _message("Ask /invocations with POST."), headers=[(b"allow", b"POST")])
                return
            await self._invoke(scope, receive, send)
        elif path in {"/ping", "/health"}:
            able = bool(self._able())
            await _respond(send, 200 if able else 503, b"\n" if able else _message(self._nobody()))
        elif path == "/version":
            await _respond(send, 200, json.dumps({"name": self.name, "versions": self._versions()}).encode())
        elif path == "/_rollout/observation":
            await _respond(send, 200, json.dumps(self.observation()).encode())
        elif path == "/metrics":
            await _respond(
                send, 200, (await self._metrics()).encode(), kind=b"text/plain; version=0.0.4; charset=utf-8"
            )
        elif path == "/profile":
            await self._profile(scope, send)
        else:
            await _respond(send, 404, _message(f"There is no {path}. There are {', '.join(_PATHS)}."))

    def observation(self) -> dict[str, Any]:
        """Return what `LocalTarget.observe` reads: per version its share, readiness, restarts and counts."""
        arms = {version: {**values, **self._traffic.counts(version)} for version, values in self._versions().items()}
        return {"name": self.name, "counter": self._traffic.counter, "arms": arms}

    def _versions(self) -> dict[str, dict[str, Any]]:
        return {
            version: {"percent": self._weights[version], "ready": server.ready, "restarts": server.restarts}
            for version, server in self._servers.items()
        }

    def _able(self) -> dict[str, ModelServer]:
        """Return the wanted servers that can answer and are to."""
        return {version: server for version, server in self._servers.items() if server.ready and self._weights[version]}

    def _choose(self, tried: set[ModelServer]) -> ModelServer | None:
        able = {version: server for version, server in self._able().items() if server not in tried}
        if (version := self._shares.pick(able)) is not None:
            return able[version]
        # Nobody who should can: who could until a moment ago, and still runs, is better than no answer.
        spare = (*self._leaving, *(server for server in self._servers.values() if server.proven))
        return next((server for server in spare if server.ready and server not in tried), None)

    def _nobody(self) -> str:
        states = ", ".join(
            f"{version} is {'ready' if server.ready else 'not ready'}" for version, server in self._servers.items()
        )
        return f"No version of {self.name} can answer now: {states or 'none is wanted'}."

    async def _invoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await _body(receive)
        except TimeoutError:
            message = _message(f"The request did not arrive within {self._body_seconds:g} s.")
            await _respond(send, 408, message, headers=[(b"connection", b"close")])
            return
        if body is None:
            await _respond(send, 413, _message(f"A request may have {_BODY_BYTES} bytes."))
            return
        headers = _forwarded(scope["headers"])
        client, tried = client_of(scope), set[ModelServer]()
        while (server := self._choose(tried)) is not None:
            tried.add(server)
            version = server.served.version
            began = time.perf_counter()
            status, content, kind, predictions = await _ask(server, body, headers)
            if status is None:  # no connection: the request has not been seen, so another may have it
                continue
            ended = time.perf_counter()
            timed = ended - began if server.warm() else None
            self._traffic.record(
                version, client=client, failed=status >= 500, seconds=timed, at=ended, predictions=predictions
            )
            await _respond(send, status, content, kind=kind, headers=self._names(version))
            return
        self._unserved += 1
        await _respond(send, 503, _message(self._nobody()), headers=[(b"retry-after", b"2")])

    async def _profile(self, scope: Scope, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        version = query.get("version", [max(self._weights, key=lambda key: self._weights[key], default="")])[0]
        server = self._servers.get(version)
        if server is None or not server.ready:
            known = ", ".join(sorted(self._servers)) or "none"
            text = f"Version {version!r} of {self.name} does not serve now. Wanted: {known}."
            await _respond(send, 404, _message(text))
            return
        status, content, kind = await _get(server, "/profile")
        await _respond(send, status, content, kind=kind, headers=self._names(version))

    async def _metrics(self) -> str:
        ready = [server for server in self._servers.values() if server.ready]
        texts = [
            content.decode()
            for status, content, _ in await asyncio.gather(*(_get(s, "/metrics") for s in ready))
            if status == 200
        ]
        return merge_metrics([*texts, self._own_metrics()])

    def _own_metrics(self) -> str:
        lines = [
            "# HELP mlops_router_unserved_total Requests that no version could answer.",
            "# TYPE mlops_router_unserved_total counter",
            f'mlops_router_unserved_total{{model="{_label(self.name)}"}} {self._unserved}',
        ]
        for key, help_text in (
            ("percent", "Share of traffic in per cent."),
            ("ready", "Whether the version can answer."),
            ("restarts", "How often its server ended by itself."),
        ):
            lines += [f"# HELP mlops_router_{key} {help_text}", f"# TYPE mlops_router_{key} gauge"]
            lines += [
                f'mlops_router_{key}{{model="{_label(self.name)}",version="{_label(version)}"}} {float(values[key]):g}'
                for version, values in self._versions().items()
            ]
        return "\n".join(lines) + "\n"

    def _names(self, version: str) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-model-name", self.name.encode("ascii", "replace")),
            (b"x-model-version", version.encode("ascii", "replace")),
        ]


def merge_metrics(texts: Iterable[str]) -> str:
    r"""
    Return Prometheus texts as one: each family once, samples of equal name and labels added.

    >>> print(merge_metrics(["# TYPE a counter\na 1\n", "# TYPE a counter\na 2\n"]), end="")
    # TYPE a counter
    a 3
    """
    heads: dict[str, dict[str, str]] = {}
    samples: dict[str, dict[str, float]] = {}
    family = ""
    for text in texts:
        for line in text.splitlines():
            if match := re.match(r"# (HELP|TYPE) (\S+)", line):
                family = match[2]
                heads.setdefault(family, {})[match[1]] = line
                samples.setdefault(family, {})
            elif line and not line.startswith("#"):
                key, _, value = line.rpartition(" ")
                family_samples = samples.setdefault(family, {})
                family_samples[key] = family_samples.get(key, 0.0) + float(value)
    lines = []
    for name, values in samples.items():
        lines += [heads[name][word] for word in ("HELP", "TYPE") if word in heads.get(name, {})]
        lines += [f"{key} {value:.17g}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


async def _ask(
    server: ModelServer, body: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[int | None, bytes, bytes, dict[str, float] | None]:
    """Return status, content, content type and spread of predictions; status ``None``: no connection could be made."""
    import httpx

    if server.client is None:
        return None, b"", b"", None
    try:
        with server.answering():
            answer = await server.client.post("/invocations", content=body, headers=headers)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return None, b"", b"", None
    except httpx.TimeoutException:
        return 504, _message(f"Version {server.served.version} did not answer in time."), b"application/json", None
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client was closed as its server died
        _log.warning("Version %s did not answer: %r", server.served.version, error)
        return 502, _message(f"Version {server.served.version} ended before it answered."), b"application/json", None
    kind = answer.headers.get("content-type", "application/json").encode()
    predictions = answer.headers.get(PREDICTIONS.decode())
    return answer.status_code, answer.content, kind, json.loads(predictions) if predictions else None


async def _get(server: ModelServer, path: str) -> tuple[int, bytes, bytes]:
    import httpx

    if server.client is None:
        return 502, _message(f"Version {server.served.version} has no process."), b"application/json"
    try:
        answer = await server.client.get(path, timeout=10)
    except (httpx.HTTPError, RuntimeError) as error:
        return 502, _message(f"Version {server.served.version} did not answer: {error!r}"), b"application/json"
    return answer.status_code, answer.content, answer.headers.get("content-type", "text/plain").encode()


async def _body(receive: Receive) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > _BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _respond(
    send: Send,
    status: int,
    content: bytes,
    *,
    kind: bytes = b"application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    length = (b"content-length", str(len(content)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), length, *headers]}
    )
    await send({"type": "http.response.body", "body": content})


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.decode("latin-1").lower() not in _DROPPED]
    return [*kept, (PREDICTIONS, b"wanted")]


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _positive(weights: Mapping[str, int]) -> dict[str, int]:
    return {version: weight for version, weight in weights.items() if weight > 0}
