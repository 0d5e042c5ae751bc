"""Folders that are there wholly or not at all, on a file system that many processes share."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["building", "put_in_place", "remove", "sync"]

_BUILDING = ".building-"
_REMOVED = ".removed-"


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """
    Yield a new hidden folder below *folder* that is removed at the end, unless `put_in_place` moved it.

    *folder* is made when it is missing, and what dead processes were building there is removed. A locked file beside
    the hidden folder says that its owner lives: the kernel frees the lock with the process, however it dies.

    :raises ConfigError: *folder* may not be written.
    :raises ServiceError: the disk is full or fails.
    """
    with _storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        name = f"{_BUILDING}{uuid.uuid4().hex}"
        place, lock, fresh = folder / name, folder / f"{name}.lock", folder / f"{name}.new"
        with fresh.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            fresh.rename(lock)  # nobody ever sees it unlocked
            try:
                place.mkdir()
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
                lock.unlink(missing_ok=True)


def put_in_place(folder: Path, final: Path) -> None:
    """Rename *folder* to *final*. Where *final* is there already it stays: names stand for content."""
    try:
        folder.rename(final)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
    else:
        sync(final.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder at once and wholly. What a killed process left of it goes with the next call."""
    for left in path.parent.glob(f"{_REMOVED}*"):
        _remove(left)
    hidden = path.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(hidden)
        _remove(hidden)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until *path* is on the disk, so that a power cut cannot leave a name without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    for lock in folder.glob(f"{_BUILDING}*.lock"):
        with suppress(FileNotFoundError, BlockingIOError), lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Say what the operating system said about writing below *folder*, and what can be done."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or folder, error.strerror or error
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ServiceError(
                f"Writing to {where} failed: {why}. Free space there, or set [mlops] storage to a larger disk."
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            raise ConfigError(
                f"Nothing can be written to {where}: {why}. Give the worker's user the right to write there, "
                "or set [mlops] storage to another folder."
            ) from error
        raise ServiceError(f"Writing to {where} failed: {why}. Look at that disk.") from error
