"""A real MLflow server for tests, and a door before it that can be locked."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

START_SECONDS = 240.0


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that nobody listens on and nobody else is given; a server that reuses addresses, as most do, may have it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def mlflow_server(folder: Path, *, admin: tuple[str, str] | None = None) -> Iterator[str]:
    """
    Run `mlflow server` on a SQLite file in *folder*; give its address; kill its whole process group at the end.

    With *admin*, a login and a password, MLflow's own basic authentication guards it, and nobody else may do anything.
    """
    ports = contextlib.ExitStack()
    port = ports.enter_context(held_port())
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AIRFLOW"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else seven more processes and a gigabyte
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    if admin is not None:
        command += ["--app-name", "basic-auth"]
        config = folder / "basic_auth.ini"
        config.write_text(
            f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{folder / 'auth.db'}\n"
            f"admin_username = {admin[0]}\nadmin_password = {admin[1]}\nauthorization_function = "
            "mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        environment["MLFLOW_AUTH_CONFIG_PATH"] = str(config)
        environment["MLFLOW_AUTH_ADMIN_PASSWORD"] = admin[1]
        environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "a key for tests"
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The MLflow server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        ports.close()


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve *handler* on a free port of this machine."""
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def locked_door(address: str, authorization: str, prefix: str = "/team") -> Iterator[str]:
    """Pass on to *address* what comes with the header *authorization* and below *prefix*; answer 401 otherwise."""

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != authorization or not self.path.startswith(f"{prefix}/"):
                self._answer(401, {"Content-Type": "text/plain"}, b"You are not authenticated.")
                return
            kept = {key: self.headers[key] for key in ("Content-Type",) if key in self.headers}
            request = urllib.request.Request(
                address + self.path.removeprefix(prefix), body or None, kept, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self._answer(answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, {"Content-Type": "application/json"}, error.read())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815 - the names that http.server looks for

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with served(Door) as door:
        yield door + prefix


def basic(login: str, password: str) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()
