"""Small text files on a local path or behind an fsspec URL, read and written whole."""

from __future__ import annotations

import os
from pathlib import Path

from airflow_provider_mlops.errors import ConfigError

__all__ = ["read_text", "uri_of", "write_text"]


def read_text(path: str) -> str:
    """Return the UTF-8 text of *path*. :raises ConfigError: it cannot be read."""
    try:
        if "://" not in path:
            return Path(path).expanduser().read_text(encoding="utf-8")
        import fsspec

        with fsspec.open(path, "rt", encoding="utf-8") as stream:
            return str(stream.read())
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def write_text(path: str, text: str) -> None:
    """
    Write *text* as UTF-8 to *path*, wholly or not at all; folders are made. What was there is replaced.

    :raises ConfigError: it cannot be written.
    """
    try:
        if "://" in path:  # a store shows an object only when it is complete
            import fsspec

            filesystem, name = fsspec.core.url_to_fs(path)
            filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
            filesystem.pipe_file(name, text.encode())
        else:
            _replace(Path(path), text)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{path} cannot be written: {error}.") from error


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def uri_of(path: str) -> str:
    """
    Return *path* as a URI; a URL stays as it is.

    >>> uri_of("/data/a b")
    'file:///data/a%20b'
    """
    return path if "://" in path else Path(path).absolute().as_uri()
