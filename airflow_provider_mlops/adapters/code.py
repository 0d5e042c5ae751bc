"""Freezes the code of a job, so that what runs, what is recorded and what is replayed are the same bytes."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FrozenScript", "code_digest", "freeze_script", "frozen_folder", "read_code"]


@dataclass(frozen=True, slots=True)
class FrozenScript:
    """
    A copy of a script and of the modules that it imports from beside it, named by their content.

    :param folder: folder that holds the copies.
    :param name: file name of the script in it.
    :param digest: ``sha256:`` and 64 hexadecimal digits of all of them; of a script alone, that of its bytes.
    :param commit: git commit that is checked out where the script lies, with ``+`` when one of the files differs.
    """

    folder: Path
    name: str
    digest: str
    commit: str | None


def freeze_script(script: Path, root: Path) -> FrozenScript:
    """
    Copy *script*, and the modules beside it that it imports, to ``root/code/<digest>/`` and return the copy.

    :raises ConfigError: it does not exist, or is no file that can be read.
    """
    files = read_code(script)
    digest = code_digest(files, script.name)
    folder = frozen_folder(digest, root)
    for name, content in files.items():
        copy = folder / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            half = copy.parent / f".{uuid4().hex}"
            half.write_bytes(content)
            half.replace(copy)
    os.utime(folder)  # used now: what is old may be cleaned away
    return FrozenScript(folder, script.name, digest, _commit(script, files))


def frozen_folder(digest: str, root: Path) -> Path:
    """Return the folder in which `freeze_script` keeps the code with *digest* below *root*."""
    return root / "code" / digest.removeprefix("sha256:")[:32]


def read_code(script: Path) -> dict[str, bytes]:
    """
    Return the content of *script* and of each module that it imports from its own folder, by relative path.

    Imports are read from the text, also those inside functions, and followed through the modules; nothing is run. A
    module that is imported by a name made at run time is not found.

    :raises ConfigError: the script, or a module, cannot be read.
    """
    folder = script.resolve().parent
    found: dict[str, bytes] = {}
    waiting = [(PurePosixPath(script.name), script)]
    while waiting:
        name, file = waiting.pop()
        if str(name) in found:
            continue
        try:
            found[str(name)] = content = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"The script {file} cannot be read: {error.strerror}. Check the path.") from error
        for module in _imported(content, name):
            waiting += [(path, folder / path) for path in _files_of(folder, module)]
    return found


def code_digest(files: Mapping[str, bytes], script: str) -> str:
    """Return the digest of what `read_code` returned for *script*."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    own = digests.pop(script)
    if digests:
        own = hashlib.sha256(json.dumps([own, digests], sort_keys=True).encode()).hexdigest()
    return f"sha256:{own}"


def _imported(content: bytes, name: PurePosixPath) -> Iterator[tuple[str, ...]]:
    """Yield the parts of each module that the file *name* may import."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the job will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            package = name.parts[: len(name.parts) - node.level] if node.level else ()
            start = (*package, *(node.module.split(".") if node.module else ()))
            yield start
            for alias in node.names:  # a module, or something in one
                yield (*start, alias.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield tuple(argument.value.split("."))


def _files_of(folder: Path, module: tuple[str, ...]) -> Iterator[PurePosixPath]:
    """Yield the files of *module* and of the packages around it, as far as they lie in *folder*."""
    for length in range(1, len(module) + 1):
        path = PurePosixPath(*module[:length])
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if (folder / file).is_file():
                yield file
                break


def _commit(script: Path, files: Mapping[str, bytes]) -> str | None:
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
        changed = git("status", "--porcelain", "--", *files).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed else "")
