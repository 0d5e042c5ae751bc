"""Finds, watches and ends the processes of a command, however they were detached from it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import psutil

MARK = "MLOPS_TEST_MARK"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def mlops(*words):
    """The command line of the console script that belongs to this interpreter."""
    return [str(Path(sys.executable).with_name("mlops")), *map(str, words)]


class Family:
    """
    All processes that a command started, directly or not.

    Somebody belongs to it by an environment variable that children inherit, by a parent who does, or, where the
    environment was cleaned and the parent is gone, by naming the folder on its command line.
    """

    def __init__(self, folder):
        self.folder = str(folder)
        self.mark = uuid.uuid4().hex
        self.environment = {MARK: self.mark}
        self._strangers = set()

    def members(self):
        found, others = {}, []
        for process in psutil.process_iter(["pid", "ppid", "create_time"]):
            key = (process.pid, process.info["create_time"])
            if key in self._strangers:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if self._belongs(process):
                    found[process.pid] = process
                else:
                    others.append((key, process))
        while more := {p.pid: p for _, p in others if p.info["ppid"] in found and p.pid not in found}:
            found |= more
        # A process that has run for a while and is a stranger stays one; reading its environment again costs time.
        self._strangers |= {key for key, p in others if p.pid not in found and time.time() - key[1] > 60}
        return list(found.values())

    def _belongs(self, process):
        with contextlib.suppress(psutil.AccessDenied):
            if process.environ().get(MARK) == self.mark:
                return True
        words = process.cmdline()
        return any(self.folder in word for word in words) and "pytest" not in " ".join(words)

    def gone(self, within=60.0):
        """Wait until nobody is left; return the command lines of those who are."""
        deadline = time.monotonic() + within
        while left := self.members():
            if time.monotonic() > deadline:
                return [_title(process) for process in left]
            time.sleep(0.2)
        return []

    def end(self):
        """Kill everybody, for a finalizer."""
        for _ in range(20):
            left = self.members()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if not left:
                return
            time.sleep(0.1)

    def listeners(self):
        """The addresses at which somebody listens, with the listener's command line."""
        pids = {process.pid: process for process in self.members()}
        return {
            (connection.laddr.ip, connection.laddr.port): _title(pids[connection.pid])
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.pid in pids
        }

    def memory(self):
        """Bytes of memory that all use together; shared pages count once."""
        total = 0
        for process in self.members():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total


def _title(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())[:200] or process.name()
    return "gone"


class Watch(threading.Thread):
    """Looks at a family every few seconds: most memory, all listeners."""

    def __init__(self, family, every=2.0):
        super().__init__(daemon=True)
        self.family = family
        self.every = every
        self.peak = 0
        self.listeners = {}
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(self.every):
            self.peak = max(self.peak, self.family.memory())
            self.listeners |= self.family.listeners()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    @property
    def public(self):
        """Listeners that other machines can reach."""
        return {address: who for address, who in self.listeners.items() if address[0] not in LOOPBACK}


class Command:
    """A command with its family and what it has printed so far."""

    def __init__(self, words, folder, *, cwd, environment):
        self.family = Family(folder)
        self.output = Path(cwd) / f"{Path(folder).name}.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**environment, **self.family.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def text(self):
        return self.output.read_text(errors="replace")

    def wait_for(self, words, within):
        """Wait until *words* have been printed."""
        deadline = time.monotonic() + within
        while words not in self.text:
            assert self.process.poll() is None, f"It ended with {self.process.returncode}:\n{self.text[-6000:]}"
            assert time.monotonic() < deadline, f"No {words!r} within {within} s:\n{self.text[-6000:]}"
            time.sleep(0.2)

    def wait(self, within):
        try:
            return self.process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It has not ended within {within} s:\n{self.text[-6000:]}") from None

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.family.end()
