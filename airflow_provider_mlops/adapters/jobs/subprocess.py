"""
Jobs as child processes of the process that submits them: for one machine, and for no longer than the task runs.

Everything about a job lies in ROOT/NAME::

    lock     locked while the job's keeper lives; that tells RUNNING from LOST without trusting a process id
    log      what the job wrote
    exit     the outcome, written last; read only when the keeper has ended, and well
    cancel   there when somebody asked for the job's end
    work     where the job starts, unless its specification names a folder

Neither command nor environment is written down.

A job runs as the same user as its keeper, so it can stop or kill it and write whatever it likes here. What it writes to
``exit`` while its keeper lives is replaced by the keeper's word; when the keeper does not end by itself, the process
that started it writes that the job is lost. `ProcessBackend.kill` ends a job whose keeper does nothing any more.
"""

from __future__ import annotations

import atexit
import codecs
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_mlops.adapters.jobs import keeper
from airflow_provider_mlops.errors import ConfigError, ServiceError
from airflow_provider_mlops.jobs.backend import JobPhase, JobSpec, JobStatus, check_job_name

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

__all__ = ["ProcessBackend"]

_INHERITED = ("PATH", "HOME", "LANG", "TZ")
_PAGE = 1 << 20  # bytes of log that one call returns


class _Kept(NamedTuple):
    """A job of this process: its state, its folder for temporary files, its keeper."""

    folder: Path
    temporary: str
    keeper: subprocess.Popen[bytes]


# The jobs whose keepers this process has started, by the writing end of their pipe. Nobody writes there: it closes when
# this process ends, in whatever way, and that is the message.
_KEPT: dict[int, _Kept] = {}


class ProcessBackend:
    """
    Runs each job as a child process with a keeper between, both gone within moments of this process's end.

    The job sees ``PATH``, ``HOME``, ``LANG`` and ``TZ`` of this process, a ``TMPDIR`` of its own, which goes when it
    ends, and its own two environments, nothing else: no setting and no secret of the worker.

    :param root: folder for the state of all jobs. It is made when missing, readable by its owner only.
    :param grace: how long a job that ran too long or was canceled may take to end after SIGTERM, before SIGKILL.
    """

    def __init__(self, root: Path, *, grace: timedelta | None = None) -> None:
        self._root = root.absolute()
        self._grace = 10.0 if grace is None else grace.total_seconds()

    def submit(self, spec: JobSpec) -> None:
        """
        See `JobBackend.submit`.

        :raises ConfigError: the folder that the job is to start in does not exist.
        :raises ServiceError: the state cannot be written, or no process can be started.
        """
        folder = self._root / spec.name
        if spec.files is not None and not spec.files.is_dir():
            raise ConfigError(f"Job {spec.name!r}: {spec.files} is no folder that it could start in.")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            starts_in = spec.files or folder / "work"
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # The log is there as soon as a job was started, and made under the lock. Until then the lock is held
                # for moments only: by somebody who asks for the status, or who submits the same job just now.
                while not (locked := _try_lock(lock, fcntl.LOCK_EX)) and not (folder / "log").exists():
                    time.sleep(0.005)
                if locked and not (folder / "log").exists():
                    starts_in.mkdir(exist_ok=True)
                    (folder / "log").touch(mode=0o600)
                    self._start(spec, folder, starts_in.absolute(), lock)
            finally:
                os.close(lock)  # the keeper has its own, and the lock is released with the last
        except OSError as error:
            raise ServiceError(f"Job {spec.name!r} cannot be started from {folder}: {error}.") from error

    def status(self, name: str) -> JobStatus:
        """See `JobBackend.status`."""
        folder = self._folder(name)
        # Before the outcome: a keeper that ends in between has written its outcome by then, or `_reap` has.
        own = _own(folder)
        alive = _is_locked(folder / "lock") if own is None else own.keeper.poll() is None
        _reap()
        if not alive and not (folder / "log").exists():
            return JobStatus(JobPhase.UNKNOWN)
        if alive:
            return JobStatus(JobPhase.RUNNING)
        with suppress(OSError, ValueError, KeyError, TypeError):  # one that cannot be read was not written by us
            outcome = json.loads((folder / "exit").read_text(encoding="utf-8"))
            return JobStatus(JobPhase(outcome["phase"]), outcome["exit_code"], outcome["reason"])
        return JobStatus(JobPhase.LOST, None, "It ended together with the process that had submitted it.")

    def logs(self, name: str, after: int = 0) -> tuple[str, int]:
        """See `JobBackend.logs`. A page is 1 MiB at most."""
        if after < 0:
            raise ConfigError(f"A log is read from an offset >= 0, got {after}.")
        is_final = self.status(name).phase.is_final
        try:
            with (self._folder(name) / "log").open("rb") as log:
                log.seek(after)
                data = log.read(_PAGE)
        except FileNotFoundError:
            return "", after
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(data, final=is_final and len(data) < _PAGE)
        return text, after + len(data) - len(decoder.getstate()[0])

    def cancel(self, name: str) -> None:
        """See `JobBackend.cancel`."""
        if self.status(name).phase is JobPhase.RUNNING:
            (self._folder(name) / "cancel").touch()

    def kill(self, name: str) -> None:
        """See `JobBackend.kill`. Only of a job that this process has submitted."""
        own = _own(self._folder(name))
        if own is not None and own.keeper.poll() is None:
            _end(own)
            _conclude(own, JobPhase.TIMED_OUT, "It ran longer than its run_timeout, and its keeper did not end it.")
            _reap(concluded=own)

    def _folder(self, name: str) -> Path:
        return self._root / check_job_name(name)

    def _start(self, spec: JobSpec, folder: Path, starts_in: Path, lock: int) -> None:
        """Start the keeper, which inherits the lock and the reading end of a pipe that this process holds."""
        temporary = tempfile.mkdtemp(prefix="mlops-job-")  # the keeper removes it
        reading, writing = os.pipe()
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", keeper.__file__, str(folder), str(reading), str(lock)),
                    *(str(spec.run_timeout.total_seconds()), str(self._grace), str(starts_in)),
                    *(temporary, *spec.command),
                ],
                env={
                    **{key: os.environ[key] for key in _INHERITED if key in os.environ},
                    "TMPDIR": temporary,
                    **spec.environment,
                    **spec.secret_environment,
                },
                pass_fds=(reading, lock),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            _KEPT[writing] = _Kept(folder, temporary, process)
        except BaseException:
            os.close(writing)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(reading)


def _own(folder: Path) -> _Kept | None:
    """Return the job in *folder* if its keeper was started by this process and was not seen to have ended."""
    return next((kept for kept in list(_KEPT.values()) if kept.folder == folder), None)


def _reap(*, concluded: _Kept | None = None) -> None:
    """Forget the keepers that have ended. Of one that did not end by itself, say that its job is lost."""
    for writing, kept in list(_KEPT.items()):
        code = kept.keeper.poll()
        if code is None or _KEPT.get(writing) is not kept:
            continue
        if code and kept is not concluded:
            _conclude(kept, JobPhase.LOST, "It ended together with its keeper, which did not end by itself.")
        if _KEPT.pop(writing, None) is not None:
            os.close(writing)


def _conclude(kept: _Kept, phase: JobPhase, reason: str) -> None:
    """Write the outcome in the keeper's place, over whatever the job may have put there."""
    shutil.rmtree(kept.temporary, ignore_errors=True)
    shutil.rmtree(kept.folder / "exit", ignore_errors=True)  # it is a file, unless the job made it something else
    with suppress(OSError):
        keeper.finish(kept.folder, phase.value, None, reason)


def _end(kept: _Kept) -> None:
    """End a job and its keeper at once, also when the keeper was stopped."""
    deadline = time.monotonic() + keeper.KILL_SECONDS
    with suppress(ProcessLookupError):
        kept.keeper.send_signal(signal.SIGSTOP)  # it stays what the job's orphans come to, and so where they are found
    while time.monotonic() < deadline and (processes := keeper.descendants(kept.keeper.pid)):
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(keeper.POLL_SECONDS / 10)
    kept.keeper.kill()
    with suppress(subprocess.TimeoutExpired):
        kept.keeper.wait(timeout=keeper.KILL_SECONDS)


def _let_go() -> None:
    """Close all pipes. A process that was forked from this one does so at once, or it would keep the jobs alive."""
    for writing in _KEPT:
        os.close(writing)
    _KEPT.clear()


def _end_all() -> None:
    """End the jobs of a process that ends in the ordinary way, and wait until they have."""
    jobs = list(_KEPT.values())
    _let_go()
    for kept in jobs:
        try:
            kept.keeper.wait(timeout=keeper.KILL_SECONDS)
        except subprocess.TimeoutExpired:
            _end(kept)


os.register_at_fork(after_in_child=_let_go)
atexit.register(_end_all)


def _try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock of *kind* unless that must wait."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(file: Path) -> bool | None:
    """Return whether a keeper, or who is about to start one, holds *file*; ``None`` when there is no such file."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
