"""Freezes the script of a job, so that what runs, what is recorded and what is replayed are the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FrozenScript", "freeze_script", "frozen_folder"]


@dataclass(frozen=True, slots=True)
class FrozenScript:
    """
    A copy of a script, named by its content.

    :param folder: folder that holds the copy alone.
    :param name: file name in it.
    :param origin: folder of the original, where modules that it imports from beside it are found.
    :param digest: ``sha256:`` and 64 hexadecimal digits of the script.
    :param commit: git commit that is checked out where the script lies, with ``+`` when the script differs from it.
    """

    folder: Path
    name: str
    origin: Path
    digest: str
    commit: str | None


def freeze_script(script: Path, root: Path) -> FrozenScript:
    """
    Copy *script* to ``root/code/<digest>/`` and return the copy.

    :raises ConfigError: it does not exist, or is no file that can be read.
    """
    try:
        content = script.read_bytes()
    except OSError as error:
        raise ConfigError(f"The script {script} cannot be read: {error.strerror}. Check the path.") from error
    digest = hashlib.sha256(content).hexdigest()
    folder = frozen_folder(f"sha256:{digest}", root)
    copy = folder / script.name
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half = folder / f".{uuid4().hex}"
        half.write_bytes(content)
        half.replace(copy)
    return FrozenScript(folder, script.name, script.resolve().parent, f"sha256:{digest}", _commit(script))


def frozen_folder(digest: str, root: Path) -> Path:
    """Return the folder in which `freeze_script` keeps the script with *digest* below *root*."""
    return root / "code" / digest.removeprefix("sha256:")[:32]


def _commit(script: Path) -> str | None:
    """Return the git commit of the script's repository; ``None`` without git or outside a repository."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "GIT_OPTIONAL_LOCKS": "0"}

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the return code is read
            ["git", "-C", str(script.resolve().parent), *words],  # noqa: S607 - the user's git
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
        )

    try:
        head = git("rev-parse", "HEAD")
        if head.returncode:
            return None
        changed = git("status", "--porcelain", "--", script.name).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed else "")
