"""
Models served on one machine: one router process per root folder, one server process per version.

What is wanted lies in files, so any process may ask and nothing is lost when the router dies::

    ROOT/router.lock          held by the router as long as it lives, so "is it running?" cannot be wrong
    ROOT/router.json          its process id and start time
    ROOT/router.log
    ROOT/NAME/wanted.json     {"format": 1, "name": ..., "versions": {"3": {"uri": folder, "weight": 90,
                              "python": executable, "profile": file or null}}}; replaced, never edited
    ROOT/NAME/port            one port per model, chosen once
    ROOT/NAME/complaint.txt   why that port could not be opened, while it cannot
    ROOT/NAME/VERSION.log     what the version's server prints

``python -m airflow_provider_mlops.serving.local --root DIR`` runs the router in the foreground.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import airflow_provider_mlops
from airflow_provider_mlops.errors import ConfigError, DataError, ServiceError
from airflow_provider_mlops.serving.processes import Served, listen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from airflow_provider_mlops.serving.router import ModelRouter

__all__ = [
    "complaint",
    "ensure_running",
    "is_running",
    "model_folder",
    "port_of",
    "read_wanted",
    "replace_file",
    "stop",
    "want",
]

_log = logging.getLogger(__name__)

_FORMAT = 1
_COMPLAINT = "complaint.txt"
_LOOK = 0.2  # seconds between two looks at the files
_WAIT = 30  # seconds a router may take to start
_KEPT = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"})
_KEPT_TOO = ("LC_", "SSL_CERT_", "CUDA_", "NVIDIA_", "OMP_", "OPENBLAS_", "MKL_", "MLFLOW_SCORING_SERVER_")


def model_folder(root: Path, name: str) -> Path:
    """
    Return the folder of the model *name* below *root*.

    :raises ConfigError: no name, or one that begins like the router's own files.
    """
    quoted = quote(name, safe=" ")
    if not name or quoted.startswith((".", "router.")) or len(quoted) > 200:
        raise ConfigError(
            f"{name!r} cannot name a served model: it is empty, too long, or begins with '.' or 'router.'."
        )
    return root / quoted


def want(root: Path, name: str, versions: Mapping[str, tuple[Served, int]], *, port: int | None = None) -> None:
    """
    Ask the router for these versions and shares, whether it runs or not. Idempotent.

    :param versions: by version, what to start it with and its share in per cent. Empty: serve nothing.
    :param port: the port of the model; ``None`` keeps the one it has, or chooses a free one.
    :raises ConfigError: the model has another port already.
    """
    folder = model_folder(root, name)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    root.chmod(0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    _settle_port(folder, port)
    wish = {
        "format": _FORMAT,
        "name": name,
        "versions": {
            version: {"uri": served.uri, "weight": weight, "python": served.python, "profile": served.profile}
            for version, (served, weight) in versions.items()
        },
    }
    text = json.dumps(wish, indent=1)
    file = folder / "wanted.json"
    if not file.exists() or file.read_text("utf-8") != text:
        replace_file(file, text)


def read_wanted(file: Path) -> tuple[str, list[tuple[Served, int]]]:
    """
    Return the model's name and the versions and shares that *file* asks for.

    :raises DataError: the file is damaged or of a later format.
    """
    try:
        wish = json.loads(file.read_text("utf-8"))
        if wish["format"] != _FORMAT:
            raise DataError(f"{file} has format {wish['format']!r}; this package reads {_FORMAT}.")
        return wish["name"], [
            (Served(version, values["uri"], values["python"], values["profile"]), int(values["weight"]))
            for version, values in wish["versions"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file} does not say what to serve: {error!r}.") from error


def port_of(root: Path, name: str) -> int | None:
    """Return the port at which *name* is served, or ``None`` when it never was."""
    with contextlib.suppress(FileNotFoundError):
        return int((model_folder(root, name) / "port").read_text("utf-8"))
    return None


def is_running(root: Path) -> bool:
    """Return whether a router runs for *root*."""
    try:
        with (root / "router.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: who asks is no router to others who ask
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def ensure_running(root: Path, *, environment: Mapping[str, str] | None = None) -> None:
    """
    Start the router of *root* unless it runs, and return when it does.

    It leads a session of its own, so it outlives its caller. Of the caller's environment it and the model servers get
    what locates programs and hardware, never credentials; *environment* is added, and lives in their memory only. A
    router that runs already keeps the environment it was started with.

    :raises ServiceError: it does not start; the end of its log is in the message.
    """
    if is_running(root):
        return
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(_KEPT_TOO)}
    kept["PYTHONPATH"] = str(Path(airflow_provider_mlops.__file__).parent.parent)
    # With --detach the started process leaves a child that is nobody's: no zombie in a long-lived caller. It returns
    # when the router runs or has ended.
    with (root / "router.log").open("ab") as log, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-P", "-m", "airflow_provider_mlops.serving.local", "--root", str(root), "--detach"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=root,
            env={**kept, **(environment or {})},
            start_new_session=True,
            check=False,
            timeout=_WAIT,
        )
    if not is_running(root):
        raise ServiceError(f"The router of {root} did not start. Its log ends with: {_end_of(root / 'router.log')}")


def stop(root: Path, *, timeout: float = 90) -> None:
    """
    End the router of *root* with all its servers, after the answers under way. What is wanted stays written.

    :raises ServiceError: it does not end in *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while is_running(root):
        # The lock is held, so the number in the file is that of the holder, or the holder has not written it yet.
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, ProcessLookupError):
            os.kill(json.loads((root / "router.json").read_text("utf-8"))["pid"], signal.SIGTERM)
        if time.monotonic() > deadline:
            raise ServiceError(f"The router of {root} did not end in {timeout} s. See {root / 'router.log'}.")
        time.sleep(0.1)


def replace_file(file: Path, text: str) -> None:
    """Write *text* to *file* so that a reader sees the old or the new text, whole, and only this user can read it."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{time.monotonic_ns()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())
    draft.replace(file)


def complaint(root: Path, name: str) -> str | None:
    """Return why the router could not open the port of *name* when it last tried; ``None`` when it could."""
    with contextlib.suppress(FileNotFoundError):
        return (model_folder(root, name) / _COMPLAINT).read_text("utf-8")
    return None


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1000))
        return file.read().decode("utf-8", "replace").strip()


def _settle_port(folder: Path, port: int | None) -> None:
    file = folder / "port"
    if not file.exists():
        chosen = port
        if chosen is None:
            with listen(0) as free:
                chosen = free.getsockname()[1]
        draft = folder / f".port.{os.getpid()}.{time.monotonic_ns()}"
        draft.write_text(str(chosen), "utf-8")
        with contextlib.suppress(FileExistsError):  # somebody else has just settled it
            os.link(draft, file)
        draft.unlink()
    settled = int(file.read_text("utf-8"))
    if port is not None and port != settled:
        raise ConfigError(f"The model in {folder} is served at port {settled}, not {port}. Remove {file} to move it.")


class _Door:
    """One model's port, its HTTP server, and the router behind it."""

    def __init__(self, folder: Path, name: str) -> None:
        from airflow_provider_mlops.serving.router import ModelRouter

        self.router: ModelRouter = ModelRouter(name, folder)
        self.stamp: tuple[int, ...] = ()
        self._folder = folder
        self._server: Any = None
        self._task: asyncio.Task[None] | None = None
        self._complained = False

    def open(self) -> None:
        """Listen, unless that is so. A port that is taken is tried again at the next call."""
        if self._task is not None and not self._task.done():
            return
        import uvicorn

        class Server(uvicorn.Server):
            @contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # the signals are the router's, which has many servers

        port = int((self._folder / "port").read_text("utf-8"))
        try:
            listener = listen(port)
        except OSError as error:
            if not self._complained:
                said = (
                    f"{self.router.name} cannot be served at port {port}: {error.strerror}. End what listens there; or "
                    f"remove {self._folder / 'port'} and deploy with another port."
                )
                replace_file(self._folder / _COMPLAINT, said)
                _log.error("%s", said)
                self._complained = True
            return
        self._complained = False
        (self._folder / _COMPLAINT).unlink(missing_ok=True)
        config = uvicorn.Config(
            self.router,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
        )
        self._server = Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        _log.info("%s is served at http://127.0.0.1:%s.", self.router.name, port)

    async def close(self) -> None:
        """Stop listening, finish what is under way, end the servers."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
        await self.router.close()


async def _route(root: Path) -> None:
    """Serve what the files below *root* want until SIGTERM."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    doors: dict[Path, _Door] = {}
    while not ending.is_set():
        for folder in _look(root, doors):
            await doors.pop(folder).close()
        for door in doors.values():
            door.router.tend()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), _LOOK)
    await asyncio.gather(*(door.close() for door in doors.values()))


def _look(root: Path, doors: dict[Path, _Door]) -> set[Path]:
    """Heed what is wanted now; return the folders of models that nobody wants any more."""
    wanted = set(root.glob("*/wanted.json"))
    for file in wanted:
        with contextlib.suppress(FileNotFoundError):  # removed since
            _heed(file, doors)
    return set(doors) - {file.parent for file in wanted}


def _heed(file: Path, doors: dict[Path, _Door]) -> None:
    status = file.stat()
    stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
    door = doors.get(file.parent)
    if door is None or door.stamp != stamp:
        try:
            name, wishes = read_wanted(file)
        except DataError as error:
            if door is not None:
                door.stamp = stamp
            _log.error("%s Until it is mended, what was wanted before is served.", error)
            return
        if door is None:
            door = doors[file.parent] = _Door(file.parent, name)
        door.stamp = stamp
        door.router.want(wishes)
        _log.info("%s: %s", name, {served.version: weight for served, weight in wishes})
    door.open()


def _main(arguments: Sequence[str] | None = None) -> int:
    """Run the router in the foreground until SIGTERM. Returns at once when one runs already."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_mlops.serving.local", description=_main.__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with the files described in this module")
    parser.add_argument("--detach", action="store_true", help="return when the router runs, and leave it running")
    options = parser.parse_args(arguments)
    root: Path = options.root.absolute()
    begun, telling = os.pipe()
    if options.detach and os.fork():
        os.close(telling)
        os.read(begun, 1)  # until the other end closes: the router runs, or has ended
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    root.chmod(0o700)
    # A bare descriptor: the kernel closes it when this process is gone, and not before.
    lock = os.open(root / "router.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _lock(lock):
        _log.info("A router runs already for %s.", root)
        return 0
    replace_file(root / "router.json", json.dumps({"pid": os.getpid(), "started": datetime.now(UTC).isoformat()}))
    os.close(telling)
    asyncio.run(_route(root))
    return 0


def _lock(lock: int) -> bool:
    """Take the lock; return ``False`` when a router has it. Who only asks whether one runs shares it for a moment."""
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(_main())
