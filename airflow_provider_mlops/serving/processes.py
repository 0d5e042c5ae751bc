"""One model server process per version: started, watched, started again, drained, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mlops.serving.environment import package_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

__all__ = ["ModelServer", "Served", "listen"]

_log = logging.getLogger(__name__)

_BACK_OFF = (0.5, 1, 2, 4, 8, 16, 32, 60)  # seconds before the next start, by ends in a row
_STEADY = 60  # seconds of readiness after which ends are no longer "in a row"
_DRAIN = 60  # seconds that answers under way may take when a server is to end
_END = 10  # seconds between SIGTERM and SIGKILL
_ANSWER = 120  # seconds an answer may take
_START = 600  # seconds the first /ping may take
_LOG_BYTES = 10_000_000
_WARM_UP = 20  # first answers of a process, which pay for caches and lazy imports, are not timed


@dataclass(frozen=True, slots=True)
class Served:
    """
    What a model server is started with.

    :param version: the version of the model.
    :param uri: folder of the model.
    :param python: executable to run it with.
    :param profile: JSON file of the reference profile, or ``None``.
    """

    version: str
    uri: str
    python: str
    profile: str | None


class ModelServer:
    """
    Keeps one server process alive until `stop`. Lives in one event loop.

    The process leads a process group of its own and watches a pipe whose other end only this process holds: when this
    process dies, however it dies, the server and whatever it started die with it.
    """

    def __init__(self, name: str, served: Served, folder: Path) -> None:
        self.served = served
        self.ready = False
        self.restarts = 0
        self.client: httpx.AsyncClient | None = None
        self._answers = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._name = name
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep())

    @property
    def proven(self) -> bool:
        """Whether this process has answered requests."""
        return self.ready and self._answers > 0

    def warm(self) -> bool:
        """Count one answer; return whether the process has given enough of them to be timed."""
        self._answers += 1
        return self._answers > _WARM_UP

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While inside, a request is under way, and `stop` waits for it."""
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def stop(self) -> None:
        """Let answers under way finish, then end the process and wait until it is gone."""
        self.ready = False  # no new request from here on
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _DRAIN)
        await self._end()
        await self._task

    async def _keep(self) -> None:
        ends = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await self._live()
            except OSError:
                _log.exception("%s version %s could not be started.", self._name, self.served.version)
            if self._stopping.is_set():
                return
            self.restarts += 1
            ends = 1 if time.monotonic() - began > _STEADY else ends + 1
            pause = _BACK_OFF[min(ends, len(_BACK_OFF)) - 1]
            code = None if self._process is None else self._process.returncode
            _log.warning(
                "%s version %s ended by itself (%s); it starts again in %s s.",
                self._name,
                self.served.version,
                code,
                pause,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self) -> None:
        """Run the process once, from start to end."""
        import httpx

        lifeline, held = os.pipe()
        try:
            with listen(0) as listener:
                port = listener.getsockname()[1]
                self._process = await self._spawn(listener.fileno(), lifeline)
            # Our copy of the socket is closed: were it open, requests to a dead server would wait instead of fail.
            os.close(lifeline)
            lifeline = -1
            self._answers = 0
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                timeout=httpx.Timeout(_ANSWER, connect=5),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=60),
                trust_env=False,
            ) as client:
                self.client = client
                waiting = asyncio.create_task(self._wait_ready(client))
                await self._process.wait()
                self.ready = False
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
                self._kill_group()  # what the process started and left behind
        finally:
            self.ready = False
            for descriptor in {lifeline, held} - {-1}:
                os.close(descriptor)

    async def _spawn(self, listener: int, lifeline: int) -> asyncio.subprocess.Process:
        served = self.served
        command = [
            served.python, "-P", "-m", "airflow_provider_mlops.serving",
            "--model-uri", served.uri, "--name", self._name, "--version", served.version,
            "--fd", str(listener), "--lifeline", str(lifeline),
            *([] if served.profile is None else ["--profile", served.profile]),
        ]  # fmt: skip
        environment = dict(os.environ)
        environment.pop("PYTHONPATH", None)
        environment |= package_path(served.python)
        log = self._folder / f"{served.version}.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env=environment,
                pass_fds=(listener, lifeline),
                start_new_session=True,
            )

    async def _wait_ready(self, client: httpx.AsyncClient) -> None:
        import httpx

        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            # The socket listens before the model is loaded, so this waits in its queue and is answered at once.
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.get("/ping", timeout=httpx.Timeout(_START, connect=5))
                if answer.status_code == httpx.codes.OK:
                    self.ready = not self._stopping.is_set()
                    _log.info("%s version %s is ready.", self._name, self.served.version)
                    return
            await asyncio.sleep(0.1)
        _log.error("%s version %s was not ready in %s s.", self._name, self.served.version, _START)
        self._kill_group()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END)
        except TimeoutError:
            self._kill_group()
            await process.wait()

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def listen(port: int) -> socket.socket:
    """
    Return a listening socket on the loopback address; port 0 chooses a free one.

    The protocol is named because event loops switch Nagle's delay off (40 ms per answer) only where it is.

    :raises OSError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
