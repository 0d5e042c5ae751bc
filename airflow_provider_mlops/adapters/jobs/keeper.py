"""
Keep one job: start it, write its log, end it in time, and let nothing of it outlive the process that submitted it.

A stand-alone script for the interpreter that runs the submitter; it imports nothing but the standard library::

    python -I -S keeper.py FOLDER KEEP_FD LOCK_FD RUN_TIMEOUT GRACE STARTS_IN TEMPORARY COMMAND...

KEEP_FD is the reading end of a pipe whose writing end the submitter holds: end of file means that the submitter is
gone. LOCK_FD is the locked file by which others see that this script lives. TEMPORARY, the job's folder for temporary
files, is removed with all that the job left there, however it ended. The outcome is written to FOLDER/exit last
and at once, so a job without it and without the lock is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.1
KILL_SECONDS = 10.0
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the command that the arguments name; always 0, the outcome is in the file."""
    try:
        return keep_job()
    finally:
        shutil.rmtree(sys.argv[7], ignore_errors=True)


def keep_job() -> int:
    """Run the command to its end, whatever that is."""
    folder = Path(sys.argv[1])
    keep, lock = int(sys.argv[2]), int(sys.argv[3])
    run_timeout, grace = float(sys.argv[4]), float(sys.argv[5])
    starts_in, command = sys.argv[6], sys.argv[8:]
    os.set_inheritable(keep, False)
    os.set_inheritable(lock, False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the job detaches from itself becomes ours, so that we find it
    with (folder / "log").open("ab", buffering=0) as log:
        try:
            job = subprocess.Popen(
                command,
                cwd=starts_in,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - there is one thread
            )
        except OSError as error:
            reason = f"{command[0]!r} cannot be started in {starts_in!r}: {error.strerror}."
            log.write(f"{reason}\n".encode())
            finish(folder, "failed", 127, reason)
            return 0
        phase, reason = watch(job, folder, keep, run_timeout)
        if phase == "running":  # the submitter is gone: leave no outcome
            kill_all(job)
            return 0
        if phase in {"timed_out", "canceled"}:
            log.write(f"{reason} It is being ended.\n".encode())
            end(job, keep, grace)
        kill_all(job)  # what the job has left behind in the background
        code = job.wait()
        if phase == "ended":
            phase = "failed" if code else "succeeded"
            reason = explain(code) if code else ""
        finish(folder, "failed" if phase == "canceled" else phase, code, reason)
    return 0


def watch(job: subprocess.Popen[bytes], folder: Path, keep: int, run_timeout: float) -> tuple[str, str]:
    """Wait until the job ends, is canceled, runs too long or loses its submitter; return which, and a sentence."""
    deadline = time.monotonic() + run_timeout
    while job.poll() is None:
        reap(job)
        if submitter_is_gone(keep, POLL_SECONDS):
            return ("ended", "") if job.poll() is not None else ("running", "")
        if (folder / "cancel").exists():
            return "canceled", "It was canceled."
        if time.monotonic() >= deadline:
            return "timed_out", f"It ran longer than its run_timeout of {run_timeout:g} s."
    return "ended", ""


def reap(job: subprocess.Popen[bytes]) -> None:
    """Let go of what became ours and has ended: it would stay a zombie for as long as the job runs."""
    if hasattr(os, "waitid"):  # where it is not, nothing becomes ours
        with contextlib.suppress(ChildProcessError):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            while (ended := os.waitid(os.P_ALL, 0, flags)) and ended.si_pid != job.pid:
                os.waitpid(ended.si_pid, 0)


def submitter_is_gone(keep: int, wait: float) -> bool:
    """Wait up to *wait* seconds for the end of the pipe."""
    readable, _, _ = select.select([keep], [], [], wait)
    return bool(readable) and not os.read(keep, 1)


def end(job: subprocess.Popen[bytes], keep: int, grace: float) -> None:
    """Ask the job's group to end and give it *grace* seconds, fewer when the submitter goes away."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while job.poll() is None and time.monotonic() < deadline:
        if submitter_is_gone(keep, POLL_SECONDS):
            return


def kill_all(job: subprocess.Popen[bytes]) -> None:
    """
    Kill the job's group and whatever else descends from this process, until there is nothing left.

    What is stuck in the kernel dies when it comes back from there; after some seconds that is not waited for.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline and (children := descendants(os.getpid())):
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        job.poll()
        reap(job)
        time.sleep(POLL_SECONDS / 10)


def descendants(root: int) -> list[int]:
    """Return the living processes below *root*; none where there is no /proc to read them from."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in parentheses may itself hold blanks and parentheses.
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found = list(children.get(root, []))
    for process in found:
        found += children.get(process, [])
    return found


def finish(folder: Path, phase: str, code: int | None, reason: str) -> None:
    """Write the outcome: there at once and complete, or not at all."""
    partial = folder / "exit.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump({"phase": phase, "exit_code": code, "reason": reason}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / "exit")


def explain(code: int) -> str:
    """Return a sentence about an exit code that is not 0."""
    if code >= 0:
        return f"It ended with exit code {code}."
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " The machine may have run out of memory." if -code == signal.SIGKILL else ""
    return f"It was ended by {name}.{hint}"


def _prctl(option: int, value: int) -> None:
    """Ask Linux for *option*; elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
