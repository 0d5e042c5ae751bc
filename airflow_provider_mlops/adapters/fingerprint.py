"""Has the data below a path changed? Answered from the listing alone: no file is opened."""

from __future__ import annotations

import hashlib
from typing import Any

from airflow_provider_mlops.errors import ServiceError

__all__ = ["fingerprint"]

# How the stores name "when or what was written": local and FTP, S3, GCS, Azure, HDFS.
_CHANGE_KEYS = ("size", "mtime", "LastModified", "last_modified", "updated", "modificationTime", "ETag", "etag")


def fingerprint(path: str) -> str:
    """
    Return a digest of the names, sizes and times of change of all files at *path*, 64 hexadecimal digits.

    Files below a folder that begin with ``.`` or ``_`` (markers, half-written files) do not count.

    :param path: file, folder, glob or fsspec URL.
    :returns: ``""`` when nothing is there.
    :raises ServiceError: the store cannot be listed now.
    """
    try:
        listing = _listing(path)
    except FileNotFoundError:
        return ""
    except Exception as error:  # each store raises errors of its own; all mean "no listing"
        raise ServiceError(f"{path} could not be listed: {type(error).__name__}: {error}"[:400]) from error
    if not listing:
        return ""
    lines = [f"{name} {[str(info.get(key)) for key in _CHANGE_KEYS]}" for name, info in sorted(listing.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _listing(path: str) -> dict[str, dict[str, Any]]:
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(path)
    filesystem.invalidate_cache()  # object stores remember listings, and a triggerer lives for weeks
    if any(sign in root for sign in "*?["):
        found = filesystem.glob(root, detail=True)
    else:
        found = filesystem.find(root, detail=True)
    files = {name: info for name, info in found.items() if info.get("type") != "directory"}
    return {name: info for name, info in files.items() if name == root or not _ignored(name, root)}


def _ignored(name: str, root: str) -> bool:
    below = name.removeprefix(root) if not any(sign in root for sign in "*?[") else name.rpartition("/")[2]
    return any(part.startswith((".", "_")) for part in below.split("/"))
