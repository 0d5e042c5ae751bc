"""``python -m airflow_provider_mlops.serving``: serve one version of one model over HTTP."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConfigError, DataError, MlopsError
from airflow_provider_mlops.serving.processes import listen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from airflow_provider_mlops.drift.profile import DataProfile

__all__ = ["main"]

_KEEP_ALIVE = 3600  # seconds; the caller closes idle connections first, so none is lost between two requests
_GRACE = 30  # seconds for the answers under way when asked to end


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Return 2 with a sentence on stderr when the model or the profile cannot be loaded."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if options.lifeline is not None:
        threading.Thread(target=_die_with, args=(options.lifeline,), daemon=True).start()
    listener = _listener(options.fd, options.port)  # before the model is loaded, which takes seconds
    try:
        layout = None if options.profile is None else _profile(options.profile)
        model = _load(options.model_uri)
    except MlopsError as error:
        print(error, file=sys.stderr)
        return 2
    import uvicorn

    from airflow_provider_mlops.serving.app import build_app

    app = build_app(model, name=options.name, version=options.version, layout=layout)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run(sockets=None if listener is None else [listener])
    return 0


def _listener(descriptor: int | None, port: int) -> socket.socket | None:
    """Return the socket to serve at, or ``None``: the server is to make it. A port that is chosen here is printed."""
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    if port:
        return None
    listener = listen(0)
    print(f"Listening at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_mlops.serving", description=main.__doc__)
    parser.add_argument("--model-uri", required=True, help="folder or MLflow URI of a pyfunc model")
    parser.add_argument("--name", required=True, help="name of the model, for metrics and headers")
    parser.add_argument("--version", required=True, help="version of the model, for metrics and headers")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="port to listen at (default: %(default)s); 0: a free one of the loopback address, which is printed",
    )
    parser.add_argument("--fd", type=int, help="descriptor of a bound socket to use instead of host and port")
    parser.add_argument("--profile", type=Path, help="JSON file with the profile of the training data")
    parser.add_argument("--lifeline", type=int, help="descriptor of a pipe; when its other end closes, end at once")
    return parser


def _die_with(descriptor: int) -> None:
    """End this process and all that it started when the other end of the pipe closes."""
    while os.read(descriptor, 1):
        pass
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _profile(file: Path) -> DataProfile:
    from airflow_provider_mlops.drift.profile import DataProfile

    try:
        return DataProfile.from_json(file.read_bytes(), source=str(file))
    except OSError as error:
        raise DataError(f"The profile {str(file)!r} cannot be read: {error.strerror}.") from error


def _load(uri: str) -> Any:
    import mlflow

    if hasattr(mlflow, "tracing"):  # MLflow before 2.14 has none
        mlflow.tracing.disable()  # else MLflow 3.11 makes a SQLite database in this folder, to log traces to
    try:
        return mlflow.pyfunc.load_model(uri)
    except Exception as error:  # a model's own code runs here and may raise anything
        raise ConfigError(
            f"The model {uri!r} cannot be loaded: {type(error).__name__}: {error}. "
            "Does this interpreter have what the model's requirements.txt names?"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
