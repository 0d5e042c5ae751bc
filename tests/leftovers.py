"""What is left where it should not be: processes, and files that were never finished."""

from __future__ import annotations

import contextlib

import psutil


def users_of(folder):
    """The command lines of the processes that have *folder* in theirs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(folder) in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(line)
    return found


def half_written(folder):
    """Drafts below *folder*: they have a name of their own until they are complete."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != ".environments" and (path.name.startswith(".") or path.suffix in {".partial", ".tmp"})
    ]
