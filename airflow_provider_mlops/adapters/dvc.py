"""Data that DVC tracks: which content a git revision names, and a local copy of it."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.adapters.folders import building, put_in_place
from airflow_provider_mlops.errors import ConfigError, DataError, ServiceError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DvcSource", "Pulled", "fetch"]

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")


@dataclass(frozen=True, slots=True)
class DvcSource:
    """
    A path that DVC tracks.

    :param repo: folder or URL of the git repository. Credentials are git's own affair (ssh keys, a credential helper).
    :param path: file or folder inside it, as DVC tracks it, with forward slashes.
    :param rev: branch, tag or commit; without it the commit that is checked out, or a URL's default branch.
    :param remote: name of the DVC remote to pull from; the repository's default without it.
    """

    repo: str
    path: str
    rev: str | None = None
    remote: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DvcSource:
        """Return the source that a plain mapping describes. :raises ConfigError: a wrong or missing key or value."""
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict):
            raise ConfigError(f"data.dvc: expected a mapping with repo and path, got {values!r}.")
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"data.dvc: {key!r} is no key of it.{did_you_mean(key, known)}")
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"data.dvc.{key}: expected text, got {value!r}.")
        for key in ("repo", "path"):
            if not values.get(key):
                raise ConfigError(f"data.dvc: {key!r} is missing.")
        source = cls(values["repo"], values["path"], values.get("rev") or None, values.get("remote") or None)
        if _PASSWORD.search(source.repo):
            raise ConfigError("data.dvc.repo: the URL holds a password. Give git a credential helper or an ssh key.")
        if ".." in PurePosixPath(source.path).parts or PurePosixPath(source.path).is_absolute():
            raise ConfigError(f"data.dvc.path: {source.path!r} must be a path inside the repository.")
        return source


@dataclass(frozen=True, slots=True)
class Pulled:
    """
    A copy that never changes.

    :param path: file or folder.
    :param md5: what DVC calls the content; ends in ``.dir`` for a folder.
    :param rev: the commit, 40 hexadecimal digits.
    """

    path: Path
    md5: str
    rev: str


def fetch(source: DvcSource, folder: Path) -> Pulled:
    """
    Return the copy of *source* at ``folder/MD5/NAME``, pulled unless it is there.

    :param folder: made when it is missing; a killed pull leaves a hidden folder that the next one removes.
    :raises ConfigError: DVC is not installed; the repository, revision, path or remote does not exist.
    :raises DataError: the remote does not hold the content, or holds another.
    :raises ServiceError: repository or remote cannot be reached, or the disk is full.
    """
    try:
        from dvc.api import DVCFileSystem
    except ImportError as error:
        raise ConfigError("data.dvc: dvc is not installed. Run: pip install 'airflow-provider-mlops[dvc]'.") from error
    rev = source.rev or ("HEAD" if Path(source.repo).is_dir() else None)
    with _dvc_errors(source):
        files = DVCFileSystem(source.repo, rev=rev, remote=source.remote, subrepos=True)
        repository = files.repo
        commit = str(repository.get_rev())
        content = repository.get_data_index_entry(source.path)[1].hash_info
    md5 = str(content.value)
    if not _MD5.fullmatch(md5):
        raise ConfigError(f"data.dvc.path: {source.path!r} has no md5 in DVC, but {md5!r}. Track it with `dvc add`.")
    final = folder / md5.removesuffix(".dir")
    copy = final / PurePosixPath(source.path).name
    if not copy.exists():
        with building(folder) as place:
            with _dvc_errors(source):
                files.get(source.path, str(place / copy.name), recursive=True)
            if content.name == "md5" and (place / copy.name).is_file():
                _verify(place / copy.name, md5, source)
            put_in_place(place, final)
    os.utime(final)  # used now: what is old may be cleaned away
    return Pulled(copy, md5, commit)


def _verify(file: Path, md5: str, source: DvcSource) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DataError(
            f"What the DVC remote holds for {source.path!r} has md5 {found}; {md5} was asked for. "
            "Push it again with `dvc push` from a clone that has it."
        )


@contextmanager
def _dvc_errors(source: DvcSource) -> Iterator[None]:
    """Map what DVC raises to what the reader can do."""
    from dvc.config import ConfigError as DvcConfigError
    from dvc.exceptions import DvcException, FileMissingError, NotDvcRepoError, OutputNotFoundError
    from dvc.scm import CloneError, GitAuthError, RevError, SCMError

    try:
        yield
    except RevError as error:
        raise ConfigError(f"data.dvc.rev: {source.repo} has no revision {source.rev!r}: {_short(error)}.") from error
    except (CloneError, GitAuthError) as error:
        raise ServiceError(f"data.dvc.repo: {source.repo} cannot be cloned: {_short(error)}.") from error
    except (NotDvcRepoError, SCMError) as error:
        raise ConfigError(f"data.dvc.repo: {source.repo} is no DVC repository: {_short(error)}.") from error
    except OutputNotFoundError as error:
        raise ConfigError(
            f"data.dvc.path: DVC tracks no {source.path!r} in {source.repo} at {source.rev or 'HEAD'}. "
            "Track it with `dvc add`, and commit the .dvc file."
        ) from error
    except DvcConfigError as error:
        raise ConfigError(f"data.dvc: the remote of {source.repo}: {_short(error)}.") from error
    except (FileNotFoundError, FileMissingError) as error:
        raise DataError(
            f"The DVC remote {source.remote or '(default)'} of {source.repo} lacks {source.path!r}: {_short(error)}. "
            "Push it with `dvc push`."
        ) from error
    except DvcException as error:
        raise ServiceError(f"DVC could not give {source.path!r} of {source.repo}: {_short(error)}.") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:256]
